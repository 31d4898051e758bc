"""`tunewright template`: list, show, check. Oracles: by hand; a template that is wrong on purpose."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.templates.test_every_name import OURS
from tunewright.cli import main
from tunewright.config.data import TemplateConfig
from tunewright.data.template_check import bare_tokenizer, check, conversations, tokenizer_without_model
from tunewright.data.template_page import templates_text
from tunewright.data.template_table import policies
from tunewright.selftest.tiny import write_model

OWN = "{% for m in messages %}[{{ m.role }}]{{ m.content }}<|im_end|>{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"


def test_list_names_every_row(capsys: pytest.CaptureFixture[str]) -> None:
    """In the table's order, and the same as JSON."""
    assert main(["template", "list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(policies())
    assert main(["template", "list", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["sailor"]["default_system"].startswith("You are an AI assistant named Sailor")
    assert rows["qwen2_vl"]["media"] == "images, videos" and rows["glm4"]["stops"] == ["<|user|>", "<|observation|>"]
    assert rows["kimi_vl"]["thought"] == ["◁think▷", "◁/think▷"] and rows["gemma4"]["source"] == "tokenizer"


def test_show(capsys: pytest.CaptureFixture[str]) -> None:
    """The policy and the text, by any name."""
    assert main(["template", "show", "QWEN"]) == 0
    out = capsys.readouterr().out
    assert 'name            "qwen2.5"' in out and "You are Qwen, created by Alibaba Cloud." in out and "<|im_start|>" in out


@pytest.mark.parametrize("words", [["template", "wash"], ["template", "check"], ["template", "check", "--template"],
                                   ["template", "list", "-x"],
                                   ["template", "check", "--template", "qwen3", "--enable_thinking", "perhaps"], ["template", "show"]])
def test_usage_errors(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2 and one line."""
    assert main(words) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("name", OURS)
def test_every_bundled_template_agrees_with_itself(name: str) -> None:
    """Training = prompt and answer = the exported text in transformers, for ten conversations; what it has no place for is refused."""
    _, found = check(TemplateConfig(template=name), tokenizer_without_model(name))
    assert len(found) == 3 * len(conversations()) == 30
    assert {one.status for one in found if one.comparison != "tokenizer"} <= {"equal", "refused"}
    refused = {one.conversation for one in found if one.status == "refused"}
    assert refused <= {"tools", "tool call"} | ({"reasoning"} if policies()[name].never_thinks else set())


def test_check_of_a_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The tiny model's own template agrees with itself: exit code 0; another template does not: 1, and where."""
    write_model(tmp_path)
    assert main(["template", "check", "--model", str(tmp_path)]) == 0
    assert "one turn" in capsys.readouterr().out
    assert main(["template", "check", "--model", str(tmp_path), "--template", "vicuna", "--json"]) == 1
    rows = json.loads(capsys.readouterr().out)["vicuna"]
    first = next(row for row in rows if row["comparison"] == "tokenizer")
    assert first["status"] == "differs" and first["at"] == 0 and first["ours"] and first["theirs"]
    assert all(row["status"] != "differs" for row in rows if row["comparison"] != "tokenizer")


def test_a_difference_is_placed(tmp_path: Path) -> None:
    """By hand: in `[user]Is it?<|im_end|>` and `[user]:Is it?...` the seventh byte is the first that differs."""
    tokenizer = bare_tokenizer("<|im_end|>")
    tokenizer.chat_template = OWN.replace("{{ m.role }}]", "{{ m.role }}]:").replace("[assistant]", "[assistant]:")
    path = tmp_path / "other.jinja"
    path.write_text(OWN, encoding="utf-8")
    _, found = check(TemplateConfig(template=str(path)), tokenizer)
    inference, own, exported = (one for one in found if one.conversation == "one turn")
    assert (inference.status, exported.status, own.status, own.at) == ("equal", "equal", "differs", 6)
    assert ("".join(own.ours), "".join(own.theirs)) == ("Is it?<|im_end|>[", ":Is it?<|im_end|>")
    _, found = check(TemplateConfig(), tokenizer)
    assert {one.status for one in found if one.conversation == "one turn"} == {"equal"}


def test_the_page_names_every_template() -> None:
    """docs/templates.md has a row for each."""
    text = templates_text()
    assert all(f"| `{name}`" in text for name in policies())
    assert text.count("\n| ") == len(policies()) + 1
