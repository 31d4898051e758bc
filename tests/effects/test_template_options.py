"""Options of templates and columns, and parameters that are refused because another way is always taken."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tunewright.cli import main
from tunewright.commands.preflight import read_ready
from tunewright.commands.preview import prepared_examples
from tunewright.data.pipeline import build
from tunewright.data.templates import load_renderer
from tunewright.dialects.read import read_config
from tunewright.errors import ConfigError, InputError
from tunewright.models.tokenizer import load_tokenizer
from tunewright.selftest.tiny import CHATML, write_model

ROW = {"question": "anchor", "context": "bridge", "answer": "candle", "turns": [["dune", "ember"]]}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    write_model(folder / "model")
    return folder


def rows_at(folder: Path, *rows: dict[str, Any]) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def first(home: Path, *words: str, dialect: str | None = None) -> tuple[str, str]:
    """The first training row as text, and the part of it that is trained: through configuration, template, data and tokens."""
    own = [f"--model_name_or_path={home / 'model'}", "--val_size=0", "--output_dir=x"]
    run = read_config([*own, *words], dialect=dialect).resolve().config
    tokenizer = load_tokenizer(run.model, run.tokenizer)
    renderer = None if run.run.stage == "pt" else load_renderer(run.template, tokenizer)
    train = build(run, tokenizer, renderer, report=lambda _line: None).train
    assert train is not None
    example = train[0]
    trained = [int(label) for label in example.labels if label >= 0]
    return tokenizer.decode([int(token) for token in example.input_ids]), tokenizer.decode(trained)


def chatml(*turns: tuple[str, str]) -> str:
    return "".join(f"<|im_start|>{role}\n{text}<|im_end|>\n" for role, text in turns)


@pytest.mark.effect("template")
@pytest.mark.parametrize("extra", [(), ("--template=custom",), ("--template=auto",)])
@pytest.mark.parametrize("name", ["mine.jinja", "mine.txt"])
def test_template_file(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, extra: tuple[str, ...], name: str) -> None:
    """The file's own marks are in the render, whatever its name ends in; a named template beside it is a contradiction."""
    monkeypatch.chdir(tmp_path)
    Path(name).write_text(CHATML.replace("<|im_start|>", "<|im_start|>!"))
    data = f"--dataset={rows_at(tmp_path, {'instruction': 'anchor', 'output': 'candle'})}"
    text, trained = first(home, data, f"--template_file={name}", *extra, "--data_cache_dir=none", dialect="cli_reference")
    assert text == chatml(("user", "anchor"), ("assistant", "candle")).replace("<|im_start|>", "<|im_start|>!")
    assert trained == "candle<|im_end|>"
    with pytest.raises(ConfigError, match=r"contradicts --template"):
        read_config(["--template=qwen", f"--template_file={name}"], dialect="cli_reference")
    with pytest.raises(ConfigError, match=r"path not found: \./absent"):
        read_config(["--model_name_or_path=demo", "--template_file=absent"], dialect="cli_reference", purpose="chat")


@pytest.mark.effect("template_type")
@pytest.mark.parametrize(("kind", "expected"), [
    ("default", chatml(("user", "anchor"), ("assistant", "candle"))),
    ("chat", chatml(("user", "anchor"), ("assistant", "candle"))), ("completion", "anchorcandle<|im_end|>")])
def test_template_type(home: Path, tmp_path: Path, kind: str, expected: str) -> None:
    """A completion has no roles: the prompt, the answer, the end token; only the answer is trained, as in a chat."""
    data = f"--dataset={rows_at(tmp_path, {'instruction': 'anchor', 'output': 'candle'})}"
    text, trained = first(home, data, f"--template_type={kind}", "--data_cache_dir=none", dialect="cli_reference")
    assert (text, trained) == (expected, "candle<|im_end|>")


def test_a_completion_needs_no_chat_template(home: Path, tmp_path: Path) -> None:
    """A base model without a template: refused by the first look at the files, unless only the texts are wanted."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(home / "model")
    tokenizer.chat_template = None
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    words = [f"model_name_or_path={home / 'model'}", f"tokenizer_name_or_path={tmp_path / 'tokenizer'}", "output_dir=x",
             f"dataset={rows_at(tmp_path, {'instruction': 'anchor', 'output': 'candle'})}"]
    with pytest.raises(ConfigError, match="the tokenizer has no chat template"):
        read_ready(words, "train")
    assert read_ready([*words, "template_type=completion"], "train").config.template.template_type == "completion"


@pytest.mark.effect("prompt_column", "query_column", "response_column", "history_column")
@pytest.mark.parametrize(("columns", "expected", "trained"), [
    ({"prompt": "question", "response": "answer"}, [("user", "anchor"), ("assistant", "candle")], "candle"),
    ({"prompt": "question", "query": "context", "response": "answer"}, [("user", "anchor\nbridge"), ("assistant", "candle")], "candle"),
    ({"prompt": "context", "response": "answer"}, [("user", "bridge"), ("assistant", "candle")], "candle"),
    ({"prompt": "question", "response": "context"}, [("user", "anchor"), ("assistant", "bridge")], "bridge"),
    ({"prompt": "question", "response": "answer", "history": "turns"},
     [("user", "dune"), ("assistant", "ember"), ("user", "anchor"), ("assistant", "candle")], "candle")])
def test_columns(home: Path, tmp_path: Path, columns: dict[str, str], expected: list[tuple[str, str]], trained: str) -> None:
    """Worked by hand from the one row; a name that is left at its default is read where rows have such a column."""
    words = [f"--{key}_column={name}" for key, name in columns.items()]
    found = first(home, f"--dataset={rows_at(tmp_path, ROW)}", *words, "--data_cache_dir=none", dialect="cli_reference")
    assert found[0] == chatml(*expected)
    assert found[1].endswith(f"{trained}<|im_end|>")


def test_columns_of_documents(home: Path, tmp_path: Path) -> None:
    """In pre-training prompt_column names the documents."""
    words = ["--stage=pt", "--prompt_column=answer", "--packing=false", "--data_cache_dir=none"]
    text, _ = first(home, f"--dataset={rows_at(tmp_path, ROW)}", *words, dialect="native")
    assert text == "candle<|im_end|>"


def test_sets_that_name_their_columns_or_have_another_format_keep_them(home: Path, tmp_path: Path) -> None:
    """Only Alpaca's sets without columns of their own are renamed: registered ones too."""
    rows_at(tmp_path, {**ROW, "instruction": "ember", "output": "falcon"})
    (tmp_path / "dataset_info.json").write_text(json.dumps({
        "named": {"file_name": "rows.jsonl", "columns": {"prompt": "instruction", "response": "output"}},
        "unnamed": {"file_name": "rows.jsonl"}}))
    words = [f"--dataset_dir={tmp_path}", "--prompt_column=question", "--response_column=answer", "--data_cache_dir=none"]
    named, unnamed = (first(home, f"--dataset={name}", *words, dialect="native")[1] for name in ("named", "unnamed"))
    assert (named, unnamed) == ("falcon<|im_end|>", "candle<|im_end|>")


@pytest.mark.parametrize(("words", "told"), [
    (("--prompt_column=query",), r"query \(columns.prompt of .*\): missing; columns present: question, context, answer, turns"),
    (("--prompt_column=question", "--response_column=answer", "--query_column=contxt"),
     r"no row has the column `contxt` \(columns.query\)")])
def test_a_wrong_column_is_named(home: Path, tmp_path: Path, words: tuple[str, ...], told: str) -> None:
    with pytest.raises(InputError, match=told):
        first(home, f"--dataset={rows_at(tmp_path, ROW)}", *words, "--data_cache_dir=none", dialect="cli_reference")
    with pytest.raises(ConfigError, match=told):
        read_ready([f"--model_name_or_path={home / 'model'}", f"--dataset={rows_at(tmp_path, ROW)}", "--output_dir=x", *words,
                    "--val_size=0", "--dialect=cli_reference"], "train")


ALWAYS: list[tuple[str, str, list[Any], Any, str]] = [
    ("llamafactory", "remove_unused_columns", [True, False], "x", "rows are read by column"),
    ("sft_json", "remove_unused_columns", [True, False], "x", "rows are read by column"),
    ("llamafactory", "label_names", [None, "labels", ["labels"]], "targets", "labels are made from the answers"),
    ("llamafactory", "length_column_name", ["length"], "size", "lengths are counted"),
    ("llamafactory", "past_index", [-1], 0, "transformers has dropped it"),
    ("llamafactory", "export_legacy_format", [False], True, "pickles"),
    ("mindspeed_fsdp2", "create_attention_mask_in_dataloader", [False, True, None], "x", "always builds"),
    ("mindspeed_fsdp2", "data_shared_file_system", [False, True], "x", "shared or not"),
    ("mindspeed_fsdp2", "no_shared_storage", [False, True, None], "x", "no data index"),
    ("mindspeed_fsdp2", "dataloader_type", ["single"], "cyclic", "the only way"),
    ("cli_reference", "tuner_backend", ["peft"], "hqq", "it does not tune"),
    ("cli_reference", "quant_lora", [False], True, "floating point only"),
    ("qlora_script", "tokenizer_type", ["llama", "auto"], "gpt2", "its own files"),
    ("qlora_script", "use_auth_token", [False, True], "hf_abc", "a secret does not belong"),
    ("llamafactory", "hf_hub_token", [None], "hf_abc", "set the environment variable HF_TOKEN"),
    ("llamafactory", "hub_token", [None], "hf_abc", "set the environment variable HF_TOKEN"),
    ("llamafactory", "push_to_hub_token", [None], "hf_abc", "set the environment variable HF_TOKEN"),
]


@pytest.mark.parametrize(("dialect", "name", "inert", "other", "told"), ALWAYS, ids=[f"{case[0]}-{case[1]}" for case in ALWAYS])
def test_what_is_refused_says_why(tmp_path: Path, dialect: str, name: str, inert: list[Any], other: Any, told: str) -> None:
    """Accepted at values that change nothing or say what is always done; else refused in one line, without the value of a secret."""
    config = tmp_path / "c.json"
    for value in inert:
        config.write_text(json.dumps({"dialect": dialect, name: value}))
        read_config([str(config)])
    config.write_text(json.dumps({"dialect": dialect, name: other}))
    with pytest.raises(ConfigError, match=told) as report:
        read_config([str(config)])
    assert "hf_abc" not in str(report.value) and f"c.json:1: {name}: " in str(report.value)


def test_a_stored_token_may_be_asked_for_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    """`--use_auth_token true` asks for what is always done; a token in its place is refused and not repeated."""
    assert read_config(["--use_auth_token", "true"], dialect="qlora_script").dialect == "qlora_script"
    assert main(["check", "--dialect", "qlora_script", "--use_auth_token", "hf_abc"]) == 2
    said = capsys.readouterr()
    assert "hf_abc" not in said.out + said.err and "HF_TOKEN" in said.out + said.err


@pytest.mark.effect("data_compat")
def test_a_quirk_of_renders_reaches_the_rows(home: Path, tmp_path: Path) -> None:
    """Qwen 3's template leaves the thought of an earlier answer out, and LLaMA-Factory trains on it; as `train` and `preview` prepare."""
    turns = [{"role": "user", "content": "anchor"}, {"role": "assistant", "content": "candle", "reasoning_content": "ember"},
             {"role": "user", "content": "dune"}, {"role": "assistant", "content": "falcon"}]
    data = rows_at(tmp_path, {"messages": turns})
    for compat, thought in (("strict", ""), ("think-block-in-history", "<think>\nember\n</think>\n\n")):
        words = [f"model_name_or_path={home / 'model'}", f"dataset={data}", "template=qwen3", "data_cache_dir=none",
                 f"data_compat={compat}"]
        examples, tokenizer = prepared_examples(read_config(words).resolve().config, "train")
        trained = tokenizer.decode([label for label in examples[0].labels.tolist() if label >= 0])
        assert trained == f"{thought}candle<|im_end|><think>\n\n</think>\n\nfalcon<|im_end|>"
