"""Browser origins: refuse requests that a browser sends for pages of other sites.

A browser sends any request that a page asks for, from this machine and with the
certificate of its user. It names the page in `Origin` and `Sec-Fetch-Site`, which no
page can change. A client that sends neither header is no browser, or its user typed the
URL.

Source: RFC 9110 §7.2 (Host), RFC 6454 §7 (Origin), W3C Fetch Metadata §2.4.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from twisted.web.http import Request

from txraft.http.answers import HTTPRefusal

_HOST = re.compile(
    rb"(?P<name>[A-Za-z0-9._~!$&'()*+,;=%-]+|\[[0-9A-Fa-f:.]+(?:%[A-Za-z0-9._~-]+)?\])"
    rb"(?::(?P<port>[0-9]{0,5}))?"
)
_ORIGIN = re.compile(r"(https?)://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?")
_PORTS = {"http": ":80", "https": ":443"}
_OWN_SITES = (b"same-origin", b"none")
_PROBES = (b"/livez", b"/readyz")


def check_host(request: Request) -> None:
    """Refuse a request without one clear header Host. Raises: HTTPRefusal"""
    # Proxies and caches may read an ambiguous one in another way than this node.
    hosts = request.requestHeaders.getRawHeaders(b"Host", [])
    if len(hosts) > 1:
        raise HTTPRefusal(400, "The header Host is given twice.")
    if not hosts:
        if request.clientproto == b"HTTP/1.1":
            raise HTTPRefusal(
                400, "The header Host is missing, which HTTP/1.1 requires."
            )
    elif not _HOST.fullmatch(hosts[0]):
        raise HTTPRefusal(400, "The header Host is not a host and perhaps a port.")


class Origins:
    """Admits requests of this node's own pages and of pages of the *allowed* origins.

    An origin is a text such as `https://kv.example.com`, see `parse_origin`.
    """

    def __init__(self, allowed: Collection[str] = ()) -> None:
        self._allowed = frozenset(allowed)

    def check(self, request: Request) -> None:
        """Refuse a request that a page of another site has made. Raises: HTTPRefusal"""
        headers = request.requestHeaders
        origins = headers.getRawHeaders(b"Origin", [])
        sites = headers.getRawHeaders(b"Sec-Fetch-Site", [])
        if not origins and not sites:
            return
        # A probe tells next to nothing and changes nothing.
        if request.uri.partition(b"?")[0] in _PROBES and request.method == b"GET":
            return
        if len(origins) > 1 or len(sites) > 1:
            raise HTTPRefusal(
                400, "The header Origin or Sec-Fetch-Site is given twice."
            )
        if origins:
            is_own = self._is_own(origins[0], headers.getRawHeaders(b"Host", [b""])[0])
        else:
            is_own = sites[0] in _OWN_SITES
        if not is_own:
            raise HTTPRefusal(
                403,
                "Permission denied: a page of another site has sent this request. To "
                "allow it, add the origin of the page to http.allowed_origins.",
            )

    def _is_own(self, origin: bytes, host: bytes) -> bool:
        """Return whether pages of *origin* are served at *host*, or are allowed."""
        text = origin.decode("ascii", "replace").lower()
        match = _ORIGIN.fullmatch(text)
        if match is None:
            return False  # "null", for example, which any page can make its origin
        if text in self._allowed:
            return True
        scheme, name, port = match.groups()
        served = host.decode("ascii", "replace").lower().removesuffix(_PORTS[scheme])
        return served == name + (port or "").removesuffix(_PORTS[scheme])


def parse_origin(text: str) -> str:
    """Return the origin *text* as browsers write it: in lower case, no default port.

    Raises: ValueError
    """
    lowered = text.lower().rstrip("/")
    match = _ORIGIN.fullmatch(lowered)
    if match is None:
        raise ValueError("an origin such as https://kv.example.com")
    return lowered.removesuffix(_PORTS[match[1]])
