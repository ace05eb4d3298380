"""What a turn changed, told to observers, to the log and to the list of peers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from txraft.core.configuration import Configuration, ConfigurationHistory
from txraft.core.consensus import Consensus
from txraft.core.follower import Follower
from txraft.core.leader import Leader, Resignation
from txraft.errors import NodeRemoved, RaftShutdown
from txraft.interfaces import ServerPeerStore, WithMembers
from txraft.node.application import done, refuse_unfinished
from txraft.node.membership import FIRST_VERSION_WITH_IDS
from txraft.node.observers import LeaderObservation, Observation, Observers
from txraft.node.state import RaftState
from txraft.node.timing import tick_seconds

if TYPE_CHECKING:
    from txraft.node.parts import Parts
    from txraft.node.raft import Raft
    from txraft.node.shell import Shell


USE_LEADER_CH = "it is not waited for; use `Raft.leader_ch` instead, whose callback is"


class Notices:
    """Compares what is with what was told last, for the node *raft* of *parts*.

    `state`, `leader` and `last_contact` are what was told last.
    """

    log = Logger()

    def __init__(self, raft: Raft, parts: Parts) -> None:
        self._raft = raft
        self._parts = parts
        self._role: object = None
        self._told_membership = self._settled_membership = -1
        self._was_member = False
        self._removed_at: float | None = None
        self.observers = Observers()
        self.state = RaftState.FOLLOWER
        self.leader: str | None = None
        self.last_contact: float | None = None
        self._waiting: dict[Deferred[str], None] = {}

    def when_leader(self) -> Deferred[str]:
        """Return a Deferred of the leader's address, as soon as one is known."""
        if self.leader is not None:
            return succeed(self.leader)
        waiter: Deferred[str]
        # One that is cancelled, or timed out, leaves nothing behind.
        waiter = Deferred(lambda _: self._waiting.pop(waiter, None))
        self._waiting[waiter] = None
        return waiter

    def stopped(self, error: RaftShutdown) -> None:
        """Fail what waits for a leader."""
        waiting, self._waiting = self._waiting, {}
        for waiter in waiting:
            waiter.errback(error)

    def turned(self, shell: Shell) -> None:
        """Tell of changes of role, leader and membership."""
        consensus = shell.consensus
        role, leader = consensus.role, consensus.role.leader
        if role is not self._role or leader != self.leader:
            if isinstance(self._role, Leader) and self._role is not role:
                self._tell_resignation(self._role.resignation)
            self._role = role
            self.changed(shell, state_of(consensus), leader)
        heard_leader, heard_at = shell.heard
        if self.state is RaftState.LEADER:
            self.last_contact = self._parts.clock.seconds()
        elif heard_leader is not None and heard_leader == leader:
            self.last_contact = heard_at
        latest = consensus.configurations.latest_index
        if latest != self._settled_membership and consensus.commit_index >= latest:
            self._membership_committed(shell)

    def changed(
        self, shell: Shell | None, state: RaftState, leader: str | None
    ) -> None:
        """Tell of a new state or leader, in the seed's order.

        Whoever is told may shut the node down: then the rest is news no more.
        """
        before = self.state
        if state is not before:
            self._change_leader(None)
            if self.state is not before:
                return
            self._change_state(shell, before, state)
        if self.state is state:
            self._change_leader(leader)

    def _change_state(
        self, shell: Shell | None, before: RaftState, state: RaftState
    ) -> None:
        self.state = state
        self.log.info(
            "{node} became {role} in term {term}",
            node=self._parts.address,
            role=state,
            term=shell.consensus.term if shell else 0,
        )
        self.observers.tell(Observation(self._raft, state))
        if before is RaftState.LEADER:
            self._leadership_changed(shell, False)
        elif state is RaftState.LEADER is self.state:
            self._leadership_changed(shell, True)

    def _tell_resignation(self, why: Resignation | None) -> None:
        if why is None:
            return
        seconds = tick_seconds(self._parts.config)
        self.log.warn(
            "{node} gives up leadership: it has heard no quorum for {silence:.2f} s, "
            "its oldest write waits for {age:.2f} s, and just now it was held up "
            "itself for {late:.2f} s",
            node=self._parts.address,
            silence=why.silence * seconds,
            age=why.write_age * seconds,
            late=(why.late - 1) * seconds,
        )

    def _change_leader(self, leader: str | None) -> None:
        if leader != self.leader:
            self.leader = leader
            self.observers.tell(Observation(self._raft, LeaderObservation(leader)))
        if leader is not None and self._waiting:
            waiting, self._waiting = self._waiting, {}
            for waiter in waiting:
                waiter.callback(leader)

    def _leadership_changed(self, shell: Shell | None, gained: bool) -> None:
        if not gained and shell is not None:
            shell.leadership_lost()
        notify = self._parts.config.notify
        if notify is None:
            return
        try:
            refuse_unfinished(notify(gained), "notify", USE_LEADER_CH)
        except Exception:
            self.log.failure("the function that is notified of leadership raised")
        except BaseException:
            self._raft.stop_because("`notify` ended it", Failure())

    def _membership_committed(self, shell: Shell) -> None:
        history = shell.consensus.configurations
        if history.latest_index != self._told_membership:
            self._told_membership = history.latest_index
            self._tell_membership(shell, history.latest)
        if self._parts.address in history.latest.addresses:
            self._was_member, self._removed_at = True, None
            self._settled_membership = history.latest_index
        elif self._was_member or _was_listed(history, self._parts.address):
            self._leave_if_removed()

    def _tell_membership(self, shell: Shell, configuration: Configuration) -> None:
        """Keep the list for humans up to date; it decides nothing."""
        addresses = sorted(configuration.addresses)
        if not addresses:
            return
        if isinstance(self._parts.transport, WithMembers):
            self._parts.transport.members_committed(addresses)
        self.log.info(
            "{node} has members {members}",
            node=self._parts.address,
            members=", ".join(addresses),
        )
        store, version = self._parts.peer_store, self._parts.config.protocol_version

        def write() -> None:
            if version >= FIRST_VERSION_WITH_IDS and isinstance(store, ServerPeerStore):
                done(store.set_servers, configuration.servers)
            else:
                done(store.set_peers, addresses)

        # A list that outlives the log it was read from would found another cluster.
        written = shell.writer.when_synced().addCallback(
            lambda _: self._parts.workers.reader.run(write)
        )
        written.addErrback(self._not_written)

    def _not_written(self, failure: Failure) -> None:
        reason = "the list of peers was not written"
        if failure.check(Exception):
            self.log.failure(reason, failure=failure)
        else:
            self._raft.stop_because(reason, failure)

    def _leave_if_removed(self) -> None:
        """Shut down a while after this node's removal has committed.

        The while is for a member that replays how it was removed and added again.
        """
        now = self._parts.clock.seconds()
        if self._removed_at is None:
            self._removed_at = now
            self.log.info("{node} was removed", node=self._parts.address)
        config = self._parts.config
        waited = now - self._removed_at >= config.heartbeat_timeout
        if config.shutdown_on_remove and waited:
            self._raft.stop(NodeRemoved())


def _was_listed(history: ConfigurationHistory, address: str) -> bool:
    """Tell whether an earlier configuration of *history* has the server at *address*.

    One that learns at once how it was added and removed was a member all the same.
    """
    made = history.latest_index
    while True:
        earlier, configuration = history.at(made - 1)
        if address in configuration.addresses:
            return True
        if earlier >= made:
            return False
        made = earlier


def state_of(consensus: Consensus) -> RaftState:
    """Return the state that users see: a pre-candidate counts as a candidate."""
    if consensus.is_leader:
        return RaftState.LEADER
    is_follower = isinstance(consensus.role, Follower)
    return RaftState.FOLLOWER if is_follower else RaftState.CANDIDATE
