"""Exported models: what plain transformers opens equals the live adapter; interrupted or wrong exports leave nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.models.tiny import probe_logits, tiny_model, train_steps
from tunewright.adapters.pissa import save_converted
from tunewright.adapters.trainable import make_trainable, save_trained
from tunewright.commands.export import run as export_command
from tunewright.config.data import TemplateConfig
from tunewright.config.inference import ExportConfig, InferenceConfig
from tunewright.config.model import ModelConfig, TokenizerConfig
from tunewright.config.optimization import PrecisionConfig
from tunewright.config.run import RunConfig
from tunewright.config.tuning import LoraConfig, TuningConfig
from tunewright.errors import InputError, NumericError
from tunewright.export import merge
from tunewright.export.probe import compare
from tunewright.models.load import load_model
from tunewright.models.tokenizer import load_tokenizer
from tunewright.selftest.tiny import CHATML, write_model


def base_at(path: Path, family: str = "llama", dtype: torch.dtype = torch.float32) -> Path:
    """A tiny model with the ChatML tokenizer of the tests; weights large enough that an adapter's effect is visible."""
    write_model(path)
    config = json.loads((path / "config.json").read_text())
    config_class = type(tiny_model(family).config)
    shape = {**tiny_model(family).config.to_dict(), "vocab_size": config["vocab_size"], "initializer_range": 0.1}
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config_class.from_dict(shape)).to(dtype).save_pretrained(path)
    return path


def trained(
    tmp_path: Path, base: Path, *, adapters: tuple[str, ...] = (), kind: str = "lora", name: str = "run", **lora: Any,
) -> tuple[Any, Path]:
    """A trained model and the directory in which it was saved."""
    run = RunConfig(model=ModelConfig(model_name_or_path=str(base), adapter_name_or_path=adapters),
                    tuning=TuningConfig(finetuning_type=kind), lora=LoraConfig(**lora))
    model = make_trainable(load_model(run.model, run.precision), run)
    train_steps(model, 5)
    tokenizer = load_tokenizer(run.model, TokenizerConfig())
    save_trained(model, tmp_path / name, tokenizer, chat_template=CHATML)
    return model, tmp_path / name


def export_run(model: Path, target: Path, **export: Any) -> RunConfig:
    return RunConfig(model=ModelConfig(model_name_or_path=str(model)), export=ExportConfig(export_dir=str(target), **export))


@pytest.mark.parametrize("family", ["llama", "qwen3", "qwen3_moe", "gpt2", "gemma"])
def test_plain_transformers_gives_the_live_adapters_logits(tmp_path: Path, family: str) -> None:
    """Oracle: the live adapter; and peft's own merge of the saved adapter."""
    base = base_at(tmp_path / "base", family)
    model, directory = trained(tmp_path, base)
    done = merge.export(export_run(directory, tmp_path / "out"))
    opened = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    live = probe_logits(model)
    torch.testing.assert_close(probe_logits(opened), live, rtol=1e-4, atol=1e-4)
    assert (live - probe_logits(AutoModelForCausalLM.from_pretrained(base))).abs().max() > 0.05
    by_peft = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), directory).merge_and_unload()
    torch.testing.assert_close(probe_logits(opened), probe_logits(by_peft), rtol=1e-5, atol=1e-5)
    assert done.difference.divergence < 1e-6
    assert done.difference.agree == 1.0
    assert done.lines()[0] == f"exported {tmp_path}/out (float32, 1 adapter(s) merged)"


def test_tokenizer_template_and_stop_ids_go_alongside(tmp_path: Path) -> None:
    """Plain `generate` with the exported files stops at the turn's end, and the template is that of the training."""
    base = base_at(tmp_path / "base")
    _, directory = trained(tmp_path, base)
    (base / "chat_template.jinja").write_text("other")
    merge.export(export_run(directory, tmp_path / "out"))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.chat_template == CHATML
    eos = json.loads((tmp_path / "out" / "generation_config.json").read_text())["eos_token_id"]
    assert tokenizer.convert_tokens_to_ids("<|im_end|>") in (eos if isinstance(eos, list) else [eos])
    assert not list((tmp_path / "out").glob("*.bin"))
    assert len({path.stat().st_mode for path in (tmp_path / "out").iterdir()}) == 1


@pytest.mark.effect("export_dtype")
@pytest.mark.parametrize(("stored", "asked", "expected"), [
    (torch.bfloat16, "auto", torch.bfloat16), (torch.float32, "auto", torch.float32), (torch.float32, "float16", torch.float16),
    (torch.bfloat16, "float32", torch.float32)])
def test_number_format_is_the_bases_unless_asked(tmp_path: Path, stored: torch.dtype, asked: str, expected: torch.dtype) -> None:
    base = base_at(tmp_path / "base", dtype=stored)
    _, directory = trained(tmp_path, base)
    done = merge.export(export_run(directory, tmp_path / "out", export_dtype=asked))
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto").dtype == expected
    assert done.dtype == str(expected).removeprefix("torch.")


@pytest.mark.effect("lora_bias")
@pytest.mark.parametrize(("bias", "moved"), [("none", set()), ("lora_only", {"attn.c_attn"}), ("all", {
    "attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj", "ln_1", "ln_2"})])
def test_which_biases_train(tmp_path: Path, bias: str, moved: set[str]) -> None:
    """By the exported file beside the base's: none, those of the targets, or all; and it is the model that was trained."""
    base = base_at(tmp_path / "base", "gpt2")
    model, directory = trained(tmp_path, base, lora_bias=bias, lora_target=("c_attn",))
    merge.export(export_run(directory, tmp_path / "out"))
    opened, before = AutoModelForCausalLM.from_pretrained(tmp_path / "out"), AutoModelForCausalLM.from_pretrained(base).state_dict()
    torch.testing.assert_close(probe_logits(opened), probe_logits(model), rtol=1e-4, atol=1e-4)
    changed = {name for name, tensor in opened.state_dict().items() if name.endswith(".bias") and not torch.equal(tensor, before[name])}
    assert {".".join(name.split(".")[3:-1]) for name in changed if ".h." in name} == moved
    assert any("ln_f" in name for name in changed) == (bias == "all")


@pytest.mark.parametrize("lora", [{"use_dora": True}, {"use_rslora": True}, {"pissa_init": True}, {"lora_bias": "all"},
                                  {"additional_target": ("embed_tokens", "lm_head")}])
def test_variants(tmp_path: Path, lora: dict[str, Any]) -> None:
    """PiSSA from the adapter itself, whose base must lose its first factors again."""
    model, directory = trained(tmp_path, base_at(tmp_path / "base"), **lora)
    merge.export(export_run(directory, tmp_path / "out"))
    torch.testing.assert_close(probe_logits(AutoModelForCausalLM.from_pretrained(tmp_path / "out")), probe_logits(model),
                               rtol=1e-4, atol=1e-4)


@pytest.mark.effect("export_dir")
def test_several_adapters_and_what_an_adapter_stands_on(tmp_path: Path) -> None:
    """The second adapter was trained on base + first: exporting it alone still gives the model that was trained."""
    base = base_at(tmp_path / "base")
    _, first = trained(tmp_path, base, name="first")
    model, second = trained(tmp_path, base, adapters=(str(first),), create_new_adapter=True, name="second")
    live = probe_logits(model)
    merge.export(export_run(second, tmp_path / "alone"))
    named = replace(export_run(base, tmp_path / "named"), model=ModelConfig(model_name_or_path=str(base),
                                                                           adapter_name_or_path=(str(first), str(second))))
    done = merge.export(named)
    assert done.adapters == (first, second)
    for name in ("alone", "named"):
        torch.testing.assert_close(probe_logits(AutoModelForCausalLM.from_pretrained(tmp_path / name)), live, rtol=1e-4, atol=1e-4)


def test_full_run_directory(tmp_path: Path) -> None:
    model, directory = trained(tmp_path, base_at(tmp_path / "base"), kind="full")
    done = merge.export(export_run(directory, tmp_path / "out"))
    torch.testing.assert_close(probe_logits(AutoModelForCausalLM.from_pretrained(tmp_path / "out")), probe_logits(model),
                               rtol=0, atol=0)
    assert done.lines()[1].startswith("against the model that was read on probe prompts: largest logit difference 0,")


@pytest.mark.effect("export_size")
def test_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """export_size reaches the writer as its limit in GB; the shards load as one model."""
    model, directory = trained(tmp_path, base_at(tmp_path / "base"))
    sizes = []

    def save_small(model: Any, place: Path, size: str) -> None:
        sizes.append(size)
        model.save_pretrained(place, max_shard_size="50KB")

    monkeypatch.setattr(merge, "save_model", save_small)
    merge.export(export_run(directory, tmp_path / "out", export_size=3))
    assert sizes == ["3GB"]
    assert len(list((tmp_path / "out").glob("model-*.safetensors"))) > 1
    torch.testing.assert_close(probe_logits(AutoModelForCausalLM.from_pretrained(tmp_path / "out")), probe_logits(model),
                               rtol=1e-4, atol=1e-4)


def test_target_must_be_new(tmp_path: Path) -> None:
    base = base_at(tmp_path / "base")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("kept")
    with pytest.raises(InputError) as caught:
        merge.export(export_run(base, tmp_path / "full"))
    assert str(caught.value) == f"export_dir: {tmp_path}/full is not empty; name a new directory; nothing is overwritten"
    assert (tmp_path / "full" / "x").read_text() == "kept"
    with pytest.raises(InputError, match="no target is given; set export_dir"):
        merge.export(RunConfig(model=ModelConfig(model_name_or_path=str(base))))
    (tmp_path / "empty").mkdir()
    merge.export(export_run(base, tmp_path / "empty"))
    assert (tmp_path / "empty" / "config.json").is_file()


@pytest.mark.parametrize("moment", ["save_model", "save_tokenizer", "reopened", "require_close"])
def test_an_interrupted_export_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    base = base_at(tmp_path / "base")
    monkeypatch.setattr(merge, moment, interrupt)
    with pytest.raises(KeyboardInterrupt):
        merge.export(export_run(base, tmp_path / "out"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base"]


def test_a_result_unlike_the_live_adapter_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A merge that loses the adapter (here: the untouched base is saved instead)."""
    base = base_at(tmp_path / "base")
    _, directory = trained(tmp_path, base)
    monkeypatch.setattr(merge, "unload_merged", lambda adapted: adapted.unload())
    with pytest.raises(NumericError, match="the exported model is not the trained one: largest logit difference"):
        merge.export(export_run(directory, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_converted_pissa_exports_like_the_pissa_adapter(tmp_path: Path) -> None:
    base = base_at(tmp_path / "base")
    model, directory = trained(tmp_path, base, pissa_init=True)
    save_converted(model, directory)
    merge.export(export_run(directory / "pissa_converted", tmp_path / "out"))
    torch.testing.assert_close(probe_logits(AutoModelForCausalLM.from_pretrained(tmp_path / "out")), probe_logits(model),
                               rtol=1e-4, atol=1e-4)


def test_command_line_forms(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run's directory alone; base, adapter and target by the short options; a LLaMA-Factory file."""
    base = base_at(tmp_path / "base")
    _, directory = trained(tmp_path, base)
    assert export_command([str(directory), "--out", str(tmp_path / "one")]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0] == f"exported {tmp_path}/one (float32, 1 adapter(s) merged)"
    assert export_command(["--model", str(base), "--adapter", str(directory), f"--out={tmp_path / 'two'}"]) == 0
    (tmp_path / "merge.yaml").write_text(
        f"model_name_or_path: {base}\nadapter_name_or_path: {directory}\ntemplate: qwen\nfinetuning_type: lora\n"
        f"export_dir: {tmp_path / 'three'}\nexport_size: 2\nexport_device: cpu\n")
    assert export_command([str(tmp_path / "merge.yaml")]) == 0
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "two", "three")]
    assert weights[0] == weights[1] == weights[2]
    assert export_command(["--help"]) == 0
    assert "--adapter" in capsys.readouterr().out


def test_a_run_without_a_finished_model_names_its_newest_checkpoint(tmp_path: Path) -> None:
    for step in (2, 10):
        (tmp_path / "run" / f"checkpoint-{step}").mkdir(parents=True)
    with pytest.raises(InputError) as caught:
        merge.export(export_run(tmp_path / "run", tmp_path / "out"))
    assert str(caught.value) == (f"{tmp_path}/run holds neither a model (config.json) nor an adapter (adapter_config.json); "
                                 f"its newest checkpoint is {tmp_path}/run/checkpoint-10")


def test_a_base_model_without_template_is_exported_as_it_is(tmp_path: Path) -> None:
    base = base_at(tmp_path / "base")
    (base / "chat_template.jinja").unlink()
    merge.export(export_run(base, tmp_path / "out"))
    assert AutoTokenizer.from_pretrained(tmp_path / "out").chat_template is None


def test_named_template_wins(tmp_path: Path) -> None:
    base = base_at(tmp_path / "base")
    (tmp_path / "mine.jinja").write_text(CHATML + "{# mine #}")
    run = replace(export_run(base, tmp_path / "out"), template=TemplateConfig(template=str(tmp_path / "mine.jinja")))
    merge.export(run)
    assert "{# mine #}" in AutoTokenizer.from_pretrained(tmp_path / "out").chat_template


def test_divergence() -> None:
    """By hand: p = (1/2, 1/2), q = (1/4, 3/4): KL = 1/2 ln 2 + 1/2 ln (2/3) = 0.14384."""
    difference = compare([torch.tensor([[0.0, 0.0]])], [torch.tensor([[0.0, 1.0986123]])])
    assert difference.divergence == pytest.approx(0.1438410, abs=1e-6)
    assert (difference.logit, difference.agree) == (pytest.approx(1.0986123), 0.0)
    assert not compare([torch.tensor([[0.0, float("nan")]])], [torch.tensor([[0.0, 0.0]])]).divergence <= 1


def test_precision_of_the_training_does_not_matter_here(tmp_path: Path) -> None:
    """The merge is in float32 even where the run kept its weights in bfloat16."""
    base = base_at(tmp_path / "base")
    model, directory = trained(tmp_path, base)
    merge.export(replace(export_run(directory, tmp_path / "out"), precision=PrecisionConfig(pure_bf16=True)))
    torch.testing.assert_close(probe_logits(AutoModelForCausalLM.from_pretrained(tmp_path / "out")), probe_logits(model),
                               rtol=1e-4, atol=1e-4)


def test_infer_dtype_is_the_format_where_export_dtype_leaves_it_open(tmp_path: Path) -> None:
    """As in LLaMA-Factory, whose only word for the exported format is infer_dtype; export_dtype wins."""
    _, directory = trained(tmp_path, base_at(tmp_path / "base"))
    for number, (export, expected) in enumerate([({}, "bfloat16"), ({"export_dtype": "float16"}, "float16")]):
        run = replace(export_run(directory, tmp_path / str(number), **export), inference=InferenceConfig(infer_dtype="bfloat16"))
        assert merge.export(run).dtype == expected
