"""The path that a run takes if it is told nothing, for every family of models: rows end to end, what they begin with once, no logits, LoRA
layers in groups, our norms, MLPs and rotary positions.

Oracle: transformers' own model, eager, one row at a time; its cross-entropies added up by hand.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from tests.kernels.test_isolation import GOLDEN, WINDOW, exact_softmax, gradients, one_by_one, tiny
from tests.kernels.test_shared_beginnings import PROMPT, exact_norms, row
from tunewright.adapters.trainable import make_trainable
from tunewright.data.collate import collate_flat_shared
from tunewright.dialects.read import read_config
from tunewright.kernels import blocked_attention
from tunewright.kernels.plan import KernelPlan, apply, hasten, share_beginnings
from tunewright.stages.sft import SupervisedFineTuning
from tunewright.stages.stage import Role

also_exact = exact_softmax
and_exact = exact_norms
TUNINGS = ("lora", "full")
HALF = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": WINDOW}


class Family(NamedTuple):
    """What is particular in a configuration, and what a layer has, by the family's paper or page: linear layers that take an adapter, gated
    MLPs with SiLU, RMSNorms, rotary positions of all of a head or part of it, whose pairs are half of that apart. `eager`: why not SDPA;
    `trims`: the last layer is an attention with `o_proj` and then one MLP, without experts. `own`: why modules are as the model or peft has
    them, by what they are."""

    linear: int
    mlps: int
    norms: int
    rotary: int
    particular: Mapping[str, Any] = MappingProxyType({})
    eager: str | None = None
    trims: bool = True
    own: Mapping[str, str] = MappingProxyType({})


GELU = {"gated MLPs": "no SiLU between gate and up (2 modules)"}
ONE_GATE = {"gated MLPs": "no module has gate_proj, up_proj and down_proj"}
NEIGHBOURS = {**ONE_GATE, "rotary positions": "it computes something else (2 modules)"}
FAMILIES = {
    "llama": Family(7, 1, 2, 1),
    "qwen2": Family(7, 1, 2, 1),
    "qwen3": Family(7, 1, 4, 1),
    "mistral": Family(7, 1, 2, 1, {"sliding_window": WINDOW}),
    "gemma": Family(7, 0, 2, 1, own=GELU),
    "gemma2": Family(7, 0, 4, 1, HALF, eager="the model caps its attention logits", own=GELU),
    "gemma3_text": Family(7, 0, 6, 1, {**HALF, "query_pre_attn_scalar": 8}, own=GELU),
    # attention and MLP side by side, LayerNorms, a head with a bias
    "phi": Family(6, 0, 0, 1, trims=False, own={**ONE_GATE, "RMSNorm": "no module is one"}),
    "phi3": Family(4, 0, 2, 1, own=ONE_GATE),
    "glm": Family(6, 0, 2, 0, own=NEIGHBOURS),  # pairs of neighbours rotate, in half of a head
    "glm4": Family(6, 0, 4, 0, own=NEIGHBOURS),
    "qwen3_moe": Family(4, 0, 4, 1, trims=False, own={**ONE_GATE, "LoRA": "Qwen3MoeExperts in place of a linear layer (4 modules)"}),
    "gpt_oss": Family(4, 0, 2, 0, eager="the model has attention sinks", trims=False, own={
        **ONE_GATE, "LoRA": "GptOssExperts in place of a linear layer (4 modules)",
        "rotary positions": "it takes other arguments (2 modules)"}),  # cos and sin of half a head
}
ROWS = [
    row(9, untrained=1),
    row(*PROMPT, *range(3, 61), *range(5, 60), untrained=40, number=1),  # its queries in blocks
    row(*PROMPT, 50, 51, untrained=13, number=2),
    row(*PROMPT, *range(60, 3, -1), *range(55, 6, -1), untrained=13, number=3),  # in blocks behind what is shared
    row(*PROMPT, 33, 34, 35, untrained=15, number=4),  # no label
    row(*PROMPT, 60, 61, 62, 63, untrained=14, number=5),
    row(7, 8, 9, 10, 11, 12, 13, untrained=2, number=6),
]
LABELS = 0 + 85 + 1 + 105 + 0 + 2 + 5
PREFIXES = [0, 0, 12, 12, 12, 12, 0]


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEWRIGHT_CACHE", str(tmp_path))


@pytest.fixture
def blocks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many blocks of queries each segment's attention has been computed in."""
    plain, counted = blocked_attention._blocks, list[int]()

    def noted(*given: Any) -> Iterator[Any]:
        found = list(plain(*given))
        counted.append(len(found))
        return iter(found)

    monkeypatch.setattr(blocked_attention, "_blocks", noted)
    return counted


def lively(model: nn.Module) -> nn.Module:
    """Weights that say something: biases and norms too, which begin as zeros and ones, and the B of adapters. By name: peft's experts
    change the order of theirs when they run."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, weight in sorted(model.named_parameters()):
            drawn = torch.randn(weight.shape, generator=generator, dtype=torch.float64).to(weight.dtype)
            if weight.dim() == 1:
                weight.add_(drawn, alpha=0.2)
            else:
                weight.copy_(drawn.mul_(0.05 if "lora_B" in name else weight.shape[-1] ** -0.5))
    return model


def hastened(model: nn.Module, tuning: str) -> tuple[nn.Module, KernelPlan]:
    """A model as the command `train` makes it ready, with an adapter on every linear layer or to be trained whole."""
    run = read_config([f"finetuning_type={tuning}"]).config
    chosen = apply(run, model)
    trained = make_trainable(model, run).to(model.dtype)
    chosen = chosen.told(hasten(run, trained))
    return trained, share_beginnings(run, chosen, trained)


def plain(model: nn.Module, tuning: str) -> nn.Module:
    """The same without any of our kernels."""
    return make_trainable(model, read_config([f"finetuning_type={tuning}"]).config).to(model.dtype)


def lines(chosen: KernelPlan) -> list[str]:
    """What a plan says but of proofs."""
    return [line for line in chosen.reasons if "proofs of these paths" not in line]


def told(family: Family, tuning: str, layers: int = 2) -> list[str]:
    """What it is to say. One norm is behind the last layer."""
    attention = ("tunewright_packed: each row by itself, without padding" if family.eager is None
                 else f"tunewright_packed_eager: eager, one call per row: {family.eager}")
    trimmed = "; the last layer's MLP only where a token is predicted" if family.trims else ""
    counted = {"LoRA: layers that read one input run as one operation": family.linear * layers,
               "gated MLPs: one activation": family.mlps * layers, "RMSNorm: torch's own": family.norms and family.norms * layers + 1,
               "rotary positions: in two passes": family.rotary * layers}
    if tuning == "full":
        del counted["LoRA: layers that read one input run as one operation"]
    return [f"attention {attention}", f"loss: from hidden states, without logits{trimmed}",
            *(_line(line, number, family.own) for line, number in counted.items()),
            "beginnings that rows of a batch have in common: computed once, and nothing behind a row's last prediction"]


def _line(line: str, number: int, own: Mapping[str, str]) -> str:
    """How many modules have a path, and why others have not."""
    heading, _, ours = line.partition(": ")
    theirs = "by peft's own forward" if heading == "LoRA" else "as the model has them"
    parts = [f"{ours} ({number} modules)"] * bool(number) + ([f"{theirs}: {own[heading]}"] if heading in own else [])
    return f"{heading}: {'; '.join(parts)}"


def shape(kind: str) -> dict[str, Any]:
    """What its configuration differs in from the tiny ones of other tests."""
    return {"max_position_embeddings": 256, **FAMILIES[kind].particular}


@pytest.mark.parametrize("tuning", TUNINGS)
@pytest.mark.parametrize("kind", FAMILIES)
def test_loss_and_every_gradient_are_those_of_the_models_own_code(kind: str, tuning: str, blocks: list[int]) -> None:
    """In float64, to 1e-10 of the largest gradient of each tensor, in every family: transformers' roundings to float32 (softmax, routers,
    norms) are lifted on both sides, by `exact_softmax` and `exact_norms`, which also lets the proofs take Gemma's norms."""
    family = FAMILIES[kind]
    reference = lively(plain(tiny(kind, "eager", **shape(kind)), tuning))
    model, chosen = hastened(tiny(kind, **shape(kind)), tuning)
    lively(model)
    assert lines(chosen) == told(family, tuning)
    batch = collate_flat_shared(ROWS)
    assert batch.prefixes is not None and batch.prefixes.tolist() == PREFIXES
    wanted_loss, wanted = one_by_one(reference, ROWS)
    blocks.clear()
    loss = SupervisedFineTuning().loss({Role.POLICY: model}, batch)
    loss.sum.backward()
    assert sorted(set(blocks)) == ([] if family.eager else [1, 2])
    assert loss.count == LABELS
    assert float(loss.sum.detach()) == pytest.approx(wanted_loss, rel=GOLDEN)
    found = gradients(model)
    assert found.keys() == wanted.keys() == {name for name, weight in model.named_parameters() if weight.requires_grad}
    errors = {name: apart(found[name], gradient) for name, gradient in wanted.items()}
    assert {name: error for name, error in errors.items() if not error <= GOLDEN} == {}


def apart(found: Tensor, wanted: Tensor) -> float:
    """The largest difference, in units of the largest number."""
    return float((found - wanted).abs().max() / wanted.abs().max())
