"""What a connection must prove before a key travels over it.

Source: the REST overview asks for TLS 1.2 or newer, and its leaf certificates rotate, so none is pinned.
"""

import ssl

from sendengine.errors import SettingsError


def tls_context(ca_file: str | None) -> ssl.SSLContext:
    """Verify certificates and names, over TLS 1.2 or newer; against ``ca_file`` alone where it is given.

    Raises SettingsError where ``ca_file`` cannot be read.
    """
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise SettingsError(
            f"transport.ca_file: {ca_file!r} cannot be read as certificates in PEM form ({error})"
        ) from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
