"""The settings of TLS and tokens: files, names and roles.

Only the settings are checked here; the files are read when the node starts.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any

from txraft.addresses import parse_address
from txraft.http.roles import NODE, ROLES
from txraft.settings.document import Scalar, Section, text
from txraft.transport.contexts import DEFAULT_VERSION, VERSIONS, TLSFiles
from txraft.transport.identity import PeerNames, is_name


def _setting(default: str, doc: str) -> Any:
    return field(metadata={"default": default, "doc": doc})


@dataclass(frozen=True, slots=True, kw_only=True)
class TLSSettings:
    """TLS among peers: mutual, by certificates of the cluster's own authority."""

    certificate: str = _setting(
        "required",
        "This node's certificate in PEM, followed by the certificates between it and "
        "the authority. It must allow both ``serverAuth`` and ``clientAuth``.",
    )
    private_key: str = _setting("required", "Its key in PEM, without passphrase.")
    ca: str = _setting(
        "required",
        "The authority of the cluster in PEM, or several while one replaces another. "
        "No other certificates are accepted, not even those of the system's "
        "authorities.",
    )
    server_names: Mapping[str, str] = _setting(
        "the host of each address",
        "Maps addresses of members to the names in their certificates. No two "
        "members may have the same name.",
    )
    minimum_version: str = _setting(
        DEFAULT_VERSION, "Oldest version of TLS that is spoken: ``1.2`` or ``1.3``."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class HTTPTLSSettings:
    """TLS of the HTTP API."""

    certificate: str = _setting("required", "Certificate chain in PEM.")
    private_key: str = _setting("required", "Its key in PEM, without passphrase.")
    ca: str | None = _setting(
        "none",
        "Authority of clients' certificates, in PEM; a node also trusts it when it "
        "forwards requests. Without it no client certificate is asked for, and "
        "forwarding trusts the authorities of the system.",
    )
    roles: Mapping[str, str] = _setting(
        "none",
        "Maps names in clients' certificates to roles: ``read``, ``write`` or "
        "``operator``; or ``node`` for the other nodes, which forward requests of "
        "clients that were authenticated by certificate.",
    )
    minimum_version: str = _setting(
        DEFAULT_VERSION, "Oldest version of TLS that is spoken: ``1.2`` or ``1.3``."
    )


def files_of(settings: TLSSettings | HTTPTLSSettings) -> TLSFiles:
    """Return the files that *settings* name, and the TLS version to use with them."""
    return TLSFiles(**{f.name: getattr(settings, f.name) for f in fields(TLSFiles)})


def peer_tls(
    top: Section, base: str, advertise: str, peers: Sequence[str]
) -> TLSSettings | None:
    """Read `tls`; None when it is absent or null."""
    if not top.given("tls") or top.null("tls"):
        return None
    section = top.section("tls")
    section.known([f.name for f in fields(TLSSettings)], {})
    path = partial(_path, base=base)
    _require(section, "certificate", "private_key", "ca")
    names = section.section("server_names")
    settings = TLSSettings(
        certificate=section.read("certificate", "", path),
        private_key=section.read("private_key", "", path),
        ca=section.read("ca", "", path),
        server_names=_server_names(names),
        minimum_version=section.read("minimum_version", DEFAULT_VERSION, _version),
    )
    # A fault elsewhere leaves a default in its place, and that must not be reported as
    # a name that two members share.
    is_sound = section.sound("server_names") and names.sound(*names.names())
    if top.sound("peers", "advertise", "listen") and is_sound:
        _refuse_shared(section, settings.server_names, [*peers, advertise])
    return settings


def http_tls(http: Section, base: str) -> HTTPTLSSettings | None:
    """Read `http.tls`; None when it is absent or null."""
    if not http.given("tls") or http.null("tls"):
        return None
    section = http.section("tls")
    section.known([f.name for f in fields(HTTPTLSSettings)], {})
    path = partial(_path, base=base)
    _require(section, "certificate", "private_key")
    roles = section.section("roles")
    settings = HTTPTLSSettings(
        certificate=section.read("certificate", "", path),
        private_key=section.read("private_key", "", path),
        ca=section.read("ca", None, path),
        roles={name: roles.read(name, "read", _role) for name in roles.names()},
        minimum_version=section.read("minimum_version", DEFAULT_VERSION, _version),
    )
    if settings.roles and settings.ca is None:
        section.fault("roles", "needs ca, which says whose certificates count")
    return settings


def tokens_path(http: Section, base: str) -> str | None:
    """Read the path `http.tokens`; None when it is absent."""
    return http.read("tokens", None, partial(_path, base=base))


def as_document(settings: TLSSettings | HTTPTLSSettings | None) -> object:
    """Write *settings* as a YAML mapping that reads back as the same."""
    if settings is None:
        return None
    document = {f.name: getattr(settings, f.name) for f in fields(settings)}
    return {
        name: dict(value) if isinstance(value, Mapping) else value
        for name, value in document.items()
        if value not in (None, {})
    }


def _require(section: Section, *keys: str) -> None:
    for key in keys:
        if not section.given(key):
            section.fault(key, "is missing, it must be the path of a PEM file")


def _server_names(names: Section) -> dict[str, str]:
    found = {}
    for address in names.names():
        try:
            parse_address(address)
        except ValueError as error:
            names.fault(address, f"is no address, it must be host:port ({error})")
        found[address] = names.read(address, "", _name)
    return found


def _refuse_shared(
    section: Section, server_names: Mapping[str, str], members: Sequence[str]
) -> None:
    every = dict.fromkeys([*members, *server_names])
    for name, first, second in PeerNames(server_names).shared(every):
        section.fault(
            "server_names",
            f"lets {first} and {second} share the name {name}, so each could speak as "
            "the other: give each its own, for which its certificate is",
        )


def _path(value: Scalar, base: str) -> str:
    return os.path.normpath(os.path.join(base, text(value)))


def _name(value: Scalar) -> str:
    name = text(value)
    if not is_name(name):
        raise ValueError(
            "a host name or IP address: the one that the member's certificate is for"
        )
    return name


def _version(value: Scalar) -> str:
    if value.text not in VERSIONS:
        raise ValueError(f"one of {', '.join(VERSIONS)}")
    return value.text


def _role(value: Scalar) -> str:
    known = (*ROLES, NODE)
    if value.text not in known:
        raise ValueError(f"one of {', '.join(known)}")
    return value.text
