"""HTTP/2 from the server's side: what the mock server needs of RFC 9113, with frames of its own."""
