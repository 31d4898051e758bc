"""How ranks add up their gradients."""
# No `from __future__ import annotations`: torch compares the annotations of a communication hook with its own classes.

from collections.abc import Callable
from typing import Any, Final

import torch
from torch import distributed
from torch._C._distributed_c10d import GradBucket
from torch.nn.parallel import DistributedDataParallel

DTYPES: Final = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def arrange_reduction(policy: torch.nn.Module, dtype_name: str | None) -> None:
    """Let the ranks average the gradients of `policy` in that number format (None: the gradients' own), each step of each process in the
    same order; nothing happens for a lone process."""
    if isinstance(policy, DistributedDataParallel):
        if dtype_name is not None:
            policy.register_comm_hook(None, averaging_in(DTYPES[dtype_name]))
        _settle_order(policy)


class _Touching(torch.nn.Module):
    """Stands for a model: a sum of all that it trains, instead of what it computes."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, factor: float) -> torch.Tensor:
        """`factor` times the sum, whose gradient is `factor` everywhere."""
        return torch.stack([weight.sum().float() * factor for weight in self.parameters() if weight.requires_grad]).sum()


def _settle_order(policy: DistributedDataParallel) -> None:
    """Let DistributedDataParallel choose its buckets of gradients now, by a pass that is the same in every process.

    It chooses them anew once, after its first pass, by the order in which gradients came. The place of a number in its bucket decides in
    which order the ranks' numbers are added, and from three ranks on that shows in the last bit: the first step of a process that resumes
    would differ from the same step of one that went on (docs/decisions/0020).
    """
    model = policy.module
    policy.module = _Touching(model)
    try:
        policy(0.0).backward()
    finally:
        policy.module = model
    policy.zero_grad()


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
