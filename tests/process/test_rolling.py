"""A rolling restart of three members; `python -m tests.process.rolling` does more."""

from __future__ import annotations

import sys

from tests.process.rolling import RollingCase


class RollingRestart(RollingCase):
    """Members stop and start one after the other, and clients need not know."""

    async def test_no_request_fails(self) -> None:
        """Each request is answered 200, and what was acknowledged last is there."""
        writers = await self.restart_all()

        failed = [failure for writer in writers for failure in writer.failed]
        self.assertEqual(failed, [], "\n".join(["failed requests:", *failed]))
        found = [await self.stored(writer) for writer in writers]
        self.assertEqual(found, [writer.written for writer in writers])
        sys.stdout.write(
            f"{self.rounds} rounds: {sum(found)} requests written, none failed\n"
        )
