"""Options of opening a model and of generating answers: what each changes, through the configuration as a user writes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.models.tiny import probe_logits
from tunewright.cli import main
from tunewright.dialects.read import read_config
from tunewright.errors import ConfigError, InputError
from tunewright.inference.generate import generate
from tunewright.inference.opening import open_model
from tunewright.selftest.tiny import CHATML, write_model, write_rows


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model and two adapters for it that change its logits visibly."""
    folder = tmp_path_factory.mktemp("home")
    write_model(folder / "model")
    for seed in (1, 2):
        torch.manual_seed(seed)
        base = AutoModelForCausalLM.from_pretrained(folder / "model")
        adapted = get_peft_model(base, LoraConfig(r=4, lora_alpha=16, target_modules=["q_proj", "v_proj", "down_proj"]))
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                torch.nn.init.normal_(parameter, std=0.2)
        adapted.save_pretrained(folder / f"adapter{seed}")
    write_rows(folder / "rows.jsonl", 3)
    return folder


def opened(home: Path, *words: str) -> Any:
    return open_model(read_config([f"model_name_or_path={home / 'model'}", "use_cpu=true", *words], purpose="chat").config)


def by_peft(home: Path, *adapters: int) -> Any:
    """Oracle: peft's own loading and merging, one adapter after the other."""
    model = AutoModelForCausalLM.from_pretrained(home / "model")
    for number in adapters:
        model = PeftModel.from_pretrained(model, home / f"adapter{number}").merge_and_unload()
    return model.eval()


@pytest.mark.effect("merge_lora", "auto_merge_weights")
@pytest.mark.parametrize(("adapters", "words", "is_live"), [
    ((1,), (), True), ((1,), ("merge_lora=true",), False), ((1,), ("auto_merge_weights=true",), True),
    ((1, 2), (), True), ((1, 2), ("auto_merge_weights=true",), False), ((1, 2), ("merge_lora=true",), False)])
def test_adapters_are_live_or_merged(home: Path, adapters: tuple[int, ...], words: tuple[str, ...], is_live: bool) -> None:
    """The same function either way; a merged model has no adapter modules left."""
    paths = ",".join(str(home / f"adapter{number}") for number in adapters)
    model = opened(home, f"adapter_name_or_path={paths}", *words).model
    assert any("lora_" in name for name, _ in model.named_parameters()) == is_live
    torch.testing.assert_close(probe_logits(model), probe_logits(by_peft(home, *adapters)), rtol=1e-4, atol=1e-4)
    assert (probe_logits(model) - probe_logits(by_peft(home))).abs().max() > 0.1


@pytest.mark.effect("infer_dtype")
@pytest.mark.parametrize("words", [(), ("merge_lora=true",)])
@pytest.mark.parametrize(("dtype", "expected"), [
    ("auto", torch.float32), ("float16", torch.float16), ("bfloat16", torch.bfloat16), ("float32", torch.float32)])
def test_number_format_of_answers(home: Path, words: tuple[str, ...], dtype: str, expected: torch.dtype) -> None:
    model = opened(home, f"infer_dtype={dtype}", f"adapter_name_or_path={home / 'adapter1'}", *words).model
    assert {parameter.dtype for name, parameter in model.named_parameters() if "lora_" not in name} == {expected}


@pytest.mark.effect("infer_backend")
@pytest.mark.parametrize(("dialect", "value", "told"), [
    ("cli_reference", "vllm", "not built yet"), ("cli_reference", "mlc", "its own compiler"), ("cli_reference", "llama-cpp", "not built"),
    ("cli_reference", "ctransformers", "no longer maintained"), ("llamafactory", "vllm", "not built yet")])
def test_other_engines_are_refused_with_the_reason(dialect: str, value: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        read_config(["--infer_backend", value], dialect=dialect)


def test_the_engine_goes_by_two_names() -> None:
    for dialect, value in (("cli_reference", "hf"), ("llamafactory", "huggingface"), ("native", "huggingface")):
        assert read_config(["--infer_backend", value], dialect=dialect).config.inference.infer_backend == "huggingface"


def tokens_per_forward(model: Any, tokenizer: Any, config: Any) -> tuple[list[int], list[list[int]]]:
    """How many tokens each pass through the model gets, and the answers."""
    seen: list[int] = []
    hook = model.get_input_embeddings().register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[0].shape[1]))
    answers = generate(model, tokenizer, [[5, 6, 7]], config.generation, (999,))
    hook.remove()
    return seen, answers


@pytest.mark.effect("use_cache")
def test_without_the_cache_every_token_is_computed_again(home: Path) -> None:
    """Three tokens of prompt and four of answer: passes over 3, 1, 1, 1 tokens with the cache and 3, 4, 5, 6 without; same tokens."""
    found = opened(home)
    words = ["--do_sample", "false", "--max_new_tokens", "4"]
    cached = read_config(words, dialect="llamafactory").config
    bare = read_config([*words, "--no_use_cache"], dialect="llamafactory").config
    seen, answers = tokens_per_forward(found.model, found.tokenizer, cached)
    seen_bare, answers_bare = tokens_per_forward(found.model, found.tokenizer, bare)
    assert (seen, seen_bare) == ([3, 1, 1, 1], [3, 4, 5, 6])
    assert answers == answers_bare
    assert read_config(["--use_cache", "false"], dialect="cli_reference").config.generation.use_cache is False


def settings_file(folder: Path, **settings: Any) -> Path:
    path = folder / "generation.json"
    path.write_text(json.dumps({"transformers_version": "5.0", "pad_token_id": 3, "top_p": None, **settings}))
    return path


@pytest.mark.effect("generation_config")
def test_a_file_says_how_to_generate(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Oracle: transformers' `generate` with the file's settings by name; ours, further ones, and a stop id of its own."""
    found = opened(home)
    plain = AutoModelForCausalLM.from_pretrained(home / "model").eval()
    settings = {"do_sample": False, "max_new_tokens": 9, "num_beams": 2, "no_repeat_ngram_size": 1, "bad_words_ids": [[17]]}
    config = read_config(["do_predict=true", f"generation_config={settings_file(tmp_path, **settings)}"]).config
    ids = torch.tensor([[5, 6, 7]])
    expected = plain.generate(ids, attention_mask=torch.ones_like(ids), pad_token_id=0, eos_token_id=999, **settings)[0, 3:].tolist()
    (answer,) = generate(found.model, found.tokenizer, [[5, 6, 7]], config.generation, (999,))
    assert answer == expected and len(set(answer)) == 9
    with_stop = read_config([f"generation_config={settings_file(tmp_path, **settings, eos_token_id=[expected[4]])}"]).config
    stopped = plain.generate(ids, attention_mask=torch.ones_like(ids), pad_token_id=0, eos_token_id=[999, expected[4]], **settings)
    (shorter,) = generate(found.model, found.tokenizer, [[5, 6, 7]], with_stop.generation, (999,))
    assert shorter == [token for token in stopped[0, 3:].tolist() if token != expected[4]][:len(shorter)] and len(shorter) < 9
    words = [f"model_name_or_path={home / 'model'}", f"eval_dataset={home / 'rows.jsonl'}", "data_cache_dir=none", "use_cpu=true"]
    words += [f"output_dir={tmp_path / 'out'}", f"generation_config={settings_file(tmp_path, max_new_tokens=1)}"]
    assert main(["predict", *words]) == 0
    capsys.readouterr()
    made = [json.loads(line)["predict"] for line in (tmp_path / "out" / "generated_predictions.jsonl").read_text().splitlines()]
    assert len(made) == 3 and all(len(text) <= len(" umbrella") for text in made)  # the longest token of this tokenizer


@pytest.mark.parametrize(("content", "told"), [
    ("{", "is not JSON"), ("[]", "an object from names to values"), ('{"temprature": 1}', "did you mean temperature?"),
    ('{"temperature": -1}', "temperature: -1 is out of range"), ('{"eos_token_id": "x"}', "an integer or a list of integers"),
    (None, "No such")])
def test_a_bad_file_is_one_line(tmp_path: Path, content: str | None, told: str) -> None:
    path = tmp_path / "g.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=told) as report:
        read_config(["model_name_or_path=demo", f"generation_config={path}"], purpose="chat")
    assert str(path) in str(report.value) and len(str(report.value).splitlines()) == 1


def test_settings_that_transformers_refuses_are_named(home: Path, tmp_path: Path) -> None:
    found = opened(home)
    config = read_config([f"generation_config={settings_file(tmp_path, max_new_tokens=2, early_stopping='perhaps')}"]).config
    with pytest.raises(InputError, match="generation_config"):
        generate(found.model, found.tokenizer, [[5, 6, 7]], config.generation, (999,))


@pytest.mark.effect("tokenizer_name_or_path")
def test_a_tokenizer_of_its_own(home: Path, tmp_path: Path) -> None:
    """The named tokenizer renders and encodes, also where the model's directory has none, and before one saved with an adapter."""
    tokenizer = AutoTokenizer.from_pretrained(home / "model")
    tokenizer.chat_template = CHATML.replace("<|im_start|>", "<|im_start|>!")
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    AutoModelForCausalLM.from_pretrained(home / "model").save_pretrained(tmp_path / "bare")
    config = tmp_path / "c.yaml"
    config.write_text(f"dialect: mindspeed_fsdp2\nmodel:\n  model_name_or_path: {tmp_path / 'bare'}\n"
                      f"  tokenizer_name_or_path: {tmp_path / 'tokenizer'}\n")
    found = open_model(read_config([str(config)], purpose="chat").config)
    assert "<|im_start|>!" in found.renderer.source
    assert len(found.tokenizer) == len(tokenizer)
    with pytest.raises(ConfigError, match="no such directory"):
        read_config(["model_name_or_path=demo", "tokenizer_name_or_path=./absent"], purpose="chat")
    with pytest.raises(InputError, match="tokenizer"):
        open_model(read_config([f"model_name_or_path={tmp_path / 'bare'}"], purpose="chat").config)


def test_a_tokenizer_that_does_not_fit_is_refused(home: Path, tmp_path: Path) -> None:
    """More ids than the embedding has rows."""
    tokenizer = AutoTokenizer.from_pretrained(home / "model")
    tokenizer.add_tokens([f"word{number}" for number in range(20)])
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    with pytest.raises(InputError, match="embedding rows"):
        opened(home, f"tokenizer_name_or_path={tmp_path / 'tokenizer'}")
