"""Bootstrap: the first membership of a cluster, for a node that has no past.

Log and snapshot hold the truth about membership. While neither holds any, a list of
peers stands in for it: that of the peer store when the node starts, or a later one that
`Raft.set_peers` is given. From then on only `add_peer` and its like change it.

A node without a list waits until a leader adds it. That is no bootstrap, and the two
must never be mixed up: a waiting node that bootstrapped would be a second cluster.

Source: hashicorp/raft `SetPeers`, `BootstrapCluster`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure

from txraft.core.configuration import Configuration, Server
from txraft.core.consensus import Consensus
from txraft.errors import ConfigurationRefused, RaftShutdown
from txraft.interfaces import ServerPeerStore
from txraft.node.application import done
from txraft.node.membership import FIRST_VERSION_WITH_IDS, check_has_no_id
from txraft.node.parts import Parts
from txraft.node.pending import waiter_for
from txraft.node.shell import Shell


class Bootstrap:
    """Bootstraps the running node of *parts*, at most once at a time.

    *begin_again* starts the node anew with a membership, from what is then on disk.
    *stop_because* stops it, when it is neither what it was nor what it was to be.
    """

    def __init__(
        self,
        parts: Parts,
        *,
        begin_again: Callable[[Configuration], Deferred[None]],
        stop_because: Callable[[str, Failure], None],
    ) -> None:
        self._parts = parts
        self._begin_again = begin_again
        self._stop_because = stop_because
        self._is_running = False

    def run(self, shell: Shell, peers: Sequence[str]) -> Deferred[None]:
        """Replace *shell*, which has no past, by a node that has *peers* as members.

        Returns: a Deferred that fires when the membership is durable and in the peer
            store. If it fails, the node stops.
        Raises: ConfigurationRefused, and nothing has changed.
        """
        members = self._membership_of(peers)
        self._check_no_past(shell)
        self._is_running = True
        # The old shell must not answer a peer any more, and have nothing under way to
        # the disk, before the new one reads what is there.
        try:
            shell.stop(
                RaftShutdown("the cluster is being bootstrapped"), RaftShutdown()
            )
            flushed = shell.writer.flush()
        except BaseException:
            flushed = fail()  # the old shell is half stopped: the node cannot go on
        flushed.addCallback(lambda _: self._begin_again(members))
        # The list of peers comes last: it must not outlive a membership that a crash
        # has prevented.
        flushed.addCallback(lambda _: self._keep(peers))
        flushed.addBoth(self._ended)
        return waiter_for(flushed)

    def _membership_of(self, peers: Sequence[str]) -> Configuration:
        parts = self._parts
        if not peers:
            raise ConfigurationRefused("a cluster has one peer at least")
        servers = [Server(peer, peer) for peer in peers]
        version = parts.config.protocol_version
        return first_membership(servers, parts.address, parts.server_id, version)

    def _check_no_past(self, shell: Shell) -> None:
        if self._is_running:
            raise ConfigurationRefused("the cluster is being bootstrapped already")
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

    def _ended(self, result: Failure | None) -> Failure | None:
        self._is_running = False
        if isinstance(result, Failure) and not result.check(RaftShutdown):
            self._stop_because("the cluster could not be bootstrapped", result)
        return result


def stored_membership(parts: Parts) -> Configuration:
    """Return the membership that a node with nothing on disk begins with."""
    store = parts.peer_store
    if isinstance(store, ServerPeerStore):
        servers = store.servers()
    else:
        servers = [Server(peer, peer) for peer in store.peers()]
    config = parts.config
    if not servers and config.enable_single_node:
        servers = [Server(parts.address, parts.address)]
    return first_membership(
        servers, parts.address, parts.server_id, config.protocol_version
    )


def first_membership(
    peers: Iterable[Server], address: str, server_id: str, version: int
) -> Configuration:
    """Make the first membership out of *peers*, of which the one at *address* is us.

    Servers stand in the order of their addresses, so that all members make the same
    entry, whatever the order of their lists; without peers there are none. A server
    that bootstraps alone may be listed by its address.

    Raises: ConfigurationRefused, if there are peers and we are not one of them, if we
        are listed under another id, or if ids are used below protocol version 3.
    """
    by_address = {peer.address: peer for peer in peers}
    if not by_address:
        return Configuration()
    own = by_address.get(address)
    if own is None:
        listed = ", ".join(sorted(by_address))
        raise ConfigurationRefused(f"{address} is not among its peers: {listed}")
    is_alone = len(by_address) == 1 and own.id == address
    if own.id != server_id and not is_alone:
        raise ConfigurationRefused(
            f"{address} is listed as server {own.id}, but is server {server_id}: all "
            "first members must list the same ids, or one bootstraps alone and adds "
            "the others"
        )
    by_address[address] = Server(server_id, address, own.suffrage)
    servers = tuple(by_address[a] for a in sorted(by_address))
    if version < FIRST_VERSION_WITH_IDS:
        for server in servers:
            check_has_no_id(server)
    configuration = Configuration(servers)
    configuration.check()
    return configuration


def _has_taken_part(consensus: Consensus) -> bool:
    """Tell whether this node has a term, a vote or a cluster that must be kept."""
    is_fresh = consensus.term <= 1 and consensus.voted_for is None
    return not is_fresh or consensus.cluster is not None
