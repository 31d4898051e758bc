"""`tokenized_path` and `tunewright prepare`: sets that are made once. Oracle: the sets that `build` makes from the rows."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tunewright.adapters.vocabulary import own_tokenizer
from tunewright.cli import main
from tunewright.config.run import RunConfig
from tunewright.data.examples import ExampleSet
from tunewright.data.pipeline import Prepared, build
from tunewright.data.templates import load_renderer
from tunewright.dialects.read import read_config
from tunewright.errors import InputError
from tunewright.models.tokenizer import load_tokenizer
from tunewright.selftest.tiny import write_model, write_rows


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_rows(Path("a.jsonl"), 30)
    write_rows(Path("b.jsonl"), 9, seed=5)
    return tmp_path


def config(model: Path, **settings: object) -> RunConfig:
    given = {"model_name_or_path": model, "dataset": "a.jsonl", "data_cache_dir": "none", "tokenized_path": "tokens", "cutoff_len": 64,
             "output_dir": "out", "max_steps": 2, **settings}
    return read_config([f"{name}={value}" for name, value in given.items() if value is not None]).resolve().config


def built(model: Path, said: list[str] | None = None, vocab_size: int | None = None, **settings: object) -> Prepared:
    run = config(model, **settings)
    tokenizer = load_tokenizer(own_tokenizer(run.model, run.tokenizer), run.tokenizer)
    renderer = None if run.run.stage == "pt" else load_renderer(run.template, tokenizer)
    return build(run, tokenizer, renderer, report=(said if said is not None else []).append, vocab_size=vocab_size)


def rows(examples: object) -> list[tuple[list[int], list[int], list[int], tuple[str, ...]]]:
    assert isinstance(examples, ExampleSet)
    return [(one.input_ids.tolist(), one.labels.tolist(), one.bounds.tolist(), tuple(map(str, examples.origins(number))))
            for number, one in enumerate(examples)]


def test_what_is_known_of_the_rows_is_the_same_from_the_start(here: Path, model: Path) -> None:
    """The columns that a reward function is handed must not be there in a run and gone when it is resumed."""
    settings: dict[str, object] = {"stage": "grpo", "val_size": 0.3, "reward_funcs": "operator:length_hint"}
    first, second = built(model, **settings), built(model, **settings)
    assert (first.sources, first.trained_from) == (second.sources, second.trained_from) == ({}, ())
    assert rows(first.train) == rows(second.train)


@pytest.mark.effect("tokenized_path")
@pytest.mark.parametrize("settings", [{}, {"packing": "true"}, {"val_size": 0.3}, {"eval_dataset": "b.jsonl"},
                                      {"dataset": "a.jsonl,b.jsonl", "mix_strategy": "interleave_over", "packing": "true", "val_size": 5}])
def test_what_was_saved_is_used_as_it_is(here: Path, model: Path, settings: dict[str, object]) -> None:
    """Sequences, packing, parts, origins, audit: as made from the rows, which are gone by then."""
    plain = built(model, **{**settings, "tokenized_path": None})
    first, said = built(model, **settings), []
    for file in ("a.jsonl", "b.jsonl"):
        Path(file).unlink()
    second = built(model, said, **settings)
    for made in (first, second):
        assert rows(made.train) == rows(plain.train)
        assert {name: rows(one) for name, one in made.evaluation.items()} == {name: rows(one) for name, one in plain.evaluation.items()}
        assert made.audit == plain.audit
    assert isinstance(first.train, ExampleSet) and isinstance(second.train, ExampleSet)
    assert first.train.digest() == second.train.digest()  # of the run that is resumed, and of the same run resumed
    assert isinstance(second.train.stores[0].input_ids, np.memmap)
    assert said[0] == "tokenized_path: the tokens in tokens are used as they are; files of rows are not read"
    assert not any("not read:" in line for line in said)


def test_settings_that_are_not_read_are_named(here: Path, model: Path) -> None:
    built(model)
    said: list[str] = []
    built(model, said, dataset="b.jsonl", cutoff_len=32)
    assert said[1] == ('tokenized_path: settings of this run that are not read: dataset (["b.jsonl"], made with ["a.jsonl"]), '
                       "cutoff_len (32, made with 64)")


def test_no_dataset_is_needed_then(here: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    built(model)
    assert rows(built(model, dataset=None).train) == rows(built(model).train)
    shutil.rmtree("tokens")
    with pytest.raises(InputError, match="dataset is not given"):
        built(model, dataset=None)


def manifest(**changes: object) -> None:
    path = Path("tokens/manifest.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def spoil(model: Path, tmp: Path) -> None:
    path = next(Path("tokens").rglob("labels.npy"))
    path.write_bytes(path.read_bytes()[:-4] + b"\1\0\0\0")


@pytest.mark.parametrize(("change", "settings", "line"), [
    (lambda model, tmp: manifest(tokenizer="other", vocabulary=99), {},
     "tokens: tokenized_path: made with another tokenizer, of 99 tokens; that of this run has {size}; name another folder, or delete this "
     "one to have it made again"),
    (lambda model, tmp: None, {"stage": "pt", "packing": "false"},
     "tokens: tokenized_path: made for stage sft, but stage is pt; name another folder, or delete this one to have it made again"),
    (lambda model, tmp: None, {"packing": "true"},
     "tokens: tokenized_path: made with packing: false; set packing: false, or name another folder"),
    (spoil, {}, "tokens: tokenized_path: set-0/labels.npy does not match its checksum; delete the folder to have it made again"),
    (lambda model, tmp: next(Path("tokens").rglob("bounds.npy")).unlink(), {},
     "tokens: tokenized_path: set-0/bounds.npy is missing; delete the folder to have it made again"),
    (lambda model, tmp: Path("tokens/manifest.json").write_text("{"), {},
     "tokens/manifest.json: tokenized_path: its manifest cannot be read; delete the folder to have it made again"),
    (lambda model, tmp: manifest(version=99), {},
     "tokens: tokenized_path: the folder was not written by this version of tunewright; delete it to have it made again, or name another"),
    (lambda model, tmp: Path("tokens/manifest.json").unlink(), {},
     "tokens: tokenized_path: holds no tokens of tunewright; name a new folder, or one that tunewright wrote"),
    (lambda model, tmp: Path("tokens/manifest.json").rename("tokens/dataset_dict.json"), {},
     "tokens: tokenized_path: holds no tokens of tunewright; the package `datasets` saved it: give its .arrow files as dataset instead, "
     "such as tokens/train/*.arrow"),
])
def test_what_does_not_fit_is_refused(here: Path, model: Path, change, settings: dict[str, object], line: str) -> None:  # type: ignore[no-untyped-def]
    built(model)
    change(model, here)
    size = len(load_tokenizer(config(model).model, config(model).tokenizer))
    with pytest.raises(InputError) as caught:
        built(model, **settings)
    assert caught.value.line() == line.format(size=size)


def test_another_tokenizer_is_noticed_by_itself(here: Path, model: Path) -> None:
    """A copy of the model with one more token."""
    built(model)
    with pytest.raises(InputError, match="made with another tokenizer"):
        built(model, add_special_tokens="<more>", resize_vocab="true")


def test_ids_beyond_the_model_are_refused(here: Path, model: Path) -> None:
    built(model)
    with pytest.raises(InputError, match=r"token id .* is none of the vocabulary, which has 5"):
        built(model, vocab_size=5)


def test_evaluation_sets_alone_are_not_enough_to_train(here: Path, model: Path) -> None:
    built(model, dataset=None, eval_dataset="b.jsonl", do_train="false")
    with pytest.raises(InputError, match="holds no rows to train on, only validation"):
        built(model)


def test_prediction_needs_the_rows(here: Path, model: Path) -> None:
    built(model, val_size=3)
    with pytest.raises(InputError, match="holds tokens, not the answers to compare with"):
        built(model, val_size=3).prompts()


def test_prepare_needs_no_weights_and_no_output(here: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A model directory without weights will do; the audit is printed; training then reads what lies there."""
    shutil.copytree(model, "bare", ignore=shutil.ignore_patterns("*.safetensors"))
    settings = {"model_name_or_path": "bare", "dataset": "a.jsonl", "eval_dataset": "b.jsonl", "cutoff_len": 64, "data_cache_dir": "cache"}
    Path("run.yaml").write_text(json.dumps(settings))
    assert main(["prepare", "run.yaml"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert "a.jsonl: 30 of 30 rows used" in said
    assert "token cache: miss for b.jsonl: not tokenised before" in said
    assert main(["prepare", "run.yaml", "tokenized_path=tokens"]) == 0
    assert "tokenized_path: saved in tokens" in capsys.readouterr().out
    assert sorted(path.name for path in Path().iterdir()) == [".tokens.lock", "a.jsonl", "b.jsonl", "bare", "cache", "run.yaml", "tokens"]


@pytest.mark.parametrize(("settings", "line"), [
    (["data_cache_dir=none"], "data_cache_dir is none, and tokenized_path is absent; set one of them to the folder for the tokens"),
    (["dataset=none.jsonl"], "`none.jsonl` is not a name"),
])
def test_prepare_refuses_in_one_line(here: Path, model: Path, capsys: pytest.CaptureFixture[str], settings: list[str], line: str) -> None:
    assert main(["prepare", f"model_name_or_path={model}", "dataset=a.jsonl", *settings]) == 2
    assert line in capsys.readouterr().err


def test_prepare_says_how_to_use_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prepare", "--help"]) == 0
    assert "No weights of the model are read" in capsys.readouterr().out


@pytest.mark.slow
def test_a_run_trains_on_what_was_prepared(here: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same losses as from the rows."""
    settings = [f"model_name_or_path={model}", "dataset=a.jsonl", "cutoff_len=64", "max_steps=3", "data_cache_dir=none", "logging_steps=1",
                "use_cpu=true", "finetuning_type=full", "bf16=false"]
    assert main(["train", *settings, "output_dir=plain"]) == 0
    assert main(["prepare", *settings, "tokenized_path=tokens"]) == 0
    Path("a.jsonl").unlink()
    assert main(["train", *settings, "output_dir=kept", "tokenized_path=tokens"]) == 0
    histories = [[one.get("loss") for one in json.loads(Path(name, "trainer_state.json").read_text())["log_history"]]
                 for name in ("plain", "kept")]
    assert histories[0] == histories[1]
    assert histories[0][0] is not None
