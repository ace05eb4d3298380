"""`--check-config`: check the files and addresses that the settings name.

Certificates and keys are read and matched, their names and uses are compared with what
peers and clients dial, tokens are read, ports and addresses are looked up, and the data
directory is examined. Each finding has the line of its setting. Nothing is bound,
locked, created or sent, so this also works beside the node while it runs.

It does not reach other nodes, and does not read the log.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from collections.abc import Mapping as MappingType
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from OpenSSL import SSL, crypto

from txraft.addresses import is_wildcard, parse_address, parse_listen
from txraft.daemon.local_host import LocalHost
from txraft.errors import ConfigError, StorageError
from txraft.http.auth import read_tokens
from txraft.http.roles import NODE
from txraft.http.tls import client_of
from txraft.settings.credentials import HTTPTLSSettings, TLSSettings, files_of
from txraft.settings.document import Faults, Mapping, Section
from txraft.settings.settings import HTTPSettings, Settings, read_settings
from txraft.storage.directory import LMDB_NAME, LOG_NAME, OURS, STATE_NAME
from txraft.storage.filesystem import OsFileSystem
from txraft.storage.owner import owner_of
from txraft.storage.readonly import ReadOnlyFileSystem
from txraft.storage.stores import refuse_other_kind
from txraft.transport.contexts import (
    OPEN_TO_OTHERS,
    Contexts,
    is_open_to_others,
    load_certificates,
    load_key,
    refusal_between,
)
from txraft.transport.identity import (
    Identity,
    NoIdentity,
    PeerNames,
    is_authority,
    is_for,
    is_ip_address,
    names_of,
    proves,
)
from txraft.transport.validity import (
    ISSUER,
    Validity,
    ends_of,
    is_issued_by,
    utc_now,
)

_SHOWN_FILES = 3
_SHARED = ("lost+found",)
"""Directories that a file system has in its root by itself."""

_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


class HostFacts(Protocol):
    """The questions that a `LocalHost` answers."""

    def unresolved(self, host: str) -> str | None:
        """Return why *host* does not resolve, None if it does."""

    def has(self, host: str) -> bool:
        """Tell whether *host* is an address of this machine."""

    def may_bind(self, port: int) -> bool:
        """Tell whether this process may listen at *port*."""

    def user(self) -> int:
        """Return the user id of this process."""


def check_settings(
    path: str | None = None,
    flags: MappingType[str, str] | None = None,
    directory: str = ".",
    machine: HostFacts | None = None,
) -> tuple[Settings, list[str]]:
    """Load settings as `load_settings` does, and check all that they name.

    Returns: the settings, and warnings: findings that do not prevent a start.
    Raises: ConfigError with everything that would prevent a start, or keep peers and
        clients away.
    """
    settings, document, faults = read_settings(path, flags, directory)
    faults.check()  # first: defaults that stand in for faults would be checked below
    hints = Faults()
    _Preflight(settings, document, faults, hints, machine or LocalHost()).look()
    faults.check()
    return settings, hints.told()


@dataclass(slots=True)
class _Loaded:
    """The contents of the files of one TLS section, as far as they can be read."""

    chain: list[x509.Certificate] = field(default_factory=list)
    authorities: list[x509.Certificate] = field(default_factory=list)
    is_matched: bool = False


class _Preflight:
    """Notes what prevents a start in *faults*, and doubtful settings in *hints*."""

    def __init__(
        self,
        settings: Settings,
        document: Mapping,
        faults: Faults,
        hints: Faults,
        machine: HostFacts,
    ) -> None:
        self._settings = settings
        self._wrong = Section(document, faults)
        self._odd = Section(document, hints)
        self._machine = machine
        self._unresolved: dict[str, str | None] = {}

    def look(self) -> None:
        """Check everything, in the order of a start."""
        settings = self._settings
        self._listener(self._wrong, self._odd, settings.listen)
        self._names(settings)
        self._data_directory(Path(settings.data_dir))
        if settings.tls is not None:
            self._peers(settings.tls)
        http = settings.http
        if http is None:
            return
        wrong, odd = self._wrong.section("http"), self._odd.section("http")
        self._listener(wrong, odd, http.listen)
        if http.tls is not None:
            self._http(http, http.tls)
        if http.tokens is not None:
            self._tokens(http.tokens)

    @property
    def _has_others(self) -> bool:
        return self._settings.join or len(self._settings.peers) > 1

    # Addresses -------------------------------------------------------------------

    def _listener(self, wrong: Section, odd: Section, listen: str) -> None:
        """Check a listening address: a start fails if it cannot be bound."""
        host, port = parse_listen(listen).host, parse_listen(listen).port
        why = None if is_wildcard(host) else self._why_unresolved(host)
        if why is not None:
            wrong.fault(
                "listen",
                f"is {listen!r}, and {host} does not resolve ({why}): name an address "
                "of this machine",
            )
        elif not is_wildcard(host) and not self._machine.has(host):
            wrong.fault(
                "listen",
                f"is {listen!r}, and no interface of this machine has {host}: name one "
                "that it has (`ip address` lists them), or leave interface= out and "
                "set advertise",
            )
        if not self._machine.may_bind(port):
            # The node may well: its service manager can give it what we do not have.
            odd.fault(
                "listen",
                f"is {listen!r}, and this check may not listen at port {port}: choose "
                "one above 1023, or see that the node has CAP_NET_BIND_SERVICE",
            )

    def _names(self, settings: Settings) -> None:
        """Look up the addresses that others dial; a failure is only a hint.

        The others may resolve a name that this machine does not know.
        """
        dialled = [("advertise", settings.advertise, self._odd)]
        dialled += [
            ("peers", peer.address, self._odd)
            for peer in settings.peers
            if peer.address != settings.advertise
        ]
        if settings.http is not None:
            parts = urlsplit(settings.http.advertise)
            address = parts.netloc if parts.port else f"{parts.netloc}:80"
            dialled.append(("advertise", address, self._odd.section("http")))
        told: set[str] = set()
        for key, address, section in dialled:
            host, _ = parse_address(address)
            why = self._why_unresolved(host)
            if why is not None and host not in told:
                told.add(host)
                section.fault(
                    key,
                    f"has {host}, which does not resolve here ({why}): nobody reaches "
                    "that node until it does",
                )

    def _why_unresolved(self, host: str) -> str | None:
        if is_ip_address(host):
            return None
        if host not in self._unresolved:  # once: a name server that is down is slow
            self._unresolved[host] = self._machine.unresolved(host)
        return self._unresolved[host]

    # Certificates ----------------------------------------------------------------

    def _peers(self, tls: TLSSettings) -> None:
        wrong, odd = self._wrong.section("tls"), self._odd.section("tls")
        loaded = self._files(tls, wrong, odd)
        if not loaded.chain:
            return
        name = PeerNames(tls.server_names).name_of(self._settings.advertise)
        try:
            identity = Identity(loaded.chain[0])
        except NoIdentity as error:
            _refuse(
                wrong,
                "certificate",
                f"{tls.certificate}: no peer will accept it: {error}; issue one for "
                f"{name}, as `txraft tls issue {name}` does",
            )
            return
        if not identity.is_named(name):
            _refuse(
                wrong,
                "certificate",
                f"{tls.certificate}: it is for {identity}, but peers dial {name} "
                f"({self._place_of_name(tls)}); issue one for that, or set "
                "tls.server_names",
            )
        if not self._is_signed(tls, loaded, wrong):
            return
        whom = "peers with the same authority refuse it"
        self._handshake(tls, loaded, wrong, whom, lambda contexts: contexts.client)

    def _place_of_name(self, tls: TLSSettings) -> str:
        if self._settings.advertise in tls.server_names:
            return "as tls.server_names says"
        key = "advertise" if self._wrong.given("advertise") else "listen"
        return f"as {key} says, {self._wrong.place(key)}"

    def _http(self, http: HTTPSettings, tls: HTTPTLSSettings) -> None:
        wrong = self._wrong.section("http").section("tls")
        odd = self._odd.section("http").section("tls")
        loaded = self._files(tls, wrong, odd)
        if not loaded.chain:
            return
        certificate, path = loaded.chain[0], tls.certificate
        name = urlsplit(http.advertise).hostname or ""
        if is_authority(certificate):
            _refuse(
                wrong, "certificate", f"{path}: it is an authority's, not of a server"
            )
            return
        if not is_for(certificate, ExtendedKeyUsageOID.SERVER_AUTH):
            _refuse(
                wrong,
                "certificate",
                f"{path}: it is for clients alone; issue one for serverAuth, too",
            )
            return
        if not proves(certificate, name):
            # Other nodes reach this one at that name, but clients use one of their own.
            is_used = self._has_others or self._wrong.section("http").given("advertise")
            _refuse(
                wrong if is_used else odd,
                "certificate",
                f"{path}: it is not for {name}, which clients and other nodes reach "
                "this one at (http.advertise); issue one for that name, or advertise "
                "one that it is for",
            )
        if not self._has_others:
            return
        if tls.ca is None:
            self._trusted_by_the_system(tls, loaded, odd)
        elif self._is_signed(tls, loaded, wrong):
            self._handshake(
                tls,
                loaded,
                wrong,
                "other nodes refuse it when it forwards to them",
                lambda _: client_of(files_of(tls)).context(),
            )
            self._role_of_node(tls, certificate, odd)

    def _files(
        self, tls: TLSSettings | HTTPTLSSettings, wrong: Section, odd: Section
    ) -> _Loaded:
        """Read the files of *tls*, and check that they belong together."""
        loaded = _Loaded()
        with _refusals(wrong, "certificate"):
            loaded.chain = load_certificates(tls.certificate)
        if tls.ca is not None:
            with _refusals(wrong, "ca"):
                loaded.authorities = load_certificates(tls.ca)
        with _refusals(wrong, "private_key"):
            key = load_key(tls.private_key)
            if is_open_to_others(tls.private_key):
                _refuse(odd, "private_key", f"{tls.private_key}: {OPEN_TO_OTHERS}")
            if loaded.chain:
                loaded.is_matched = key.public_key() == loaded.chain[0].public_key()
                if not loaded.is_matched:
                    _refuse(
                        wrong,
                        "private_key",
                        f"{tls.private_key}: it is not the key of {tls.certificate} "
                        f"({wrong.place('certificate')}); name the one that it was "
                        "issued for",
                    )
        self._dates(tls, loaded, wrong, odd)
        return loaded

    def _dates(
        self,
        tls: TLSSettings | HTTPTLSSettings,
        loaded: _Loaded,
        wrong: Section,
        odd: Section,
    ) -> None:
        now = utc_now()
        if loaded.chain:
            begin = loaded.chain[0].not_valid_before_utc
            if now < begin:
                _refuse(
                    wrong,
                    "certificate",
                    f"{tls.certificate}: it is not valid before "
                    f"{begin:%Y-%m-%d %H:%M} UTC; see the clock of this machine, or "
                    "issue another one",
                )
        if loaded.authorities:
            # A self-signed certificate is its own authority, whatever its extensions
            # say.
            strangers = [
                each
                for each in loaded.authorities
                if not is_authority(each) and each.issuer != each.subject
            ]
            if strangers:
                _refuse(
                    wrong,
                    "ca",
                    f"{tls.ca}: it holds a certificate of no authority "
                    f"({strangers[0].subject.rfc4514_string()}); name the file of the "
                    "authority",
                )
        of = "tls" if isinstance(tls, TLSSettings) else "http.tls"
        for name, end in ends_of(loaded.chain, loaded.authorities).items():
            key = name.partition(".")[0]
            told = Validity(f"{of}.{name}", getattr(tls, key), end).warning(now)
            if told is not None:
                # Whether an issuer that has expired matters, the handshake tells.
                is_wrong = end <= now and name != ISSUER
                _refuse(wrong if is_wrong else odd, key, told)

    def _is_signed(
        self, tls: TLSSettings | HTTPTLSSettings, loaded: _Loaded, wrong: Section
    ) -> bool:
        """Check that our authority, which others have too, issued our certificate."""
        is_signed = not loaded.authorities or any(
            is_issued_by(certificate, authority) or certificate == authority
            for certificate in loaded.chain
            for authority in loaded.authorities
        )
        if not is_signed:
            issuer = loaded.chain[-1].issuer.rfc4514_string()
            _refuse(
                wrong,
                "ca",
                f"{tls.ca}: no authority in it has issued {tls.certificate} "
                f"({wrong.place('certificate')}), which is from {issuer}; name that "
                "one's file, append it, or have another certificate issued",
            )
        return is_signed

    def _handshake(
        self,
        tls: TLSSettings | HTTPTLSSettings,
        loaded: _Loaded,
        wrong: Section,
        whom: str,
        client: Callable[[Contexts], SSL.Context],
    ) -> None:
        """Shake hands in memory, with the node's files on both sides, as others will.

        *client* makes the context of the side that dials.
        """
        if not wrong.sound("certificate", "private_key", "ca") or not loaded.is_matched:
            return
        with _refusals(wrong, "certificate"):
            contexts = Contexts(files_of(tls))
            why = refusal_between(contexts.server, client(contexts))
            if why is not None:
                _refuse(
                    wrong,
                    "certificate",
                    f"{tls.certificate}: {whom}: {why}; issue another one",
                )

    def _trusted_by_the_system(
        self, tls: HTTPTLSSettings, loaded: _Loaded, odd: Section
    ) -> None:
        if not loaded.is_matched or not odd.sound("certificate"):
            return
        client = SSL.Context(SSL.TLS_METHOD)
        client.set_default_verify_paths()
        client.set_verify(SSL.VERIFY_PEER, None)
        with suppress(ConfigError):  # reported by `_files` already
            why = refusal_between(Contexts(files_of(tls)).server, client)
            if why is not None:
                _refuse(
                    odd,
                    "certificate",
                    f"{tls.certificate}: nodes that trust what this system trusts do "
                    f"not forward to this one ({why}); set http.tls.ca to the "
                    "authority that has issued it",
                )

    def _role_of_node(
        self, tls: HTTPTLSSettings, certificate: x509.Certificate, odd: Section
    ) -> None:
        names = names_of(crypto.X509.from_cryptography(certificate))
        if not any(tls.roles.get(name) == NODE for name in names):
            odd.fault(
                "roles",
                f"gives no name in {tls.certificate} the role {NODE}: others do not "
                "believe this node whom it forwards for, nor where it serves HTTP; "
                f"add each node's name with {NODE}",
            )

    # Files -----------------------------------------------------------------------

    def _tokens(self, path: str) -> None:
        with _refusals(self._wrong.section("http"), "tokens"):
            read_tokens(path)

    def _data_directory(self, path: Path) -> None:
        """Check the data directory as a start would; a start makes a missing one."""
        if not path.is_dir():
            return
        about = path.stat()
        if about.st_uid != self._machine.user():
            # For root, who runs the check for another user, this is no fault.
            if about.st_mode & _WRITABLE_BY_OTHERS and self._machine.user():
                self._wrong.fault(
                    "data_dir",
                    f"is {path}, which is another user's, and others may change it: "
                    "give it to the user of the node (chown), or name another one",
                )
            else:
                self._odd.fault(
                    "data_dir",
                    f"is {path}, which belongs to another user than this check runs "
                    "as: run it as the user of the node",
                )
        try:
            names = sorted(os.listdir(path))
        except OSError as error:
            self._wrong.fault("data_dir", f"is {path}: {error.strerror}")
            return
        self._contents(path, names)

    def _contents(self, path: Path, names: list[str]) -> None:
        ours = [name for name in names if name in OURS]
        links = [name for name in ours if (path / name).is_symlink()]
        if links:
            self._wrong.fault(
                "data_dir",
                f"is {path}, in which {links[0]} is a symbolic link: put what it "
                "points to in its place, or name another directory",
            )
            return
        others = [n for n in names if not n.startswith(".") and n not in _SHARED]
        if others and not ours:
            shown = ", ".join(others[:_SHOWN_FILES])
            more = ", ..." if len(others) > _SHOWN_FILES else ""
            self._odd.fault(
                "data_dir",
                f"is {path}, which holds something else ({shown}{more}): a node's data "
                "directory is its own, and nobody else may look into it; name one that "
                "is empty or not there",
            )
            return
        self._node_of(path, names)

    def _node_of(self, path: Path, names: list[str]) -> None:
        """Check that the data in *path* is this node's, in its kind of store."""
        settings = self._settings
        files = ReadOnlyFileSystem(OsFileSystem())
        try:
            refuse_other_kind(settings.store, files, path)
            owner = _owner(files, path, names)
        except (StorageError, OSError) as error:
            told = str(error).removeprefix(f"{path}: ")
            self._wrong.fault("data_dir", f"is {path}: {told}")
            return
        own = settings.id or settings.advertise
        if owner is not None and owner != own:
            key = "id" if settings.id else "advertise"
            self._wrong.fault(
                "data_dir",
                f"is {path}, which belongs to node {owner!r}, and this node is {own!r} "
                f"({key}): name this node's own directory, or correct {key}, which "
                "never changes while a node keeps its data",
            )


def _owner(files: ReadOnlyFileSystem, path: Path, names: list[str]) -> str | None:
    """Return the name of the node whose data *path* holds, None before it has any.

    Raises: StorageError
    """
    if LMDB_NAME in names:
        from txraft.storage.lmdbstore import owner_in_lmdb  # an extra

        return owner_in_lmdb(path / LMDB_NAME)
    has_log = LOG_NAME in names and any((path / LOG_NAME).iterdir())
    if STATE_NAME not in names and not has_log:
        return None
    return owner_of(files, path)


def _refuse(section: Section, key: str, problem: str) -> None:
    """Note *problem*, which begins with the name of a file, at *key*."""
    section.fault(key, f"is {problem}")


@contextmanager
def _refusals(section: Section, key: str) -> Iterator[None]:
    """Note the problems of a ConfigError raised within at *key*."""
    try:
        yield
    except ConfigError as error:
        for problem in error.problems:
            _refuse(section, key, problem)
