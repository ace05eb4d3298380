"""`txraft demo`: the settings of its nodes, and ports that are free."""

from __future__ import annotations

import socket
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp

from twisted.trial.unittest import SynchronousTestCase

from txraft.cli.demo import free_ports, plan, settings_of
from txraft.settings.settings import load_settings


class Demo(SynchronousTestCase):
    """The nodes of `txraft demo`."""

    def test_settings(self) -> None:
        """Each node's settings are sound, and name the same members."""
        directory = Path(mkdtemp())
        self.addCleanup(rmtree, directory)
        members = plan(3, list(range(21000, 21006)))

        for member in members:
            path = directory / f"{member.name}.yaml"
            path.write_text(settings_of(member, members))
            settings = load_settings(str(path), {}, str(directory))
            self.assertEqual(settings.advertise, member.address)
            self.assertEqual(
                [peer.address for peer in settings.peers], [m.address for m in members]
            )
            self.assertEqual(settings.http.advertise, member.url)

    def test_free_ports(self) -> None:
        """As many ports as asked for, all different and free."""
        ports = free_ports(6)

        self.assertEqual(len(set(ports)), 6)
        for port in ports:
            with socket.socket() as candidate:
                candidate.bind(("127.0.0.1", port))
