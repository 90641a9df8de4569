"""HTTP/2 (RFC 9113): many exchanges at a time on a connection, for exactly what this engine sends."""
