"""Tables, and samples in them."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.compare import rates_table, ratio_table
from benchmarks.figures import Spread
from benchmarks.report import conditions
from benchmarks.scale import model_points, model_table
from benchmarks.systems import SYSTEMS
from benchmarks.tables import Table


class Tables(SynchronousTestCase):
    """One table, as text and as reStructuredText."""

    def table(self) -> Table:
        """Make a table of two rows and a note."""
        table = Table("Rates", ["system", "1"])
        table.add("txraft", "1200")
        table.add("etcd", "800")
        table.notes.append("A note.")
        return table

    def test_as_text(self) -> None:
        """The first column to the left, numbers to the right."""
        self.assertEqual(
            self.table().as_text(),
            "Rates\n"
            "\n"
            "system     1\n"
            "------------\n"
            "txraft  1200\n"
            "etcd     800\n"
            "\n"
            "A note.\n",
        )

    def test_as_rst(self) -> None:
        """A list-table, its notes behind it."""
        self.assertEqual(
            self.table().as_rst(),
            "Rates\n"
            "\n"
            ".. list-table::\n"
            "   :header-rows: 1\n"
            "\n"
            "   * - system\n"
            "     - 1\n"
            "   * - txraft\n"
            "     - 1200\n"
            "   * - etcd\n"
            "     - 800\n"
            "\n"
            "A note.\n",
        )

    def test_add_with_too_few_cells(self) -> None:
        """A row has as many cells as the header."""
        with self.assertRaisesRegex(ValueError, "1 cells for 2 columns"):
            self.table().add("raftos")


def rates(**medians: float) -> dict[tuple[str, int], dict[str, Spread]]:
    """Make results with 64 in flight, by system."""
    return {
        (name.replace("_", "-"), 64): {"rate": Spread.of([median])}
        for name, median in medians.items()
    }


class Comparison(SynchronousTestCase):
    """What `compare` makes of rates."""

    def test_rates_table_says_what_is_synced(self) -> None:
        """A rate says little unless it is known what it waits for."""
        systems = [s for s in SYSTEMS if s.name in ("txraft", "pysyncobj")]

        table = rates_table(systems, rates(txraft=900.0, pysyncobj=500.0))

        self.assertEqual(
            table.rows, [("txraft", "yes", "900"), ("pysyncobj", "no", "500")]
        )

    def test_ratio_table_takes_the_best_of_a_kind(self) -> None:
        """The best durable peer is whichever is, and what did not run has no row."""
        results = rates(txraft=3000.0, hashicorp_64=500.0, etcd=1500.0)

        rows = dict(ratio_table(results).rows)

        self.assertEqual(
            rows,
            {
                "txraft : the best durable peer": "2.00",
                "txraft : etcd": "2.00",
            },
        )

    def test_conditions_warn_of_a_busy_machine(self) -> None:
        """Rates of a machine that others use are to be told from quiet ones."""
        quiet = [{"syncs": 5000.0, "foreign_cores": 0.1}]
        busy = [{"syncs": 200.0, "foreign_cores": 1.5}]

        self.assertNotIn("busy", " ".join(conditions(quiet)))
        self.assertIn("busy", " ".join(conditions(busy)))


class Model(SynchronousTestCase):
    """The leader's cost, continued to more members."""

    def test_model_points_need_two_sizes(self) -> None:
        """One point makes no line."""
        found = {
            "3 members, 64 in flight": {"leader_us": 10.0},
            "5 members, 64 in flight": {"leader_us": 14.0},
            "3 members, 512 in flight": {"leader_us": 8.0},
            "a follower is down": {"leader_us": 9.0},
        }

        self.assertEqual(model_points(found, [3, 5]), {64: [(3, 10.0), (5, 14.0)]})

    def test_model_table_tells_where_a_core_is_full(self) -> None:
        """20 microseconds for each are 50 000 in a second."""
        table = model_table({64: [(3, 10.0), (8, 20.0)]})

        found = {row[1]: row[2:] for row in table.rows}
        self.assertEqual(
            found["8"],
            ("20.0\N{NO-BREAK SPACE}µs", "50\N{NO-BREAK SPACE}000"),
        )
        self.assertEqual(found["15"][0], "34.0\N{NO-BREAK SPACE}µs")
