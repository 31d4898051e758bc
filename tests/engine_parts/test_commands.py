"""`tunewright eval` and `predict` from the command line on a tiny model: the files they leave, against figures computed apart."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from tunewright.cli import main
from tunewright.selftest.tiny import write_model, write_rows

GREEDY = ["do_sample=false", "max_new_tokens=6"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a model, rows, and a run's configuration."""
    folder = tmp_path_factory.mktemp("home")
    write_model(folder / "model")
    write_rows(folder / "rows.jsonl", 5)
    (folder / "run.yaml").write_text(
        f"model_name_or_path: {folder / 'model'}\neval_dataset: {folder / 'rows.jsonl'}\noutput_dir: {folder / 'out'}\n"
        f"data_cache_dir: none\nuse_cpu: true\nper_device_eval_batch_size: 2\n")
    return folder


def chatml(instruction: str) -> str:
    return f"<|im_start|>user\n{instruction}<|im_end|>\n<|im_start|>assistant\n"


def rows(home: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in (home / "rows.jsonl").read_text().splitlines()]


def opened(home: Path) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    return AutoModelForCausalLM.from_pretrained(home / "model").eval(), AutoTokenizer.from_pretrained(home / "model")


def by_hand(model: Any, tokenizer: Any, given: list[dict[str, str]]) -> tuple[float, float]:
    """Mean loss and accuracy over answers and their end tokens, each row alone."""
    loss, right, count = 0.0, 0, 0
    for row in given:
        prompt = tokenizer(chatml(row["instruction"]), add_special_tokens=False)["input_ids"]
        answer = tokenizer(row["output"] + "<|im_end|>", add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            logits = model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1].double()
        target = torch.tensor(answer)
        loss += float(torch.nn.functional.cross_entropy(logits, target, reduction="sum"))
        right += int((logits.argmax(-1) == target).sum())
        count += len(answer)
    return loss / count, right / count


def test_eval(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Oracle: transformers' own model on each row alone, cross-entropy over the answer and its end token, by hand."""
    assert main(["eval", str(home / "run.yaml"), "compute_accuracy=true"]) == 0
    printed = json.loads(capsys.readouterr().out)
    model, tokenizer = opened(home)
    loss, accuracy = by_hand(model, tokenizer, rows(home))
    assert printed["eval_loss"] == pytest.approx(loss, rel=1e-5)
    assert printed["eval_accuracy"] == pytest.approx(accuracy)
    assert json.loads((home / "out" / "eval_results.json").read_text()) == printed
    assert json.loads((home / "out" / "all_results.json").read_text())["eval_loss"] == printed["eval_loss"]


def test_predict(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Oracle: greedy continuation of the hand-rendered prompt by transformers' own argmax, one token at a time."""
    assert main(["predict", str(home / "run.yaml"), *GREEDY]) == 0
    printed = json.loads(capsys.readouterr().out)
    model, tokenizer = opened(home)
    found = [json.loads(line) for line in (home / "out" / "generated_predictions.jsonl").read_text().splitlines()]
    expected = []
    for row in rows(home):
        ids = tokenizer(chatml(row["instruction"]), add_special_tokens=False)["input_ids"]
        made: list[int] = []
        while len(made) < 6 and tokenizer.eos_token_id not in made:
            with torch.no_grad():
                made.append(int(model(torch.tensor([ids + made])).logits[0, -1].argmax()))
        text = tokenizer.decode([token for token in made if token != tokenizer.eos_token_id], skip_special_tokens=True)
        expected.append({"prompt": chatml(row["instruction"]), "predict": text, "label": row["output"]})
    assert found == expected
    assert set(printed) == {
        "predict_bleu-4", "predict_rouge-1", "predict_rouge-2", "predict_rouge-l", "predict_exact_match", "predict_runtime",
        "predict_samples_per_second", "predict_steps_per_second"}
    assert json.loads((home / "out" / "predict_results.json").read_text()) == printed


def test_notes_are_told(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What the configuration says in vain is told before the figures, by both commands."""
    run = str(home / "run.yaml")
    assert main(["eval", run, "max_new_tokens=5"]) == 0
    assert ("note: command line: max_new_tokens: is not read by this run: `eval` measures the loss; `predict` generates answers\n"
            in capsys.readouterr().err)
    assert main(["predict", run, *GREEDY, "bf16=true"]) == 0
    assert "note: command line: bf16: is not read by this run: answers are generated in infer_dtype\n" in capsys.readouterr().err


def test_predict_does_not_depend_on_the_batch_size(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = []
    for size in (1, 5):
        words = ["predict", str(home / "run.yaml"), *GREEDY]
        assert main([*words, f"per_device_eval_batch_size={size}", f"output_dir={tmp_path / str(size)}"]) == 0
        files.append((tmp_path / str(size) / "generated_predictions.jsonl").read_text())
    assert files[0] == files[1]
    capsys.readouterr()


def test_held_out_rows_are_those_of_training(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With val_size the evaluation set is what training would hold out: 2 of 5 rows, each among the file's."""
    words = ["predict", str(home / "run.yaml"), "eval_dataset=[]", f"dataset={home / 'rows.jsonl'}", "val_size=2", *GREEDY]
    assert main(words) == 0
    capsys.readouterr()
    found = [json.loads(line)["label"] for line in (home / "out" / "generated_predictions.jsonl").read_text().splitlines()]
    assert len(found) == 2 and set(found) <= {row["output"] for row in rows(home)}


def test_the_output_directory_of_a_run_is_evaluated_with_its_adapter(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Oracle: peft's own adapter model. Without the directory the base is measured, and a note says so."""
    from peft import LoraConfig, get_peft_model

    model, tokenizer = opened(home)
    torch.manual_seed(1)
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False)).eval()
    adapted.save_pretrained(home / "trained")
    words = ["eval", str(home / "run.yaml"), f"output_dir={home / 'trained'}"]
    assert main([*words, str(home / "trained")]) == 0
    told = capsys.readouterr()
    with_adapter = json.loads(told.out)["eval_loss"]
    assert with_adapter == pytest.approx(by_hand(adapted, tokenizer, rows(home))[0], rel=1e-5)
    assert "without the adapter" not in told.err
    assert main(words) == 0
    told = capsys.readouterr()
    assert json.loads(told.out)["eval_loss"] != pytest.approx(with_adapter, rel=1e-3)
    assert f"without the adapter that {home / 'trained'} holds" in told.err


@pytest.mark.parametrize("verb", ["eval", "predict"])
def test_nothing_to_evaluate_on_is_one_line(home: Path, verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb, str(home / "run.yaml"), "eval_dataset=[]"]) == 2
    said = capsys.readouterr().err.strip()
    assert "eval_dataset" in said and len(said.splitlines()) == 1


@pytest.mark.effect("num_processes")
@pytest.mark.slow
def test_two_ranks_give_the_same_files(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The launcher, the ranks and the sums together: equal loss, equal answers. Two processes are started for each command, or none."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[2] / "src"))
    ranks: list[str] = []
    start = subprocess.Popen.__init__

    def watched(self: Any, *arguments: Any, **settings: Any) -> None:
        ranks.append((settings.get("env") or {}).get("RANK", "none"))
        start(self, *arguments, **settings)

    monkeypatch.setattr(subprocess.Popen, "__init__", watched)
    for processes, expected in ((1, []), (2, ["0", "1"])):
        out = tmp_path / str(processes)
        for verb in ("eval", "predict"):
            ranks.clear()
            assert main([verb, str(home / "run.yaml"), *GREEDY, f"num_processes={processes}", f"output_dir={out}"]) == 0
            assert ranks == expected
    one, two = (json.loads((tmp_path / name / "eval_results.json").read_text())["eval_loss"] for name in "12")
    assert one == two
    assert (tmp_path / "1" / "generated_predictions.jsonl").read_bytes() == (tmp_path / "2" / "generated_predictions.jsonl").read_bytes()
