"""Logs, memory figures, profiler, search for the first number that is not finite."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.effects.engine_runs import config, history, run, weights
from tunewright.commands.eval import levels_of
from tunewright.dialects.read import read_config
from tunewright.engine import loop
from tunewright.engine.memory import ReserveReturned
from tunewright.engine.state import TrainState
from tunewright.errors import ConfigError, InputError, NumericError
from tunewright.runtime import LOGGER_NAME, LogLevels, Ranks, configure_logging
from tunewright.selftest.workspace import Workspace


@pytest.mark.slow
@pytest.mark.effect("log_level")
@pytest.mark.parametrize(("level", "told", "place"), [("passive", True, False), ("info", True, False), ("warning", False, False),
                                                      ("detail", True, True)])
def test_what_the_main_process_tells(
    workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str], level: str, told: bool, place: bool
) -> None:
    """The line that a run ends with, and in detail the file and line that it came from."""
    run(workspace, tmp_path, max_steps=1, log_level=level)
    lines = [line for line in capsys.readouterr().err.splitlines() if line.endswith(f"done: {tmp_path}")]
    assert (len(lines) == 1) is told and any("train.py:" in line for line in lines) is place


@pytest.mark.effect("log_level_replica", "log_on_each_node")
@pytest.mark.parametrize(("ranks", "words", "expected"), [
    (Ranks(0, 4, 0), [], logging.INFO),
    (Ranks(1, 4, 1), [], logging.WARNING),
    (Ranks(1, 4, 1), ["log_level_replica=passive", "log_on_each_node=true"], logging.WARNING),
    (Ranks(1, 4, 1), ["log_level_replica=debug"], logging.DEBUG),
    (Ranks(1, 4, 1), ["log_level=error", "log_level_replica=critical", "log_on_each_node=true"], logging.CRITICAL),
    (Ranks(2, 4, 0), ["log_level=error", "log_level_replica=critical", "log_on_each_node=true"], logging.ERROR),
    (Ranks(2, 4, 0), ["log_level=error", "log_level_replica=critical"], logging.CRITICAL),
])
def test_what_the_others_tell(ranks: Ranks, words: list[str], expected: int) -> None:
    """Four processes on two machines: rank 2 is the first of the second."""
    before = logging.getLogger(LOGGER_NAME)
    kept, level, propagate = before.handlers, before.level, before.propagate
    try:
        assert configure_logging(ranks, levels_of(read_config(words).config.logging)).level == expected
    finally:
        before.handlers, before.propagate = kept, propagate
        before.setLevel(level)


def test_levels_come_from_the_configuration(workspace: Workspace, tmp_path: Path) -> None:
    assert levels_of(config(workspace, tmp_path).logging) == LogLevels("passive", "warning", False)
    chosen = config(workspace, tmp_path, log_level="error", log_level_replica="debug", log_on_each_node=True).logging
    assert levels_of(chosen) == LogLevels("error", "debug", True)


@pytest.mark.slow
@pytest.mark.effect("include_num_input_tokens_seen", "include_tokens_per_second")
def test_further_fields_of_the_log(workspace: Workspace, tmp_path: Path) -> None:
    """Entries after steps 3, 6, 9 and 12: half the tokens are seen after the first of two epochs of six steps, all at the end; in the
    log history, the JSONL and nowhere unasked."""
    run(workspace, tmp_path / "plain", logging_steps=3)
    figures = run(workspace, tmp_path / "more", logging_steps=3, include_num_input_tokens_seen=True, include_tokens_per_second=True)
    seen = [entry["num_input_tokens_seen"] for entry in history(tmp_path / "more")]
    assert seen == sorted(seen) and 2 * seen[1] == seen[3] == figures["total_tokens"]
    assert all(entry["tokens_per_second"] > 0 for entry in history(tmp_path / "more"))
    line = json.loads((tmp_path / "more" / "trainer_log.jsonl").read_text().splitlines()[-1])
    assert line["num_input_tokens_seen"] == line["total_tokens"]
    assert not any({"num_input_tokens_seen", "tokens_per_second"} & entry.keys() for entry in history(tmp_path / "plain"))


@pytest.mark.slow
@pytest.mark.effect("skip_memory_metrics")
def test_memory_figures(workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """256 MB that a run keeps show in its growth, but for what it gives back besides; by default no such figure is there."""
    plain = run(workspace, tmp_path / "plain", max_steps=2)
    assert not any("mem_" in name for name in plain)
    kept: list[torch.Tensor] = []
    real = loop.accumulate

    def accumulate(*arguments: Any) -> float:
        if not kept:
            kept.append(torch.ones(64_000_000))
        return real(*arguments)

    monkeypatch.setattr(loop, "accumulate", accumulate)
    figures = run(workspace, tmp_path / "told", max_steps=2, skip_memory_metrics=False)
    assert 200e6 < figures["train_mem_cpu_alloc_delta"] < 450e6 and figures["train_mem_cpu_peaked_delta"] >= 0
    written = json.loads((tmp_path / "told" / "train_results.json").read_text())
    assert written["train_mem_cpu_alloc_delta"] == figures["train_mem_cpu_alloc_delta"]


@pytest.mark.effect("torch_empty_cache_steps")
def test_reserve_is_returned_every_so_many_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """The device's own function is the border that is replaced."""
    calls: list[int] = []
    hook, state = ReserveReturned(3), TrainState()
    monkeypatch.setattr(torch.accelerator, "empty_cache", lambda: calls.append(state.global_step))
    for step in range(1, 8):
        state.global_step = step
        hook.advanced(state)
    assert calls == [3, 6]


@pytest.mark.slow
@pytest.mark.effect("profile", "profile_step_start", "profile_step_end", "profile_save_path", "profile_with_memory",
                    "profile_record_shapes", "profile_with_stack", "profile_ranks", "profile_with_cpu")
def test_profile(workspace: Workspace, tmp_path: Path) -> None:
    """Steps 1 and 2 of 4: two updates of the optimizer in the trace, shapes and memory where asked for, and the same weights as
    without. The traces are torch's own, read back as JSON."""
    common = {"max_steps": 4, "save_strategy": "no", "profile": True, "optim": "adamw_torch"}
    run(workspace, tmp_path / "plain", **{**common, "profile": False})
    run(workspace, tmp_path / "a", profile_save_path=tmp_path / "some", profile_step_start=1, profile_step_end=3,
        profile_with_memory=True, profile_record_shapes=True, profile_with_stack=True, **common)
    run(workspace, tmp_path / "b", profile_save_path=tmp_path / "all", profile_ranks=0, **common)
    run(workspace, tmp_path / "c", profile_save_path=tmp_path / "none", profile_ranks="1,2", **common)
    assert {path.name for path in (tmp_path / "some").iterdir()} == {
        "rank-0-steps-1-to-2.trace.json", "rank-0-steps-1-to-2.operations.txt"}
    assert {path.name for path in (tmp_path / "all").iterdir()} == {
        "rank-0-steps-0-to-3.trace.json", "rank-0-steps-0-to-3.operations.txt"}
    assert not (tmp_path / "none").exists()
    some, everything = (json.loads(next((tmp_path / name).glob("*.json")).read_text())["traceEvents"] for name in ("some", "all"))
    assert updates(some) == 2 and updates(everything) == 4
    assert any(event["name"] == "[memory]" for event in some) and not any(event["name"] == "[memory]" for event in everything)
    assert any("Input Dims" in event.get("args", {}) for event in some) and not any(
        "Input Dims" in event.get("args", {}) for event in everything)
    assert any("step.py" in event["name"] for event in some) and not any("step.py" in event["name"] for event in everything)
    assert "aten::mm" in next((tmp_path / "all").glob("*.txt")).read_text()
    final = [weights(tmp_path / name) for name in ("plain", "a", "b", "c")]
    assert all(torch.equal(tensor, one[name]) for name, tensor in final[0].items() for one in final[1:])
    with pytest.raises(InputError, match="there is nothing to record: no GPU is in use, and profile_with_cpu is off"):
        run(workspace, tmp_path / "d", use_cpu=True, profile_with_cpu=False, **common)


def updates(events: list[dict[str, object]]) -> int:
    """Optimizer steps in a trace."""
    return sum(str(event["name"]).startswith("Optimizer.step") for event in events)


@pytest.mark.slow
def test_a_record_is_written_when_the_run_fails(workspace: Workspace, tmp_path: Path) -> None:
    """Diverging weights stop the run; the steps up to there are in the trace."""
    with pytest.raises(NumericError):
        run(workspace, tmp_path / "a", profile=True, profile_save_path=tmp_path / "p", learning_rate=90, finetuning_type="full",
            lr_scheduler_type="constant", max_grad_norm=0, optim="adamw_torch", num_train_epochs=40, pure_bf16=False, adam_beta2=0)
    assert len(list((tmp_path / "p").glob("rank-0-steps-0-to-*.trace.json"))) == 1


@pytest.mark.slow
@pytest.mark.effect("debug")
def test_the_module_that_overflows_is_named(tmp_path: Path) -> None:
    """One weight of the second layer's down projection is infinite from the start: that module, and no earlier one, is named."""
    broken = Workspace.make(tmp_path / "w")
    file = broken.path / "model" / "model.safetensors"
    tensors = load_file(file)
    tensors["model.layers.1.mlp.down_proj.weight"][3, 5] = float("inf")
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(NumericError, match=r"step 3: the loss \(3 steps in a row\) is nan; the step was not applied"):
        run(broken, tmp_path / "plain")
    place = r"\S*layers\.1\.mlp\.down_proj(\.base_layer)? \(Linear, largest input [0-9.e-]+\)"
    with pytest.raises(NumericError, match=f"step 1: the output of {place} is -?inf"):
        run(broken, tmp_path / "found", debug="underflow_overflow")
    evidence = json.loads((tmp_path / "found" / "bad_step-1" / "rows.json").read_text())
    assert "down_proj" in evidence["quantity"]


@pytest.mark.slow
def test_looking_for_an_overflow_changes_nothing(workspace: Workspace, tmp_path: Path) -> None:
    for name in ("plain", "watched"):
        run(workspace, tmp_path / name, max_steps=3, **({} if name == "plain" else {"debug": "underflow_overflow"}))
    final = [weights(tmp_path / name) for name in ("plain", "watched")]
    assert all(torch.equal(tensor, final[1][name]) for name, tensor in final[0].items())


def test_tpu_debugging_is_refused() -> None:
    with pytest.raises(ConfigError, match="'tpu_metrics_debug' is refused: there is no support for TPUs"):
        read_config(["--debug", "tpu_metrics_debug"], dialect="llamafactory")
