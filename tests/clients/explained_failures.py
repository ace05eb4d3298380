"""A check for Schemathesis: a status from 500 on says what became of the request.

Consul answers 500 where others answer 400, as clients look for it there. So the status
alone says nothing of a fault: one is a failure without an outcome, or one that the node
did not foresee.
"""

from __future__ import annotations

from typing import Any

import schemathesis

UNFORESEEN = "The node failed to serve this"


@schemathesis.check
def failure_is_explained(ctx: Any, response: Any, case: Any) -> None:
    """Refuse what is no answer of ours."""
    if response.status_code >= 500:
        assert response.headers.get("x-txraft-outcome"), "there is no outcome"
        assert UNFORESEEN not in response.text, response.text
