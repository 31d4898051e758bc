"""Records steps with torch's profiler: a Chrome trace and a table of operations per rank."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tunewright.durable import SMALL, storage_errors
from tunewright.engine.hooks import StepHook
from tunewright.errors import InputError

if TYPE_CHECKING:
    import torch
    from torch.profiler import ProfilerActivity, profile

    from tunewright.config.profiling import ProfilingConfig
    from tunewright.engine.state import TrainState
    from tunewright.runtime import Ranks

ROWS_IN_TABLE = 100


class Profiler(StepHook):
    """Records the steps from `profile_step_start` to before `profile_step_end`, as many of them as this process takes."""

    def __init__(self, config: ProfilingConfig, device: torch.device, rank: int) -> None:
        """Raises InputError if there would be nothing to record."""
        self._config, self._rank = config, rank
        self._activities = _activities(config, device)
        self._recording: profile | None = None
        self._first = self._next = 0

    def begin(self, state: TrainState) -> None:
        """Start recording if the first step of this process is one of those."""
        self._reached(state.global_step)

    def advanced(self, state: TrainState) -> None:
        """Write the record after its last step; start it before its first."""
        self._reached(state.global_step)

    def close(self) -> None:
        """Write what was recorded, if the run ends before the record would."""
        if self._recording is not None:
            self._write()

    def _reached(self, step: int) -> None:
        """`step` comes next, counted from 0."""
        start, end = self._config.profile_step_start, self._config.profile_step_end
        self._next = step
        is_wanted = start <= step and (end < 0 or step < end)
        if self._recording is not None and not is_wanted:
            self._write()
        elif self._recording is None and is_wanted:
            self._start(step)

    def _start(self, step: int) -> None:
        from torch.profiler import profile

        self._first = step
        self._recording = profile(
            activities=self._activities, record_shapes=self._config.profile_record_shapes,
            profile_memory=self._config.profile_with_memory, with_stack=self._config.profile_with_stack)
        self._recording.start()

    def _write(self) -> None:
        recording, self._recording = self._recording, None
        if recording is None:
            return
        recording.stop()
        if self._next == self._first:
            return
        directory = Path(self._config.profile_save_path).expanduser()
        name = f"rank-{self._rank}-steps-{self._first}-to-{self._next - 1}"
        with storage_errors(directory, SMALL):
            directory.mkdir(parents=True, exist_ok=True)
            recording.export_chrome_trace(str(directory / f"{name}.trace.json"))
            table = recording.key_averages(group_by_input_shape=self._config.profile_record_shapes).table(row_limit=ROWS_IN_TABLE)
            (directory / f"{name}.operations.txt").write_text(table + "\n", encoding="utf-8")


def profiler_for(config: ProfilingConfig, device: torch.device, ranks: Ranks) -> Profiler | None:
    """The profiler of this rank, if it is to record."""
    is_wanted = config.profile and (not config.profile_ranks or str(ranks.rank) in config.profile_ranks)
    return Profiler(config, device, ranks.rank) if is_wanted else None


def _activities(config: ProfilingConfig, device: torch.device) -> list[ProfilerActivity]:
    from torch.profiler import ProfilerActivity

    accelerators = {"cuda": ProfilerActivity.CUDA, "xpu": ProfilerActivity.XPU}
    found = [accelerators[device.type]] if device.type in accelerators else []
    if config.profile_with_cpu:
        found.append(ProfilerActivity.CPU)
    if not found:
        raise InputError("profile: there is nothing to record: no GPU is in use, and profile_with_cpu is off",
                         mend="set profile_with_cpu: true")
    return found
