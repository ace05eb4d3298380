"""A plot of rates, if matplotlib is installed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.rounds import Results
from benchmarks.systems import System

OURS, DURABLE, NOT_DURABLE, NO_RAFT = "#1f5fa8", "#7f7f7f", "#d0d0d0", "#e0c050"


def plot_rates(systems: Sequence[System], results: Results, path: Path) -> None:
    """Draw one panel for each number in flight, a bar for each system.

    Raises: SystemExit, if matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError:
        raise SystemExit("--plot needs: pip install matplotlib") from None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    points = sorted({in_flight for _, in_flight in results})
    figure, panels = pyplot.subplots(
        1, len(points), figsize=(4 * len(points), 0.4 * len(systems) + 1.2), sharey=True
    )
    names = [system.name for system in systems]
    for panel, point in zip(
        [panels] if len(points) == 1 else panels, points, strict=True
    ):
        found = [results[name, point]["rate"] for name in names]
        panel.barh(
            names,
            [each.median for each in found],
            xerr=[
                [each.median - each.least for each in found],
                [each.most - each.median for each in found],
            ],
            color=[_colour(system) for system in systems],
        )
        panel.set_title(f"{point} in flight")
        panel.set_xlabel("commits/s")
    panel.invert_yaxis()  # which all panels share
    figure.suptitle(
        "txraft blue, peers that sync dark grey, those that do not light grey, "
        "no Raft at all yellow"
    )
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def _colour(system: System) -> str:
    if system.name.startswith("txraft"):
        return OURS
    if system.name.startswith("bare"):
        return NO_RAFT
    return DURABLE if system.is_synced else NOT_DURABLE
