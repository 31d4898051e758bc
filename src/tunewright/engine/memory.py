"""Running out of memory, told with what was tried and what would need less."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from tunewright.errors import OutOfMemoryError

if TYPE_CHECKING:
    from tunewright.data.collate import Batch


@contextmanager
def memory_told(batch: Batch) -> Iterator[None]:
    """Turn a failed allocation in the block into OutOfMemoryError (exit code 3) that says how large the batch was.

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


def _told(batch: Batch) -> OutOfMemoryError:
    rows, positions = batch.input_ids.shape
    mend, half = "use a smaller cutoff_len, or gradient_checkpointing: true", len(batch.sample_ids) // 2
    if half:
        mend = f"per_device_train_batch_size: {half} with twice the gradient_accumulation_steps computes the same; or {mend}"
    return OutOfMemoryError(
        f"out of memory on a batch of {len(batch.sample_ids)} rows ({rows} x {positions} positions, {batch.num_tokens} tokens)", mend=mend)
