"""The file of answers: which steps it has, and what becomes of what a killed run wrote. Worked by hand."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from tests.harness.online import LoneRank
from tunewright.engine.samples import FILE_NAME, SampleLog
from tunewright.errors import StorageError
from tunewright.rl.episodes import Episode
from tunewright.runtime import LOGGER_NAME
from tunewright.stages.stage import StepContext


def context(step: int) -> StepContext:
    return StepContext(LoneRank(), step, 0, training=True)  # type: ignore[arg-type]


def episode(sample: int, number: int = 0, *, ended: bool = True, answer: str = "because") -> Episode:
    return Episode(sample, number, [1], [2, 3], ended, ("why?\n", answer), (0.5, 2.0), 1.25)


def log_at(path: Path, every: int = 2) -> SampleLog:
    return SampleLog(path / FILE_NAME, every, ("one", "two"))


def steps(path: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (path / FILE_NAME).read_text().splitlines()]


def test_every_second_step_in_the_order_of_samples(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = log_at(tmp_path)
    with caplog.at_level(logging.INFO, LOGGER_NAME):
        for step in range(5):
            log(context(step), [episode(7, 1), episode(7), episode(3, ended=False)])
    lines = [json.loads(line) for line in (tmp_path / FILE_NAME).read_text().splitlines()]
    assert [(line["step"], line["sample"], line["number"]) for line in lines] == [
        (step, *one) for step in (1, 3, 5) for one in ((3, 0), (7, 0), (7, 1))]
    assert lines[0] == {"step": 1, "sample": 3, "number": 0, "prompt": "why?\n", "answer": "because", "reward": 1.25, "tokens": 2,
                        "ended": False, "scores": {"one": 0.5, "two": 2.0}}
    assert [record.message for record in caplog.records][:2] == [
        'step 1: "why?\\n" -> "because" (reward 1.25, no end)', 'step 1: "why?\\n" -> "because" (reward 1.25)']


def test_a_resumed_run_writes_each_step_once(tmp_path: Path) -> None:
    """Killed after step 5, in the middle of a line; it goes on from step 2: what step 3 wrote is written again, step 1 stays."""
    first = log_at(tmp_path)
    for step in range(5):
        first(context(step), [episode(step)])
    with (tmp_path / FILE_NAME).open("a") as file:
        file.write('{"step": 7, "samp')
    again = log_at(tmp_path)
    again(context(2), [episode(9)])
    again(context(3), [episode(9)])
    assert steps(tmp_path) == [1, 3]
    assert json.loads((tmp_path / FILE_NAME).read_text().splitlines()[1])["sample"] == 9
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]


def test_any_text_survives_a_resume(tmp_path: Path) -> None:
    """Characters at which Python, but not JSON, ends a line; and a file that ends in the middle of a character."""
    strange = "a\u2028b\u0085c\x1cd\r\ne\u20ac"
    log_at(tmp_path)(context(0), [episode(1, answer=strange)])
    with (tmp_path / FILE_NAME).open("ab") as file:
        file.write('{"step": 3, "answer": "\u20ac'.encode()[:-1])
    log_at(tmp_path)(context(2), [episode(2, answer=strange)])
    lines = [json.loads(line) for line in (tmp_path / FILE_NAME).read_text(encoding="utf-8").split("\n")[:-1]]
    assert [(line["step"], line["answer"]) for line in lines] == [(1, strange), (3, strange)]


def test_nothing_is_written_with_zero(tmp_path: Path) -> None:
    log_at(tmp_path, 0)(context(0), [episode(1)])
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    """A directory stands where the file should be."""
    (tmp_path / FILE_NAME).mkdir()
    with pytest.raises(StorageError) as refused:
        log_at(tmp_path)(context(0), [episode(1)])
    assert "\n" not in refused.value.message
