"""Which replies are not yet the one to a request.

Source: RFC 9110, sections 15 and 15.2; RFC 9113, section 8.6, for HTTP/2, which has no 101.
"""

from typing import Final

INTERIM: Final = 100  # and above: another reply follows; what is below is no status
SWITCHING: Final = 101  # but this one: no other follows over the same protocol
FINAL: Final = 200  # and above
