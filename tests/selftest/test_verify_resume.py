"""`tunewright verify-resume`. Oracle: a configuration that is exact, and two that were made not to be; the processes are forked from one
that has imported everything, but for one test."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from tunewright.errors import InputError, Interrupted, NumericError, StorageError, UsageError
from tunewright.selftest import faults, setups, verify_resume
from tunewright.selftest.killing import server
from tunewright.selftest.pairs import write_pairs
from tunewright.selftest.rows import REWARDS
from tunewright.selftest.tiny import write_model, write_rows

RANDOM = REWARDS.replace("def share", "import random\n\ndef share").replace('text.count("a")', "random.SystemRandom().random()")
COUNTING = "asked = []\n\ndef share(completions):\n    asked.append(1)\n    return [len(asked) * len(text) for text in completions]\n"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A model, rows and a reward, and nothing else: what is left besides after a proof is too much."""
    folder = tmp_path / "place"
    write_model(folder / "model")
    write_rows(folder / "rows.jsonl", 22)
    write_rows(folder / "prompts.jsonl", 22, longest=5)
    write_pairs(folder / "pairs.jsonl", 22)
    (folder / "rewards.py").write_text(REWARDS)
    return folder


def forked(words: Sequence[str], log: Path) -> int:
    """`verify_resume.process` without the imports."""
    written = json.loads(Path(words[1]).read_text())
    given = {name: ",".join(value) if isinstance(value, list) else value for name, value in written.items() if value not in (None, [])}
    ended = faults.asked(server(), faults.plain_run, given, ranks=given.get("num_processes", 1))
    with log.open("a") as output:
        output.write(ended.output)
    return int(ended.code)


def proved(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """The command with forked processes."""
    monkeypatch.setattr(verify_resume, "process", forked)
    return verify_resume.run(words)


def configuration(place: Path, **changes: Any) -> list[str]:
    settings = setups.settings_of(changes, place, place / "run")
    return [f"{name}={value}" for name, value in settings.items() if name not in ("max_steps", "save_steps")]


def left(place: Path) -> list[str]:
    """What lies there besides what was there."""
    there = {"model", "rows.jsonl", "prompts.jsonl", "pairs.jsonl", "rewards.py", "__pycache__"}
    return sorted({path.name for path in place.iterdir()} - there)


@pytest.mark.slow
def test_an_exact_configuration(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], place: Path) -> None:
    """In the words of LLaMA-Factory, with settings that verification does without; two cuts at even distances."""
    (place / "config.yaml").write_text(yaml.safe_dump({
        "model_name_or_path": str(place / "model"), "dataset": str(place / "rows.jsonl"), "output_dir": str(place / "run"), "stage": "sft",
        "do_train": True, "finetuning_type": "lora", "lora_target": "q_proj,v_proj", "val_size": 4, "evaluation_strategy": "steps",
        "eval_steps": 500, "load_best_model_at_end": True, "plot_loss": True, "num_train_epochs": 1.0, "save_strategy": "epoch",
        "report_to": "tensorboard", "template": "default", "lora_dropout": 0.2}))
    assert proved(monkeypatch, str(place / "config.yaml"), "learning_rate=0.01", "data_cache_dir=none", "use_cpu=true", "--cuts", "2") == 0
    assert capsys.readouterr().out.splitlines()[1:] == [
        "from the start: identical at step 2", "cut after step 2: identical at step 4", "cut after step 4: identical at step 6",
        "resume is exact: 2 cuts in 6 steps, and every file of every checkpoint is the same"]
    assert left(place) == ["config.yaml"]


@pytest.mark.slow
def test_two_ranks(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], place: Path, tmp_path: Path) -> None:
    """In another folder, which is kept."""
    words = configuration(place, **setups.STAGES["dpo"], num_processes=2, lora_dropout=0.2)
    assert proved(monkeypatch, *words, "--steps", "2", f"--folder={tmp_path / 'proofs'}", "--keep") == 0
    out = capsys.readouterr().out.splitlines()
    assert out[2] == "cut after step 1: identical at step 2" and left(place) == []
    kept = Path(out[-1].removeprefix("kept: "))
    assert kept.parent == tmp_path / "proofs" and (kept / "cut" / "checkpoint-2" / "random-1.json").is_file()


@pytest.mark.slow
@pytest.mark.parametrize(("rewards", "line", "told"), [
    (RANDOM, "from the start: step 1: adapter_model.safetensors: ", r"^two runs in one go are not the same at step 1 \(adapter_model"),
    (COUNTING, "cut after step 1: step 2: adapter_model.safetensors: ",
     r"^the run that went on after step 1 is not the same at step 2 \(adapter_model")])
def test_a_reward_that_is_not_exact(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], place: Path, rewards: str, line: str, told: str,
) -> None:
    """One draws from the system's own source of random numbers, which no checkpoint holds; one counts how often its process asked it."""
    (place / "rewards.py").write_text(rewards)
    with pytest.raises(NumericError, match=told) as caught:
        proved(monkeypatch, *configuration(place, **setups.STAGES["grpo"]), "--steps=2")
    assert caught.value.exit_code == 5 and "\n" not in caught.value.line()
    assert capsys.readouterr().out.splitlines()[-1].startswith(line)
    assert left(place) == []


def test_a_run_that_fails(monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    """Its error, with its exit code."""
    def fails(words: Sequence[str], log: Path) -> int:
        log.write_text("note: a line\nerror: out of memory; use less\n")
        return 3

    monkeypatch.setattr(verify_resume, "process", fails)
    with pytest.raises(InputError, match=r"^the run from step 0 to step 6 ended with exit code 3: out of memory; use less$") as caught:
        verify_resume.run(configuration(place))
    assert caught.value.exit_code == 3
    assert left(place) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_nothing(monkeypatch: pytest.MonkeyPatch, place: Path, number: int) -> None:
    """Neither the folder nor the process that was at work."""
    children: list[int] = []

    def sleeps(words: Sequence[str], log: Path) -> int:
        code = f"import os, sys, time; open({str(log)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
        with monkeypatch.context() as patch:
            patch.setattr(verify_resume, "COMMAND", [sys.executable, "-c", code])
            threading.Thread(target=interrupt, args=(log,)).start()
            return process(words, log.with_suffix(".out"))

    def interrupt(log: Path) -> None:
        while not (log.is_file() and log.read_text()):
            time.sleep(0.01)
        children.append(int(log.read_text()))
        os.kill(os.getpid(), number)

    process = verify_resume.process
    monkeypatch.setattr(verify_resume, "process", sleeps)
    with pytest.raises(Interrupted, match=rf"^stopped by {signal.Signals(number).name} before it was shown; "):
        verify_resume.run(configuration(place))
    assert left(place) == []
    with pytest.raises(ProcessLookupError):
        os.kill(children[0], 0)


def test_room_is_looked_for_first(monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    """Eleven checkpoints of six steps, before anything runs."""
    monkeypatch.setattr(verify_resume, "_free", lambda path: 100_000)
    with pytest.raises(StorageError, match=r"^.*place: the checkpoints of both runs need about \d\.\d MB, 0\.1 MB are left; fewer --st"):
        verify_resume.run(configuration(place, **setups.FULL))
    assert left(place) == []


@pytest.mark.parametrize(("words", "told"), [
    (["--steps", "1"], "--steps must be a whole number of at least 2, not '1'"),
    (["--cuts", "some"], "--cuts must be a whole number of at least 1, not 'some'"), (["--folder"], "--folder needs a value")])
def test_the_command_line(words: list[str], told: str) -> None:
    with pytest.raises(UsageError, match=f"^{told}"):
        verify_resume.read_wish(words)


def test_where_it_cuts() -> None:
    """By hand: five places between six steps; one in the middle; more than there are places are all."""
    cuts = [verify_resume.read_wish(["--steps", steps, "--cuts", number])[0].cuts for steps, number in (
        ("6", "all"), ("6", "1"), ("6", "2"), ("3", "9"), ("2", "1"))]
    assert cuts == [(1, 2, 3, 4, 5), (3,), (2, 4), (1, 2), (1,)]


@pytest.mark.slow
def test_processes_of_its_own(place: Path) -> None:
    """The command as a user starts it, with the fewest steps."""
    ended = subprocess.run(
        [sys.executable, "-m", "tunewright", "verify-resume", *configuration(place), "--steps", "2"], capture_output=True, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout.splitlines()[1:] == [
        "from the start: identical at step 1", "cut after step 1: identical at step 2",
        "resume is exact: one cut in 2 steps, and every file of every checkpoint is the same"]
    assert left(place) == []


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert verify_resume.run(["--help"]) == 0
    assert capsys.readouterr().out == verify_resume.USAGE
