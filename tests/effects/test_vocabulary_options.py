"""Runs that add tokens: what they train and save, and that everybody who opens the result finds the same model.

Oracles: plain transformers and peft on the files, the ids of transformers' own tokenizer, and bit-identity of resumed runs.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.effects.engine_runs import config, history, losses, resumed_equals_whole, run, weights
from tunewright.cli import main
from tunewright.commands.preview import prepared_examples
from tunewright.dialects.read import read_config
from tunewright.errors import InputError
from tunewright.inference.opening import open_model
from tunewright.models.surgery.vocabulary import noise
from tunewright.selftest.workspace import Workspace

pytestmark = pytest.mark.slow

EMBEDDING, HEAD = "base_model.model.model.embed_tokens.weight", "base_model.model.lm_head.weight"
OLD, NEW = 389, 448


@pytest.fixture(scope="module")
def places(workspace: Workspace) -> dict[bool, Workspace]:
    """Tied or not -> a workspace; rows hold the new tokens."""
    other = Workspace(workspace.path / "untied")
    shutil.copytree(workspace.path / "model", other.path / "model")
    torch.manual_seed(4)
    model = AutoModelForCausalLM.from_pretrained(workspace.path / "model")
    model.config.tie_word_embeddings = False
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach() + torch.randn(OLD, 32) * 0.02)
    model.save_pretrained(other.path / "model")
    for place in (workspace, other):
        rows = [{"instruction": f"<Q>river {number}", "output": f"bridge<A> {number}"} for number in range(10)]
        (place.path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (place.path / "held_out.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:3]))
    return {True: workspace, False: other}


def opened(*words: str) -> Any:
    return open_model(read_config([*words, "use_cpu=true"], purpose="chat").config)


def logits_of(model: Any) -> torch.Tensor:
    """Over ids of old and new tokens."""
    ids = torch.tensor([[5, OLD, 7, 90, OLD + 1, 300, 12]])
    with torch.no_grad():
        found: torch.Tensor = model.eval()(input_ids=ids).logits
    return found


def by_peft(place: Workspace, *adapters: Path) -> Any:
    """Oracle: what a user does who has transformers and peft only. Each adapter but the last is merged."""
    model = AutoModelForCausalLM.from_pretrained(place.path / "model")
    for number, adapter in enumerate(adapters):
        model.resize_token_embeddings(len(AutoTokenizer.from_pretrained(adapter)), pad_to_multiple_of=64)
        model = PeftModel.from_pretrained(model, adapter)
        if number < len(adapters) - 1:
            model = model.merge_and_unload()
    return model


@pytest.mark.effect("add_special_tokens")
@pytest.mark.parametrize("tied", [True, False])
def test_an_adapter_of_a_larger_vocabulary(
    places: dict[bool, Workspace], tmp_path: Path, tied: bool, capsys: pytest.CaptureFixture[str],
) -> None:
    """Rows hold the new tokens as one id each; embedding and head train and are saved whole; peft, chat and the merged model agree."""
    out = tmp_path / "out"
    run(places[tied], out, add_special_tokens="<Q>,<A>", num_train_epochs=4)
    told = capsys.readouterr().err.splitlines()
    assert f"vocabulary: {OLD} embedding rows are now {NEW}, a multiple of 64, for {OLD + 2} tokens" in told
    assert "new rows: model.embed_tokens and lm_head train in full and are saved with the adapter" in told
    tokenizer = AutoTokenizer.from_pretrained(out)
    assert tokenizer.convert_tokens_to_ids(["<Q>", "<A>"]) == [OLD, OLD + 1]
    examples, _ = prepared_examples(config(places[tied], tmp_path / "x", add_special_tokens="<Q>,<A>"), "train")
    assert all(list(examples[row].input_ids).count(OLD) == list(examples[row].labels).count(OLD + 1) == 1 for row in range(len(examples)))
    saved = load_file(out / "adapter_model.safetensors")
    assert saved[EMBEDDING].shape == saved[HEAD].shape == (NEW, 32)
    assert torch.equal(saved[EMBEDDING], saved[HEAD]) == tied
    start = load_file(places[tied].path / "model" / "model.safetensors")["model.embed_tokens.weight"]
    before = start.double().mean(0) + noise("<Q>", 32, which="input", seed=config(places[tied], tmp_path / "x").run.seed).double()
    moved = (saved[EMBEDDING][OLD].double() - before).abs()
    assert 1e-3 < float(moved.max()) < 1  # trained, from where it was to begin
    mine, plain = opened(f"model_name_or_path={out}"), by_peft(places[tied], out)
    torch.testing.assert_close(logits_of(mine.model), logits_of(plain), rtol=1e-5, atol=1e-5)
    assert mine.tokenizer("<Q>")["input_ids"] == [OLD]
    assert main(["export", str(out), f"export_dir={tmp_path / 'merged'}"]) == 0
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    torch.testing.assert_close(logits_of(merged), logits_of(plain), rtol=1e-4, atol=1e-4)
    assert merged.config.vocab_size == NEW and (merged.lm_head.weight is merged.model.embed_tokens.weight) == tied
    assert AutoTokenizer.from_pretrained(tmp_path / "merged").convert_tokens_to_ids("<A>") == OLD + 1
    assert losses(out)[-1] < losses(out)[0]


@pytest.mark.effect("add_tokens")
def test_ordinary_tokens_are_one_id_and_are_shown(places: dict[bool, Workspace], tmp_path: Path) -> None:
    """The run's own rows hold them as one id each, and its tokenizer shows them, unlike special ones, when it leaves these out."""
    examples, tokenizer = prepared_examples(config(places[True], tmp_path, add_tokens="<Q>,<A>"), "train")
    assert all(list(examples[row].input_ids).count(OLD) == list(examples[row].labels).count(OLD + 1) == 1 for row in range(len(examples)))
    assert tokenizer.decode([OLD, OLD + 1], skip_special_tokens=True) == "<Q><A>"


def test_predictions_of_a_fresh_process(places: dict[bool, Workspace], tmp_path: Path) -> None:
    """Oracle: greedy `generate` of plain transformers and peft on the same prompts. The configuration may name the tokens again."""
    out, place = tmp_path / "out", places[True]
    run(place, out, add_tokens="<Q>,<A>", num_train_epochs=8)
    words = [f"model_name_or_path={out}", f"eval_dataset={place.path / 'held_out.jsonl'}", f"output_dir={tmp_path / 'answers'}"]
    words += ["data_cache_dir=none", "use_cpu=true", "do_sample=false", "max_new_tokens=6", "add_tokens=<Q>,<A>"]
    done = subprocess.run([sys.executable, "-m", "tunewright", "predict", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = [json.loads(line)["predict"] for line in (tmp_path / "answers" / "generated_predictions.jsonl").read_text().splitlines()]
    model, tokenizer = by_peft(place, out).eval(), AutoTokenizer.from_pretrained(out)
    for number, answer in enumerate(found):
        prompt = tokenizer.apply_chat_template(
            [{"role": "user", "content": f"<Q>river {number}"}], add_generation_prompt=True, return_tensors="pt", return_dict=True)
        made = model.generate(**prompt, do_sample=False, max_new_tokens=6, pad_token_id=0, eos_token_id=2)[0, prompt["input_ids"].shape[1]:]
        assert answer == tokenizer.decode(made, skip_special_tokens=True)
    assert any("<A>" in answer for answer in found)


@pytest.mark.parametrize("changes", [
    {"add_special_tokens": "<Q>,<A>"}, {"add_tokens": "<Q>", "finetuning_type": "full"},
    {"add_tokens": "<Q>,<A>", "finetuning_type": "freeze", "freeze_extra_modules": "embed_tokens"}])
@pytest.mark.parametrize("tied", [True, False])
def test_resumed_runs_end_with_the_same_bits(places: dict[bool, Workspace], tmp_path: Path, tied: bool, changes: dict[str, Any]) -> None:
    """22 rows, as the helper counts steps."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"instruction": f"<Q>{number}", "output": f"<A> {number}"}) + "\n" for number in range(22)))
    assert resumed_equals_whole(places[tied], tmp_path / "out", dataset=rows, **changes)
    name = next(name for name in weights(tmp_path / "out") if name.endswith("embed_tokens.weight"))
    assert weights(tmp_path / "out")[name].shape == (NEW, 32)


def test_the_best_weights_come_back(places: dict[bool, Workspace], tmp_path: Path) -> None:
    """load_best_model_at_end puts the embedding back too: the files are those of the best checkpoint."""
    out, other = tmp_path / "out", tmp_path / "other.jsonl"
    other.write_text(json.dumps({"instruction": "<Q>river 1", "output": "zephyr needle"}) + "\n")  # what is trained makes it worse
    run(places[True], out, add_tokens="<Q>", eval_dataset=other, eval_strategy="steps", eval_steps=1, save_steps=1, save_total_limit=20,
        load_best_model_at_end=True, learning_rate=0.1)
    best = weights(out / json.loads((out / "trainer_state.json").read_text())["best_model_checkpoint"])
    assert all(torch.equal(tensor, best[name]) for name, tensor in weights(out).items())
    assert not torch.equal(best[EMBEDDING], weights(sorted(out.glob("checkpoint-*"), key=lambda path: int(path.name[11:]))[-1])[EMBEDDING])


@pytest.mark.parametrize("tied", [True, False])
def test_adapters_on_adapters(places: dict[bool, Workspace], tmp_path: Path, tied: bool) -> None:
    """A second run adds a token to what the first one made; a third continues the second, whose tokens it need not name."""
    place = places[tied]
    run(place, tmp_path / "a", add_special_tokens=",".join(["<Q>", "<A>", *(f"<{number}>" for number in range(60))]))
    run(place, tmp_path / "b", adapter_name_or_path=tmp_path / "a", create_new_adapter=True, add_tokens="<more>")
    assert AutoTokenizer.from_pretrained(tmp_path / "b").convert_tokens_to_ids(["<Q>", "<more>"]) == [OLD, OLD + 62]
    assert weights(tmp_path / "a")[EMBEDDING].shape == (512, 32) == weights(tmp_path / "b")[EMBEDDING].shape
    expected = logits_of(by_peft(place, tmp_path / "a", tmp_path / "b"))
    torch.testing.assert_close(logits_of(opened(f"model_name_or_path={tmp_path / 'b'}").model), expected, rtol=1e-4, atol=1e-4)
    run(place, tmp_path / "c", adapter_name_or_path=tmp_path / "b", learning_rate=1e-30)
    torch.testing.assert_close(logits_of(opened(f"model_name_or_path={tmp_path / 'c'}").model), expected, rtol=1e-4, atol=1e-4)
    assert AutoTokenizer.from_pretrained(tmp_path / "c").convert_tokens_to_ids("<more>") == OLD + 62


def test_what_cannot_be_is_refused(places: dict[bool, Workspace], tmp_path: Path) -> None:
    """Each in one line with its mend."""
    place = places[True]
    with pytest.raises(InputError, match="lora_target: 'embed_tokens' would get an adapter, but its rows for new tokens must"):
        run(place, tmp_path / "x", add_tokens="<Q>", lora_target="q_proj,embed_tokens")
    run(place, tmp_path / "a", max_steps=1)
    with pytest.raises(InputError, match="the token '<Q>' is new, but the modules of a continued adapter are fixed") as caught:
        run(place, tmp_path / "y", add_tokens="<Q>", adapter_name_or_path=tmp_path / "a")
    assert caught.value.mend == "set create_new_adapter: true"
    with pytest.raises(InputError, match=r"the token '<Q>' is new, but .*/a was trained without it"):
        opened(f"model_name_or_path={tmp_path / 'a'}", "add_tokens=<Q>")


@pytest.mark.parametrize(("extra", "still"), [(None, "model.embed_tokens and lm_head"), ("embed_tokens", "lm_head"),
                                              ("embed_tokens,lm_head", None)])
def test_frozen_rows_are_told_of(
    places: dict[bool, Workspace], tmp_path: Path, capsys: pytest.CaptureFixture[str], extra: str | None, still: str | None,
) -> None:
    """Under freeze tuning new rows train only where they are named; they are saved in any case."""
    changes = {} if extra is None else {"freeze_extra_modules": extra}
    run(places[False], tmp_path / "out", add_tokens="<Q>", finetuning_type="freeze", max_steps=1, **changes)
    told = [one for one in capsys.readouterr().err.splitlines() if "rows of new tokens" in one]
    assert told == ([] if still is None else [
        f"the rows of new tokens in {still} do not train: name it in freeze_extra_modules if they should"])
    assert weights(tmp_path / "out")["model.embed_tokens.weight"].shape == (NEW, 32)


@pytest.mark.effect("new_special_tokens_config", "init_special_tokens")
@pytest.mark.parametrize("init", ["noise_init", "desc_init", "desc_init_w_noise"])
def test_descriptions_of_new_tokens(places: dict[bool, Workspace], tmp_path: Path, init: str) -> None:
    """In the words of the mindspeed document; the file wins over add_special_tokens. Oracle: rows of the base by the ids of plain
    transformers, up to the rounding of bfloat16, in which that vocabulary opens models."""
    place = places[False]
    (tmp_path / "tokens.yaml").write_text("{'<Q>': 'river bridge', '<A>': 'candle'}")
    words = ["--model_name_or_path", str(place.path / "model"), "--add_special_tokens", "<other>", "--init_special_tokens", init,
             "--new_special_tokens_config", str(tmp_path / "tokens.yaml")]
    found = open_model(read_config(words, dialect="mindspeed_fsdp2", purpose="chat").config)
    assert found.tokenizer.convert_tokens_to_ids(["<Q>", "<A>"]) == [OLD, OLD + 1] and "<other>" not in found.tokenizer.get_vocab()
    tokenizer = AutoTokenizer.from_pretrained(place.path / "model")
    base = load_file(place.path / "model" / "model.safetensors")
    now = {"input": found.model.get_input_embeddings().weight, "output": found.model.get_output_embeddings().weight}
    for which, name in (("input", "model.embed_tokens.weight"), ("output", "lm_head.weight")):
        for row, text, words in ((OLD, "<Q>", "river bridge"), (OLD + 1, "<A>", "candle")):
            start = base[name].double().mean(0) if init == "noise_init" else base[name][tokenizer(words)["input_ids"]].double().mean(0)
            drawn = noise(text, 32, which=which, seed=42).double() * (init != "desc_init")
            torch.testing.assert_close(now[which][row].double().detach(), start + drawn, rtol=2**-8, atol=1e-3)


@pytest.mark.effect("ignore_pad_token_for_loss")
@pytest.mark.parametrize(("word", "is_ignored"), [
    ("--ignore_pad_token_for_loss=true", True), ("--ignore_pad_token_for_loss=false", False), ("--no_ignore_pad_token_for_loss", False)])
def test_padding_that_trains(places: dict[bool, Workspace], tmp_path: Path, word: str, is_ignored: bool) -> None:
    """The first loss of a batch of ragged rows. Oracle: transformers' own loss on the batch padded by hand, padding labelled with the
    padding token as LLaMA-Factory's collator does; the evaluation loss is that of the rows alone in either case."""
    place, rows = places[False], tmp_path / "rows.jsonl"
    rows.write_text("".join(
        json.dumps({"instruction": "river", "output": " ".join(["bridge"] * count)}) + "\n" for count in (1, 9, 4, 2)))
    switch = read_config([word], dialect="llamafactory").config.loss.ignore_pad_token_for_loss
    chosen = {"dataset": rows, "per_device_train_batch_size": 4, "learning_rate": 1e-30, "finetuning_type": "full"}
    run(place, tmp_path / "out", **chosen, eval_dataset=rows, max_steps=1, eval_strategy="steps", eval_steps=1, logging_steps=1,
        ignore_pad_token_for_loss=switch)
    examples, tokenizer = prepared_examples(config(place, tmp_path / "x", **chosen), "train")
    longest = max(len(examples[number].input_ids) for number in range(4))
    ids, mask, labels = (torch.full((4, longest), filler) for filler in (tokenizer.pad_token_id, 0, tokenizer.pad_token_id))
    for number in range(4):
        length = len(examples[number].input_ids)
        ids[number, :length], mask[number, :length] = torch.tensor(examples[number].input_ids), 1
        labels[number, :length] = torch.tensor(examples[number].labels)
    unpadded = labels.masked_fill(mask == 0, -100)
    model = AutoModelForCausalLM.from_pretrained(place.path / "model").eval()
    with torch.no_grad():
        padded, plain = (float(model(input_ids=ids, attention_mask=mask, labels=one).loss) for one in (labels, unpadded))
    assert abs(padded - plain) > 1e-3 and switch is is_ignored
    assert losses(tmp_path / "out")[0] == pytest.approx(plain if is_ignored else padded, rel=1e-4)
    (evaluated,) = [entry["eval_loss"] for entry in history(tmp_path / "out") if "eval_loss" in entry]
    assert evaluated == pytest.approx(plain, rel=1e-4)
