"""The step without numbers against the same step with numbers.

Oracles: torch's own profiler, which sees every allocation of the CPU allocator, temporaries inside operations included; counts by hand.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.harness.memory import peak_bytes
from tests.planning.shapes_of_runs import run_of, write
from tunewright.adapters.trainable import make_trainable
from tunewright.config.run import RunConfig
from tunewright.kernels.output_head import hidden_states, of
from tunewright.kernels.plan import apply, hasten
from tunewright.models.load import load_model
from tunewright.planning.machine import Machine
from tunewright.planning.meter import Kind
from tunewright.planning.recomputation import recompute_as_asked, switched
from tunewright.planning.shapes import shape_model
from tunewright.planning.step import BatchShape, Setting, Step, simulate

MACHINE = Machine("test", lambda dtype: 1e10, 1e10, 0.0, None, 0)
PLAIN = Setting(None, 0, 0, False, 0)
ROWS = ((150,), (64,), (200,), (31,))


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("models") / "llama")


def simulated(run: RunConfig, batch: BatchShape, setting: Setting = PLAIN) -> Step:
    shaped = shape_model(run)
    with switched(shaped.model, run.precision, on=run.precision.gradient_checkpointing):
        return simulate(shaped, batch, setting, MACHINE)


def profiled(run: RunConfig, batch: BatchShape) -> int:
    """Bytes above the weights at the peak of forward and backward of the real model, by torch's profiler."""
    base = load_model(run.model, run.precision)
    apply(run, base)
    model = make_trainable(base, run)
    hasten(run, model)
    if run.precision.gradient_checkpointing:
        recompute_as_asked(model, run.precision)
    inputs = real_inputs(batch)
    kept, head = inputs.pop("kept"), of(model)
    assert head is not None

    def compute() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=run.precision.bf16):
            with hidden_states(head) as taken:
                model(**inputs, logits_to_keep=kept, use_cache=False)
            hidden = taken.pop().flatten(0, 1)[:batch.tokens].clone()
            loss = head.loss_sum(hidden, torch.ones(batch.tokens, dtype=torch.int64))
        loss.backward()

    return peak_bytes(compute)


def real_inputs(batch: BatchShape) -> dict[str, Any]:
    lengths = [sum(rows) for rows in batch.sequences]
    if not batch.flat:
        mask = (torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]).long()
        return {"input_ids": torch.ones_like(mask), "position_ids": (mask.cumsum(1) - 1).clamp(min=0), "attention_mask": mask,
                "kept": torch.arange(max(lengths))}
    bounds = torch.tensor([0, *lengths]).cumsum(0).int()
    positions = torch.cat([torch.arange(length) for length in lengths])[None]
    return {"input_ids": torch.ones_like(positions), "position_ids": positions, "attention_mask": None, "cu_seq_lens_q": bounds,
            "cu_seq_lens_k": bounds, "max_length_q": max(lengths), "max_length_k": max(lengths), "kept": torch.arange(sum(lengths))}


@pytest.mark.parametrize(("changes", "flat"), [
    ({"finetuning_type": "full"}, True), ({"finetuning_type": "full"}, False), ({"finetuning_type": "lora"}, True),
    ({"finetuning_type": "lora"}, False), ({"finetuning_type": "freeze"}, True),
    ({"finetuning_type": "full", "gradient_checkpointing": True}, True),
    ({"finetuning_type": "lora", "gradient_checkpointing": True}, True),
    ({"finetuning_type": "lora", "gradient_checkpointing": True, "recompute_modules": ("model.layers.{0-1}.mlp",)}, True),
    ({"finetuning_type": "lora", "slow_paths": ("lora", "mlp", "norm")}, True),
    ({"finetuning_type": "lora", "bf16": True}, True), ({"finetuning_type": "full", "bf16": True}, False),
    ({"finetuning_type": "full", "bf16": True, "gradient_checkpointing": True}, True)])
def test_the_peak_is_what_the_profiler_sees(directory: Path, changes: dict[str, Any], flat: bool) -> None:
    """To a sixteenth: arguments of an operation live a little longer here, and workspaces inside torch's kernels are not planned for."""
    run, batch = run_of(directory, padding_free=flat, **changes), BatchShape(ROWS, flat)
    step = simulated(run, batch, Setting(torch.bfloat16, 0, 0, False, 0) if run.precision.bf16 else PLAIN)
    planned = step.bytes - step.peak[Kind.WEIGHTS] - step.peak.get(Kind.ADAPTERS, 0) - step.peak.get(Kind.BATCH, 0)
    assert planned == pytest.approx(profiled(run, batch), rel=0.06)


def test_weights_and_gradients_are_those_counted_by_hand(directory: Path) -> None:
    """Llama, tied: V D + L (2 D^2 + 2 D (D/2) + 3 D F + 2 D) + D, float32; and inv_freq twice, D / H / 2 numbers each."""
    width, inner, layers, words = 64, 128, 3, 400
    numbers = words * width + layers * (2 * width**2 + 2 * width * width // 2 + 3 * width * inner + 2 * width) + width
    frequencies = 2 * (width // 4 // 2)
    step = simulated(run_of(directory, finetuning_type="full"), BatchShape(((8,),), True), Setting(None, 8 * numbers, 10**9, False, 0))
    assert step.peak[Kind.WEIGHTS] == 4 * (numbers + frequencies)
    assert step.peak[Kind.GRADIENTS] == 4 * numbers  # 10^9 bytes of temporaries put the peak into the update
    assert step.peak[Kind.OPTIMIZER] == 8 * numbers


def test_an_adapter_is_counted_by_hand(directory: Path) -> None:
    """Rank 8 on seven projections: r (in + out) numbers each, and nothing else has a gradient."""
    width, inner, layers, rank = 64, 128, 3, 8
    numbers = layers * rank * (2 * 2 * width + 2 * (width + width // 2) + 3 * (width + inner))
    step = simulated(run_of(directory), BatchShape(((8,),), True), Setting(None, 0, 10**9, False, 0))
    assert (step.peak[Kind.ADAPTERS], step.peak[Kind.GRADIENTS]) == (4 * numbers, 4 * numbers)


def test_quantised_weights_take_half_a_byte_and_their_scales(directory: Path) -> None:
    """4 bits with a float32 scale for each 64 numbers: 4.5 bits; the embedding stays in float32."""
    layers = 3 * (2 * 64**2 + 2 * 64 * 32 + 3 * 64 * 128)
    other = 400 * 64 + 3 * 2 * 64 + 64 + 2 * 8
    step = simulated(run_of(directory, quantization_bit=4, double_quantization=False), BatchShape(((8,),), True))
    assert step.peak[Kind.WEIGHTS] == layers * 4.5 / 8 + 4 * other


def test_the_larger_of_step_and_update_is_the_peak(directory: Path) -> None:
    run, batch = run_of(directory, finetuning_type="full"), BatchShape(ROWS, True)
    plain = simulated(run, batch)
    held = simulated(run, batch, Setting(None, 0, 0, True, 0))
    assert held.bytes > plain.bytes  # accumulated gradients are there during the forward pass
    assert simulated(run, batch, Setting(None, 0, 10 * plain.bytes, False, 0)).bytes > 10 * plain.bytes


def test_recomputation_keeps_less_and_takes_longer(directory: Path) -> None:
    batch = BatchShape(ROWS, True)
    kept, recomputed = (simulated(run_of(directory, gradient_checkpointing=on), batch) for on in (False, True))
    assert recomputed.kept < kept.kept / 3
    assert kept.work.flops < recomputed.work.flops < 2 * kept.work.flops


def test_operations_are_six_for_each_weight_and_token(directory: Path) -> None:
    """Full tuning: 6 N T for the N weights of matrix products, and attention's 14 H R K D (4 forward, 10 backward) for each block of R
    queries that sees K keys: 64 queries of rows beyond 96. Of a row's first block only half is computed."""
    matrices = 3 * (2 * 64**2 + 2 * 64 * 32 + 3 * 64 * 128) + 400 * 64
    tokens = sum(map(sum, ROWS))
    blocks = (64 * 64 / 2 + 64 * 128 + 22 * 150, 64 * 64 / 2, 64 * 64 / 2 + 64 * 128 + 64 * 192 + 8 * 200, 31 * 31 / 2)
    attention = 3 * 14 * 64 * sum(blocks)
    first = 2 * 0  # the embedding is looked up, not multiplied
    step = simulated(run_of(directory, finetuning_type="full"), BatchShape(ROWS, True))
    assert step.work.flops == pytest.approx(6 * matrices * tokens + attention + first, rel=0.01)


@pytest.mark.parametrize("config", ["Qwen3Config", "MistralConfig", "GemmaConfig", "Phi3Config", "GPT2Config"])
def test_other_families_can_be_planned_for(tmp_path: Path, config: str) -> None:
    """Each in full, padded where it must be."""
    run = run_of(write(tmp_path / config, config), finetuning_type="full")
    shaped = shape_model(run)
    step = simulate(shaped, BatchShape(ROWS, shaped.kernels.flat), PLAIN, MACHINE)
    assert step.kept > 0 and step.work.flops > 0
