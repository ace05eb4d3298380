"""Under pytest: run from a directory that is removed afterwards.

`mktemp` of trial makes directories where a test runs. Under trial that is
`_trial_temp`; under pytest it would be the checkout.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def _in_scratch_directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    before = os.getcwd()
    os.chdir(tmp_path_factory.mktemp("run"))
    yield
    os.chdir(before)
