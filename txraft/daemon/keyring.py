"""The secrets of a running node: certificates, keys and tokens, reread on demand."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from urllib.parse import urlsplit

from txraft.errors import ConfigError
from txraft.http.auth import Access, Accounts, Everybody, OpenProbes, ThisMachine
from txraft.http.tls import HTTPTLS
from txraft.settings.credentials import HTTPTLSSettings, TLSSettings, files_of
from txraft.settings.settings import Settings
from txraft.transport.identity import PeerNames
from txraft.transport.tls import PeerTLS
from txraft.transport.validity import Validity


class Keyring:
    """What *settings* name; each part is None where they name none.

    Raises: ConfigError, naming the file at fault.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.names = PeerNames(settings.tls.server_names if settings.tls else None)
        self.peers: PeerTLS | None = None
        if settings.tls is not None:
            own = self.names.name_of(settings.advertise)
            self.peers = PeerTLS(files_of(settings.tls), self.names, own)
        self.http: HTTPTLS | None = None
        self.accounts: Accounts | None = None
        self._unknown: Access = Everybody()
        self._open_probes = False
        http = settings.http
        if http is None:
            return
        self._open_probes = http.open_probes
        if not http.insecure:
            self._unknown = ThisMachine(urlsplit(http.advertise).hostname or "")
        if http.tls is not None:
            required = http.tokens is None and http.tls.ca is not None
            self.http = HTTPTLS(files_of(http.tls), required)
        if http.tokens is not None or (http.tls and http.tls.ca):
            roles = http.tls.roles if http.tls else {}
            self.accounts = Accounts(http.tokens, roles)

    @property
    def access(self) -> Access:
        """Who may do what over HTTP."""
        access = self.accounts or self._unknown
        return OpenProbes(access) if self._open_probes else access

    @property
    def warnings(self) -> list[str]:
        """What is not as it should be about the files."""
        parts = [part for part in (self.peers, self.http) if part is not None]
        return list(dict.fromkeys(w for part in parts for w in part.warnings))

    @property
    def validities(self) -> list[Validity]:
        """Until when each certificate in force is valid, under its setting."""
        settings = self._settings
        found: list[Validity] = []
        if settings.tls is not None and self.peers is not None:
            found += _validities("tls", settings.tls, self.peers.ends)
        tls = settings.http.tls if settings.http else None
        if tls is not None and self.http is not None:
            found += _validities("http.tls", tls, self.http.ends)
        return found

    def reload(self) -> list[str]:
        """Read everything anew; a part that is broken stays as it was.

        Returns: what is wrong, empty when all was taken.
        """
        problems: list[str] = []
        for part in (self.peers, self.http, self.accounts):
            try:
                if part is not None:
                    part.reload()
            except ConfigError as error:
                problems += error.problems
        return problems


def _validities(
    section: str, settings: TLSSettings | HTTPTLSSettings, ends: Mapping[str, datetime]
) -> list[Validity]:
    return [
        Validity(f"{section}.{name}", getattr(settings, name), end)
        for name, end in ends.items()
    ]
