"""A simulated network: it loses, delays, repeats and reorders messages, or is cut.

Each direction of a link has faults of its own. A message is a call that is made when it
arrives. Messages of one *channel* may be kept in order, as on a TCP connection; those
of different channels overtake each other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from random import Random

from txraft.testing.schedule import Schedule

LONGEST_TAIL = 2_000_000
"""Microseconds that a message in the slow tail may take."""

MAX_HELD = 64
"""Messages that a cut link keeps for later at most; more are lost."""

Delivery = tuple[Callable[..., object], tuple[object, ...]]


@dataclass(slots=True)
class DirectedLink:
    """One direction between two servers, and its faults.

    *loss*, *repeats* and *tail* are the chances that a message is lost, comes twice or
    is very slow; *late* that a message into a cut link arrives when the cut is mended.
    """

    longest_delay: int
    loss: float = 0.0
    repeats: float = 0.0
    late: float = 0.0
    tail: float = 0.0
    in_order: bool = True
    is_cut: bool = False
    arrivals: dict[object, int] = field(default_factory=dict)
    held: list[Delivery] = field(default_factory=list)


class Network:
    """The links between all *names*, made by *make_link*; *tally* counts the faults."""

    def __init__(
        self,
        schedule: Schedule,
        random: Random,
        names: Iterable[str],
        make_link: Callable[[], DirectedLink],
        tally: Counter[str],
    ) -> None:
        self.names = tuple(names)
        self.links = {
            (a, b): make_link() for a in self.names for b in self.names if a != b
        }
        self._schedule = schedule
        self._random = random
        self._tally = tally

    def carry(
        self,
        source: str,
        target: str,
        channel: object,
        deliver: Callable[..., object],
        *arguments: object,
    ) -> bool:
        """Send a message: call *deliver* when it arrives at *target*.

        Returns: whether it is under way; if not, it is lost, or held back by a cut.
        """
        link, random = self.links[source, target], self._random.random
        if link.is_cut:
            self._hold(link, (deliver, arguments))
            return False
        # No number is drawn for a link without losses. A draw more or less, here or
        # below, changes every seed from there on.
        if link.loss and random() < link.loss:
            self._tally["messages lost"] += 1
            return False
        self._deliver(link, channel, deliver, arguments)
        return True

    def repeat(
        self,
        source: str,
        target: str,
        deliver: Callable[..., object],
        *arguments: object,
    ) -> None:
        """Send a message once more, at the link's rate; it arrives much later."""
        link = self.links[source, target]
        if link.repeats and self._random.random() < link.repeats:
            self._tally["messages repeated"] += 1
            delay = int(self._random.random() * LONGEST_TAIL)
            self._schedule.after(delay, deliver, *arguments)

    def _deliver(
        self,
        link: DirectedLink,
        channel: object,
        deliver: Callable[..., object],
        arguments: tuple[object, ...],
    ) -> None:
        random, schedule = self._random.random, self._schedule
        delay = int(random() * link.longest_delay)
        if link.tail and random() < link.tail:
            self._tally["messages delayed"] += 1
            delay += int(random() * LONGEST_TAIL)
        if link.in_order:
            # Never ahead of the one before it on the same channel.
            arrival = max(schedule.now + delay, link.arrivals.get(channel, 0))
            link.arrivals[channel] = arrival
            delay = arrival - schedule.now
        schedule.after(delay, deliver, *arguments)

    def _hold(self, link: DirectedLink, delivery: Delivery) -> None:
        self._tally["messages cut off"] += 1
        if len(link.held) < MAX_HELD and self._random.random() < link.late:
            link.held.append(delivery)

    # Cuts -----------------------------------------------------------------------

    def cut(self, source: str, target: str) -> None:
        """Cut the direction from *source* to *target*."""
        if source != target:
            self.links[source, target].is_cut = True

    def separate(self, one: Iterable[str], other: Iterable[str]) -> None:
        """Cut both directions between two groups."""
        others = tuple(other)
        for a in one:
            for b in others:
                self.cut(a, b)
                self.cut(b, a)

    def keep_only(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Cut all links but those between *pairs*."""
        kept = {frozenset(pair) for pair in pairs}
        for a, b in self.links:
            if frozenset((a, b)) not in kept:
                self.cut(a, b)

    def mend(self) -> None:
        """Mend every cut; messages that were held back are under way now."""
        for link in self.links.values():
            if link.is_cut:
                link.is_cut = False
                held, link.held = link.held, []
                for deliver, arguments in held:
                    self._tally["messages delivered late"] += 1
                    self._deliver(link, "late", deliver, arguments)

    def is_cut(self, source: str, target: str) -> bool:
        """Tell whether the direction from *source* to *target* is cut."""
        return self.links[source, target].is_cut

    @property
    def cuts(self) -> int:
        """The number of directions that are cut."""
        return sum(link.is_cut for link in self.links.values())

    def calm(self, longest_delay: int) -> None:
        """End all faults for ever."""
        self.mend()
        for link in self.links.values():
            link.loss = link.repeats = link.late = link.tail = 0.0
            link.longest_delay = longest_delay


# Named topologies -----------------------------------------------------------------


def isolate(network: Network, centre: str, random: Random) -> None:
    """Cut *centre* off from all others."""
    network.separate([centre], [n for n in network.names if n != centre])


def halves(network: Network, centre: str, random: Random) -> None:
    """Split the servers into two random groups."""
    side = [n for n in network.names if random.random() < 0.5]
    network.separate(side, [n for n in network.names if n not in side])


def minority(network: Network, centre: str, random: Random) -> None:
    """Leave *centre* in the smaller group, without a majority."""
    others = [n for n in network.names if n != centre]
    # A list in the order of the names, never a set: the seed decides alone.
    random.shuffle(others)
    count = (len(network.names) - 1) // 2
    network.separate([centre, *others[:count]], others[count:])


def minimal_quorum(network: Network, centre: str, random: Random) -> None:
    """Leave *centre* in the larger group, with the smallest majority."""
    others = [n for n in network.names if n != centre]
    random.shuffle(others)
    count = len(network.names) // 2
    network.separate([centre, *others[:count]], others[count:])


def bridge(network: Network, centre: str, random: Random) -> None:
    """Split the others into two halves that both reach *centre*."""
    others = [n for n in network.names if n != centre]
    random.shuffle(others)
    middle = len(others) // 2
    network.separate(others[:middle], others[middle:])


def star(network: Network, centre: str, random: Random) -> None:
    """Let all others reach *centre* but not each other."""
    network.keep_only((centre, n) for n in network.names)


def ring(network: Network, centre: str, random: Random) -> None:
    """Let each server reach two neighbours."""
    names = list(network.names)
    random.shuffle(names)
    network.keep_only(zip(names, [*names[1:], names[0]], strict=True))


def chain(network: Network, centre: str, random: Random) -> None:
    """Let each server reach two neighbours, and the two ends only one."""
    names = list(network.names)
    random.shuffle(names)
    network.keep_only(pairwise(names))


def deaf(network: Network, centre: str, random: Random) -> None:
    """Let *centre* send but not receive."""
    for name in network.names:
        network.cut(name, centre)


def mute(network: Network, centre: str, random: Random) -> None:
    """Let *centre* receive but not send."""
    for name in network.names:
        network.cut(centre, name)


def one_way(network: Network, centre: str, random: Random) -> None:
    """Cut one direction from *centre* to a random server."""
    network.cut(centre, random.choice(network.names))


TOPOLOGIES: dict[str, Callable[[Network, str, Random], None]] = {
    "isolated": isolate,
    "halves": halves,
    "minority": minority,
    "minimal quorum": minimal_quorum,
    "bridge": bridge,
    "star": star,
    "ring": ring,
    "chain": chain,
    "deaf": deaf,
    "mute": mute,
    "one way": one_way,
}
"""Functions that cut a network around one server, by name."""
