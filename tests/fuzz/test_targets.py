"""Every fuzz target, for a moment: mutations of good inputs, and anything else."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.fuzz.__main__ import mutated
from tests.fuzz.targets import SEGMENT, TARGETS, good_disk, samples

MODERATE = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)


class Targets(SynchronousTestCase):
    """Whatever comes from outside is read, or refused as it should be."""

    def test_good_inputs_are_read(self) -> None:
        """The inputs that fuzzing begins with are themselves no finding."""
        for name, target in TARGETS.items():
            for sample in samples(name):
                target(sample)

    def test_flip_of_any_byte_of_a_log(self) -> None:
        """Wherever a byte is flipped, no acknowledged write is lost in silence."""
        content = good_disk().file(SEGMENT).data
        for at in range(len(content)):
            flip = at.to_bytes(2, "big") + bytes([content[at] ^ 0xFF])
            TARGETS["edited_log"](flip)

    @MODERATE
    @given(st.sampled_from(sorted(TARGETS)), st.binary(max_size=300))
    def test_anything(self, name: str, data: bytes) -> None:
        """Bytes without any meaning raise nothing unexpected."""
        TARGETS[name](data)

    @MODERATE
    @given(st.sampled_from(sorted(TARGETS)), st.randoms(use_true_random=False))
    def test_mutated_good_inputs(self, name: str, random) -> None:  # type: ignore[no-untyped-def]
        """Nor do inputs that are almost right."""
        TARGETS[name](mutated(random.choice(samples(name)), random))
