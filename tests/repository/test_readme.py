"""What the README says can be typed can be typed; what it shows is what comes out."""

from __future__ import annotations

import doctest
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.repository.readme import KINDS, Block, blocks
from tests.repository.source import ROOT
from tunewright.cli import COMMANDS

PAGES = sorted(path.relative_to(ROOT).as_posix() for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/**/*.md")])
SAME = doctest.OutputChecker()


def of_kind(kind: str) -> list[Block]:
    """The README's blocks that need `kind`."""
    return [block for block in blocks() if block.kind == kind]


def test_every_block_of_the_readme_says_what_it_needs() -> None:
    """A block without its comment would be run by no test."""
    assert [block.commands for block in blocks() if block.kind not in KINDS] == []


def test_the_two_commands_are_the_first() -> None:
    """The README promises two commands; they come before all others and do everything."""
    assert [command for block in blocks() for command in block.commands][:2] == ["make demo", "make test"]


@pytest.mark.parametrize("page", PAGES)
def test_every_command_exists(page: str) -> None:
    """On every page: targets of the Makefile, verbs of the command line, files that are named."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for command in (command for block in blocks(page) for command in block.commands):
        words = shlex.split(command)
        assert words[0] in ("make", "tunewright", "pip", "python"), command
        assert words[0] != "python" or (ROOT / words[1]).is_file(), command
        assert words[0] != "make" or words[1] in targets, command
        assert words[0] != "tunewright" or words[1] in COMMANDS, command
        assert all((ROOT / word).exists() for word in words if word.startswith(("examples/", "constraints"))), command


def test_every_command_of_the_command_line_is_in_the_readme() -> None:
    """The sentence that lists the commands lists them all."""
    (listed,) = re.findall(r"^All commands: (.*?);", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert re.findall(r"`([\w-]+)`", listed) == list(COMMANDS.names())


@pytest.mark.parametrize("command", [command for block in of_kind("light") for command in block.commands])
def test_a_light_command_works(command: str, tmp_path: Path) -> None:
    """Run as it stands, in a folder with the examples; success, nothing on stderr but notes, no file left behind."""
    place = workplace(tmp_path)
    before = sorted(place.rglob("*"))
    done = typed(command, place)
    assert (done.returncode, "error" in done.stderr) == (0, False), done.stderr
    assert sorted(place.rglob("*")) == before
    shown = next(block.expected[block.commands.index(command)] for block in of_kind("light") if command in block.commands)
    assert not shown or SAME.check_output(shown, done.stdout, doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE), done.stdout


@pytest.mark.parametrize("example", sorted(path.name for path in (ROOT / "examples").glob("*.yaml")))
def test_every_example_is_named_by_our_rule_and_passes_check(example: str, tmp_path: Path) -> None:
    """`<model>-<stage>-<mode>`, perhaps a vocabulary; and nothing is wrong with it that can be known beforehand. orpo and simpo are named
    by their paper, though they are losses of the stage dpo."""
    assert re.fullmatch(r"[a-z0-9_.]+-(pt|sft|rm|dpo|kto|orpo|simpo|ppo|grpo)-(full|freeze|lora)(\.[a-z_]+)?\.yaml", example)
    done = typed(f"tunewright check examples/{example}", workplace(tmp_path))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", ["preferences", "reward_models", "policy_optimization"])
def test_the_configuration_that_a_page_begins_with_passes_check(page: str, tmp_path: Path) -> None:
    """What a reader copies works, with the data of the examples."""
    place = workplace(tmp_path)
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    (place / "run.yaml").write_text(text.split("```yaml\n")[1].split("```")[0], encoding="utf-8")
    done = typed("tunewright check run.yaml", place)
    assert done.returncode == 0 and "is not read" not in done.stderr + done.stdout, done.stderr + done.stdout


def test_every_example_is_in_the_readme() -> None:
    """Its table names them all."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [path.name for path in (ROOT / "examples").glob("*.yaml") if f"(examples/{path.name})" not in text] == []


@pytest.mark.real
@pytest.mark.slow
def test_the_commands_on_the_model_work_in_their_order(tmp_path: Path) -> None:
    """Preview, train, chat, export, as a reader would type them one after the other; the export loads in plain transformers."""
    place = workplace(tmp_path)
    for command in (command for block in of_kind("model") for command in block.commands):
        done = typed(command, place, "What is the capital of France?\nexit\n")
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    from transformers import AutoModelForCausalLM, AutoTokenizer

    merged = place / "runs" / "first-merged"
    assert AutoModelForCausalLM.from_pretrained(merged).num_parameters() > 100_000_000
    assert AutoTokenizer.from_pretrained(merged).chat_template


@pytest.mark.real
@pytest.mark.slow
def test_make_demo_learns_and_its_next_commands_work() -> None:
    """`make demo` itself: below 10 % before, 90 % or more after, at most 4 minutes of training; then the three commands that it names,
    a training among them for two steps only. Made again, it finds everything done."""
    done = subprocess.run(["make", "demo"], cwd=ROOT, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    report = json.loads((ROOT / "runs" / "demo" / "report.json").read_text(encoding="utf-8"))
    assert report["exact_match_before"] < 0.1
    assert report["exact_match_after"] >= 0.9
    assert report["train_minutes"] <= 4 * slowness()
    again = subprocess.run(["make", "demo"], cwd=ROOT, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    assert again.stdout.count("kept from an earlier run") == 2 and "training: finished in an earlier run" in again.stdout
    assert json.loads((ROOT / "runs" / "demo" / "report.json").read_text(encoding="utf-8")) == report
    following = re.findall(r"^\s*\$?\s*((?:\.venv/bin/)?tunewright .*)$", done.stdout, re.MULTILINE)[-3:]
    assert len(following) == 3, done.stdout[-3000:]
    for command in following:
        short = " --max_steps 2" if " train " in command else ""
        result = typed(command + short, ROOT, "Bring Ada 3 red chairs to Oslo.\nexit\n")
        assert result.returncode == 0, f"{command}\n{result.stdout[-2000:]}{result.stderr[-2000:]}"


def slowness() -> float:
    """How much slower than agreed a machine may be: the figure of the README is for two free cores."""
    return float(os.environ.get("TUNEWRIGHT_TEST_SLOWNESS", "1.5"))


def workplace(folder: Path) -> Path:
    """A folder with the examples only, so that what a command writes is seen."""
    shutil.copytree(ROOT / "examples", folder / "examples")
    return folder


def typed(command: str, place: Path, answers: str = "") -> subprocess.CompletedProcess[str]:
    """Run a command of the README in `place`, with this package as `tunewright` and `answers` on its standard input."""
    words = shlex.split(command)
    assert words[0].endswith("tunewright"), command
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "HF_HUB_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run([sys.executable, "-m", "tunewright", *words[1:]], cwd=place, env=environment, input=answers,
                          capture_output=True, text=True, check=False)
