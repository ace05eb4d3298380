"""Check the arguments of a `Node`, by the rules of ``node.yaml``.

All faults are reported at once, and nothing is opened but certificates.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeVar

from txraft.addresses import is_wildcard, parse_address, parse_listen
from txraft.config import Config, validate_config
from txraft.consistency import (
    contradictions,
    not_above_zero,
    numbers_of,
    out_of_bounds,
    wrong_types,
)
from txraft.core.configuration import Server
from txraft.embedding.host import MemberSettings
from txraft.errors import ConfigError
from txraft.node.membership import FIRST_VERSION_WITH_IDS
from txraft.transport.connection_limits import ConnectionLimits
from txraft.transport.contexts import DEFAULT_VERSION, VERSIONS, TLSFiles
from txraft.transport.identity import PeerNames, is_name
from txraft.transport.tls import PeerTLS
from txraft.wire.stream import MessageLimits

T = TypeVar("T")
L = TypeVar("L", ConnectionLimits, MessageLimits)

_REQUIRED = ("certificate", "private_key", "ca")
_TLS_KEYS = (*_REQUIRED, "server_names", "minimum_version")


def member_settings(
    directory: str | os.PathLike[str],
    *,
    address: str,
    listen: str | None,
    peers: Iterable[str | Server],
    tls: Mapping[str, Any] | None,
    join: bool,
    limits: Mapping[str, float] | None,
    config: Config | None,
    server_id: str | None,
) -> MemberSettings:
    """Make the settings of a member. Raises: ConfigError"""
    problems: list[str] = []

    def checked(check: Callable[[], T], otherwise: T) -> T:
        # All faults are told together.
        try:
            return check()
        except ConfigError as error:
            problems.extend(error.problems)
            return otherwise

    config = Config() if config is None else config
    connections, messages = checked(
        lambda: _limits(limits or {}), (ConnectionLimits(), MessageLimits())
    )
    bounds = {**numbers_of(connections), **numbers_of(messages)}
    checked(lambda: validate_config(config, bounds), None)
    checked(lambda: _check_address(address), None)
    listens = checked(lambda: _listen(address, listen), "")
    nobody: tuple[Server, ...] = ()
    version = config.protocol_version
    members = checked(
        lambda: _members(address, server_id, peers, join, version), nobody
    )
    if problems:
        # What follows would say the same again in other words.
        raise ConfigError(problems)
    files, names = (None, PeerNames()) if tls is None else _tls(tls, address, members)
    return MemberSettings(
        directory=os.fspath(directory),
        address=address,
        listen=listens,
        peers=members,
        server_id=server_id,
        config=config,
        connections=connections,
        messages=messages,
        tls=None if files is None else PeerTLS(files, names, names.name_of(address)),
        names=names,
    )


def _check_address(address: str) -> None:
    try:
        host, _ = parse_address(address)
        if is_wildcard(host):
            raise ValueError("nobody can dial a wildcard")
    except (ValueError, AttributeError) as error:
        raise ConfigError(
            [
                f"address is {address!r}, it must be this node's host:port as peers "
                f"dial it, such as 127.0.0.1:8300 ({error})"
            ]
        ) from error


def _listen(address: str, listen: str | None) -> str:
    if listen is None:
        try:
            host, port = parse_address(address)
        except (ValueError, AttributeError):
            return ""  # told already
        kind = "tcp6" if ":" in host else "tcp"
        return f"{kind}:{port}:interface={host.replace(':', chr(92) + ':')}"
    try:
        parse_listen(listen)
    except ValueError as error:
        raise ConfigError(
            [
                f"listen is {listen!r}, it must be a Twisted endpoint such as "
                f"tcp:8300:interface=127.0.0.1 ({error})"
            ]
        ) from error
    return listen


def _members(
    address: str,
    server_id: str | None,
    peers: Iterable[str | Server],
    join: bool,
    version: int,
) -> tuple[Server, ...]:
    if isinstance(peers, str):
        raise ConfigError([f"peers is the text {peers!r}, it must be a list of them"])
    own = Server(server_id or address, address)
    listed = tuple(Server(p, p) if isinstance(p, str) else p for p in peers)
    problems = []
    if server_id is not None and version < FIRST_VERSION_WITH_IDS:
        problems.append(
            "server_id needs Config(protocol_version=3); below that the address is "
            "the id, so leave it out"
        )
    if join and listed:
        problems.append("peers are given together with join; leave one of them out")
    for server in listed:
        if server.id != server.address and version < FIRST_VERSION_WITH_IDS:
            problems.append(
                f"peers gives {server.address} the id {server.id}, which needs "
                "Config(protocol_version=3); below that list the address alone"
            )
    problems += _repeated("address", [server.address for server in listed])
    problems += _repeated("id", [server.id for server in listed])
    # A list of this node alone, by its address, may leave its id out.
    if not listed or listed == (Server(address, address),):
        listed = () if join else (own,)
    elif own not in listed:
        problems.append(
            f"peers does not include this node: add {_shown(own)}, or correct address, "
            "or give join=True instead of peers"
        )
    if problems:
        raise ConfigError(problems)
    return listed


def _repeated(what: str, values: Sequence[str]) -> list[str]:
    twice = dict.fromkeys(value for value in values if values.count(value) > 1)
    return [f"peers names the {what} {value} twice" for value in twice]


def _shown(server: Server) -> str:
    if server.id == server.address:
        return server.address
    return f"Server({server.id!r}, {server.address!r})"


def _limits(
    limits: Mapping[str, float],
) -> tuple[ConnectionLimits, MessageLimits]:
    known = {f.name for kind in (ConnectionLimits, MessageLimits) for f in fields(kind)}
    problems = [
        f"limits has no {name!r}; it may have {', '.join(sorted(known))}"
        for name in limits
        if name not in known
    ]
    if problems:
        raise ConfigError(problems)
    connections, messages = (
        _limits_of(ConnectionLimits, limits),
        _limits_of(MessageLimits, limits),
    )
    problems = [*wrong_types(connections), *wrong_types(messages)]
    if not problems:
        numbers = numbers_of(connections, messages)
        problems = [
            *not_above_zero(numbers, list(numbers)),
            *out_of_bounds(numbers),
            *contradictions(numbers),
        ]
    if problems:
        raise ConfigError([f"limits: {problem}" for problem in problems])
    return connections, messages


def _limits_of(kind: type[L], limits: Mapping[str, float]) -> L:
    names = {f.name for f in fields(kind)}
    given: dict[str, Any] = {n: v for n, v in limits.items() if n in names}
    return kind(**given)


def _tls(
    tls: Mapping[str, Any], address: str, members: Sequence[Server]
) -> tuple[TLSFiles, PeerNames]:
    problems = [
        f"tls has no {key!r}; it may have {', '.join(_TLS_KEYS)}"
        for key in tls
        if key not in _TLS_KEYS
    ]
    problems += [
        f"tls lacks {key!r}, it must be the path of a PEM file"
        for key in _REQUIRED
        if not isinstance(tls.get(key), (str, os.PathLike))
    ]
    version = tls.get("minimum_version", DEFAULT_VERSION)
    if version not in VERSIONS:
        problems.append(
            f"tls: minimum_version is {version!r}, it must be one of "
            f"{', '.join(VERSIONS)}"
        )
    given = dict(tls.get("server_names") or {})
    problems += [
        f"tls: server_names maps {whose!r} to {name!r}, it must be a host name or IP "
        "address: the one that the member's certificate is for"
        for whose, name in given.items()
        if not (isinstance(name, str) and is_name(name))
    ]
    if problems:
        raise ConfigError(problems)
    names = PeerNames(given)
    every = dict.fromkeys([*(m.address for m in members), address, *given])
    problems = [
        f"tls: server_names lets {first} and {second} share the name {name}, so each "
        "could speak as the other: give each its own, for which its certificate is"
        for name, first, second in names.shared(every)
    ]
    if problems:
        raise ConfigError(problems)
    paths = {key: os.fspath(tls[key]) for key in _REQUIRED}
    return TLSFiles(**paths, minimum_version=version), names
