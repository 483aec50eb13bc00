"""What all tests share."""

from __future__ import annotations

import os
import signal

import pytest
from hypothesis import settings

from tests.compile_help import Alone

# torch's threads only get in each other's way on tensors as small as the tests'.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell starts what runs in the background with it ignored, and all our processes would inherit
# that: those that a test interrupts would never end.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Derandomised: the same examples in every run, so that a red run is the change's fault.
settings.register_profile("suite", derandomize=True, max_examples=40, deadline=None)
settings.load_profile("suite")


@pytest.fixture(scope="session")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Alone:
    """Real kernels to compare with."""
    return Alone.of_run(tmp_path_factory)
