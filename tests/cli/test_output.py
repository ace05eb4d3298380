"""Tables and sizes."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.support.cli_commands import CommandCase
from txraft.cli.output import Output, printable, size_text, table_lines

HOSTILE = "evil\x1b]0;owned\x07\nFAKE\x9b2J"
SHOWN = "evil\\u001b]0;owned\\u0007\\u000aFAKE\\u009b2J"


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

    def test_cells_are_one_line(self) -> None:
        """Nothing in a cell moves the cursor, begins a line or a column."""
        lines = list(table_lines(("KEY",), [[HOSTILE], ["a\tb"]]))

        self.assertEqual(lines, ["KEY", SHOWN, "a\\u0009b"])


class Printable(SynchronousTestCase):
    """What a terminal would obey is shown instead."""

    def test_text_of_people_stays(self) -> None:
        """Letters of any script, joined emoji, lines and tabs are not touched."""
        text = "Grüße\t\u05d0 \U0001f469\u200d\U0001f680\n"

        self.assertEqual(printable(text), text)

    def test_controls(self) -> None:
        """Controls of both sets, DEL, marks of direction, lone surrogates."""
        for character in "\x00\x07\x1b\r\x7f\x9b\u202e\u2066\u2028\udc80":
            self.assertEqual(printable(character), f"\\u{ord(character):04x}")


class OnATerminal(CommandCase):
    """Keys and values are anybody's who may write; a terminal obeys none of them."""

    def setUp(self) -> None:
        super().setUp()
        self.passed("kv", "put", HOSTILE, "\x1b[2Jvalue")
        self.patch(Output, "is_terminal", True)

    def test_no_command_sends_a_sequence(self) -> None:
        """Whatever a command writes, escape sequences are shown and not sent."""
        for command in (
            ("list",),
            ("list", "--long"),
            ("list", "--json"),
            ("get", HOSTILE),
            ("get", HOSTILE, "--json"),
            ("get", "\x1b[2J"),
            ("watch", HOSTILE, "--count", "1"),
            ("watch", "evil", "--prefix", "--count", "1"),
            ("watch", "evil", "--prefix", "--count", "1", "--json"),
            ("export",),
            ("put", HOSTILE, "x", "--cas", "1"),
        ):
            result = self.txraft("kv", *command)

            written = result.stdout + result.stderr
            self.assertTrue(written, command)
            for character in "\x1b\x07\x9b":
                self.assertNotIn(character, written, command)

    def test_key_is_one_line(self) -> None:
        """A key with a newline in it is one line of a list."""
        self.assertEqual(self.passed("kv", "list"), SHOWN + "\n")

    def test_value_stays_as_it_is_in_a_pipe(self) -> None:
        """What is read by a program has every byte."""
        self.patch(Output, "is_terminal", False)

        found = self.txraft("kv", "get", HOSTILE).stdout_bytes

        self.assertEqual(found, b"\x1b[2Jvalue")
