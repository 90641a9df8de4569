"""What a connection must prove before a key travels over it.

Source: the REST overview asks for TLS 1.2 or newer, and its leaf certificates rotate, so none is pinned.
"""

import ssl
import sys
from typing import TypeVar

from sendengine.errors import SettingsError

_Context = TypeVar("_Context", bound=ssl.SSLContext)


def tls_context(ca_file: str | None) -> ssl.SSLContext:
    """Verify certificates and names, over TLS 1.2 or newer; against ``ca_file`` alone where it is given.

    Raises SettingsError where ``ca_file`` cannot be read.
    """
    return verifying(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), ca_file)


def verifying(context: _Context, ca_file: str | None) -> _Context:
    """Give a client's context, made with ``PROTOCOL_TLS_CLIENT``, what `tls_context` promises, and return it.

    Does what `ssl.create_default_context` does, which makes no other class than its own.
    """
    try:
        if ca_file is None:
            context.load_default_certs()
        else:
            context.load_verify_locations(ca_file)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise SettingsError(
            f"transport.ca_file: {ca_file!r} cannot be read as certificates in PEM form ({error})"
        ) from None
    if sys.version_info >= (3, 13):
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | ssl.VERIFY_X509_STRICT
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
