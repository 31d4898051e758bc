"""How two ranks exchange gradients and buffers. Oracle: the same sum of two vectors by hand, in each number format."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tunewright.runtime import launch_ranks
from tunewright.selftest.killing import Case, server
from tunewright.selftest.workspace import Workspace

BODY = """
import sys
import torch
from safetensors.torch import save_file
from tunewright.dialects.read import read_config
from tunewright.engine.assemble import accelerator_for
from tunewright.engine.reduction import arrange_reduction
from tunewright.runtime import Ranks, end_process, process_group

class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.wide = torch.nn.Parameter(torch.zeros(4096))
        self.narrow = torch.nn.Parameter(torch.zeros(4096, dtype=torch.bfloat16))
        self.register_buffer("note", torch.zeros(1))
    def forward(self, x):
        return (self.wide * x).sum() + (self.narrow * x.to(torch.bfloat16)).sum()

def gradient_of(rank):
    return torch.randn(4096, generator=torch.Generator().manual_seed(rank))

if __name__ == "__main__":
    ranks, found = Ranks.from_environment(), {}
    with process_group(ranks, timeout_s=60):
        for number, words in enumerate(sys.argv[2].split(";")):
            config = read_config(["use_cpu=true", *words.split()]).config
            policy = accelerator_for(config, ranks).prepare(Model())
            arrange_reduction(policy, config.parallel.reduce_dtype)
            policy.module.note.fill_(ranks.rank + 5)
            policy(gradient_of(ranks.rank)).backward()
            found[f"{number}.wide"], found[f"{number}.narrow"] = policy.module.wide.grad, policy.module.narrow.grad
            found[f"{number}.note"] = policy.module.note.clone()
            found[f"{number}.bucket"] = torch.tensor([policy.bucket_bytes_cap])
    save_file(found, f"{sys.argv[1]}/{ranks.rank}.safetensors")
    end_process(0)
"""


@pytest.fixture(scope="module")
def exchanged(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, torch.Tensor]]:
    """What each rank has after one backward pass, for each of six settings."""
    folder = tmp_path_factory.mktemp("ranks")
    script = folder / "rank.py"
    script.write_text(BODY)
    settings = ("ddp_bucket_cap_mb=7", "reduce_dtype=fp32", "reduce_dtype=bf16", "reduce_dtype=fp16", "ddp_broadcast_buffers=false",
                "ddp_broadcast_buffers=true")
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(Path(__file__).parents[2] / "src")
    try:
        assert launch_ranks([sys.executable, str(script), str(folder), ";".join(settings)], 2) == 0
    finally:
        os.environ.pop("PYTHONPATH") if before is None else os.environ.update(PYTHONPATH=before)
    return [load_file(folder / f"{rank}.safetensors") for rank in (0, 1)]


@pytest.mark.slow
@pytest.mark.effect("reduce_dtype")
@pytest.mark.parametrize(("number", "dtype"), [(0, None), (1, torch.float32), (2, torch.bfloat16), (3, torch.float16)])
def test_gradients_are_added_up_in_the_chosen_format(
    exchanged: list[dict[str, torch.Tensor]], number: int, dtype: torch.dtype | None
) -> None:
    """g0 / 2 + g1 / 2 in that format and back in the gradient's own; without a choice in the gradient's own. No two formats give the
    same sum of float32 gradients."""
    gradients = [torch.randn(4096, generator=torch.Generator().manual_seed(rank)) for rank in (0, 1)]
    for name, own in (("wide", torch.float32), ("narrow", torch.bfloat16)):
        first, second = (gradient.to(own).to(dtype or own) / 2 for gradient in gradients)
        assert all(torch.equal(rank[f"{number}.{name}"], (first + second).to(own)) for rank in exchanged)
    wide = [exchanged[0][f"{one}.wide"] for one in (1, 2, 3)]
    assert not any(torch.equal(wide[one], wide[other]) for one, other in ((0, 1), (0, 2), (1, 2)))


@pytest.mark.slow
@pytest.mark.effect("ddp_bucket_cap_mb")
def test_size_of_the_portions(exchanged: list[dict[str, torch.Tensor]]) -> None:
    """7 MiB instead of torch's 25."""
    assert [int(rank["0.bucket"]) for rank in exchanged] == [7 * 2**20] * 2 and int(exchanged[0]["1.bucket"]) == 25 * 2**20


@pytest.mark.slow
@pytest.mark.effect("ddp_broadcast_buffers")
def test_buffers_of_rank_0_go_to_all(exchanged: list[dict[str, torch.Tensor]]) -> None:
    """Each rank put 5 + its number into a buffer: after the forward pass both have 5, or each its own."""
    notes = {number: [float(rank[f"{number}.note"]) for rank in exchanged] for number in (0, 4, 5)}
    assert notes == {0: [5.0, 5.0], 4: [5.0, 6.0], 5: [5.0, 5.0]}


@pytest.mark.slow
@pytest.mark.effect("reduce_dtype")
def test_a_run_adds_its_gradients_up_in_the_chosen_format(workspace: Workspace, tmp_path: Path) -> None:
    """Weights of float32 after two steps: the same in float32 as without a choice, others in bfloat16, and no farther apart than two
    steps of Adam can be."""
    changes = {"per_device_train_batch_size": 2, "max_steps": 2, "learning_rate": 0.01}
    weights = {}
    for name, chosen in {"none": {}, "fp32": {"reduce_dtype": "fp32"}, "bf16": {"reduce_dtype": "bf16"}}.items():
        settings = workspace.settings(tmp_path / name, **changes, **chosen)
        outcome = server().run(Case("train_on_two_ranks", {"settings": settings}, str(tmp_path / name)))
        assert outcome.code == 0, outcome.output
        weights[name] = load_file(tmp_path / name / "adapter_model.safetensors")
    for key, value in weights["none"].items():
        assert torch.equal(weights["fp32"][key], value)
        torch.testing.assert_close(weights["bf16"][key], value, rtol=0, atol=0.04)
    assert any(not torch.equal(weights["bf16"][key], value) for key, value in weights["none"].items())
