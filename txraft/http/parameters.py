"""Query parameters: check the names in a request, and drop those that are not used.

A read accepts any parameter, as in Consul: an unknown one is a hint that need not be
followed, or a flag of a newer client. A write accepts only known parameters: a mistyped
condition that were ignored would destroy something.
"""

from __future__ import annotations

from txraft.http.answers import HTTPRefusal, refused
from txraft.http.inflight import DATACENTER, HTTPCall

_ALWAYS = frozenset({"dc", "pretty", "token"})
_TENANCY = ("ns", "partition")
_HINTS = frozenset({*_TENANCY, "stale", "consistent", "cached", "relay-factor"})
_FILTERED = (b"/v1/catalog/", b"/v1/health/", b"/v1/agent/")
_FLAGS = frozenset({"recurse", "keys", "raw", "stale", "consistent", "passing"})


def check_parameters(call: HTTPCall, known: frozenset[str]) -> None:
    """Check the parameters of *call*, and keep only those in *known*.

    Raises: HTTPRefusal
    """
    given = call.parameters
    if call.writes:
        for name in given.keys() - known - _ALWAYS - _HINTS:
            raise HTTPRefusal(400, f"The parameter {name!r} is not served here.")
    if given.get("dc", DATACENTER) not in ("", DATACENTER):
        raise refused(f"No path to datacenter: there is only {DATACENTER}.")
    for name in _TENANCY:
        if given.get(name, "") not in ("", "default"):
            raise HTTPRefusal(
                400, f"Invalid query parameter: {name!r}: there are none."
            )
    if given.get("filter") and call.path.startswith(_FILTERED):
        raise HTTPRefusal(
            400, "The parameter 'filter' is not served: all would be listed."
        )
    # The call may be forwarded to a leader of another release, which would refuse
    # parameters that it does not know.
    for name in given.keys() - known - _ALWAYS:
        del given[name]
    if not call.writes:
        given.update(dict.fromkeys(given.keys() & _FLAGS, ""))
