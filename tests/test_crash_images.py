"""A few stories of crash images; `python -m tests.crash_images` tells many."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.crash_images import Story
from txraft.testing.fullstack.disk import SimulatedDisk


class CrashImages(SynchronousTestCase):
    def test_every_image_of_a_story_is_recovered(self) -> None:
        """Power may fail ahead of any operation, and nothing acknowledged is lost."""
        story = Story(6)

        story.run()

        self.assertGreater(story.images, 500)
        self.assertGreater(story.two_steps, 0)

    def test_image_of_another_disk_is_no_image_of_the_story(self) -> None:
        """Images are held against the truth: an empty disk is not what was written."""
        story = Story(1)
        story.append()
        story.settle()
        empty = SimulatedDisk()
        empty.make_directory(story.stores.log._directory.parent)

        self.assertRaises(AssertionError, story.check, empty)
