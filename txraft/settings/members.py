"""Read and write `peers`, the first members of a cluster.

Each is an address that peers dial, which is also the server's id; or, from protocol
version 3 on, `{id, address}`.
"""

from __future__ import annotations

from dataclasses import dataclass

from txraft.addresses import is_wildcard, parse_address
from txraft.core.configuration import Server
from txraft.node.membership import FIRST_VERSION_WITH_IDS
from txraft.settings.document import Scalar, Section, SettingPlace, text


@dataclass(frozen=True, slots=True)
class OwnServer:
    """This node: its address, and its id if the settings have one."""

    address: str
    id: str | None

    @property
    def server(self) -> Server:
        """This node as it must stand in `peers` of the others."""
        return Server(self.id or self.address, self.address)


def read_members(
    top: Section, own: OwnServer, version: int, join: bool
) -> tuple[Server, ...]:
    """Read `peers`; without it the node bootstraps a cluster of itself alone."""
    if join:
        if top.given("peers"):
            top.fault(
                "peers", "is given together with join: true; leave one of them out"
            )
        return ()
    if not top.given("peers"):
        return (own.server,)
    listed = top.read_all("peers", _listed_by_address, _listed_by_id)
    _refuse_repeats(top, listed)
    if version < FIRST_VERSION_WITH_IDS:
        _refuse_ids(top, listed)
    if not top.sound("peers", "advertise", "listen", "id"):
        return ()
    members = tuple(server for server, _ in listed)
    # A list of this node alone, by its address, may leave its id out.
    if members == (Server(own.address, own.address),):
        return (own.server,)
    _find_own(top, own, listed)
    return members


def as_documents(members: tuple[Server, ...]) -> list[object]:
    """Write *members* as YAML that reads back as the same."""
    return [
        member.address
        if member.id == member.address
        else {"id": member.id, "address": member.address}
        for member in members
    ]


def address(value: Scalar) -> str:
    """Convert a `host:port` that others can dial."""
    try:
        host, _ = parse_address(text(value))
        if is_wildcard(host):
            raise ValueError("nobody can dial a wildcard")
    except ValueError as error:
        raise ValueError(f"host:port, such as 127.0.0.1:8300 ({error})") from error
    return value.text


def _listed_by_address(value: Scalar) -> Server:
    listed = address(value)
    return Server(listed, listed)


def _listed_by_id(item: Section) -> Server | None:
    item.known(["id", "address"], {})
    for key in ("id", "address"):
        if not item.given(key):
            item.fault(key, "is missing; write {id: n1, address: 127.0.0.1:8300}")
    server = Server(item.read("id", "", text), item.read("address", "", address))
    return server if item.sound("id", "address") else None


def _refuse_repeats(top: Section, listed: list[tuple[Server, SettingPlace]]) -> None:
    addresses: dict[tuple[str, int], SettingPlace] = {}
    ids: dict[str, SettingPlace] = {}
    for server, place in listed:
        host, port = parse_address(server.address)
        # Host names have no case; an IPv6 address was brought to one form.
        first = addresses.setdefault((host.lower(), port), place)
        if first is not place:
            top.fault("peers", f"names {server.address} twice, first at {first}", place)
            continue
        first = ids.setdefault(server.id, place)
        if first is not place:
            top.fault("peers", f"names id {server.id} twice, first at {first}", place)


def _refuse_ids(top: Section, listed: list[tuple[Server, SettingPlace]]) -> None:
    for server, place in listed:
        if server.id != server.address:
            top.fault(
                "peers",
                f"gives {server.address} the id {server.id}, which needs "
                "raft.protocol_version: 3; below that list the address alone",
                place,
            )


def _find_own(
    top: Section, own: OwnServer, listed: list[tuple[Server, SettingPlace]]
) -> None:
    """Note a fault unless this node is among *listed*, with its id."""
    for server, place in listed:
        if server.address == own.address:
            if server.id != own.server.id:
                top.fault("peers", _other_id(own, server), place)
            return
    missing = own.address if own.id is None else _shown(own.server)
    top.fault(
        "peers",
        f"does not include this node: add {missing}, or correct advertise, or "
        "write join: true instead of peers",
    )


def _other_id(own: OwnServer, listed: Server) -> str:
    if own.id is None:
        return f"lists this node as {listed.id}; write id: {listed.id} too"
    return (
        f"lists this node as {listed.id}, but its id is {own.id}: write "
        f"{_shown(own.server)}"
    )


def _shown(server: Server) -> str:
    return f"{{id: {server.id}, address: {server.address}}}"
