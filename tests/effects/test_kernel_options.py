"""Options on kernels, through runs of the tiny model. Oracles: the run without the option, torch's counters, the log."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tests.effects.engine_runs import losses, resumed_equals_whole, run, weights
from tests.kernels.test_compilation import has_compiler
from tunewright.commands.check import run as check
from tunewright.dialects.read import read_config
from tunewright.errors import ConfigError, InputError
from tunewright.kernels import lora_groups
from tunewright.kernels.compilation import compiled_graphs
from tunewright.kernels.lora_linear import Adapted, lora_linear
from tunewright.selftest.tiny import write_model
from tunewright.selftest.workspace import Workspace

Capture = pytest.CaptureFixture[str]
SHORT = {"max_steps": 3, "logging_steps": 1}


@pytest.fixture(autouse=True)
def fresh(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing is compiled yet, and what is goes into a folder of the tests. accelerate keeps the number format of the first run of a
    process."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "inductor"))
    torch.compiler.reset()
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    torch.compiler.reset()
    AcceleratorState._reset_state(reset_partial_state=True)


def told(capsys: pytest.CaptureFixture[str], workspace: Workspace, output_dir: Path, **changes: Any) -> str:
    """What a run says."""
    capsys.readouterr()
    run(workspace, output_dir, **changes)
    return capsys.readouterr().err


def close(one: Path, other: Path) -> bool:
    """Whether two runs logged the same losses to 1e-5 and ended with the same names and nearly the same weights."""
    ends = weights(one), weights(other)
    return losses(one) == pytest.approx(losses(other), rel=1e-5) and ends[0].keys() == ends[1].keys() and all(
        float((tensor - ends[1][name]).norm()) <= 1e-3 * float(tensor.norm()) for name, tensor in ends[0].items())


@pytest.mark.slow
@pytest.mark.effect("torch_compile", "torch_compile_backend")
@pytest.mark.parametrize("changes", [{}, {"gradient_checkpointing": True, "use_reentrant_gc": True}, {"packing": True}, {
    "finetuning_type": "full", "padding_free": False, "learning_rate": 1e-3}], ids=["lora", "checkpoints", "packing", "full"])
def test_layers_are_compiled(capsys: Capture, workspace: Workspace, tmp_path: Path, changes: dict[str, Any]) -> None:
    """Each of the two names asks for it; losses, names of weights and weights are those of a run that is not compiled."""
    run(workspace, tmp_path / "plain", **SHORT, **changes)
    before = compiled_graphs()
    said = told(capsys, workspace, tmp_path / "compiled", torch_compile_backend="eager", **SHORT, **changes)
    assert "decoder layers: compiled by eager (2 layers)" in said
    assert f"torch_compile: eager compiled {compiled_graphs() - before} graphs in " in said and compiled_graphs() > before
    assert close(tmp_path / "plain", tmp_path / "compiled")


@pytest.mark.slow
@pytest.mark.effect("torch_compile")
def test_a_compiled_run_evaluates_at_its_end(capsys: Capture, workspace: Workspace, tmp_path: Path) -> None:
    """With the model's own layers, and with nothing compiled for it; the figure is that of a run that is not compiled."""
    common = {"do_eval": True, "eval_dataset": workspace.path / "held_out.jsonl", "lora_target": "q_proj", **SHORT}
    wanted = run(workspace, tmp_path / "plain", **common)["eval_loss"]
    before = compiled_graphs()
    found = run(workspace, tmp_path / "compiled", torch_compile=True, torch_compile_backend="eager", **common)["eval_loss"]
    assert found == pytest.approx(wanted, rel=1e-5)
    assert f"torch_compile: eager compiled {compiled_graphs() - before} graphs in " in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.effect("torch_compile_mode")
def test_inductor_keeps_what_it_made(capsys: Capture, workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mode asks for inductor; its code is in the folder that the log names. A run that is cut and resumed ends bit for bit as the
    whole, adapter dropout at work. Where there is no compiler, by the function that `check` asks, the run is refused instead."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    compiled = {"torch_compile_mode": "max-autotune-no-cudagraphs", "lora_target": "q_proj", "lora_dropout": 0.1}
    if not has_compiler():
        with pytest.raises(ConfigError, match=r"torch_compile: inductor needs a C\+\+ compiler"):
            check([f"{name}={value}" for name, value in workspace.settings(tmp_path / "out", **compiled).items()])
        return
    assert resumed_equals_whole(workspace, tmp_path / "cut", **compiled)
    said = capsys.readouterr().err
    assert "decoder layers: compiled by inductor (2 layers)" in said and f"kept in {tmp_path / 'cache'}" in said
    assert any((tmp_path / "cache").rglob("*.so"))


@pytest.mark.slow
@pytest.mark.effect("torch_compile")
def test_a_compiled_run_resumes_bit_for_bit(workspace: Workspace, tmp_path: Path) -> None:
    assert resumed_equals_whole(workspace, tmp_path, torch_compile=True, torch_compile_backend="aot_eager", lora_target="q_proj")


@pytest.mark.effect("torch_compile", "torch_compile_backend")
def test_compiling_without_a_compiler_is_told_beforehand(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:
    """By `check`, at the line that asks for it, and only if the backend calls one."""
    monkeypatch.setenv("CXX", "absent-c++")
    words = [f"{name}={value}" for name, value in workspace.settings(tmp_path / "out", torch_compile=True).items()]
    with pytest.raises(ConfigError, match=r"torch_compile: inductor needs a C\+\+ compiler, and absent-c\+\+ is not there"):
        check(words)
    assert check([*words, "torch_compile_backend=aot_eager"]) == 0


@pytest.mark.effect("torch_compile_backend")
@pytest.mark.parametrize(("words", "said"), [
    (["torch_compile_backend=cudagraphs"], "'cudagraphs' is refused: its graphs hold for batches of one length"),
    (["torch_compile_backend=inducktor"], "'inducktor' is not one of inductor, aot_eager, eager"),
    (["torch_compile_mode=fast"], "'fast' is not one of default, reduce-overhead"),
])
def test_unknown_backends_and_modes(words: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        read_config(words)


@pytest.mark.effect("torch_compile_backend")
def test_the_old_name_of_the_backend() -> None:
    reading = read_config(["torchdynamo=eager"], dialect="llamafactory")
    assert reading.config.kernels.compiles and reading.config.kernels.backend == "eager"


@pytest.mark.slow
@pytest.mark.effect("use_unsloth_gc")
def test_inputs_of_checkpoints_in_host_memory(
    capsys: Capture, workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On a CPU the reason is told why nothing moves. Where there is an accelerator, the two layers are switched over; its memory is
    played by the host's, and weights are bit for bit those of plain checkpoints."""
    common = {"gradient_checkpointing": True, **SHORT}
    run(workspace, tmp_path / "plain", **common)
    said = told(capsys, workspace, tmp_path / "cpu", use_unsloth_gc=True, use_cpu=True, **common)
    assert "use_unsloth_gc: plain gradient checkpointing, because the model computes in host memory anyway" in said
    seen: list[int] = []
    from tunewright.kernels import offload
    from tunewright.kernels.offload import Storage

    monkeypatch.setattr(offload, "HOST", Storage(lambda tensor: (seen.append(tensor.dim()), tensor.detach().clone())[1], lambda kept: kept))
    monkeypatch.setattr("tunewright.kernels.plan.is_on_accelerator", lambda *, use_cpu: True)
    said = told(capsys, workspace, tmp_path / "moved", use_unsloth_gc=True, **common)
    assert "gradient checkpointing keeps its inputs in host memory (2 layers)" in said
    assert seen == [3] * 2 * 3  # two layers, three steps, [B, T, D]
    for name in ("cpu", "moved"):
        found = weights(tmp_path / name)
        assert all(torch.equal(found[key], one) for key, one in weights(tmp_path / "plain").items())


@pytest.mark.slow
@pytest.mark.effect("enable_liger_kernel", "liger_kernel_config", "use_fused_rotary_pos_emb", "use_triton_gdn")
@pytest.mark.skipif(torch.cuda.is_available(), reason="shows the refusal on machines without an NVIDIA GPU")
@pytest.mark.parametrize("name", ["enable_liger_kernel", "use_fused_rotary_pos_emb", "use_triton_gdn"])
def test_what_needs_a_gpu_is_refused_without(workspace: Workspace, tmp_path: Path, name: str) -> None:
    """Before anything is opened or written. What Liger is asked to do on a GPU: tests/kernels/test_liger.py."""
    with pytest.raises(InputError, match=f"{name}: needs an NVIDIA GPU, and there is none"):
        run(workspace, tmp_path / "out", **{name: True})
    assert not (tmp_path / "out").exists()


@pytest.mark.effect("enable_liger_kernel", "liger_kernel_config")
def test_liger_s_switches_reach_it() -> None:
    """Under the names of both releases of LLaMA-Factory, and the package's switches as JSON."""
    read = read_config(['liger_kernel_config={"rope": false}', "use_liger_kernel=true"], dialect="llamafactory").config.kernels
    assert read.enable_liger_kernel and read.liger_kernel_config == {"rope": False}


@pytest.mark.slow
@pytest.mark.effect("use_fused_rmsnorm")
def test_norms_are_fused_or_the_models_own(capsys: Capture, workspace: Workspace, tmp_path: Path) -> None:
    """Two in each of two layers and one at the end; mindspeed's default is the model's own."""
    fused = told(capsys, workspace, tmp_path / "fused", use_fused_rmsnorm=True, **SHORT)
    own = told(capsys, workspace, tmp_path / "own", use_fused_rmsnorm=False, **SHORT)
    assert "RMSNorm: torch's own (5 modules)" in fused and "RMSNorm: torch's own" not in own
    assert close(tmp_path / "fused", tmp_path / "own")
    assert read_config([], dialect="mindspeed_fsdp2").config.kernels.use_fused_rmsnorm is False


@pytest.mark.slow
@pytest.mark.effect("moe_grouped_gemm", "gdn_chunk_size", "use_triton_gdn")
def test_variants_of_experts_and_recurrent_layers(capsys: Capture, workspace: Workspace, tmp_path: Path) -> None:
    """A Qwen3-Next of two layers trains the same with any of them. What the variants compute: tests/kernels/test_variants.py."""
    write_model(tmp_path / "model", kind="qwen3_next")
    common = {"model_name_or_path": tmp_path / "model", "lora_target": "q_proj,v_proj,out_proj", **SHORT}
    first = told(capsys, workspace, tmp_path / "a", moe_grouped_gemm=False, gdn_chunk_size=7, use_triton_gdn=False, **common)
    second = told(capsys, workspace, tmp_path / "b", moe_grouped_gemm=True, **common)
    assert "experts: one after the other" in first and "experts: one grouped product for all" in second
    assert "torch's operations on 7 tokens at a time" in first and "torch's operations on 64 tokens at a time" in second
    assert close(tmp_path / "a", tmp_path / "b")


@pytest.mark.effect("moe_grouped_gemm", "use_triton_gdn", "gdn_chunk_size")
def test_mindspeed_says_no_by_default() -> None:
    kernels = read_config([], dialect="mindspeed_fsdp2").config.kernels
    assert (kernels.moe_grouped_gemm, kernels.use_triton_gdn, kernels.gdn_chunk_size) == (False, False, 64)
    ours = read_config([]).config.kernels
    assert (ours.moe_grouped_gemm, ours.use_triton_gdn, ours.gdn_chunk_size) == (None, None, 64)


def test_a_plan_is_told_by_a_run(workspace: Workspace, tmp_path: Path, capsys: Capture) -> None:
    """The lines of the plan stand in the log before the first step."""
    assert "loss: from hidden states" in told(capsys, workspace, tmp_path, max_steps=1)


@pytest.mark.effect("slow_paths", "chunk_loss_size")
def test_rows_of_logits(capsys: Capture, workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens that have logits at a time in a step: the model itself is asked for none (0), and then come all that are trained, or as many
    as `chunk_loss_size` says; by the model's own loss it is asked for all. Losses agree to the rounding of float32."""
    monkeypatch.setenv("TUNEWRIGHT_CACHE", str(tmp_path / "cache"))
    run(workspace, tmp_path / "first", max_steps=1)  # its proofs look at a few tokens; those after it have them
    rows = {}
    for name, changes in {"all": {}, "some": {"chunk_loss_size": 5}, "own": {"slow_paths": "loss"}}.items():
        with HeadProducts(389) as seen:
            said = told(capsys, workspace, tmp_path / name, max_steps=1, logging_steps=1, **changes)
        rows[name] = seen.rows
        assert ("loss: from hidden states, without logits" in said) is (name != "own")
        assert losses(tmp_path / name) == pytest.approx(losses(tmp_path / "all"), rel=1e-6)
    none, trained = rows["all"]
    assert none == 0 and trained > 10
    none, *some = rows["some"]
    assert none == 0 and sum(some) == trained and len(some) == -(-trained // 5) and max(some) == 5
    assert rows["own"] == [trained]


class HeadProducts(TorchDispatchMode):
    """Notes the number of rows of every matrix product with as many columns as the vocabulary; those of the planner, on meta, are none."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.vocabulary, self.rows = vocabulary, list[int]()

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), settings: Any = None) -> Any:
        found = function(*arguments, **(settings or {}))
        products = (torch.ops.aten.mm.default, torch.ops.aten.mm.out)
        if function in products and found.shape[1] == self.vocabulary and found.device.type != "meta":
            self.rows.append(found.shape[0])
        return found


@pytest.mark.slow
@pytest.mark.effect("slow_paths")
def test_slow_paths_are_the_models_own(capsys: Capture, workspace: Workspace, tmp_path: Path) -> None:
    """Each name takes one line out of the plan, and changes losses and weights by no more than rounding."""
    lines = {"loss": "loss: from hidden states", "lora": "LoRA: layers that read one input", "mlp": "gated MLPs: one activation",
             "norm": "RMSNorm: torch's own"}
    said = told(capsys, workspace, tmp_path / "fast", **SHORT)
    assert all(line in said for line in lines.values()) and "slow_paths: " not in said
    for name in lines:
        said = told(capsys, workspace, tmp_path / name, slow_paths=name, **SHORT)
        assert [other for other, line in lines.items() if line not in said] == [name]
        assert f"slow_paths: {name} as the model has them" in said
        assert close(tmp_path / "fast", tmp_path / name)


@pytest.mark.parametrize(("changes", "line"), [
    ({}, "LoRA: layers that read one input run as one operation (14 modules)"),
    ({"lora_dropout": 0.05}, "LoRA: by peft's own forward: dropout at work (14 modules)"),
    ({"use_dora": True}, "LoRA: by peft's own forward: DoRA (14 modules)"),
    ({"quantization_bit": 4}, "LoRA: by peft's own forward: quantised base weights (14 modules)"),
    ({"pure_bf16": True}, "LoRA: by peft's own forward: weights in several number formats (14 modules)"),
    ({"pure_bf16": True, "bf16": True}, "LoRA: layers that read one input run as one operation (14 modules)"),
    ({"finetuning_type": "full"}, None)], ids=["plain", "dropout", "dora", "quantised", "narrow weights", "autocast", "full"])
def test_what_is_told_of_lora_is_done(capsys: Capture, workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                      changes: dict[str, Any], line: str | None) -> None:
    """Seven layers in each of two decoder layers; those that run as one operation in a training step are counted, those of the planner,
    on meta, are not. Without LoRA nothing is told of it."""
    fast: list[int] = []

    def noted(hidden: Tensor, parts: tuple[Adapted, ...]) -> tuple[Tensor, ...]:
        fast.append(0 if hidden.is_meta else len(parts))
        return lora_linear(hidden, parts)

    monkeypatch.setenv("TUNEWRIGHT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(lora_groups, "lora_linear", noted)
    common = {"max_steps": 1, "per_device_train_batch_size": 1, "gradient_accumulation_steps": 1, **changes}
    run(workspace, tmp_path / "first", **common)  # its proofs count too
    fast.clear()
    said = told(capsys, workspace, tmp_path / "out", **common)
    assert sum(fast) == (14 if line is not None and "one operation" in line else 0)
    assert "LoRA: " not in said if line is None else line in said


def test_a_second_run_needs_no_proofs(
    capsys: Capture, workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The verdicts of the first are kept; the figures are the same bit for bit."""
    monkeypatch.setenv("TUNEWRIGHT_CACHE", str(tmp_path / "cache"))
    first = told(capsys, workspace, tmp_path / "a", **SHORT)
    kept = {*(tmp_path / "cache" / "kernels").iterdir()}
    second = told(capsys, workspace, tmp_path / "b", **SHORT)
    assert {*(tmp_path / "cache" / "kernels").iterdir()} == kept
    (file,) = (file for file in kept if f"kept in {file}" in first)
    assert f"these paths were proven by an earlier run: {file}" in second
    assert losses(tmp_path / "a") == losses(tmp_path / "b")
    assert all(torch.equal(weights(tmp_path / "b")[name], one) for name, one in weights(tmp_path / "a").items())
