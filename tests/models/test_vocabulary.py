"""Tokens that a run adds: how they get into the tokenizer, and the file that describes them.

Oracles: plain transformers (`add_tokens`, ids and pieces of its own encoding), and texts worked by hand.
"""

from __future__ import annotations

import logging
from copy import deepcopy
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from tunewright.config.model import ModelConfig, TokenizerConfig
from tunewright.data.control_tokens import control_tokens
from tunewright.data.fingerprint import tokenizer_digest
from tunewright.errors import InputError
from tunewright.models.new_tokens import NewTokens, new_tokens, read_descriptions
from tunewright.models.tokenizer import load_tokenizer
from tunewright.selftest.tiny import write_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("vocabulary") / "model")


def loaded(model: Path, **tokens: object):  # type: ignore[no-untyped-def]
    return load_tokenizer(ModelConfig(model_name_or_path=str(model)), TokenizerConfig(**tokens))  # type: ignore[arg-type]


def test_tokens_get_the_ids_behind_the_vocabulary(model: Path) -> None:
    """Oracle: transformers' own `add_tokens`, ordinary ones first; encoding and decoding agree with it."""
    mine = loaded(model, add_tokens=("<step>", "zig zag"), add_special_tokens=("<Q>",))
    plain = AutoTokenizer.from_pretrained(model)
    plain.add_tokens(["<step>", "zig zag"])
    plain.add_tokens(["<Q>"], special_tokens=True)
    text = "<Q>river<step>zig zag, anchors"
    assert len(mine) == len(plain) == len(AutoTokenizer.from_pretrained(model)) + 3
    assert mine(text)["input_ids"] == plain(text)["input_ids"]
    assert mine.convert_tokens_to_ids(["<step>", "zig zag", "<Q>"]) == [len(plain) - 3, len(plain) - 2, len(plain) - 1]
    assert mine.decode(mine(text)["input_ids"], skip_special_tokens=True) == "river<step>zig zag, anchors"
    assert new_tokens(mine) == NewTokens(("<step>", "zig zag", "<Q>"), {})
    assert new_tokens(loaded(model)) == NewTokens()


def test_tokens_that_are_there_keep_their_ids_and_are_reported(model: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A control token stays one, a word of the vocabulary becomes whole under its own id; neither is new."""
    plain = AutoTokenizer.from_pretrained(model)
    with caplog.at_level(logging.INFO, "tunewright"):
        mine = loaded(model, add_tokens=("anchor", "<new>"), add_special_tokens=("<|im_end|>",))
    assert len(mine) == len(plain) + 1 and new_tokens(mine).texts == ("<new>",)
    number = plain.convert_tokens_to_ids("anchor")
    assert mine("anchors")["input_ids"][0] == number == mine.convert_tokens_to_ids("anchor")
    end = plain.convert_tokens_to_ids("<|im_end|>")
    assert [one for one in caplog.messages if "tokens:" in one] == [
        f"add_tokens: 1 new: <new> ({len(plain)})",
        f"add_tokens: 1 there already, whose ids and embeddings stay: anchor ({number})",
        f"add_special_tokens: 1 there already, whose ids and embeddings stay: <|im_end|> ({end})"]
    assert "<|im_end|>" in control_tokens(mine, "") and "<new>" not in control_tokens(mine, "")


def test_letters_of_bytes_are_refused(model: Path) -> None:
    """In a byte-level vocabulary `é` is the letter of one byte, half of no text at all: its id must not become that of the text."""
    with pytest.raises(InputError, match="add_tokens: 'é' cannot be added: the tokenizer's vocabulary has a part of that spelling"):
        loaded(model, add_tokens=("é",))


def test_a_token_in_both_lists_by_way_of_the_file(model: Path, tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_text('"<a>": first letter\n')
    with pytest.raises(InputError, match="new_special_tokens_config: '<a>' is in add_tokens too"):
        loaded(model, add_tokens=("<a>",), new_special_tokens_config=str(tmp_path / "t.yaml"))


def test_the_file_wins_over_the_list(model: Path, tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text('{"<b>": "a river", "<a>": "a bridge"}')
    mine = loaded(model, add_special_tokens=("<c>",), new_special_tokens_config=str(tmp_path / "t.json"))
    assert new_tokens(mine) == NewTokens(("<b>", "<a>"), {"<b>": "a river", "<a>": "a bridge"})
    assert mine.convert_tokens_to_ids("<b>") + 1 == mine.convert_tokens_to_ids("<a>")
    assert {"<a>", "<b>"} <= set(mine.all_special_tokens) | {one.content for one in mine.added_tokens_decoder.values() if one.special}


def test_special_tokens_of_rows_are_no_control_tokens_unless_the_template_writes_them(model: Path, tmp_path: Path) -> None:
    """Also of the tokenizer that was saved, in another process."""
    mine = loaded(model, add_special_tokens=("<Q>", "<turn>"))
    mine.save_pretrained(tmp_path)
    for tokenizer in (mine, loaded(tmp_path), deepcopy(mine)):
        control = control_tokens(tokenizer, "{{ message }}<turn>")
        assert "<turn>" in control and "<|im_start|>" in control and "<Q>" not in control
    again = loaded(tmp_path, add_special_tokens=("<Q>",), add_tokens=("<new>",))
    assert new_tokens(again).texts == ("<new>",) and "<Q>" not in control_tokens(again, "")


def test_the_cache_is_found_by_the_tokens_too(model: Path, tmp_path: Path) -> None:
    """Another token, another kind of token, and a control token of that spelling are different digests; the same tokens are one."""
    kinds = [{}, {"add_tokens": ("<a>",)}, {"add_tokens": ("<b>",)}, {"add_special_tokens": ("<a>",)}, {"add_tokens": ("<a>", "<b>")}]
    digests = [tokenizer_digest(loaded(model, **kind)) for kind in kinds]
    assert len(set(digests)) == len(kinds)
    assert [tokenizer_digest(loaded(model, **kind)) for kind in kinds] == digests
    plain = AutoTokenizer.from_pretrained(model)
    plain.add_tokens(["<a>"], special_tokens=True)
    plain.save_pretrained(tmp_path)
    assert tokenizer_digest(loaded(tmp_path)) not in digests


BAD_FILES = {
    "empty": ("", "the file holds no settings", ""),
    "braces": ("{}", "the file names no token", ""),
    "list": ("- <a>\n- <b>\n", "the file is not a mapping", ""),
    "text": ("<a>", "the file is not a mapping", ":1"),
    "number": ('"<a>": word\n"<b>": 5\n', "the description of '<b>' is no text", ":2"),
    "null": ('"<a>":\n', "the description of '<a>' is no text", ":1"),
    "blank description": ('"<a>": "  "\n', "the description of '<a>' is no text", ":1"),
    "nested": ('"<a>":\n  text: word\n', "the description of '<a>' is no text", ":1"),
    "empty token": ('"": word\n', "a token is empty", ":1"),
    "blank token": ('"<a>": word\n"  ": word\n', "a token is white space", ":2"),
    "twice": ('"<a>": word\n"<a>": other\n', "<a>", ":2"),
    "broken": ('"<a>": [word\n', "not valid YAML", ":2:1"),
    "tag": ('"<a>": !!python/name:os.system\n', "the tag", ":1"),
}


@pytest.mark.parametrize("case", BAD_FILES)
@pytest.mark.parametrize("ending", ["yaml", "yml"])
def test_a_bad_file_is_one_line(case: str, ending: str, tmp_path: Path) -> None:
    content, told, line = BAD_FILES[case]
    file = tmp_path / f"tokens.{ending}"
    file.write_text(content)
    with pytest.raises(InputError) as caught:
        read_descriptions(str(file))
    assert caught.value.message.startswith("new_special_tokens_config: ") and told in caught.value.message
    assert caught.value.where == f"{file}{line}" and caught.value.mend and "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "content", "told"), [
    ("t.json", b'{"<a>": "word",}', "not valid JSON"), ("t.json", b'{"<a>": 1}', "is no text"), ("t.yaml", b"\xff\xfe", "not UTF-8"),
    ("absent.yaml", None, "no such file"), (".", None, "is a directory"), ("rows.jsonl", b'{"a": "b"}', "holds rows"),
    ("t.json", b'{"<a>": "x", "<a>": "y"}', "<a>")])
def test_other_bad_files(name: str, content: bytes | None, told: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=told) as caught:
        read_descriptions(str(tmp_path / name))
    assert caught.value.message.startswith("new_special_tokens_config: ") and caught.value.mend


def test_a_good_file_in_both_forms(tmp_path: Path) -> None:
    """The document's own form, `{'<token>': 'description text'}`, is YAML too."""
    forms = {"a.yaml": "{'<think>': 'inner monologue', '<1>': '第一步'}", "b.yml": "<think>: inner monologue\n'<1>': 第一步\n",
             "c.json": '{"<think>": "inner monologue", "<1>": "第一步"}'}
    for name, content in forms.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
        assert list(read_descriptions(str(tmp_path / name)).items()) == [("<think>", "inner monologue"), ("<1>", "第一步")]
