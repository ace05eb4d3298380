"""`Keyring`: the certificates, keys and tokens of a running node, reread on demand."""

from __future__ import annotations

from urllib.parse import urlsplit

from txraft.errors import ConfigError
from txraft.http.auth import AccessPolicy, Accounts, Everybody, OpenProbes, ThisMachine
from txraft.http.tls import HTTPTLS
from txraft.settings.credentials import files_of
from txraft.settings.settings import Settings
from txraft.transport.identity import PeerNames
from txraft.transport.tls import PeerTLS
from txraft.transport.validity import Validity


class Keyring:
    """The certificates, keys and tokens that *settings* name; a part may be None.

    Raises: ConfigError, which names the file at fault.
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
        self._unknown: AccessPolicy = Everybody()
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
    def access(self) -> AccessPolicy:
        """The rule that decides what a request may do over HTTP."""
        access = self.accounts or self._unknown
        return OpenProbes(access) if self._open_probes else access

    @property
    def warnings(self) -> list[str]:
        """Sentences about files that work but are not as they should be."""
        parts = [part for part in (self.peers, self.http) if part is not None]
        return list(dict.fromkeys(w for part in parts for w in part.warnings))

    @property
    def validities(self) -> list[Validity]:
        """The end of validity of each certificate in use, with its setting."""
        settings = self._settings
        found: list[Validity] = []
        if self.peers is not None:
            found += self.peers.validities
        tls = settings.http.tls if settings.http else None
        if tls is not None and self.http is not None:
            found += [
                Validity(f"http.tls.{name}", getattr(tls, name.partition(".")[0]), end)
                for name, end in self.http.ends.items()
            ]
        return found

    def reload(self) -> list[str]:
        """Read all files again; a part whose file is broken keeps its old contents.

        Returns: what is wrong; empty when everything was replaced.
        Thread: reactor.
        """
        problems: list[str] = []
        # Each part for itself: one broken file must not keep a token in force that was
        # just withdrawn in another. A part replaces its contents only when they are
        # read and checked, so that a half-written file changes nothing.
        for part in (self.peers, self.http, self.accounts):
            try:
                if part is not None:
                    part.reload()
            except ConfigError as error:
                problems += error.problems
        return problems
