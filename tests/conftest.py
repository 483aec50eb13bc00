"""What all tests share."""

from __future__ import annotations

from hypothesis import settings

# Derandomised: the same examples in every run, so that a red run is the change's fault.
settings.register_profile("suite", derandomize=True, max_examples=40, deadline=None)
settings.load_profile("suite")
