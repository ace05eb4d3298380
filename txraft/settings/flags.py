"""Let flags of the command line override a settings file."""

from __future__ import annotations

import os
from collections.abc import Mapping as MappingType

from txraft.settings.document import Mapping, Scalar, Sequence, SettingPlace, Value


def override(
    entries: dict[str, Value], flags: MappingType[str, str], directory: str
) -> None:
    """Put *flags* into *entries*; relative paths in them start at *directory*."""
    for flag, written in flags.items():
        place = SettingPlace(0, f"--{flag}")
        section, key = entries, flag.replace("-", "_")
        if flag.startswith("http-"):
            section, key = _http_entries(entries, place), flag.removeprefix("http-")
        section[key] = _flag_value(flag, written, directory, place)
    # A flag overrides what contradicts it in the file. Two flags that contradict each
    # other stay, to be refused like two such lines.
    for flag, other in (("join", "peers"), ("peers", "join")):
        if flag in flags and other not in flags:
            entries.pop(other, None)


def _http_entries(entries: dict[str, Value], place: SettingPlace) -> dict[str, Value]:
    http = entries.get("http")
    if not isinstance(http, Mapping):
        http = entries["http"] = Mapping({}, place)
    return http.entries


def _flag_value(flag: str, written: str, directory: str, place: SettingPlace) -> Value:
    if flag == "peers":
        items = (Scalar("text", item.strip(), place) for item in written.split(","))
        return Sequence(tuple(items), place)
    if flag == "join":
        return Scalar("boolean", written, place)
    if flag == "data-dir" and written:
        written = os.path.join(directory, written)
    return Scalar("null" if written == "null" else "text", written, place)
