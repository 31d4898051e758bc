"""Three ranks add up their gradients in one order, whichever step of its process it is. Oracle: the same step once more, bit for bit."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tunewright.engine.reduction import arrange_reduction
from tunewright.selftest.killing import Case, server

RANKS = 3
PASSES = 3


class Model(torch.nn.Module):
    """Three matrices of 640 kB, two buckets of 1 MB, that are defined in another order than they are used in."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.third, self.second = (torch.nn.Linear(400, 400) for _ in range(3))
        self.register_buffer("note", torch.zeros(1))

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Of rows [8, 400]."""
        return self.third(self.second(self.first(states).tanh()).tanh())


def same_step_again(folder: str, dtype: str, arranged: bool) -> int:
    """On each of three ranks: what several passes over the same rows leave as gradients, and rank 0's buffer.

    Each rank keeps what it computed with until it ends: freed right after the last step, a process group waits for threads of its own that
    may still wait for Python to free the hook's last answer.
    """
    children = []
    for rank in range(RANKS):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                kept = _passes(Path(folder), rank, dtype or None, arranged)  # noqa: F841
                code = 0
            finally:
                os._exit(code)
        children.append(child)
    return max(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children)


def _passes(folder: Path, rank: int, dtype: str | None, arranged: bool) -> torch.nn.Module:
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=RANKS)
    policy = torch.nn.parallel.DistributedDataParallel(Model(), bucket_cap_mb=1)
    if arranged:
        arrange_reduction(policy, dtype)
    found = {"left": torch.tensor([weight.grad is not None for weight in policy.parameters()])}
    rows = torch.randn(8, 400, generator=torch.Generator().manual_seed(rank))
    for number in range(PASSES):
        policy.module.note.fill_(rank + number)
        policy(rows).square().sum().backward()
        found[f"gradient {number}"] = torch.cat([weight.grad.flatten() for weight in policy.parameters() if weight.grad is not None])
        found[f"note {number}"] = policy.module.note.clone()
        policy.zero_grad()
    save_file(found, folder / f"{rank}.safetensors")
    torch.distributed.barrier()
    return policy


def passes_of_each(folder: Path, dtype: str, *, arranged: bool) -> list[dict[str, torch.Tensor]]:
    ended = server().run(Case(f"{__name__}:{same_step_again.__name__}", {"folder": str(folder), "dtype": dtype, "arranged": arranged},
                              str(folder)))
    assert ended.code == 0, ended.output
    return [load_file(folder / f"{rank}.safetensors") for rank in range(RANKS)]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["", "bf16"])
def test_the_first_step_of_a_process_adds_up_as_later_ones_do(tmp_path: Path, dtype: str) -> None:
    ranks = passes_of_each(tmp_path, dtype, arranged=True)
    first = ranks[0]["gradient 0"]
    assert all(torch.equal(one[f"gradient {number}"], first) for one in ranks for number in range(PASSES))
    assert not any(one["left"].any() for one in ranks)
    assert [[float(one[f"note {number}"]) for number in range(PASSES)] for one in ranks] == [[0.0, 1.0, 2.0]] * RANKS


@pytest.mark.slow
def test_torch_alone_does_not(tmp_path: Path) -> None:
    """Why `arrange_reduction` settles the order. Once this fails, it need not."""
    found = passes_of_each(tmp_path, "", arranged=False)[0]
    assert torch.equal(found["gradient 1"], found["gradient 2"])
    torch.testing.assert_close(found["gradient 0"], found["gradient 1"])
    assert not torch.equal(found["gradient 0"], found["gradient 1"])
