"""The direct transport: HTTP/1.1 for exactly what this engine sends, on the loop's own transports."""

from sendengine.transport.direct.transport import DirectTransport

__all__ = ["DirectTransport"]
