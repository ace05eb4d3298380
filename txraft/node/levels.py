"""Levels: servers announce what they understand, and the log activates what all do.

A level is a number for a set of rules of the state machine. These are the levels that
the code speaks of, from what one process can do to what the cluster does:

    announced  the highest that a server understands, by the header of its messages
    common     the lowest of what all servers of the configuration have announced
    due        the common one, if it is higher than the one in the log; else 0
    in the log the highest that was activated by an entry, perhaps not yet committed
    active     the one by which a server's state machine goes: it has applied that entry

When a level is due the leader appends its activation: a no-op with the level as its
data. Whoever applies that entry goes by the rules of the level from there on. From then
on a server that understands less is not added. A member that does stops at that entry;
one that does not even know of levels, and so would not stop, gets no entries.

What is active is not kept here: the state machine has it, and its snapshots. So an
activation that was lost with a leadership is appended by the next leader, one that
comes twice does nothing the second time, and a restart needs nothing but log and
snapshot.

Nothing is announced at protocol version 0.

What is left is a member whose process is replaced, around an activation, by one that
knows nothing of levels: until the leader has noticed, by the connection or an answer,
it may be sent entries, and it may apply what is in its own log, by its old rules.
"""

from __future__ import annotations

from twisted.logger import Logger

from txraft.core.consensus import Consensus
from txraft.core.entry import Entry, LogType
from txraft.core.leader import Leader
from txraft.errors import ConfigurationRefused, UpgradeNeeded
from txraft.interfaces import FSM, LeveledFSM
from txraft.node.application import AT_ONCE, refuse_unfinished
from txraft.wire.decisions import activated_level, encode_activation


def apply_activation(fsm: object, entry: Entry) -> int:
    """Have *fsm* go by the level that the no-op *entry* activates, from here on.

    Returns: the level, 0 if it names none or that was active already.
    Raises: UpgradeNeeded, and nothing has changed, if *fsm* does not understand it;
        ContractBroken, if it would go on after it has returned.
    """
    level = activated_level(entry.data or b"")
    leveled = fsm if isinstance(fsm, LeveledFSM) else None
    # An entry may come twice, by two leaderships: the second does nothing.
    if not level or (leveled is not None and level <= leveled.active_level):
        return 0
    if leveled is None or level > leveled.level:
        raise UpgradeNeeded(level, 0 if leveled is None else leveled.level)
    result: object = leveled.activate(level)  # type: ignore[func-returns-value]
    refuse_unfinished(result, f"{type(fsm).__name__}.activate", AT_ONCE)
    return level


class Levels:
    """The levels of *fsm* on the server at *address*.

    `behind` are the members that announce less than is active: of this leader they get
    no entries, or stop at those that they do not understand.
    """

    log = Logger()

    def __init__(self, address: str, fsm: FSM, protocol_version: int) -> None:
        self._address = address
        self._fsm = fsm if isinstance(fsm, LeveledFSM) else None
        level = 0 if self._fsm is None else self._fsm.level
        self.announced = level if protocol_version else 0
        self.behind: dict[str, int] = {}

    @property
    def active(self) -> int:
        """The level that is active in the state machine as it is here."""
        return 0 if self._fsm is None else self._fsm.active_level

    def propose(self, consensus: Consensus, applied_index: int) -> None:
        """Append the activation of a level, if this server leads and it is due.

        In the same turn as it is found due, so that no server can be added in between.
        """
        if not self.announced:
            return
        # At level 0 nobody can be behind: nothing to look at in most clusters.
        if self.behind or consensus.active_level:
            self._look_who_is_behind(consensus)
        # None before this leader has applied what it found in its log: only then does
        # it know which level the log ends with.
        level = consensus.level_due(applied_index)
        if level:
            data = encode_activation(level)
            consensus.append_activation(Entry(0, 0, LogType.NOOP, data), level)

    def _look_who_is_behind(self, consensus: Consensus) -> None:
        active = consensus.active_level
        behind = {
            peer: level
            for peer, level in self.announced_by_members(consensus).items()
            if level is not None and level < active
        }
        for peer, level in behind.items():
            if self.behind.get(peer) != level:
                self.log.error(
                    "{peer} understands level {known} of the state machine, the "
                    "cluster uses level {active}: upgrade it",
                    node=self._address,
                    peer=peer,
                    known=level,
                    active=active,
                )
        self.behind = behind

    def check_newcomer(self, address: str, level: int | None, in_log: int) -> None:
        """Refuse to add the server at *address*, which understands less than *in_log*.

        One that did not answer, for which *level* is None, is added: it gets entries
        when it has announced enough.
        Raises: ConfigurationRefused
        """
        if level is not None and level < in_log:
            raise ConfigurationRefused(
                f"{address} understands level {level} of the state machine, and the "
                f"cluster uses level {in_log}: upgrade it first"
            )

    def applied(self, entry: Entry) -> None:
        """Activate the level of the no-op *entry*, if it names one.

        Raises: UpgradeNeeded, if it is one that the state machine does not understand.
        """
        level = apply_activation(self._fsm, entry)
        if level:
            self.log.info(
                "{node} activated level {active} of the state machine at index {index}",
                node=self._address,
                active=level,
                index=entry.index,
            )

    def announced_by_members(self, consensus: Consensus) -> dict[str, int | None]:
        """Return what each member has announced, None while it is not known.

        A leader knows it of all, other servers of themselves.
        """
        announced: dict[str, int | None] = dict.fromkeys(
            consensus.configuration.addresses
        )
        if isinstance(consensus.role, Leader):
            for address, progress in consensus.role.followers.items():
                if address in announced and progress.level is not None:
                    announced[address] = max(0, progress.level)
        if self._address in announced:
            announced[self._address] = self.announced
        return announced
