"""HTTP/1.1: one exchange at a time on a connection."""
