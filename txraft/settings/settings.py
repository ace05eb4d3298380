"""Read the settings of a node, from `node.yaml` and flags, and check them as a whole.

All faults are reported at once, each with its file and line and with what would be
right, before anything is opened. Nothing here opens a port or creates a file; a data
directory is only looked at.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from collections.abc import Mapping as MappingType
from dataclasses import dataclass, field, fields
from importlib.util import find_spec
from typing import Any, TypeVar
from urllib.parse import urlsplit

import yaml

from txraft.addresses import (
    Listen,
    is_loopback,
    is_node_name,
    is_wildcard,
    parse_address,
    parse_listen,
)
from txraft.config import Config, validate_config
from txraft.consistency import (
    MAY_BE_ZERO,
    contradictions,
    numbers_of,
    out_of_bounds,
)
from txraft.core.configuration import Server
from txraft.errors import ConfigError
from txraft.http.limits import HTTPLimits
from txraft.http.origins import parse_origin
from txraft.node.membership import FIRST_VERSION_WITH_IDS
from txraft.settings.credentials import (
    HTTPTLSSettings,
    TLSSettings,
    as_document,
    http_tls,
    peer_tls,
    tokens_path,
)
from txraft.settings.document import (
    Faults,
    Mapping,
    Scalar,
    Section,
    SettingPlace,
    boolean,
    duration,
    integer,
    read_document,
    text,
)
from txraft.settings.flags import override
from txraft.settings.members import (
    OwnServer,
    address,
    as_documents,
    read_members,
)
from txraft.storage.stores import STORE_KINDS
from txraft.transport.connection_limits import ConnectionLimits
from txraft.wire.stream import MessageLimits

DEFAULT_DATA_DIR = "./txraft-data"
DEFAULT_LISTEN = "tcp:8300:interface=127.0.0.1"
DEFAULT_HTTP_LISTEN = "tcp:8500:interface=127.0.0.1"
LOG_LEVELS = ("debug", "info", "warn", "error", "critical")

RAFT_DEFAULTS = Config(max_append_entries=1024)
"""The defaults of ``raft``: those of `Config` except for the size of requests. With it
an empty follower catches up twice as fast (`benchmarks.memory`)."""

T = TypeVar("T")
L = TypeVar("L", HTTPLimits, ConnectionLimits, MessageLimits)

_READERS: dict[str, Callable[[Scalar], Any]] = {
    "float": duration,
    "int": integer,
    "bool": boolean,
}


def _setting(default: str, doc: str) -> Any:
    return field(metadata={"default": default, "doc": doc})


@dataclass(frozen=True, slots=True, kw_only=True)
class HTTPSettings:
    """The settings of the HTTP API: its addresses, and who may use it."""

    listen: str = _setting(
        DEFAULT_HTTP_LISTEN,
        "Twisted server endpoint (``tcp:`` or ``tcp6:``). ``null`` turns HTTP off.",
    )
    advertise: str = _setting(
        "from ``http.listen``",
        "URL at which other nodes reach this one, to forward requests to it. "
        "Needed when ``http.listen`` covers every interface.",
    )
    tls: HTTPTLSSettings | None = field(
        metadata={"default": "none", "doc": "Turns HTTPS on; see below."}
    )
    tokens: str | None = _setting(
        "none",
        "File of lines with a role (read, write or operator) and a token, readable "
        "for its owner alone. With it, or with `http.tls.ca`, every request must "
        "be authenticated.",
    )
    open_probes: bool = _setting(
        "true",
        "Whether ``/livez`` and ``/readyz`` answer everybody. With ``false`` they "
        "need authentication like everything else.",
    )
    insecure: bool = _setting(
        "false",
        "Whether HTTP may listen beyond loopback without TLS and authentication: "
        "whoever reaches the port can then read and write everything.",
    )
    allowed_origins: tuple[str, ...] = _setting(
        "none",
        "Origins of web pages that may send requests from a browser to this node, such "
        "as ``https://kv.example.com``.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeLimits:
    """The named bounds of a node; a file sets them all under `limits`."""

    http: HTTPLimits = field(default_factory=HTTPLimits)
    connections: ConnectionLimits = field(default_factory=ConnectionLimits)
    messages: MessageLimits = field(default_factory=MessageLimits)

    def named(self) -> dict[str, int | float]:
        """Map each limit's name to its value."""
        parts = (self.http, self.connections, self.messages)
        return {f.name: getattr(part, f.name) for part in parts for f in fields(part)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings of a node, complete and checked."""

    data_dir: str = _setting(
        DEFAULT_DATA_DIR,
        "Directory of the log, the snapshots, term and vote; created with mode 0700. "
        "One process at a time uses it.",
    )
    id: str | None = _setting(
        "the address", "The server's id, at ``raft.protocol_version`` 3 only."
    )
    node_name: str | None = _setting(
        "the address",
        "Name of this node for clients of Consul, such as ``db1``: up to 128 letters, "
        "digits and ``-._:[]``. Each node has its own; letter case does not tell names "
        "apart. It can be changed at a restart.",
    )
    store: str = _setting(
        "file",
        "Kind of the store for log, term and vote: ``file``, or ``lmdb`` after "
        "``pip install 'txraft[lmdb]'``. A data directory keeps the kind it began "
        "with.",
    )
    log_level: str = _setting(
        "info",
        "Lowest level that is logged: debug, info, warn, error or critical. "
        "``twistd --logger`` takes precedence.",
    )
    listen: str = _setting(
        DEFAULT_LISTEN, "Twisted server endpoint (``tcp:`` or ``tcp6:``) for peers."
    )
    advertise: str = _setting(
        "from ``listen``",
        "This node's address, ``host:port``, as peers dial it. Needed when ``listen`` "
        "covers every interface. It names the node and cannot change later.",
    )
    peers: tuple[Server, ...] = _setting(
        "this node alone",
        "The first members, this node included: addresses, or ``{id, address}`` at "
        "``raft.protocol_version`` 3. They count at the first start; from then on the "
        "log holds the membership.",
    )
    join: bool = _setting(
        "false",
        "Instead of ``peers``: start empty, never campaign, wait to be added.",
    )
    http: HTTPSettings | None = field(
        metadata={"default": "see below", "doc": "The HTTP API."}
    )
    raft: Config = field(
        metadata={"default": "see below", "doc": "The tunables of consensus."}
    )
    limits: NodeLimits = field(
        metadata={"default": "see below", "doc": "Bounds of what others can use up."}
    )
    tls: TLSSettings | None = field(
        metadata={"default": "none", "doc": "Turns TLS among peers on; see below."}
    )
    insecure_peers: bool = _setting(
        "false",
        "Whether peers may connect beyond loopback although nothing authenticates or "
        "encrypts them. The node warns of it at each start.",
    )


def load_settings(
    path: str | None = None,
    flags: MappingType[str, str] | None = None,
    directory: str = ".",
) -> Settings:
    """Read the file *path*, let *flags* override it, and check the whole.

    *flags* maps names of flags, such as `data-dir`, to their text. Relative paths in
    flags, and the defaults when there is no file, start at *directory*; those in a
    file start at the file.
    Raises: ConfigError, whose `problems` name each place and what would be right.
    """
    settings, _, faults = read_settings(path, flags, directory)
    faults.check()
    return settings


def read_settings(
    path: str | None = None,
    flags: MappingType[str, str] | None = None,
    directory: str = ".",
) -> tuple[Settings, Mapping, Faults]:
    """Read settings as `load_settings` does, and also return the place of each.

    Returns: the settings, the document that they were read from, and its faults. Do not
        use the settings of a document with faults: defaults stand in for wrong values.
    Raises: ConfigError for a file that cannot be read at all.
    """
    faults = Faults()
    if path is None:
        document, base = Mapping({}, SettingPlace(0, "settings")), directory
    else:
        document, base = read_document(path, faults), os.path.dirname(path)
    # Before the flags: the default starts at the file, as a path in the file does.
    document.entries.setdefault(
        "data_dir", Scalar("text", DEFAULT_DATA_DIR, document.place)
    )
    override(document.entries, flags or {}, os.path.abspath(directory))
    settings = _settings(Section(document, faults), os.path.abspath(base))
    return settings, document, faults


def effective(settings: Settings) -> str:
    """Write *settings* as YAML that reads back as the same settings."""
    document: dict[str, object] = {
        f.name: getattr(settings, f.name) for f in fields(Settings)
    }
    for name in ("id", "node_name"):
        if document[name] is None:
            del document[name]
    if settings.join:  # the two together are refused when they are read
        del document["peers"]
    else:
        document["peers"] = as_documents(settings.peers)
    http = settings.http
    document["http"] = _http_document(http) if http else {"listen": None}
    document["tls"] = as_document(settings.tls)
    document["limits"] = settings.limits.named()
    document["raft"] = {name: getattr(settings.raft, name) for name in raft_settings()}
    dumped: str = yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
    return dumped


def _http_document(http: HTTPSettings) -> dict[str, object]:
    document = {f.name: getattr(http, f.name) for f in fields(http)}
    document["tls"] = as_document(http.tls)
    document["allowed_origins"] = list(http.allowed_origins) or None
    return {name: value for name, value in document.items() if value is not None}


def raft_settings() -> dict[str, str]:
    """Map the names of the fields of `Config` that a file can set to their types."""
    # The others, such as `notify`, hold functions, which no file can name.
    types = {f.name: str(f.type) for f in fields(Config)}
    return {name: kind for name, kind in types.items() if kind in _READERS}


def field_documentation(
    kind: type[Settings | HTTPSettings | TLSSettings | HTTPTLSSettings],
) -> list[tuple[str, str, str]]:
    """List each field's name, default and sentence, for the manual."""
    return [(f.name, f.metadata["default"], f.metadata["doc"]) for f in fields(kind)]


# The schema ---------------------------------------------------------------------


def _settings(top: Section, base: str) -> Settings:
    names = [f.name for f in fields(Settings)]
    top.known(names, _elsewhere(names))
    insecure = top.read("insecure_peers", False, boolean)
    # A tls section that has faults counts as well: those are reported by themselves.
    safe = insecure or (top.given("tls") and not top.null("tls"))
    permission = "secure it with tls, or permit it with insecure_peers: true"
    listen = _listen(top, DEFAULT_LISTEN, safe, permission)
    advertise = _advertise(top, listen)
    join = top.read("join", False, boolean)
    raft_section, limits_section = top.section("raft"), top.section("limits")
    raft = _raft(raft_section, {name: name for name in names})
    identity = _id(top, raft)
    peers = read_members(
        top, OwnServer(advertise, identity), raft.protocol_version, join
    )
    http_section = top.section("http")
    http, limits = _http(http_section, base), _limits(limits_section)
    _fit(raft_section, limits_section, raft, limits, http is not None)
    settings = Settings(
        data_dir=top.read("data_dir", "", lambda value: _directory(value, base)),
        id=identity,
        node_name=top.read("node_name", None, _node_name),
        store=top.read("store", "file", _store),
        log_level=top.read("log_level", "info", _log_level),
        listen=listen,
        advertise=advertise,
        peers=peers,
        join=join,
        http=http,
        raft=raft,
        limits=limits,
        tls=peer_tls(top, base, advertise, [peer.address for peer in peers]),
        insecure_peers=insecure,
    )
    if http is not None:
        _refuse_shared_port(top, http_section, settings, http)
    return settings


def _elsewhere(names: list[str]) -> dict[str, str]:
    """Map the settings of all sections to their full names."""
    sections = {
        "limits": list(NodeLimits().named()),
        "http": [f.name for f in fields(HTTPSettings)],
        "tls": [f.name for f in fields(TLSSettings)],
        "raft": list(raft_settings()),
    }
    return {
        name: f"{section}.{name}"
        for section, settings in sections.items()
        for name in settings
        if name not in names
    }


def _refuse_shared_port(
    top: Section, section: Section, settings: Settings, http: HTTPSettings
) -> None:
    """Note a fault if peers and clients would use one port."""
    keys = ("listen", "advertise")
    if not (top.sound(*keys) and section.sound(*keys)):
        return
    if _meet(parse_listen(settings.listen), parse_listen(http.listen)):
        key, written, other = "listen", http.listen, settings.listen
    elif urlsplit(http.advertise).netloc == settings.advertise:
        key, written, other = "advertise", http.advertise, settings.advertise
    else:
        return
    place = section.place(key) if section.given(key) else top.place(key)
    section.fault(
        key,
        f"is {written!r}, which has the port of {key} ({other!r}): peers and clients "
        "need a port each",
        place,
    )


def _meet(one: Listen, other: Listen) -> bool:
    hosts = (one.host, other.host)
    is_shared = one.host == other.host or any(map(is_wildcard, hosts))
    return is_shared and one.port == other.port


def _listen(section: Section, default: str, insecure: bool, permission: str) -> str:
    listen = section.read("listen", default, _endpoint)
    if not insecure and not is_loopback(parse_listen(listen).host):
        section.fault(
            "listen",
            f"is {listen!r}, which is reached from other machines, with nothing to "
            f"authenticate them: add interface=127.0.0.1, {permission}",
        )
    return listen


def _advertise(top: Section, listen: str) -> str:
    default = parse_listen(listen).address
    if default is None and not top.given("advertise"):
        top.fault(
            "advertise",
            "is missing, it must be this node's host:port as peers dial it, because "
            "listen covers every interface",
            top.place("listen"),
        )
    return top.read("advertise", default or "", address)


def _id(top: Section, raft: Config) -> str | None:
    identity = top.read("id", None, text)
    if identity is not None and raft.protocol_version < FIRST_VERSION_WITH_IDS:
        top.fault(
            "id",
            "needs raft.protocol_version: 3; below that the address is the id, so "
            "leave it out",
        )
    return identity


def _http(http: Section, base: str) -> HTTPSettings | None:
    http.known([f.name for f in fields(HTTPSettings)], {})
    if http.null("listen"):
        if http.given("advertise"):
            http.fault("advertise", "is given although http.listen turns HTTP off")
        return None
    insecure = http.read("insecure", False, boolean)
    tls, tokens = http_tls(http, base), tokens_path(http, base)
    safe = insecure or (tls is not None and (tokens or tls.ca) is not None)
    permission = "secure it with http.tls and tokens, or permit it with insecure: true"
    listen = _listen(http, DEFAULT_HTTP_LISTEN, safe, f"{permission} under http")
    scheme = "http" if tls is None else "https"
    address = parse_listen(listen).address
    if address is None and not http.given("advertise"):
        http.fault(
            "advertise",
            "is missing, it must be this node's URL as other nodes reach it, because "
            "http.listen covers every interface",
            http.place("listen"),
        )
    return HTTPSettings(
        listen=listen,
        advertise=http.read(
            "advertise", f"{scheme}://{address}", lambda value: _url(value, scheme)
        ),
        tls=tls,
        tokens=tokens,
        open_probes=http.read("open_probes", True, boolean),
        insecure=insecure,
        allowed_origins=tuple(
            origin for origin, _ in http.read_all("allowed_origins", _origin)
        ),
    )


def _raft(section: Section, elsewhere: dict[str, str]) -> Config:
    types = raft_settings()
    section.known(types, elsewhere)
    config = Config(
        **{
            name: section.read(name, getattr(RAFT_DEFAULTS, name), _READERS[kind])
            for name, kind in types.items()
        }
    )
    if section.sound(*types):
        _refuse(section, types, lambda: validate_config(config))
    return config


def _limits(section: Section) -> NodeLimits:
    section.known(NodeLimits().named(), {})
    return NodeLimits(
        http=_limits_of(section, HTTPLimits),
        connections=_limits_of(section, ConnectionLimits),
        messages=_limits_of(section, MessageLimits),
    )


def _fit(
    raft_section: Section,
    limits_section: Section,
    raft: Config,
    limits: NodeLimits,
    serves_http: bool,
) -> None:
    """Note limits that contradict those of another part, where they were written."""
    sections = {**dict.fromkeys(numbers_of(raft), raft_section)}
    sections |= dict.fromkeys(limits.named(), limits_section)
    if not all(section.sound(name) for name, section in sections.items()):
        return
    of_peers = numbers_of(limits.connections, limits.messages)
    groups = [numbers_of(raft), of_peers]
    if serves_http:
        groups.append(numbers_of(limits.http))
    for problem in [
        *out_of_bounds(of_peers),
        *contradictions(of_peers),
        *contradictions(*groups),
    ]:
        subject, _, rest = problem.partition(" ")
        words = re.findall(r"\w+", problem)
        mentioned = [name for name in words if name in sections]
        # A limit that was left to its default has no line: the fault is at the other.
        given = [name for name in mentioned if sections[name].given(name)]
        name = (given or mentioned)[0]
        sections[subject].fault(subject, rest, sections[name].place(name))


def _limits_of(section: Section, kind: type[L]) -> L:
    limits = kind()
    readers = {
        f.name: _READERS[str(f.type)]
        if f.name in MAY_BE_ZERO
        else _positive(_READERS[str(f.type)])
        for f in fields(kind)
    }
    values = {
        name: section.read(name, getattr(limits, name), reader)
        for name, reader in readers.items()
    }
    return _refuse(section, values, lambda: kind(**values)) or limits


def _refuse(section: Section, names: Iterable[str], check: Callable[[], T]) -> T | None:
    """Call *check*; note what it refuses, at the field that was written."""
    try:
        return check()
    except ConfigError as error:
        for problem in error.problems:
            subject, _, rest = problem.partition(" ")
            mentioned = [name for name in names if name in problem]
            given = [name for name in mentioned if section.given(name)]
            section.fault(subject, rest, section.place((given or mentioned)[0]))
        return None


# Values -------------------------------------------------------------------------


def _positive(convert: Callable[[Scalar], Any]) -> Callable[[Scalar], Any]:
    def positive(value: Scalar) -> Any:
        converted = convert(value)
        if converted <= 0:
            raise ValueError("above 0")
        return converted

    return positive


def _endpoint(value: Scalar) -> str:
    try:
        parse_listen(text(value))
    except ValueError as error:
        raise ValueError(
            f"a Twisted endpoint such as {DEFAULT_LISTEN} ({error})"
        ) from error
    return value.text


def _url(value: Scalar, scheme: str) -> str:
    url = text(value)
    try:
        parts = urlsplit(url)
        # A URL may leave its port out, and an address may not: any port will do here.
        host, _ = parse_address(parts.netloc if parts.port else f"{parts.netloc}:80")
        plain = f"{scheme}://{parts.netloc}" == url.rstrip("/")
    except ValueError:
        plain, host = False, ""
    if not plain or is_wildcard(host):
        raise ValueError(f"a URL of this node, such as {scheme}://127.0.0.1:8500")
    return url.rstrip("/")


def _origin(value: Scalar) -> str:
    return parse_origin(text(value))


def _directory(value: Scalar, base: str) -> str:
    path = os.path.normpath(os.path.join(base, text(value)))
    nearest = path
    # lexists: a link that leads nowhere is there, and a directory cannot be made of it.
    while not os.path.lexists(nearest):
        nearest = os.path.dirname(nearest)
    if not os.path.isdir(nearest):
        raise ValueError(f"a directory, but {nearest} is none")
    if not os.access(nearest, os.R_OK | os.W_OK | os.X_OK):
        raise ValueError(f"a directory of ours, but {nearest} cannot be written")
    return path


def _node_name(value: Scalar) -> str:
    if not is_node_name(text(value)):
        raise ValueError("up to 128 letters, digits and -._:[], such as db1")
    return value.text


def _store(value: Scalar) -> str:
    if value.text not in STORE_KINDS:
        raise ValueError(f"one of {', '.join(STORE_KINDS)}")
    if value.text == "lmdb" and find_spec("lmdb") is None:
        raise ValueError("file, or lmdb after pip install 'txraft[lmdb]'")
    return value.text


def _log_level(value: Scalar) -> str:
    if value.text not in LOG_LEVELS:
        raise ValueError(f"one of {', '.join(LOG_LEVELS)}")
    return value.text
