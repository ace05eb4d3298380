"""Choose the node for the next request: the leader if known, else one after another.

Any node serves every request, at the price of one hop. So following the leader is for
speed; correctness does not depend on it.
"""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.interfaces import IReactorTime

from txraft.addresses import normal_url

MAX_SHUNNED = 64


class Nodes:
    """The URLs of a cluster's nodes, and the last known one of its leader."""

    def __init__(
        self, urls: Sequence[str], clock: IReactorTime, shun_time: float
    ) -> None:
        if not urls:
            raise ValueError("a client needs the URL of at least one node")
        self.urls = tuple(normal_url(url) for url in urls)
        self._is_secure = all(url.startswith("https:") for url in self.urls)
        self._clock = clock
        self._shun_time = shun_time
        self._next = 0
        self._leader: str | None = None
        self._shunned: dict[str, float] = {}

    def choose(self) -> str:
        """Return the URL for the next request."""
        return self._leader or self.urls[self._next]

    def failed(self, url: str) -> None:
        """Choose another node than *url* next time."""
        if url == self._leader:
            self._leader = None
            # Only a URL that a node named: it may be right for nodes and not for
            # clients, and every answer would lead there again. Those given are always
            # tried.
            if url not in self.urls:
                self._shun(url)
        if url == self.urls[self._next]:
            self._next = (self._next + 1) % len(self.urls)

    def led_by(self, url: str) -> None:
        """Go to *url*, where a node says that the leader is, if it is as secure."""
        try:
            url = normal_url(url)
        except ValueError:
            return
        # Else a node, or whoever answers in its name, could have the token sent in
        # clear.
        if not self.may_go_to(url):
            return
        if self._shunned.get(url, 0.0) <= self._clock.seconds():
            self._leader = url

    def may_go_to(self, url: str) -> bool:
        """Tell whether *url*, named by a node, is as secure as the URLs given."""
        return url.startswith("https:") or not self._is_secure

    def _shun(self, url: str) -> None:
        """Remember an advertised URL that this client cannot reach."""
        if len(self._shunned) >= MAX_SHUNNED:
            self._shunned.clear()  # bounded; the worst is one attempt more for each
        self._shunned[url] = self._clock.seconds() + self._shun_time
