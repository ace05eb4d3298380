"""The page of the manual that has every metric, made from the code.

    python docs/metrics_page.py > docs/reference/metrics.rst

A test compares the page in the checkout with what this makes.
"""

from __future__ import annotations

import sys

from layout import definition, section

from txraft.http.metrics import SECTIONS, Row

_HEAD = """\
.. This page is made by ``python docs/metrics_page.py``.

Metrics
=======

``/v1/agent/metrics?format=prometheus`` has the metrics of one node, and
``/v1/agent/metrics`` the same as JSON in the form of Consul's agents. Where
hashicorp/raft has a metric, its name is the one that its Prometheus sink writes,
without a prefix. Times are in milliseconds.

A dashboard that was made for Consul finds them with::

    metric_relabel_configs:
      - source_labels: [__name__]
        regex: '(raft|api)_.*'
        target_label: __name__
        replacement: consul_$0

They cost nothing to speak of: a write is timed once, an entry never, and everything
else is read when the metrics are asked for. Beside those listed here, the text format
has ``process_...``, with the memory and the files of the process. A counter is of the
type *untyped* in the text format, because a name that ends in ``_total`` would not be
hashicorp/raft's.
"""

_SENTENCES = {
    "The log": """\
The metrics from ``raft_wal_log_appends`` on are counted by the log store; the store in
LMDB has none of them. What a log store of your own returns from ``metrics()`` is added
under its name, after ``raft_wal_``.""",
}


def page() -> str:
    """Return the page as text."""
    return _HEAD + "".join(
        section(title, _SENTENCES.get(title, ""), map(_definition, rows))
        for title, rows in SECTIONS.items()
    )


def _definition(row: Row) -> str:
    by = ", ".join(f"``{label}``" for label in row.labels)
    kind = f"{row.kind.value}, by {by}" if by else row.kind.value
    return definition(f"``{row.name}`` ({kind})", f"{row.doc} {row.advice}")


if __name__ == "__main__":
    sys.stdout.write(page())
