"""Events of a node: observers hear of changes of its role, leader and membership.

After each turn the `EventNotifier` compares the state of the node with what observers
were last told. It reports each change to the observers, the log, the function
`Config.notify`, and the list of peers. It decides nothing about consensus; it only
stops a node that was removed.

Source: hashicorp/raft `observer.go`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Protocol

from twisted.internet.defer import Deferred, QueueOverflow, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from txraft.core.configuration import Configuration, ConfigurationHistory
from txraft.core.consensus import Consensus
from txraft.core.follower import Follower
from txraft.core.leader import Leader, Resignation
from txraft.errors import NodeRemoved, RaftShutdown
from txraft.interfaces import ServerPeerStore, WithMembers
from txraft.node.application import (
    AT_ONCE,
    awaited,
    done,
    is_unfinished,
    refuse_unfinished,
)
from txraft.node.membership import FIRST_VERSION_WITH_IDS
from txraft.node.parts import Parts
from txraft.node.shell import Shell
from txraft.node.timing import tick_seconds


class RaftState(IntEnum):
    """The states of a node; a pre-candidate counts as a candidate."""

    FOLLOWER = 0
    CANDIDATE = 1
    LEADER = 2
    SHUTDOWN = 3

    def __str__(self) -> str:
        return self.name.capitalize()


class ObservedNode(Protocol):
    """As much of a `Raft` as those who observe it are handed."""

    @property
    def address(self) -> str:
        """The node's address as its peers know it."""

    @property
    def state(self) -> RaftState:
        """What the node is doing."""

    @property
    def leader(self) -> str | None:
        """The address of the leader, None if none is known."""

    @property
    def term(self) -> int:
        """The current term."""

    @property
    def last_index(self) -> int:
        """The index of the newest entry in the log or snapshot."""

    @property
    def commit_index(self) -> int:
        """The index up to which entries are known to be committed."""

    @property
    def applied_index(self) -> int:
        """The index up to which entries were applied to the FSM."""

    def shutdown(self) -> Deferred[None]:
        """Leave at once; idempotent."""

    def stop_because(self, reason: str, failure: Failure) -> None:
        """Stop the node: it cannot go on."""


MAX_WAITING_OBSERVATIONS = 1024
"""Observations that a blocking observer keeps while its callback is busy."""


@dataclass(frozen=True, slots=True)
class LeaderObservation:
    """The leader is now *leader*; None: none is known."""

    leader: str | None


@dataclass(frozen=True, slots=True)
class Observation:
    """What *raft* has to tell: a RaftState, LeaderObservation or RequestVoteRequest."""

    raft: ObservedNode
    data: object


FilterFn = Callable[[Observation], bool]
"""Tells whether an observer wants an observation."""


class Observer:
    """Calls *callback* with each observation that *filter* lets through.

    A callback that returns a Deferred, or is a coroutine, is busy until that has ended.
    Meanwhile a *blocking* observer keeps what comes, in its order, and at most
    *max_waiting* of it; others drop it. It is never entered twice: what comes while it
    is on the stack is delivered when it returns. The `put` of a `DeferredQueue` of
    limited size is a callback that drops what does not fit, as a channel of Go does.
    Without a callback, only the filter is called.

    `num_observed` counts what was delivered; `num_dropped` what was not, because the
    callback was busy, its queue full, or it raised. A blocking observer of
    hashicorp/raft holds its node up, this one never does.
    """

    log = Logger()

    def __init__(
        self,
        callback: Callable[[Observation], object] | None,
        filter: FilterFn | None = None,
        *,
        blocking: bool = False,
        max_waiting: int = MAX_WAITING_OBSERVATIONS,
    ) -> None:
        self._callback = callback
        self._filter = filter
        self._blocking = blocking
        self._most = max_waiting
        self._waiting: deque[Observation] = deque()
        self._busy = False
        self._entered = False
        self._draining = False
        self.num_observed = 0
        self.num_dropped = 0

    def observe(self, observation: Observation) -> None:
        """Deliver *observation* if the filter lets it through."""
        if self._filter is not None and not self._wants(observation):
            return
        if self._callback is None:
            return
        # One that is on the stack keeps what comes, blocking or not: it cannot be
        # entered, and it did not ask for this either.
        kept = self._most if self._blocking or self._entered else 0
        if not self._busy:
            self._deliver(observation)
        elif len(self._waiting) < kept:
            self._waiting.append(observation)
        else:
            self.num_dropped += 1

    def _wants(self, observation: Observation) -> bool:
        assert self._filter is not None, "there is somebody to ask"
        try:
            wanted = self._filter(observation)
            refuse_unfinished(wanted, "the filter of an observer", AT_ONCE)
        except Exception:
            self.num_dropped += 1
            self.log.failure("the filter of an observer raised")
            return False
        except BaseException:
            _stop(observation, "the filter of an observer")
            return False
        return wanted

    def _deliver(self, observation: Observation) -> None:
        self._busy = self._entered = True
        done = self._call(observation)
        self._entered = False
        if done is None:
            self._done(None)  # nearly always: nothing to wait for
            return
        if not self._blocking and not done.called:
            self.num_dropped += len(self._waiting)
            self._waiting.clear()
        done.addErrback(lambda f: self.log.failure("an observer failed", failure=f))
        done.addCallback(self._done)

    def _call(self, observation: Observation) -> Deferred[Any] | None:
        """Call, and return what to wait for, if anything."""
        assert self._callback is not None, "there is somebody to deliver to"
        try:
            done = self._callback(observation)
            waiting = awaited(done, "an observer") if is_unfinished(done) else None
        except Exception as error:
            self.num_dropped += 1
            if not isinstance(error, QueueOverflow):
                self.log.failure("an observer raised")
            return None
        except BaseException:
            self.num_dropped += 1
            _stop(observation, "an observer")
            return None
        self.num_observed += 1
        return waiting

    def _done(self, _: object) -> None:
        self._busy = False
        if self._draining:
            return
        self._draining = True
        while self._waiting and not self._busy:
            self._deliver(self._waiting.popleft())
        self._draining = False


class LeadershipChanges:
    """Calls *callback* with whether the node leads, whenever that has changed."""

    def __init__(self, callback: Callable[[bool], object]) -> None:
        self._callback = callback
        self._leads: bool | None = None

    def __call__(self, observation: Observation) -> object:
        """Call, if this is news."""
        leads = observation.data is RaftState.LEADER
        if leads is self._leads:
            return None
        self._leads = leads
        return self._callback(leads)


def is_state(observation: Observation) -> bool:
    """Let only changes of state through."""
    return isinstance(observation.data, RaftState)


class Observers:
    """The observers of one node, told in the order they registered."""

    log = Logger()

    def __init__(self) -> None:
        self._observers: list[Observer] = []
        self._undelivered: deque[Observation] = deque()
        self._telling = False

    def register(self, observer: Observer) -> None:
        """Tell *observer* from now on."""
        if observer not in self._observers:
            self._observers.append(observer)

    def deregister(self, observer: Observer) -> None:
        """Tell *observer* no more; idempotent."""
        if observer in self._observers:
            self._observers.remove(observer)

    def tell(self, observation: Observation) -> None:
        """Tell every observer, also when one of them raises.

        If one raises what is no Exception, such as SystemExit, the node stops after all
        were told. All hear of all observations in the same order: one that is made
        while observers are being told waits until all of them were.
        """
        self._undelivered.append(observation)
        if self._telling:
            return  # an observer caused it: delivered by the loop that runs already
        self._telling = True
        try:
            while self._undelivered:
                self._tell_all(self._undelivered.popleft())
        finally:
            self._telling = False

    def _tell_all(self, observation: Observation) -> None:
        for observer in list(self._observers):
            observer.observe(observation)


def _stop(observation: Observation, who: str) -> None:
    """Stop the node that *observation* is of, as *who* raised what is no Exception."""
    observation.raft.stop_because(f"{who} ended it", Failure())


USE_LEADER_CH = "it is not waited for; use `Raft.leader_ch` instead, whose callback is"


class EventNotifier:
    """Reports the changes of the node *raft* of *parts*; *stop* ends a removed node.

    `state`, `leader` and `last_contact` are what observers were last told. The
    observers in `members` get each committed membership, as a Configuration.
    """

    log = Logger()

    def __init__(
        self,
        raft: ObservedNode,
        parts: Parts,
        *,
        stop: Callable[[RaftShutdown], None],
    ) -> None:
        self._raft = raft
        self._stop = stop
        self._parts = parts
        # The role object itself: a node that leads again has another one.
        self._role: object = None
        # The index of the membership that was reported last; and of the last one that
        # needs no further look, unlike one without this node, which then has to stop.
        self._announced_membership = self._settled_membership = -1
        self._was_member = False
        self._removed_at: float | None = None
        self.observers = Observers()
        self.members = Observers()
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

    def after_turn(self, shell: Shell) -> None:
        """Tell of changes of role, leader and membership."""
        consensus = shell.consensus
        # For speed: this runs in each turn, and these two comparisons are all that most
        # turns need.
        role, leader = consensus.role, consensus.role.leader
        if role is not self._role or leader != self.leader:
            if isinstance(self._role, Leader) and self._role is not role:
                self._tell_resignation(self._role.resignation)
            self._role = role
            self.changed(shell, state_of(consensus), leader)
        if self.state is RaftState.LEADER:
            self.last_contact = self._parts.clock.seconds()
        elif leader is not None and shell.heard_leader == leader:
            self.last_contact = shell.heard_at
        # Only a committed membership is reported: another one may be rolled back.
        latest = consensus.configurations.latest_index
        if latest != self._settled_membership and consensus.commit_index >= latest:
            self._membership_committed(shell)

    def changed(
        self, shell: Shell | None, state: RaftState, leader: str | None
    ) -> None:
        """Tell of a new state or leader, in the order of hashicorp/raft.

        That is: no leader, then the new state, then its leader. Whoever is told may
        shut the node down, which reports a state of its own. So each step checks that
        the state is still the one that this call is about.
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
        # Before `notify`: when the application hears that leadership is lost, nothing
        # of the old term is pending any more.
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
        if history.latest_index != self._announced_membership:
            self._announced_membership = history.latest_index
            self.members.tell(Observation(self._raft, history.latest))
            self._tell_membership(shell, history.latest)
        if self._parts.address in history.latest.addresses:
            self._was_member, self._removed_at = True, None
            self._settled_membership = history.latest_index
        elif self._was_member or _was_listed(history, self._parts.address):
            self._leave_if_removed()

    def _tell_membership(self, shell: Shell, configuration: Configuration) -> None:
        """Report the membership, and keep the list for humans up to date."""
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

        # After the log is durable. A list that names members of which the log knows
        # nothing, after a crash, would bootstrap another cluster.
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

        Not at once: a member that catches up sees its removal, and only then that it
        was added again.
        """
        now = self._parts.clock.seconds()
        if self._removed_at is None:
            self._removed_at = now
            self.log.info("{node} was removed", node=self._parts.address)
        config = self._parts.config
        waited = now - self._removed_at >= config.heartbeat_timeout
        if config.shutdown_on_remove and waited:
            self._stop(NodeRemoved())


def _was_listed(history: ConfigurationHistory, address: str) -> bool:
    """Tell whether an earlier configuration of *history* has the server at *address*.

    A server that learns of its addition and its removal in one go was a member, too.
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
