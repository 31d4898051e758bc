"""Number formats of weights, evaluation and matrix products. Oracles: transformers' own loading, torch's flags, plain formulas."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.effects.engine_runs import config, history, losses, resumed_equals_whole, run, weights
from tunewright.dialects.read import read_config
from tunewright.engine.number_formats import prepare_device, upcast_norms, weights_in, wide_norms
from tunewright.errors import ConfigError, InputError
from tunewright.selftest.workspace import Workspace

FULL = {"finetuning_type": "full", "learning_rate": 1e-3}


@pytest.fixture
def own_flags() -> Iterator[None]:
    """TF32 is a switch of the whole process."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


@pytest.mark.effect("fp32")
@pytest.mark.parametrize("half", ["bf16", "fp16"])
def test_float32_forbids_half_precision(tmp_path: Path, half: str) -> None:
    """A half format that a file sets does not survive `--fp32 true`: it is an error that names both."""
    file = tmp_path / "c.json"
    file.write_text(f'{{"dialect": "cli_reference", "{half}": true}}')
    with pytest.raises(ConfigError, match=f"float32 is demanded, but {half} is on"):
        read_config([str(file), "--fp32", "true"])
    assert read_config([str(file), "--fp32", "false"]).config.precision.fp32 is False


@pytest.mark.effect("tf32")
@pytest.mark.parametrize(("wanted", "before", "after"), [("false", True, False), (None, True, True), (None, False, False)])
def test_tensorfloat_is_forbidden_or_left_alone(own_flags: None, wanted: str | None, before: bool, after: bool) -> None:
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = before
    words = [] if wanted is None else [f"tf32={wanted}"]
    prepare_device(read_config(words).config.precision, use_cpu=False)
    assert (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) == (after, after)


@pytest.mark.slow
@pytest.mark.effect("tf32", "torch_empty_cache_steps")
@pytest.mark.skipif(torch.accelerator.is_available(), reason="shows the refusal on machines without an accelerator")
@pytest.mark.parametrize(("name", "value"), [("tf32", True), ("torch_empty_cache_steps", 5)])
def test_what_needs_an_accelerator_is_refused_without(workspace: Workspace, tmp_path: Path, name: str, value: object) -> None:
    """Before anything is opened or written."""
    with pytest.raises(InputError, match=f"{name}: .* there is none"):
        run(workspace, tmp_path / "out", **{name: value})
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.effect("pure_bf16")
def test_weights_in_bfloat16(workspace: Workspace, tmp_path: Path) -> None:
    """Also as mindspeed's param_dtype, whose default it is."""
    run(workspace, tmp_path, max_steps=1, pure_bf16=True, **FULL)
    assert {tensor.dtype for tensor in weights(tmp_path).values()} == {torch.bfloat16}
    read = {value: read_config([*([f"--param_dtype={value}"] if value else [])], dialect="mindspeed_fsdp2").config.precision.pure_bf16
            for value in ("", "bf16", "fp32")}
    assert read == {"": True, "bf16": True, "fp32": False}
    with pytest.raises(ConfigError, match="'fp16' is refused: an update of a float16 weight is often too small"):
        read_config(["--param_dtype=fp16"], dialect="mindspeed_fsdp2")


@pytest.mark.slow
@pytest.mark.effect("bf16_full_eval", "fp16_full_eval")
def test_evaluation_in_half_precision_leaves_training_alone(workspace: Workspace, tmp_path: Path) -> None:
    """The weights at the end are bit for bit those of a run that evaluated in float32; the loss is that of the same weights loaded in
    the half format by transformers."""
    common = {"eval_strategy": "steps", "eval_steps": 3, "max_steps": 6, "val_size": 4, "do_eval": True, **FULL}
    figures = {name: run(workspace, tmp_path / name, **common, **({} if name == "plain" else {name: True}))
               for name in ("plain", "bf16_full_eval", "fp16_full_eval")}
    final = {name: weights(tmp_path / name) for name in figures}
    for name in ("bf16_full_eval", "fp16_full_eval"):
        assert all(torch.equal(tensor, final["plain"][key]) for key, tensor in final[name].items())
        evaluations = [entry["eval_loss"] for entry in history(tmp_path / name) if "eval_loss" in entry]
        assert evaluations[-1] == figures[name]["eval_loss"] != figures["plain"]["eval_loss"]
        assert figures[name]["eval_loss"] == pytest.approx(figures["plain"]["eval_loss"], rel=1e-2)
    again = run(workspace, tmp_path / "again", model_name_or_path=tmp_path / "plain", pure_bf16=True, do_train=False, do_eval=True,
                val_size=4, finetuning_type="full")
    assert again["eval_loss"] == figures["bf16_full_eval"]["eval_loss"]


def test_rounding_is_undone_to_the_bit_also_after_an_error() -> None:
    """The same storage as before, tied weights still tied, buffers never touched."""
    model = torch.nn.ModuleDict({"a": torch.nn.Linear(3, 3), "b": torch.nn.Linear(3, 3), "norm": torch.nn.BatchNorm1d(3)})
    model["b"].weight = model["a"].weight
    before = {name: (weight.data_ptr(), weight.detach().clone()) for name, weight in model.named_parameters()}
    with pytest.raises(ZeroDivisionError), weights_in([model], torch.float16):
        assert {weight.dtype for weight in model.parameters()} == {torch.float16} and model["a"].weight is model["b"].weight
        assert model["norm"].running_mean.dtype == torch.float32
        raise ZeroDivisionError
    assert all(weight.data_ptr() == before[name][0] and torch.equal(weight, before[name][1]) for name, weight in model.named_parameters())


def test_norms_are_computed_in_float32() -> None:
    """x / rms(x) * w by the formula in float64, rounded to bfloat16 once: exact to that rounding. In bfloat16 the weight of 1 + 2^-12
    would be 1."""
    from transformers.models.llama.modeling_llama import LlamaRMSNorm

    model = torch.nn.ModuleDict({"norm": LlamaRMSNorm(64, eps=1e-6), "other": torch.nn.Linear(4, 4)}).to(torch.bfloat16)
    assert upcast_norms(model) == ["norm.weight"] == wide_norms(model)
    assert model["other"].weight.dtype == torch.bfloat16
    model["norm"].weight.data.uniform_(1 + 2**-12, 1 + 2**-11)
    x = torch.randn(5, 64).to(torch.bfloat16)
    y = model["norm"](x)
    wide = x.double()
    expected = wide / (wide.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt() * model["norm"].weight.double()
    assert y.dtype == torch.bfloat16
    assert (y != expected.to(torch.bfloat16)).float().mean() < 0.01 and torch.allclose(y.double(), expected, rtol=2**-8)


@pytest.mark.slow
@pytest.mark.effect("upcast_layernorm")
def test_a_run_with_wide_norms_resumes_exactly(workspace: Workspace, tmp_path: Path) -> None:
    """The norms train in float32 beside weights in bfloat16, and a checkpoint gives every bit back."""
    assert resumed_equals_whole(workspace, tmp_path / "a", pure_bf16=True, upcast_layernorm=True, **FULL)
    found = {name: tensor.dtype for name, tensor in weights(tmp_path / "a").items()}
    assert {dtype for name, dtype in found.items() if "norm" in name} == {torch.float32}
    assert {dtype for name, dtype in found.items() if "norm" not in name} == {torch.bfloat16}
    rounded = [tensor for name, tensor in weights(tmp_path / "a").items() if "norm" in name]
    assert any(not torch.equal(tensor, tensor.bfloat16().float()) for tensor in rounded)
    run(workspace, tmp_path / "b", pure_bf16=True, logging_steps=1, **FULL)
    assert losses(tmp_path / "a") != losses(tmp_path / "b")


@pytest.mark.slow
def test_the_best_weights_come_back_with_wide_norms(workspace: Workspace, tmp_path: Path) -> None:
    """Of the best checkpoint, every bit; with an adapter that trains norms as well. No later evaluation gains 50 nats."""
    for name, changes in {"full": FULL, "adapter": {"additional_target": "norm"}}.items():
        run(workspace, tmp_path / name, pure_bf16=True, upcast_layernorm=True, eval_strategy="steps", eval_steps=3, save_steps=3,
            val_size=4, load_best_model_at_end=True, early_stopping_threshold=50, max_steps=9, save_total_limit=9, **changes)
        kept, final = weights(tmp_path / name / "checkpoint-3"), weights(tmp_path / name)
        assert kept.keys() == final.keys() and any("norm" in key for key in kept)
        assert all(torch.equal(kept[key], tensor) and kept[key].dtype == tensor.dtype for key, tensor in final.items())


def test_resolved_defaults_leave_number_formats_alone(workspace: Workspace) -> None:
    precision = config(workspace, Path("out")).precision
    assert (precision.fp32, precision.tf32, precision.pure_bf16, precision.upcast_layernorm) == (False, None, False, False)
