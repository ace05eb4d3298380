"""Access control: tokens and client certificates give a request its role.

A request shows a token in `X-Consul-Token` or as `Authorization: Bearer`, or its
connection has a certificate. Tokens are read from a file that only its owner can read.
They are kept as digests, compared in constant time, and never logged.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from twisted.web.http import Request

from txraft.errors import ConfigError
from txraft.http.answers import HTTPRefusal
from txraft.http.inflight import HTTPCall, parse_parameters
from txraft.http.roles import NODE, PROBES, ROLES, Role, needed_role
from txraft.transport.identity import is_ip_address, names_of

MAX_TOKENS_FILE_BYTES = 1 << 20
MAX_TOKENS = 1024
MIN_TOKEN_CHARACTERS = 16
MAX_TOKEN_CHARACTERS = 512
CONSUL_TOKEN = b"X-Consul-Token"
AUTHORIZATION = b"Authorization"
FORWARDED_ROLE = b"X-Txraft-Role"
_OTHERS_MAY = 0o077
_BEARER = b"bearer "
_PARAMETER = b"token="


class AccessPolicy(Protocol):
    """Gives each request a role, or refuses it."""

    def role_of(self, request: Request) -> Role:
        """Return the role of *request*. Raises: HTTPRefusal, for a stranger"""


class Everybody:
    """Gives everybody the highest role."""

    def role_of(self, request: Request) -> Role:
        """Return the highest role."""
        return Role.OPERATOR


@dataclass(frozen=True, slots=True)
class ThisMachine:
    """Gives programs on this machine the highest role, but not pages of other sites.

    A browser here sends any request that a page asks for, and a page can point a DNS
    name of its own to this machine (DNS rebinding). So the name in the header Host must
    be *host*, or a name that nobody else can own.
    """

    host: str

    def role_of(self, request: Request) -> Role:
        """Return the highest role. Raises: HTTPRefusal"""
        name = _host_named(request)
        if name in ("", "localhost", self.host) or name.endswith(".localhost"):
            return Role.OPERATOR
        if is_ip_address(name):
            return Role.OPERATOR
        raise HTTPRefusal(
            403,
            "Permission denied: the header Host names another machine. Use 127.0.0.1 "
            "or localhost, or have the node ask for tokens.",
        )


@dataclass(frozen=True, slots=True)
class OpenProbes:
    """Serves probes for everybody; *access* decides about all other requests.

    Supervisors and load balancers have no token to show. A probe learns only whether
    the process lives and whether it knows a leader.
    """

    access: AccessPolicy

    def role_of(self, request: Request) -> Role:
        """Return the least role for a probe. Raises: HTTPRefusal for other strangers"""
        is_read = request.method in (b"GET", b"HEAD")
        if is_read and request.uri.partition(b"?")[0] in PROBES:
            return Role.READ
        return self.access.role_of(request)


@dataclass(slots=True)
class Accounts:
    """Gives roles by the tokens in the file *tokens*, and by client certificates.

    *certificates* maps names in certificates to roles, or to `NODE`.
    Raises: ConfigError
    """

    tokens: str | None
    certificates: Mapping[str, str]
    _digests: list[tuple[bytes, Role]] | None = None

    def __post_init__(self) -> None:
        self.reload()

    def reload(self) -> None:
        """Read the tokens again.

        Raises: ConfigError; the former tokens then stay in force
        """
        # Assigned only after the whole file was read without a fault.
        self._digests = [] if self.tokens is None else read_tokens(self.tokens)

    def role_of(self, request: Request) -> Role:
        """Return the highest role of token and certificate. Raises: HTTPRefusal"""
        roles = [self._role_of_certificate(request)]
        token = token_in(request)
        if token is not None:
            role = self._role_of_token(token)
            if role is None:
                raise HTTPRefusal(403, "ACL not found: the token is not known.")
            roles.append(role)
        best = max(role or 0 for role in roles)
        if not best:
            raise HTTPRefusal(
                403,
                "Permission denied: a token is needed, in X-Consul-Token or as "
                "Authorization: Bearer.",
            )
        return Role(best)

    def _role_of_token(self, token: bytes) -> Role | None:
        """Return the role of *token*, None if it is unknown.

        It is compared with every token, so that the time it takes tells nothing.
        """
        digest = hashlib.sha256(token).digest()
        found = None
        for known, role in self._digests or ():
            if hmac.compare_digest(known, digest):
                found = role
        return found

    def _role_of_certificate(self, request: Request) -> Role | None:
        if not self.certificates:
            return None
        roles = [
            self.certificates[name]
            for name in _certificate_names(request)
            if name in self.certificates
        ]
        # A node forwards with the role of its client. Without this header it has none:
        # the certificate of a node is no key to everything.
        if NODE in roles:
            forwarded = request.requestHeaders.getRawHeaders(FORWARDED_ROLE, [b""])
            return ROLES.get(forwarded[0].decode("ascii", "replace"))
        return max((ROLES[role] for role in roles), default=None)


def check_access(access: AccessPolicy, call: HTTPCall) -> Role:
    """Check that the client of *call* has the role that it needs.

    Returns: the role of the client
    Raises: HTTPRefusal
    """
    role = access.role_of(call.request)
    needed = needed_role(call.method, call.path)
    if role < needed:
        raise HTTPRefusal(403, f"Permission denied: this needs the role {needed}.")
    return role


def _host_named(request: Request) -> str:
    """Return the host in the header Host, without its port, "" without the header."""
    [value, *_] = request.requestHeaders.getRawHeaders(b"Host", [b""])
    host = value.decode("ascii", "replace").strip().lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def token_in(request: Request) -> bytes | None:
    """Return the token of *request*, None if it has none.

    Older Consul clients send it as a query parameter.
    """
    headers = request.requestHeaders
    # An empty header counts as none: the token may stand in another place.
    for value in headers.getRawHeaders(CONSUL_TOKEN, []):
        if value:
            return bytes(value)
    for value in headers.getRawHeaders(AUTHORIZATION, []):
        if value[: len(_BEARER)].lower() == _BEARER:
            return bytes(value[len(_BEARER) :].strip())
    _, _, query = request.uri.partition(b"?")
    if _PARAMETER in query:
        return parse_parameters(query).get("token", "").encode() or None
    return None


def read_tokens(path: str) -> list[tuple[bytes, Role]]:
    """Read the file of tokens: a role and a token on each line; `#` begins a comment.

    Returns: the digest and the role of each token
    Raises: ConfigError, which quotes no token
    """
    problems = []
    tokens = []
    for number, line in enumerate(_private_lines(path), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        problem = _problem_of(words)
        if problem is not None:
            problems.append(f"{path}:{number}: {problem}")
            continue
        tokens.append((hashlib.sha256(words[1].encode()).digest(), ROLES[words[0]]))
    if len({digest for digest, _ in tokens}) < len(tokens):
        problems.append(f"{path}: a token is given twice")
    if not tokens or len(tokens) > MAX_TOKENS:
        problems.append(f"{path}: it must hold 1 to {MAX_TOKENS} tokens")
    if problems:
        raise ConfigError(problems)
    return tokens


def _private_lines(path: str) -> list[str]:
    try:
        # No links, which somebody else may turn elsewhere; and not blocking, as to open
        # a pipe would wait for its writer for ever.
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise ConfigError([f"{path}: it cannot be read: {error.strerror}"]) from error
    try:
        # Checked on the open file: its name may lead elsewhere by now. And before it is
        # opened as a file of Python, which raises another error for a directory.
        mode = os.fstat(file).st_mode
        if not stat.S_ISREG(mode) or mode & _OTHERS_MAY:
            raise ConfigError(
                [f"{path}: it must be a file that only its owner can read: chmod 600"]
            )
        with open(file, "rb", closefd=False) as opened:
            data = opened.read(MAX_TOKENS_FILE_BYTES + 1)
    finally:
        os.close(file)
    if len(data) > MAX_TOKENS_FILE_BYTES or not data.isascii():
        raise ConfigError([f"{path}: it is too long or not plain ASCII"])
    return data.decode("ascii").splitlines()


def _problem_of(words: list[str]) -> str | None:
    if len(words) != 2 or words[0] not in ROLES:
        return f"a line is a role ({', '.join(ROLES)}) and a token"
    if not MIN_TOKEN_CHARACTERS <= len(words[1]) <= MAX_TOKEN_CHARACTERS:
        return (
            f"a token has {MIN_TOKEN_CHARACTERS} to {MAX_TOKEN_CHARACTERS} characters"
        )
    return None


def _certificate_names(request: Request) -> tuple[str, ...]:
    transport = getattr(request.channel, "transport", None)
    get = getattr(transport, "getPeerCertificate", None)
    certificate = get() if get is not None else None
    return () if certificate is None else names_of(certificate)
