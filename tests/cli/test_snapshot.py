"""`txraft snapshot`: backups are whole, checked, and for their owner alone."""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

from tests.support.cli_commands import CommandCase
from txraft.cli.files import create_file


class Snapshots(CommandCase):
    """`txraft snapshot`."""

    def setUp(self) -> None:
        super().setUp()
        for i in range(3):
            self.passed("kv", "put", f"k{i}", "v")
        self.saved = self.file(b"").with_name("backup.tgz")
        self.passed("snapshot", "save", self.saved)

    def test_save(self) -> None:
        """The file is whole, for its owner alone, and nothing lies beside it."""
        told = json.loads(self.passed("snapshot", "inspect", self.saved, "--json"))

        self.assertEqual(told["keys"], 3)
        self.assertEqual(self.saved.stat().st_mode & 0o777, 0o600)
        self.assertEqual(
            {path.name for path in self.saved.parent.iterdir()}, {"backup.tgz", "file"}
        )

    def test_save_beside_a_link(self) -> None:
        """A link in the place of the unfinished file is not followed."""
        victim = self.file(b"precious")
        self.saved.with_name("backup.tgz.unfinished").symlink_to(victim)

        self.passed("snapshot", "save", self.saved)

        self.assertEqual(victim.read_bytes(), b"precious")
        self.assertFalse(self.saved.is_symlink())
        self.assertEqual(self.saved.stat().st_mode & 0o777, 0o600)

    def test_save_for_its_owner_at_once(self) -> None:
        """Nobody can open the file in between, whatever the umask says."""
        self.addCleanup(os.umask, os.umask(0))
        path = self.saved.with_name("new")
        with create_file(path, 0o600) as stream:
            self.assertEqual(os.fstat(stream.fileno()).st_mode & 0o777, 0o600)
        self.assertRaises(FileExistsError, create_file, path, 0o600)

    def test_save_in_vain(self) -> None:
        """A backup that does not come leaves the one before as it is."""
        before = self.saved.read_bytes()
        self.network.refusing = {"n1:8500", "n2:8500"}

        result = self.txraft("snapshot", "save", self.saved)

        self.assertEqual(result.exit_code, 3)
        self.assertEqual(self.saved.read_bytes(), before)
        self.assertEqual(len(list(self.saved.parent.iterdir())), 2)

    def test_restore(self) -> None:
        """Everything is as it was; without --yes it is asked for first."""
        self.passed("kv", "put", "later", "x")

        refused = self.txraft("snapshot", "restore", self.saved, stdin=b"n\n")
        self.assertEqual(refused.exit_code, 1)
        self.assertEqual(self.passed("kv", "get", "later"), "x")

        self.passed("snapshot", "restore", self.saved, "--yes")
        self.assertEqual(self.passed("kv", "list"), "k0\nk1\nk2\n")

    def test_inspect_damaged(self) -> None:
        """Whatever is changed in a backup is noticed, and told by name."""
        for change in (
            lambda files: files.__setitem__("state.bin", files["state.bin"] + b"x"),
            lambda files: files.pop("SHA256SUMS"),
            lambda files: files.__setitem__("meta.json", b"{}"),
            lambda files: files.__setitem__("more", b""),
        ):
            path = self.changed(change)
            result = self.txraft("snapshot", "inspect", path)
            self.assertEqual(result.exit_code, 5, result.output)
            self.assertIn(str(path), result.stderr)

    def test_inspect_cut(self) -> None:
        """So is what is missing at the end, be it a byte."""
        whole = self.saved.read_bytes()
        for missing in (1, 20, len(whole) // 2, len(whole)):
            path = self.file(whole[:-missing])
            result = self.txraft("snapshot", "inspect", path)
            self.assertEqual(result.exit_code, 5, missing)

    def changed(self, change: Callable[[dict[str, bytes]], object]) -> Path:
        """Write the backup anew with other files in it."""
        files = {}
        with tarfile.open(self.saved) as archive:
            for member in archive:
                file = archive.extractfile(member)
                assert file is not None
                files[member.name] = file.read()
        change(files)
        made = io.BytesIO()
        with tarfile.open(fileobj=made, mode="w") as archive:
            for name, data in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
        return self.file(gzip.compress(made.getvalue()))
