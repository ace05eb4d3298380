"""Who founds the cluster of a node that has no past: its peer store, or `set_peers`.

Log and snapshot hold the truth about membership. While neither holds any, a list of
peers stands in for it; from then on only `add_peer` and its like change it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure

from txraft.core.configuration import Configuration, Server
from txraft.core.consensus import Consensus
from txraft.errors import ConfigurationRefused, NodeIsLeader, RaftError, RaftShutdown
from txraft.interfaces import ServerPeerStore
from txraft.node.application import done
from txraft.node.events import RaftState
from txraft.node.membership import founders
from txraft.node.pending import waiter_for

if TYPE_CHECKING:
    from txraft.node.parts import Parts
    from txraft.node.shell import Shell


class Founding:
    """The part of `Raft` that takes a list of peers for a node that waits for one."""

    _parts: Parts
    _founding = False

    @property
    def state(self) -> RaftState:
        """What this node is doing."""
        raise NotImplementedError

    def _running(self) -> Shell:
        raise NotImplementedError

    def _check_thread(self, method: str) -> None:
        raise NotImplementedError

    def _begin_again(self, founders: Callable[[], Configuration]) -> Deferred[None]:
        raise NotImplementedError

    def stop_because(self, reason: str, failure: Failure) -> None:
        """Stop this node: it cannot go on."""
        raise NotImplementedError

    def set_peers(self, peers: Sequence[str]) -> Deferred[None]:
        """Found a cluster of *peers*, this node included, if it has no past.

        All of them must be given the same list. It is unsafe where some of them are
        members of a cluster that others are to join: let that one's leader add them.

        Returns: a Deferred that fires when the membership is durable and in the peer
            store. It fails, and nothing has changed, with NodeIsLeader, with
            ConfigurationRefused when log, snapshot or an earlier vote show that there
            is a cluster already or when this node is not among *peers*, and with
            RaftShutdown. Cancelling it only stops the wait.
        Source: hashicorp/raft `SetPeers`, which replaces any membership.
        """
        self._check_thread("set_peers")
        try:
            shell = self._running()
            if self.state is RaftState.LEADER:
                raise NodeIsLeader("the leader changes its peers with add_peer")
            members = self._founders_among(peers)
            self._check_no_past(shell)
        except RaftError as error:
            return fail(error)
        self._founding = True
        shell.stop(RaftShutdown("a cluster is being founded"), RaftShutdown())
        founded = shell.writer.flush()
        founded.addCallback(lambda _: self._begin_again(lambda: members))
        founded.addCallback(lambda _: self._keep(peers))
        founded.addBoth(self._founded)
        return waiter_for(founded)

    def _founders_among(self, peers: Sequence[str]) -> Configuration:
        parts = self._parts
        if not peers:
            raise ConfigurationRefused("a cluster is founded by one peer at least")
        servers = [Server(peer, peer) for peer in peers]
        version = parts.config.protocol_version
        return founders(servers, parts.address, parts.server_id, version)

    def _check_no_past(self, shell: Shell) -> None:
        if self._founding:
            raise ConfigurationRefused("a cluster is being founded already")
        consensus = shell.consensus
        if consensus.log.last_index or consensus.snapshot.index:
            raise ConfigurationRefused(
                "the log holds a membership; its leader changes it with add_peer"
            )
        if shell.snapshots.busy:
            raise ConfigurationRefused("a leader's snapshot is about to be installed")
        if self._parts.config.protocol_version and _has_taken_part(consensus):
            raise ConfigurationRefused(
                "this node has taken part in an election: wait for its leader"
            )

    def _keep(self, peers: Sequence[str]) -> Deferred[None]:
        store = self._parts.peer_store
        return self._parts.workers.reader.run(lambda: done(store.set_peers, peers))

    def _founded(self, result: Failure | None) -> Failure | None:
        self._founding = False
        if isinstance(result, Failure) and not result.check(RaftShutdown):
            self.stop_because("a cluster could not be founded", result)
        return result


def _has_taken_part(consensus: Consensus) -> bool:
    is_fresh = consensus.term <= 1 and consensus.voted_for is None
    return not is_fresh or consensus.cluster is not None


def stored_founders(parts: Parts) -> Configuration:
    """Return the membership that a node with nothing on disk begins with."""
    store = parts.peer_store
    if isinstance(store, ServerPeerStore):
        servers = store.servers()
    else:
        servers = [Server(peer, peer) for peer in store.peers()]
    config = parts.config
    if not servers and config.enable_single_node:
        servers = [Server(parts.address, parts.address)]
    return founders(servers, parts.address, parts.server_id, config.protocol_version)
