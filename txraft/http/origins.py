"""What a browser sends for a page from elsewhere is refused.

A browser sends what any page asks it to, from this machine and with the certificate of
its user. It says so in `Origin` and `Sec-Fetch-Site`, which no page can change. Who
sends neither header is no browser, or it does what its user typed.

Source: RFC 9110 §7.2 (Host), RFC 6454 §7 (Origin), W3C Fetch Metadata §2.4.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from twisted.web.http import Request

from txraft.http.answers import Refusal

_HOST = re.compile(
    rb"(?P<name>[A-Za-z0-9._~!$&'()*+,;=%-]+|\[[0-9A-Fa-f:.]+(?:%[A-Za-z0-9._~-]+)?\])"
    rb"(?::(?P<port>[0-9]{0,5}))?"
)
_ORIGIN = re.compile(r"(https?)://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?")
_PORTS = {"http": ":80", "https": ":443"}
_OWN_SITES = (b"same-origin", b"none")
_PROBES = (b"/livez", b"/readyz")


def check_host(request: Request) -> None:
    """Refuse a request that does not say, or says ambiguously, which host is meant.

    Proxies and caches may read it in another way. Raises: Refusal
    """
    hosts = request.requestHeaders.getRawHeaders(b"Host", [])
    if len(hosts) > 1:
        raise Refusal(400, "The header Host is given twice.")
    if not hosts:
        if request.clientproto == b"HTTP/1.1":
            raise Refusal(400, "The header Host is missing, which HTTP/1.1 requires.")
    elif not _HOST.fullmatch(hosts[0]):
        raise Refusal(400, "The header Host is not a host and perhaps a port.")


class Origins:
    """Lets in what this node's own pages send, and those of the *allowed* origins.

    These are texts such as `https://kv.example.com`, see `parse_origin`.
    """

    def __init__(self, allowed: Collection[str] = ()) -> None:
        self._allowed = frozenset(allowed)

    def check(self, request: Request) -> None:
        """Refuse what a browser sends for a page from elsewhere. Raises: Refusal"""
        headers = request.requestHeaders
        origins = headers.getRawHeaders(b"Origin", [])
        sites = headers.getRawHeaders(b"Sec-Fetch-Site", [])
        if not origins and not sites:
            return
        if request.uri.partition(b"?")[0] in _PROBES and request.method == b"GET":
            return
        if len(origins) > 1 or len(sites) > 1:
            raise Refusal(400, "The header Origin or Sec-Fetch-Site is given twice.")
        if origins:
            is_own = self._is_own(origins[0], headers.getRawHeaders(b"Host", [b""])[0])
        else:
            is_own = sites[0] in _OWN_SITES
        if not is_own:
            raise Refusal(
                403,
                "Permission denied: a page from elsewhere has asked for this. If it "
                "is to be let in, name its origin in http.allowed_origins.",
            )

    def _is_own(self, origin: bytes, host: bytes) -> bool:
        """Tell whether a page of *origin* was served at *host*, or is allowed."""
        text = origin.decode("ascii", "replace").lower()
        match = _ORIGIN.fullmatch(text)
        if match is None:
            return False  # "null", for example, which any page can be
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
