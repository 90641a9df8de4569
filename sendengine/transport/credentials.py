"""The headers of every request; they hold the API key, and nothing else of ours ever shows it.

Source: keys and ids, and the REST overview, as `sendengine.core.onesignal` lists them.
"""

from functools import cache
from importlib.metadata import PackageNotFoundError, version

from sendengine.core.onesignal import AUTH_SCHEME
from sendengine.errors import SettingsError


def request_headers(api_key: str) -> dict[str, str]:
    """Return the headers that every request has; Host, Content-Length and the like are the transport's.

    Raises SettingsError where the key cannot stand in a header; it does not show it.
    """
    if not api_key or not api_key.isascii() or not api_key.isprintable():
        raise SettingsError("api_key: must be printable ASCII without line ends; read it again from where it is kept")
    return {
        "Authorization": f"{AUTH_SCHEME} {api_key}",
        "Content-Type": "application/json",
        "Accept": "application/json",
        "Accept-Encoding": "identity",  # replies are small
        "User-Agent": f"sendengine/{_version()}",
    }


@cache
def _version() -> str:
    try:
        return version("sendengine")
    except PackageNotFoundError:  # run from a tree that is not installed
        return "0"
