"""Endpoints of the cluster: its leader, its members, their health, and changes.

Source: Consul's HTTP API, "Status", "Operator: Raft" and "Operator: Autopilot".
"""

from __future__ import annotations

import json
from collections.abc import Callable

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from txraft.addresses import is_node_name, normal_url
from txraft.core.configuration import Server, Suffrage
from txraft.errors import KnownPeer, NotAdmitted
from txraft.http.answers import JSON, TEXT, TRUE, Answer, HTTPRefusal, json_answer
from txraft.http.backend import RaftNode
from txraft.http.catalog import Catalog
from txraft.http.inflight import HTTPCall
from txraft.http.leading import Leadership
from txraft.kv.commands import MAX_URL_CHARACTERS, encode_advertise
from txraft.kv.state import KeyValueFSM
from txraft.node.metrics import PeerMetrics
from txraft.node.status import HEALTHY_SILENCE

MAX_ADDRESS_CHARACTERS = 512
HEALTHY_LAG = 250
ADMISSION_WAIT = 2.0
"""Seconds that a request to add a server waits for the server to catch up."""

ADMISSION_INTERVAL = 0.1


class ClusterAPI:
    """Answers requests about leader and members, and changes them."""

    def __init__(
        self,
        raft: RaftNode,
        fsm: KeyValueFSM,
        leadership: Leadership,
        catalog: Catalog,
        clock: IReactorTime,
    ) -> None:
        self._raft = raft
        self._catalog = catalog
        self._clock = clock
        self._fsm = fsm
        self._leadership = leadership

    def leader(self, call: HTTPCall) -> Answer:
        """Answer with the peer address of the leader, "" if this node knows none."""
        return json_answer(self._raft.leader or "")

    def peers(self, call: HTTPCall) -> Answer:
        """List the peer addresses of all members, as this node knows them."""
        return json_answer(self._raft.peers())

    def configuration(self, call: HTTPCall) -> Answer:
        """Describe every member, as this node knows them."""
        shapes = [
            {
                "ID": server.id,
                "Node": self._catalog.name_of(server.address),
                "Address": server.address,
                "Leader": server.address == self._raft.leader,
                "ProtocolVersion": "3",
                "Voter": server.suffrage is Suffrage.VOTER,
                "HTTP": self._fsm.http_url(server.address) or "",
            }
            for server in self._raft.configuration.servers
        ]
        return json_answer({"Servers": shapes, "Index": 0})

    def health(self, call: HTTPCall) -> Deferred[Answer]:
        """Answer with the health of every member, as the leader sees it.

        The status is 429 unless all are healthy and a quorum confirms the leader now.
        """
        return self._told_by_leader(call, lambda health: health)

    def _told_by_leader(
        self, call: HTTPCall, shape: Callable[[Answer], Answer]
    ) -> Deferred[Answer]:
        """Answer *call* with the health that the leader sees, turned into *shape*."""
        # Shaped where it is made. Shaping here again would spoil a forwarded answer.
        told = self._leadership.run(
            call, lambda call: self._confirmed(call).addCallback(shape)
        )
        return told.addErrback(lambda failure: shape(self._unconfirmed(failure)))

    def autopilot(self, call: HTTPCall) -> Answer:
        """Answer with the thresholds of health; they cannot be changed."""
        return json_answer(
            {
                "CleanupDeadServers": False,
                "LastContactThreshold": f"{HEALTHY_SILENCE:g}s",
                "MaxTrailingLogs": HEALTHY_LAG,
                "MinQuorum": 0,
                "ServerStabilizationTime": "0s",
                "RedundancyZoneTag": "",
                "DisableUpgradeMigration": True,
                "UpgradeVersionTag": "",
                "CreateIndex": 1,
                "ModifyIndex": 1,
            }
        )

    def autopilot_state(self, call: HTTPCall) -> Deferred[Answer]:
        """Answer with the health of every member, as a map by id; status 200 always."""
        return self._told_by_leader(call, _as_state)

    def transfer(self, call: HTTPCall) -> Deferred[Answer]:
        """Transfer leadership to the member `?id=`, or to the most up-to-date one."""
        return self._leadership.run(call, self._transfer)

    def live(self, call: HTTPCall) -> Answer:
        """Answer that the process lives."""
        return Answer(200, b"live\n", TEXT)

    def ready(self, call: HTTPCall) -> Answer:
        """Answer whether this node knows a leader, and so can serve every request."""
        # A node that is about to stop says no at once, while it still serves: so load
        # balancers have time to leave it out.
        if self._leadership.is_leaving:
            return Answer(503, b"the node is stopping\n", TEXT)
        if self._raft.leader is None:
            return Answer(503, b"no leader is known\n", TEXT)
        return Answer(200, b"ready\n", TEXT)

    def _confirmed(self, call: HTTPCall) -> Deferred[Answer]:
        return self._raft.linearizable().addCallback(lambda _: self._health(True))

    def _unconfirmed(self, failure: Failure) -> Answer:
        failure.trap(HTTPRefusal)
        return self._health(False)

    def _health(self, confirmed: bool) -> Answer:
        figures = self._raft.metrics().peers
        members = self._raft.configuration.servers
        shapes = [
            self._member(each, confirmed, figures.get(each.address)) for each in members
        ]
        voters = [shape for shape in shapes if shape["Voter"]]
        well = sum(shape["Healthy"] is True for shape in voters)
        healthy = confirmed and all(shape["Healthy"] for shape in shapes)
        body = {
            "Healthy": healthy,
            "FailureTolerance": max(0, well - len(voters) // 2 - 1),
            "Servers": shapes,
        }
        # 429 is Consul's status for this; its clients read the body all the same.
        answer = json_answer(body)
        return answer if healthy else Answer(429, answer.body, JSON)

    def _member(
        self, server: Server, confirmed: bool, figures: PeerMetrics | None
    ) -> dict[str, object]:
        leads = confirmed and server.address == self._raft.leader
        last = int(self._raft.stats().get("last_log_index", "0")) if leads else 0
        silence, healthy = "0s" if leads else "never", leads
        if figures is not None and confirmed:
            last, silence = figures.match, f"{figures.silence * 1000:.0f}ms"
            healthy = figures.silence <= HEALTHY_SILENCE and figures.lag <= HEALTHY_LAG
        return {
            "ID": server.id,
            "Name": self._catalog.name_of(server.address),
            "Address": server.address,
            "SerfStatus": "alive" if healthy else "failed",
            "Version": "",
            "Leader": leads,
            "LastContact": silence,
            "LastTerm": self._raft.term,
            "LastIndex": last,
            "Healthy": healthy,
            "Voter": server.suffrage is Suffrage.VOTER,
        }

    def _transfer(self, call: HTTPCall) -> Deferred[Answer]:
        # Before the call, here and below: from then on only raft's own word makes the
        # outcome `not-applied` again.
        target = self._named(call.parameters.get("id"))
        call.submitted = True
        handed = self._raft.transfer_leadership(target)
        return handed.addCallback(lambda _: json_answer({"Success": True}))

    def _named(self, id: str | None) -> str | None:
        """Return the address of the member *id*, None if no id is given."""
        if not id:
            return None
        for server in self._raft.configuration.servers:
            if id in (server.id, server.address):
                return server.address
        raise HTTPRefusal(404, f"There is no member {id}.")

    def add(self, call: HTTPCall) -> Deferred[Answer]:
        """Add the server at `?address=`; answers `true`, also if it is a voter already.

        Unless `?force` is given, the server is first asked for its identity. Status 202
        means that it is a member without a vote yet; the answer says how many entries
        it lacks. Repeat the request, then and after a lost answer: the server gets its
        vote once it has these entries.
        """
        _address(call)
        return self._leadership.run(call, self._add)

    def remove(self, call: HTTPCall) -> Deferred[Answer]:
        """Remove the server at `?address=` or `?id=`; 404 if it is no member.

        So a mistyped address is never taken for a removal, and a repetition shows that
        the first request has worked.
        """
        if "id" not in call.parameters:
            _address(call)
        return self._leadership.run(call, self._remove)

    def advertise(self, call: HTTPCall) -> Deferred[Answer]:
        """Note `?url=` as the HTTP address of the member at `?address=`.

        `?name=` is its name, if that differs from the address.
        """
        _address(call)
        _url(call)
        _name(call)
        return self._leadership.run(call, self._advertise)

    def _advertise(self, call: HTTPCall) -> Deferred[Answer]:
        address, url = _address(call), _url(call)
        # At level 0 some members may be of an older release and could not apply a name.
        name = _name(call) if self._fsm.active_level else ""
        if address not in self._raft.peers():
            raise HTTPRefusal(404, f"There is no member {address}.")
        # Each node says this at each new leader: without the look it would be an entry
        # of the log each time.
        if self._fsm.is_advertised(address, url, name):
            return succeed(TRUE)
        call.submitted = True
        told = self._raft.apply(encode_advertise(address, url, name))
        return told.addCallback(lambda _: TRUE)

    def _add(self, call: HTTPCall) -> Deferred[Answer]:
        if not call.flag("force"):
            return Deferred.fromCoroutine(self._admit(call, _address(call)))
        call.submitted = True
        added = self._raft.add_peer(_address(call))
        return added.addCallbacks(_true, _known_is_fine)

    async def _admit(self, call: HTTPCall, address: str) -> Answer:
        """Add the server at *address*, and wait a while for it to become a voter."""
        until = self._clock.seconds() + ADMISSION_WAIT
        while True:
            call.submitted = True
            try:
                admission = await self._raft.admit_peer(address)
            except NotAdmitted as error:
                raise HTTPRefusal(
                    409, f"{error}. With ?force it is added all the same."
                ) from error
            except KnownPeer:
                continue  # another request has added it meanwhile
            if admission.is_voter:
                return TRUE
            # An answer in time instead of a long wait: the client sees progress and
            # repeats.
            if call.answered or self._clock.seconds() >= until:
                told = json_answer({"Voter": False, "Behind": admission.behind})
                return Answer(202, told.body, JSON)
            await deferLater(self._clock, ADMISSION_INTERVAL)

    def _remove(self, call: HTTPCall) -> Deferred[Answer]:
        call.submitted = True
        id = call.parameters.get("id")
        if id:
            return self._raft.remove_server(id).addCallback(_true)
        return self._raft.remove_peer(_address(call)).addCallback(_true)


def _as_state(health: Answer) -> Answer:
    """Turn an answer about health into Consul's state of autopilot."""
    told = json.loads(health.body)
    servers = {
        each["ID"]: {
            **each,
            "NodeStatus": each["SerfStatus"],
            "Status": _status(each),
            "NodeType": "voter",
        }
        for each in told["Servers"]
    }
    shape = {
        "Healthy": told["Healthy"],
        "FailureTolerance": told["FailureTolerance"],
        "OptimisticFailureTolerance": told["FailureTolerance"],
        "Servers": servers,
        "Leader": next((id for id, each in servers.items() if each["Leader"]), ""),
        "Voters": [id for id, each in servers.items() if each["Voter"]],
    }
    return json_answer(shape)


def _status(server: dict[str, object]) -> str:
    if server["Leader"]:
        return "leader"
    return "voter" if server["Voter"] else "non-voter"


def _true(_index: int) -> Answer:
    return TRUE


def _known_is_fine(failure: Failure) -> Answer:
    failure.trap(KnownPeer)
    return TRUE


def _url(call: HTTPCall) -> str:
    """Return the parameter `url`, a plain URL of a node. Raises: HTTPRefusal"""
    try:
        url = normal_url(call.parameters.get("url", ""))
    except ValueError as error:
        raise HTTPRefusal(400, f"The parameter 'url': {error}.") from error
    if len(url) > MAX_URL_CHARACTERS:
        raise HTTPRefusal(400, "The parameter 'url' is too long.")
    return url


def _name(call: HTTPCall) -> str:
    """Return the parameter `name`, "" for none. Raises: HTTPRefusal"""
    name = call.parameters.get("name", "")
    if name and not is_node_name(name):
        raise HTTPRefusal(400, "The parameter 'name' is no name of a node.")
    return name


def _address(call: HTTPCall) -> str:
    """Return the parameter `address`, a `HOST:PORT` with IPv6 in brackets."""
    address = call.parameters.get("address", "")
    if not address:
        raise HTTPRefusal(400, "The parameter 'address' (HOST:PORT) is missing.")
    # An IPv6 address without brackets would lose its last group to the port.
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
        raise HTTPRefusal(400, "The parameter 'address' is not HOST:PORT.")
    return address
