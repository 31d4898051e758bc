"""How much memory a computation takes on a CPU."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable

import torch


def peak_bytes(compute: Callable[[], object]) -> int:
    """The most that it holds at a time, beyond what was there before, by torch's profiler, which sees every allocation."""
    gc.collect()  # what earlier tests left behind must not be freed while the profiler counts
    activities = [torch.profiler.ProfilerActivity.CPU]
    with warnings.catch_warnings(), torch.profiler.profile(activities=activities, profile_memory=True) as watched:
        warnings.simplefilter("ignore")
        compute()
    live = highest = 0
    changes = [one for one in watched.profiler.kineto_results.events() if one.name() == "[memory]"]
    for event in sorted(changes, key=lambda one: one.start_ns()):
        live += event.nbytes()
        highest = max(highest, live)
    return highest
