"""Tables and sizes."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txraft.cli.output import size_text, table_lines


class Tables(SynchronousTestCase):
    """Columns for people."""

    def test_columns(self) -> None:
        """Numbers stand to the right, the rest to the left, absence is a dash."""
        rows = [("a", 1, True, None), ("long", 1000, False, "x")]

        self.assertEqual(
            list(table_lines(("NAME", "N", "OK", "MORE"), rows)),
            ["NAME     N  OK   MORE", "a        1  yes  -", "long  1000  no   x"],
        )

    def test_empty(self) -> None:
        """Without rows there are the headings."""
        self.assertEqual(list(table_lines(("A", "B"), [])), ["A  B"])

    def test_sizes(self) -> None:
        """Bytes in the unit that suits them."""
        sizes = [size_text(n) for n in (0, 1023, 1024, 5 << 20, 5 << 40)]

        self.assertEqual(sizes, ["0 B", "1023 B", "1.0 KiB", "5.0 MiB", "5120.0 GiB"])
