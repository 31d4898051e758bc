"""Data-loader workers that die or hang. Oracle: the line of the file that the fault was put at; POSIX."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time

import numpy as np
import pytest
import torch

from tunewright.data.collate import Batch, Example, collate_flat
from tunewright.data.records import IGNORE_INDEX, Origin
from tunewright.engine.batches import Loading, Order, Share, TrainBatches
from tunewright.engine.workers import WorkerWatch, lost_workers_named
from tunewright.errors import InputError, LostRankError
from tunewright.selftest.workers import CHECK, PLACES


def test_every_way_of_reading_meets_every_fault() -> None:
    assert CHECK.wanted == 6 * (len(PLACES) - 1) + 1


class Rows:
    """Ten rows of two tokens; `act` happens when row 5 is read."""

    def __init__(self, act: str) -> None:
        self.act = act
        self.lengths = np.full(10, 2)

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> Example:
        if index == 5 and self.act == "refuse":
            raise InputError("this row cannot be had", where="rows.jsonl:6")
        if index == 5 and self.act == "fail":
            raise ZeroDivisionError("a defect")
        if index == 5 and self.act == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if index == 5 and self.act == "stop":
            time.sleep(0.5)  # until batches that were made are told of
            os.kill(os.getpid(), signal.SIGSTOP)
        if index == 5 and self.act == "kill later":
            time.sleep(0.5)
            os.kill(os.getpid(), signal.SIGKILL)
        return Example(np.full(2, index, np.int32), np.array([IGNORE_INDEX, index], np.int32), np.array([0, 2], np.int32), index)

    def origin(self, index: int) -> Origin:
        return Origin("rows.jsonl", index, index + 1)


def batches(act: str, workers: int, timeout_s: int = 30) -> TrainBatches:
    return TrainBatches(Rows(act), Order(0, by_length=False, shuffled=False), Share(2, 1, 0, 1), Loading(collate_flat, workers, timeout_s))


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_of_ours_arrives_in_one_line(workers: int) -> None:
    with pytest.raises(InputError) as caught:
        list(batches("refuse", workers).windows(0, 0))
    assert caught.value.line() == "rows.jsonl:6: this row cannot be had"


@pytest.mark.parametrize(("workers", "who"), [(0, "this process"), (2, r"data-loader worker 0 of 2")])
def test_a_defect_says_which_row_it_came_with(workers: int, who: str) -> None:
    with pytest.raises(RuntimeError, match=rf"^ZeroDivisionError: a defect; {who} failed while it read rows.jsonl:6$"):
        list(batches("fail", workers).windows(0, 0))


def test_a_killed_worker() -> None:
    with pytest.raises(LostRankError, match=r"^data-loader worker 0 of 2 was killed by SIGKILL while it read rows.jsonl:6; if memory"):
        list(batches("kill", 2).windows(0, 0))
    assert multiprocessing.active_children() == []


def test_a_worker_that_is_killed_while_its_rank_is_at_a_step() -> None:
    """Torch's error comes in the middle of the step, and its way out closes the loader."""
    with pytest.raises(LostRankError, match=r"^data-loader worker 0 of 2 was killed by SIGKILL while it read rows.jsonl:6; if memory"), \
            lost_workers_named():
        for _ in batches("kill later", 2).windows(0, 0):
            time.sleep(10)
    assert multiprocessing.active_children() == []


def test_a_worker_that_stops_with_a_batch_in_its_hands() -> None:
    """The rank has word of the first batch before it asks, and then nobody hands the batch over."""
    windows = batches("stop", 1, timeout_s=1).windows(0, 0)
    with pytest.raises(LostRankError, match=r"^data-loader worker 0 of 1 has not answered for 1 s; it stopped while it read rows.jsonl:6;"):
        for _ in windows:
            time.sleep(1)
    assert multiprocessing.active_children() == []


def test_a_loop_that_ends_early_leaves_no_worker() -> None:
    windows = batches("nothing", 2).windows(0, 0)
    next(windows)
    del windows
    assert multiprocessing.active_children() == []


def test_what_a_worker_is_at() -> None:
    """Seven rows, of which five are named; which one is read says more; between two batches there is none."""
    watch = WorkerWatch(0, "line {}".format)
    watch.begin(range(10, 17))
    assert "while it made a batch of line 10, line 11, line 12, line 13, line 14 and 2 more" in str(watch.failed(KeyError("x")))
    watch.reads(15)
    assert str(watch.failed(KeyError("x"))) == "KeyError: 'x'; this process failed while it read line 15"
    watch.done()
    assert str(watch.failed(KeyError("x"))).endswith("failed between two batches")


def test_other_errors_pass() -> None:
    with pytest.raises(RuntimeError, match=r"^something else$"), lost_workers_named():
        raise RuntimeError("something else")


def test_a_batch_is_what_it_was_without_a_watch() -> None:
    """The first epoch in the order of the files."""
    found: list[Batch] = [batch for window in batches("nothing", 1).windows(0, 0) for batch in window.batches]
    assert torch.equal(torch.cat([one.input_ids[0] for one in found]), torch.arange(10).repeat_interleave(2))
