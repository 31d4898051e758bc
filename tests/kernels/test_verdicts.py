"""Verdicts of proofs that are kept. Oracles: the model's own loss and gradients; the number of passes through the model."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.kernels.test_isolation import tiny, with_adapter
from tests.kernels.test_rotary import made
from tests.kernels.test_swap import loss_and_gradients
from tunewright.config.run import RunConfig
from tunewright.dialects.read import read_config
from tunewright.kernels import lora_groups, verdicts
from tunewright.kernels.lora_linear import lora_linear
from tunewright.kernels.output_head import of
from tunewright.kernels.plan import hasten
from tunewright.kernels.taken import Taken

RUN: RunConfig = read_config([]).config
LOSS = "loss: from hidden states, without logits; the last layer's MLP only where a token is predicted"


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEWRIGHT_CACHE", str(tmp_path))


def kept() -> list[Path]:
    return sorted(verdicts.folder().glob("*"))


def counted(model: nn.Module) -> tuple[tuple[str, ...], int]:
    """The lines of `hasten`, and how many passes through the model it took."""
    passes: list[int] = []
    hook = model.register_forward_pre_hook(lambda *_: passes.append(1))
    lines = hasten(RUN, model)  # type: ignore[arg-type]
    hook.remove()
    return lines, len(passes)


def test_a_second_run_takes_the_same_paths_without_a_proof() -> None:
    """Five passes (logits, hidden states, those of the last layer twice, which LoRA layers share an input), then none.
    The weights of the second model are others; its loss and every gradient are those of its own code."""
    first, passes = counted(with_adapter(tiny("llama")))
    assert passes == 5 and len(kept()) == 1
    model = with_adapter(tiny("llama"))
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(1.1)
    wanted = loss_and_gradients(model)
    again, passes = counted(model)
    assert passes == 0 and of(model) is not None
    assert first[:-1] == again[:-1] == (
        LOSS, "LoRA: layers that read one input run as one operation (8 modules)",
        "gated MLPs: one activation (2 modules)", "RMSNorm: torch's own (5 modules)",
        "rotary positions: in two passes (2 modules)")
    assert first[-1].startswith("8 proofs of these paths took ") and first[-1].endswith(f" s; kept in {kept()[0]}")
    assert again[-1] == f"these paths were proven by an earlier run: {kept()[0]}"
    torch.testing.assert_close(loss_and_gradients(model), wanted, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("spoil", [
    lambda text: text[:len(text) // 2], lambda text: "", lambda text: "[]", lambda text: text.replace('"loss', '"lass'),
    lambda text: json.dumps({"verdicts": json.loads(text)["verdicts"]})], ids=["torn", "empty", "another", "changed", "unsigned"])
def test_a_damaged_file_is_as_if_absent(spoil: Callable[[str], str]) -> None:
    """Everything is proven again, and the file is whole again."""
    counted(with_adapter(tiny("llama")))
    (file,) = kept()
    whole = file.read_text()
    file.write_text(spoil(whole))
    assert counted(with_adapter(tiny("llama")))[1] == 5
    assert kept() == [file] and file.read_text() == whole


def replaced_forward(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    """As another package does that replaces the forward of a class."""
    kind = type(model.model.layers[0].mlp)  # type: ignore[union-attr, index]
    own = kind.forward
    monkeypatch.setattr(kind, "forward", lambda self, hidden: own(self, hidden))


CHANGES: dict[str, Callable[[Any, pytest.MonkeyPatch], object]] = {
    "the configuration": lambda model, _: setattr(model.config, "logits_scaling", 2.0),
    "number format": lambda model, _: model.float(),
    "a shape": lambda model, _: model.resize_token_embeddings(65),
    "a module": lambda model, _: setattr(model.model.layers[0].mlp, "act_fn", nn.GELU()),
    "the forward of one module": lambda model, _: setattr(model.model.norm, "forward", lambda hidden: hidden),
    "the forward of a class": replaced_forward,
    "our code": lambda _, monkeypatch: monkeypatch.setattr(verdicts, "file_digest", lambda path: "other"),
    "torch": lambda _, monkeypatch: monkeypatch.setattr(torch, "__version__", "99"),
    "the processor": lambda _, monkeypatch: monkeypatch.setattr(verdicts, "_processor", lambda device: "other"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_a_verdict_depends_on(change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny("llama")
    before = verdicts.Verdicts.of(model).file  # type: ignore[arg-type]
    CHANGES[change](model, monkeypatch)
    assert verdicts.Verdicts.of(model).file != before  # type: ignore[arg-type]


def test_what_a_verdict_does_not_depend_on() -> None:
    """Numbers in the weights, the name of the model, what trains."""
    model = tiny("llama")
    before = verdicts.Verdicts.of(model).file  # type: ignore[arg-type]
    model.config._name_or_path = "/elsewhere"  # type: ignore[union-attr]
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(2).requires_grad_(False)
    assert verdicts.Verdicts.of(model.eval()).file == before  # type: ignore[arg-type]


def test_a_verdict_against_a_path_is_not_kept() -> None:
    """Weights that are no numbers today may be numbers tomorrow."""
    broken = tiny("llama")
    with torch.no_grad():
        broken.model.norm.weight.fill_(torch.nan)  # type: ignore[union-attr]
    lines, _ = counted(broken)
    assert lines[0].startswith("loss: from hidden states, without logits: not here, the model changes its logits") and of(broken) is None
    mended = tiny("llama")
    assert counted(mended)[0][0] == LOSS and of(mended) is not None


def wrong(hidden: Tensor, layers: Any) -> tuple[Tensor, ...]:
    """The update with the other sign."""
    return lora_linear(hidden, tuple(one._replace(scaling=-one.scaling) for one in layers))


def test_a_lora_that_computes_something_else_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """The update with the other sign is seen though the B of a new adapter are zeros."""
    assert lora_groups.switch_over(with_adapter(tiny("llama"))) == Taken(8, {})
    monkeypatch.setattr(lora_groups, "lora_linear", wrong)
    model = with_adapter(tiny("llama"))
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            nn.init.zeros_(weight)
    assert lora_groups.switch_over(model) == Taken(0, {"it computes something else": 8})
    assert not any("forward" in module.__dict__ for module in model.modules())


def test_dropout_is_asked_for_every_time() -> None:
    """A model is the same to a verdict with dropout and without; what is told is what a training step does of either. Evaluation takes the
    path that was proven."""
    plain = "LoRA: layers that read one input run as one operation (8 modules)"
    dropped = "LoRA: by peft's own forward: dropout at work (8 modules)"
    some = "LoRA: layers that read one input run as one operation (6 modules); by peft's own forward: dropout at work (2 modules)"
    for order in ((plain, dropped, some), (some, dropped, plain)):
        for file in kept():
            file.unlink()
        for line in order:
            model = with_adapter(tiny("llama"))
            for name, module in model.named_modules():
                if line == dropped or (line == some and name.endswith("q_proj")):
                    for dropout in getattr(module, "lora_dropout", {}):
                        module.lora_dropout[dropout] = nn.Dropout(0.3)  # type: ignore[union-attr, operator]
            assert counted(model)[0][1] == line
            assert sum("forward" in module.__dict__ for module in model.modules() if hasattr(module, "lora_A")) == 8


def test_a_verdict_is_not_of_layers_that_it_did_not_try(monkeypatch: pytest.MonkeyPatch) -> None:
    """Base weights that train keep the layers from the path; a later run of the same shapes, whose base is frozen, proves it."""
    trained = with_adapter(tiny("llama"))
    for name, weight in trained.named_parameters():
        weight.requires_grad_("embed" not in name)
    assert counted(trained)[0][1] == "LoRA: by peft's own forward: a trained base weight or bias (8 modules)"
    monkeypatch.setattr(lora_groups, "lora_linear", wrong)
    assert counted(with_adapter(tiny("llama")))[0][1] == "LoRA: by peft's own forward: it computes something else (8 modules)"


def test_a_folder_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "kernels").write_text("a file where the folder should be")
    lines, _ = counted(tiny("llama"))
    assert "; they are not kept: " in lines[-1] and lines[-1].endswith(f" ({tmp_path / 'kernels'})")


def test_nothing_is_said_where_nothing_is_asked() -> None:
    run = read_config(["slow_paths=loss,lora,mlp,norm,rotary"]).config
    assert hasten(run, tiny("llama")) == ("slow_paths: loss, lora, mlp, norm, rotary as the model has them",)  # type: ignore[arg-type]
    assert kept() == []


GELU = "no SiLU between gate and up (2 modules)"
ABSENT = "no module has gate_proj, up_proj and down_proj"
PLANS: dict[str, tuple[str, ...]] = {
    "gemma2": (f"gated MLPs: as the model has them: {GELU}", "RMSNorm: torch's own (9 modules)",
               "rotary positions: in two passes (2 modules)"),
    "qwen3_moe": (f"gated MLPs: as the model has them: {ABSENT}", "RMSNorm: torch's own (9 modules)",
                  "rotary positions: in two passes (2 modules)"),
    "phi": (f"gated MLPs: as the model has them: {ABSENT}", "RMSNorm: as the model has them: no module is one",
            "rotary positions: in two passes (2 modules)"),
    "gpt_oss": (f"gated MLPs: as the model has them: {ABSENT}", "RMSNorm: torch's own (5 modules)",
                "rotary positions: as the model has them: it takes other arguments (2 modules)"),
    "glm4": (f"gated MLPs: as the model has them: {ABSENT}", "RMSNorm: torch's own (9 modules)",
             "rotary positions: as the model has them: it computes something else (2 modules)"),
    "gpt2": (f"gated MLPs: as the model has them: {ABSENT}", "RMSNorm: as the model has them: no module is one",
             "rotary positions: as the model has them: no attention calls apply_rotary_pos_emb")}
"""Worked by hand from the models' code: Gemma has GELU, experts are no such modules, Phi and GPT-2 have LayerNorm and plain MLPs, GLM has
gate and up in one matrix and turns neighbours, GPT-OSS has half as many cosines, GPT-2 has learned positions."""


@pytest.mark.parametrize("kind", PLANS)
def test_every_path_is_told_with_its_reason(kind: str) -> None:
    """Whether it is taken or not; of LoRA there is nothing to tell where there is none."""
    assert hasten(replace(RUN, kernels=replace(RUN.kernels, slow_paths=("loss",))), made(kind))[:3] == PLANS[kind]


def test_a_path_that_some_modules_take() -> None:
    """Norms and MLPs to which another package, or Liger, gave a forward keep it, and are counted apart."""
    model: Any = tiny("llama")
    for module in (model.model.norm, model.model.layers[0].mlp, model.model.layers[0].self_attn):
        module.forward = module.forward
    assert hasten(RUN, model)[1:4] == (
        "gated MLPs: one activation (1 module); as the model has them: another package gave them a forward (1 module)",
        "RMSNorm: torch's own (4 modules); as the model has them: another package gave them a forward (1 module)",
        "rotary positions: in two passes (1 module); as the model has them: another package gave them a forward (1 module)")


def test_a_fused_norm_that_is_asked_for_in_vain() -> None:
    """The reason, and what asked for it."""
    run = replace(RUN, kernels=replace(RUN.kernels, use_fused_rmsnorm=True, slow_paths=("loss", "mlp", "rotary")))
    assert hasten(run, made("phi")) == (
        "RMSNorm: as the model has them: no module is one", "use_fused_rmsnorm: the model has no RMSNorm that torch's own can replace",
        "slow_paths: loss, mlp, rotary as the model has them")


def test_the_oldest_files_go() -> None:
    """Of 100 files that are there, the one that is oldest."""
    verdicts.folder().mkdir()
    for age in range(100):
        file = verdicts.folder() / f"{age}.json"
        file.write_text("{}")
        os.utime(file, (1e9 - age, 1e9 - age))
    hasten(RUN, tiny("llama"))  # type: ignore[arg-type]
    names = {file.name for file in kept()}
    assert len(names) == 100 and "99.json" not in names and {f"{age}.json" for age in range(99)} < names
