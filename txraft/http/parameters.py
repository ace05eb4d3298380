"""Which query parameters a request may carry.

A read takes any, as Consul does: what it does not know is a hint that it need not
follow, or a flag of a newer client. A write takes what it knows and no more, because
one that is mistyped, such as a condition, would make it destroy something.
"""

from __future__ import annotations

from txraft.http.answers import Refusal, refused
from txraft.http.inflight import DATACENTER, Call

_ALWAYS = frozenset({"dc", "pretty", "token"})
_TENANCY = ("ns", "partition")
_HINTS = frozenset({*_TENANCY, "stale", "consistent", "cached", "relay-factor"})
_FILTERED = (b"/v1/catalog/", b"/v1/health/", b"/v1/agent/")
_FLAGS = frozenset({"recurse", "keys", "raw", "stale", "consistent", "passing"})


def check_parameters(call: Call, known: frozenset[str]) -> None:
    """Check what *call* carries, and keep of it what is *known*.

    Raises: Refusal
    """
    given = call.parameters
    if call.writes:
        for name in given.keys() - known - _ALWAYS - _HINTS:
            raise Refusal(400, f"The parameter {name!r} is not served here.")
    if given.get("dc", DATACENTER) not in ("", DATACENTER):
        raise refused(f"No path to datacenter: there is only {DATACENTER}.")
    for name in _TENANCY:
        if given.get(name, "") not in ("", "default"):
            raise Refusal(400, f"Invalid query parameter: {name!r}: there are none.")
    if given.get("filter") and call.path.startswith(_FILTERED):
        raise Refusal(400, "The parameter 'filter' is not served: all would be listed.")
    # A leader of another release that this may be passed on to knows no other ones.
    for name in given.keys() - known - _ALWAYS:
        del given[name]
    if not call.writes:
        given.update(dict.fromkeys(given.keys() & _FLAGS, ""))
