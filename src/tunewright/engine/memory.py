"""Memory: running out of it, told with what would need less; how it grew in training; giving back what is kept in reserve."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import torch

from tunewright.engine.hooks import StepHook
from tunewright.errors import OutOfMemoryError
from tunewright.planning.machine import resident_bytes

if TYPE_CHECKING:
    from tunewright.data.collate import Batch
    from tunewright.engine.metrics import Metrics
    from tunewright.engine.state import TrainState


_SHORTER: Final = "use a smaller cutoff_len, or gradient_checkpointing: true"


class BatchTooLargeError(OutOfMemoryError):
    """There was not enough memory for a micro-batch of so many rows and tokens: smaller ones may do."""

    def __init__(self, message: str, *, rows: int, tokens: int, mend: str) -> None:
        self.rows, self.tokens = rows, tokens
        super().__init__(message, mend=mend)

    def of_budget(self, tokens: int) -> BatchTooLargeError:
        """The same, with the mend of a run that has set `micro_batch_tokens` to so many."""
        smaller = f"micro_batch_tokens: {min(tokens, self.tokens) // 2} computes the same; or {_SHORTER}" if self.rows > 1 else _SHORTER
        return BatchTooLargeError(self.message, rows=self.rows, tokens=self.tokens, mend=smaller)


@contextmanager
def memory_told(batch: Batch) -> Iterator[None]:
    """Turn a failed allocation in the block into BatchTooLargeError (exit code 3) that says how large the batch was.

    torch raises a RuntimeError of its own for the host's memory; every other RuntimeError is passed on.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise _told(batch) from error
    except RuntimeError as error:
        if "can't allocate memory" not in str(error):
            raise
        raise _told(batch) from error


def _told(batch: Batch) -> BatchTooLargeError:
    rows, positions = batch.input_ids.shape
    mend, half = _SHORTER, len(batch.sample_ids) // 2
    if half:
        mend = f"per_device_train_batch_size: {half} with twice the gradient_accumulation_steps computes the same; or {mend}"
    return BatchTooLargeError(
        f"out of memory on a batch of {len(batch.sample_ids)} rows ({rows} x {positions} positions, {batch.num_tokens} tokens)",
        rows=len(batch.sample_ids), tokens=batch.num_tokens, mend=mend)


class MemoryGrowth(StepHook):
    """How far memory grew during training, in bytes, under the names of the transformers Trainer.

    `..._alloc_delta`: at the end above the start. `..._peaked_delta`: at the most above the end, for the CPU as seen after each step.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._start = self._peak = self._gpu_start = 0

    def begin(self, state: TrainState) -> None:
        """Take the first measure."""
        self._start = self._peak = resident_bytes()
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
            self._gpu_start = torch.cuda.memory_allocated(self._device)

    def advanced(self, state: TrainState) -> None:
        """Measure again."""
        self._peak = max(self._peak, resident_bytes())

    def figures(self) -> Metrics:
        """The growth until now."""
        end = resident_bytes()
        found: Metrics = {
            "train_mem_cpu_alloc_delta": end - self._start, "train_mem_cpu_peaked_delta": max(0, self._peak - max(end, self._start))}
        if self._device.type == "cuda":
            now = torch.cuda.memory_allocated(self._device)
            found["train_mem_gpu_alloc_delta"] = now - self._gpu_start
            found["train_mem_gpu_peaked_delta"] = max(0, torch.cuda.max_memory_allocated(self._device) - now)
        return found


class ReserveReturned(StepHook):
    """Gives the memory that torch keeps in reserve back to the accelerator every `every` steps."""

    def __init__(self, every: int) -> None:
        self._every = every

    def advanced(self, state: TrainState) -> None:
        """Give it back if it is time."""
        if state.global_step % self._every == 0:
            torch.accelerator.empty_cache()
