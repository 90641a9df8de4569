"""The direct transport: HTTP/1.1 and HTTP/2 for exactly what this engine sends, on the loop's own transports."""

from sendengine.transport.direct.transport import DirectTransport

__all__ = ["DirectTransport"]
