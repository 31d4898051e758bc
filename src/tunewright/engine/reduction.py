"""How ranks add up their gradients."""
# No `from __future__ import annotations`: torch compares the annotations of a communication hook with its own classes.

from collections.abc import Callable
from typing import Any, Final

import torch
from torch import distributed
from torch._C._distributed_c10d import GradBucket
from torch.nn.parallel import DistributedDataParallel

DTYPES: Final = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def reduce_gradients_in(policy: torch.nn.Module, name: str | None) -> None:
    """Let the ranks average the gradients of `policy` in that number format; nothing happens for a lone process, or without a name."""
    if name is not None and isinstance(policy, DistributedDataParallel):
        policy.register_comm_hook(None, averaging_in(DTYPES[name]))


def averaging_in(dtype: torch.dtype) -> Callable[[Any, GradBucket], torch.futures.Future[torch.Tensor]]:
    """A hook for DistributedDataParallel: divides by the number of ranks, adds up in `dtype`, and gives the gradients' own format back.

    The division comes first, so that the sum stays within the range of float16 where the mean does.
    """

    def average(_state: Any, bucket: GradBucket) -> torch.futures.Future[torch.Tensor]:
        own = bucket.buffer()
        shared = own.to(dtype).div_(distributed.get_world_size())
        summed = distributed.all_reduce(shared, async_op=True).get_future()
        averaged: torch.futures.Future[torch.Tensor] = summed.then(lambda done: own.copy_(done.value()[0]))
        return averaged

    return average
