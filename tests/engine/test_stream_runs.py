"""Whole runs on a stream: stopped at any step they go on to the same end, bit for bit, with workers, ranks, packing and mixtures.

Oracle: the same run, never interrupted. Compared are weights, optimizer, schedule, random numbers, position, every logged loss, and the
audit of the rows.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tunewright.selftest.killing import KILLED, Case, Server, server
from tunewright.selftest.settling import copied, go_on, states
from tunewright.selftest.tiny import WORDS
from tunewright.selftest.workspace import Workspace, results

pytestmark = pytest.mark.slow

STREAM: dict[str, Any] = {
    "streaming": True, "buffer_size": 7, "max_steps": 12, "lora_dropout": 0.2, "per_device_train_batch_size": 2, "logging_steps": 1}
MIXED: dict[str, Any] = {"mix_strategy": "interleave_over", "interleave_probs": "0.7,0.3"}
PACKED: dict[str, Any] = {"packing": True, "cutoff_len": 64}

SETUPS: dict[str, dict[str, Any]] = {
    "no workers": {},
    "accumulation, mixture": {"gradient_accumulation_steps": 2, **MIXED},
    "packed": {**PACKED, "per_device_train_batch_size": 1},
    "packed, accumulation, mixture, two workers": {**PACKED, **MIXED, "gradient_accumulation_steps": 2, "dataloader_num_workers": 2},
    "padding-free, rows held out": {"padding_free": True, "val_size": 5, "eval_strategy": "steps", "eval_steps": 4},
}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Two sets of 13 and 9 rows, some of which are dropped: a pass of the first takes six or seven steps."""
    made = Workspace.make(tmp_path_factory.mktemp("streams"))
    write(made.path / "first.jsonl", 13, unusable=(4, 5, 11))
    write(made.path / "second.jsonl", 9, unusable=(0,))
    return made


@pytest.fixture(scope="module")
def kill_server() -> Server:
    return server()


def write(path: Path, count: int, *, unusable: tuple[int, ...]) -> None:
    """Rows of different lengths; those that are unusable have an empty answer."""
    path.write_text("".join(json.dumps({
        "instruction": " ".join(WORDS[number : number + 1 + number % 6]), "output": "" if number in unusable else WORDS[number]}) + "\n"
        for number in range(count)))


def settings(workspace: Workspace, output_dir: Path, **changes: Any) -> dict[str, str]:
    names = ["first", "second"] if "mix_strategy" in changes else ["first"]
    dataset = ",".join(str(workspace.path / f"{name}.jsonl") for name in names)
    return workspace.settings(output_dir, **{**STREAM, "dataset": dataset, **changes})


def run(kill_server: Server, chosen: dict[str, str], scenario: str = "train", stop_after: int | None = None) -> int:
    outcome = kill_server.run(Case(scenario, {"settings": chosen, "stop_after": stop_after}, chosen["output_dir"]))
    assert outcome.code in ((0,) if stop_after is None else (0, KILLED)), outcome.output
    return outcome.code


def audit(output_dir: Path) -> list[str]:
    return (output_dir / "stream_audit.jsonl").read_text().splitlines()


def check_steps(kill_server: Server, scenario: str, chosen: dict[str, str], steps: tuple[int, ...]) -> dict[str, Any]:
    """Go on from what a kill in the middle of each of the steps leaves, to the same end and the same audit. Returns the end."""
    output_dir = Path(chosen["output_dir"])
    copied(kill_server, scenario, chosen, output_dir.with_name("copies"), 0, steps)
    expected, told = results(output_dir), audit(output_dir)
    found = states(output_dir.with_name("copies"))
    assert len(found) == len(steps)
    for name, state in found.items():
        assert go_on(kill_server, scenario, chosen, state) == expected, name
        assert audit(output_dir) == told, name
    return expected


@pytest.mark.parametrize("name", ["accumulation, mixture", "packed", "padding-free, rows held out"])
def test_a_stream_resumes_exactly(kill_server: Server, workspace: Workspace, tmp_path: Path, name: str) -> None:
    """Found inside steps 3, 6 and 12: before any checkpoint, in the middle of the first pass, and after its end. Between steps, and other
    set-ups: `selftest.exactness`."""
    expected = check_steps(kill_server, "train", settings(workspace, tmp_path / "run", **SETUPS[name]), (2, 5, 11))
    assert expected["state"]["epoch"] >= 1 and expected["state"]["global_step"] == 12


@pytest.mark.parametrize("name", ["no workers", "packed, accumulation, mixture, two workers"])
def test_a_stream_resumes_exactly_on_two_ranks(kill_server: Server, workspace: Workspace, tmp_path: Path, name: str) -> None:
    changes = {**SETUPS[name], "per_device_train_batch_size": 1}
    check_steps(kill_server, "train_on_two_ranks", settings(workspace, tmp_path / "run", **changes), (5, 8))


@pytest.mark.parametrize("scenario", ["train", "train_on_two_ranks"])
def test_a_stream_that_is_killed_resumes_exactly(kill_server: Server, workspace: Workspace, tmp_path: Path, scenario: str) -> None:
    """The process itself, with two workers on each rank that must end by themselves."""
    changes = {**SETUPS["packed, accumulation, mixture, two workers"], "per_device_train_batch_size": 1, "ddp_timeout": 10}
    run(kill_server, settings(workspace, tmp_path / "straight", **changes), scenario)
    chosen = settings(workspace, tmp_path / "killed", **changes)
    assert run(kill_server, chosen, scenario, stop_after=8) == KILLED
    run(kill_server, chosen, scenario)
    assert results(tmp_path / "killed") == results(tmp_path / "straight")
    assert audit(tmp_path / "killed") == audit(tmp_path / "straight")


@pytest.mark.parametrize("name", ["no workers", "accumulation, mixture", "packed, accumulation, mixture, two workers"])
def test_workers_and_ranks_change_nothing(kill_server: Server, workspace: Workspace, tmp_path: Path, name: str) -> None:
    """0, 1, 2 and 3 workers: the same bits. Two ranks with half the batch: the same losses to 1e-5, and the same rows told of."""
    changes = {**SETUPS[name], "lora_dropout": 0.0, "per_device_train_batch_size": 2}
    for workers in (0, 1, 2, 3):
        run(kill_server, settings(workspace, tmp_path / str(workers), **{**changes, "dataloader_num_workers": workers}))
    expected = results(tmp_path / "0")
    for workers in (1, 2, 3):
        assert results(tmp_path / str(workers)) == expected
        assert audit(tmp_path / str(workers)) == audit(tmp_path / "0")
    run(kill_server, settings(workspace, tmp_path / "two", **{**changes, "per_device_train_batch_size": 1}), "train_on_two_ranks")
    ours, theirs = ([{key: entry[key] for key in ("loss", "grad_norm", "epoch", "step")} for entry in one["state"]["log_history"]]
                    for one in (expected, results(tmp_path / "two")))
    assert len(ours) == 12
    for one, other in zip(ours, theirs, strict=True):
        assert other == pytest.approx(one, rel=1e-5)
    assert sorted(audit(tmp_path / "two")) == sorted(audit(tmp_path / "0"))


def test_the_audit_of_a_stream(kill_server: Server, workspace: Workspace, tmp_path: Path) -> None:
    """Each dropped row once, with its line, though the run reads its file several times."""
    run(kill_server, settings(workspace, tmp_path, max_steps=20, save_steps=20))
    found = [json.loads(line) for line in audit(tmp_path)]
    assert sorted((one["line"], one["action"], one["dataset"]) for one in found) == [
        (line, "dropped", str(workspace.path / "first.jsonl")) for line in (5, 6, 12)]
    state = results(tmp_path)["state"]
    passes = state["slots_read"] / 13
    assert passes > 2 and state["samples_seen"] == state["slots_read"] - state["slots_dropped"]
    assert state["notes_told"] == 3 and state["slots_dropped"] >= 6


def test_rows_that_only_a_later_pass_reads_are_told_of(kill_server: Server, workspace: Workspace, tmp_path: Path) -> None:
    """A pass ends with the shorter set, having read one of the longer one's two files; which of them changes from pass to pass."""
    for name, unusable in (("a", (1, 2)), ("b", (0, 5))):
        (tmp_path / "longer").mkdir(exist_ok=True)
        write(tmp_path / "longer" / f"{name}.jsonl", 9, unusable=unusable)
    write(tmp_path / "shorter.jsonl", 7, unusable=())
    changes = {"dataset": f"{tmp_path}/shorter.jsonl,{tmp_path}/longer", "mix_strategy": "interleave_under", "max_steps": 40}
    run(kill_server, settings(workspace, tmp_path / "straight", **changes))
    found = [json.loads(line) for line in audit(tmp_path / "straight")]
    assert sorted((one["file"][-7:], one["row"]) for one in found) == [("a.jsonl", 2), ("a.jsonl", 3), ("b.jsonl", 1), ("b.jsonl", 6)]
    chosen = settings(workspace, tmp_path / "again", **changes)
    assert run(kill_server, chosen, stop_after=20) == KILLED
    run(kill_server, chosen)
    assert audit(tmp_path / "again") == audit(tmp_path / "straight")


def test_too_many_dropped_rows_stop_the_run(kill_server: Server, workspace: Workspace, tmp_path: Path) -> None:
    """Two thirds of 150 rows are unusable; judged from the hundredth on. Oracle: the message, worked by hand."""
    write_many(tmp_path / "rows.jsonl", 150)
    chosen = settings(workspace, tmp_path / "out", dataset=tmp_path / "rows.jsonl", max_steps=100, per_device_train_batch_size=10,
                      disable_shuffling=True)
    outcome = kill_server.run(Case("command_line", {"settings": {**chosen, "max_dropped_fraction": "0.6"}}, chosen["output_dir"]))
    assert outcome.code == 2, outcome.output
    assert "rows" in outcome.output


def write_many(path: Path, count: int) -> None:
    path.write_text("".join(json.dumps({"instruction": WORDS[number % 20], "output": WORDS[number % 20] if number % 3 == 0 else ""}) + "\n"
                            for number in range(count)))
