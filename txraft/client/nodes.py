"""Which node to ask: the leader, as far as it is known, or the next in the list.

Any node serves every request, at the price of one hop. So to follow the leader is a
matter of speed and never of correctness.
"""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.interfaces import IReactorTime

from txraft.addresses import normal_url

MAX_SHUNNED = 64


class Nodes:
    """The URLs of a cluster's nodes, and where its leader was last."""

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
        """Return the URL to ask next."""
        return self._leader or self.urls[self._next]

    def failed(self, url: str) -> None:
        """Ask another one next time."""
        if url == self._leader:
            self._leader = None
            if url not in self.urls:
                self._shun(url)
        if url == self.urls[self._next]:
            self._next = (self._next + 1) % len(self.urls)

    def led_by(self, url: str) -> None:
        """Take a node's word that the leader is at *url*, if that is as secure."""
        try:
            url = normal_url(url)
        except ValueError:
            return
        if not self.may_go_to(url):
            return
        if self._shunned.get(url, 0.0) <= self._clock.seconds():
            self._leader = url

    def may_go_to(self, url: str) -> bool:
        """Tell whether *url*, which a node named, is as secure as those given."""
        return url.startswith("https:") or not self._is_secure

    def _shun(self, url: str) -> None:
        """Remember an advertised URL that this client cannot reach."""
        if len(self._shunned) >= MAX_SHUNNED:
            self._shunned.clear()
        self._shunned[url] = self._clock.seconds() + self._shun_time
