"""The cluster itself: who leads, who is a member, and changes of that.

Source: Consul's HTTP API, "Status" and "Operator: Raft".
"""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from txraft.errors import KnownPeer
from txraft.http.answers import TRUE, Answer, Refusal, json_answer
from txraft.http.calls import Call
from txraft.http.leader import Leadership
from txraft.http.node import Node

MAX_ADDRESS_CHARACTERS = 512


class Cluster:
    """Status and membership."""

    def __init__(self, raft: Node, leadership: Leadership) -> None:
        self._raft = raft
        self._leadership = leadership

    def leader(self, call: Call) -> Answer:
        """Tell the leader's peer address as this node knows it, "" if it does not."""
        return json_answer(self._raft.leader or "")

    def peers(self, call: Call) -> Answer:
        """List the peer addresses of all members, as this node knows them."""
        return json_answer(self._raft.peers())

    def add(self, call: Call) -> Deferred[Answer]:
        """Add the server at `?address=`; answers `true`, also to a repetition.

        An operator who got no answer the first time can so just ask again.
        """
        _address(call)
        return self._leadership.run(call, self._add)

    def remove(self, call: Call) -> Deferred[Answer]:
        """Remove the server at `?address=`; 404 says that it is no member.

        A repetition thus tells that the first request has worked, and a mistyped
        address does not pass for a removal.
        """
        _address(call)
        return self._leadership.run(call, self._remove)

    def _add(self, call: Call) -> Deferred[Answer]:
        call.submitted = True
        added = self._raft.add_peer(_address(call))
        return added.addCallbacks(_true, _known_is_fine)

    def _remove(self, call: Call) -> Deferred[Answer]:
        call.submitted = True
        return self._raft.remove_peer(_address(call)).addCallback(_true)


def _true(_index: int) -> Answer:
    return TRUE


def _known_is_fine(failure: Failure) -> Answer:
    failure.trap(KnownPeer)
    return TRUE


def _address(call: Call) -> str:
    """Return the parameter `address`, a `HOST:PORT` with IPv6 in brackets."""
    address = call.parameters.get("address", "")
    if not address:
        raise Refusal(400, "The parameter 'address' (HOST:PORT) is missing.")
    host, _, port = address.rpartition(":")
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        host = ""
    if (
        len(address) > MAX_ADDRESS_CHARACTERS
        or not host
        or not all(c.isalnum() or c in "-._:[]" for c in host)
        or not (port.isascii() and port.isdigit() and len(port) <= 5)
        or not 0 < int(port) < 65536
    ):
        raise Refusal(400, "The parameter 'address' is not HOST:PORT.")
    return address
