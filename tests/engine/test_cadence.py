"""When things happen: every expectation is written by hand."""

import math

import pytest

from tunewright.engine.cadence import Cadence, improved, total_steps


@pytest.mark.parametrize(
    ("strategy", "every", "expected"),
    [("no", 1, []), ("steps", 4, [4, 8]), ("steps", 0.25, [3, 6, 9]), ("steps", 0.01, list(range(1, 11))), ("epoch", 4, [5, 10])])
def test_due_steps_of_a_run_of_ten_steps_in_two_epochs(strategy: str, every: float, expected: list[int]) -> None:
    """A quarter of ten steps is 2.5, rounded up to 3; a hundredth is one step."""
    cadence = Cadence.of(strategy, every, 10)
    assert [step for step in range(1, 11) if cadence.due(step, ends_epoch=step % 5 == 0)] == expected


@pytest.mark.parametrize(
    ("epochs", "max_steps", "expected"), [(3, -1, 21), (0.5, -1, 4), (0.01, -1, 1), (3, 5, 5), (1, 100, 100)])
def test_total_steps(epochs: float, max_steps: int, expected: int) -> None:
    """Seven steps an epoch; half an epoch is 3.5 steps, rounded up."""
    assert total_steps(7, epochs, max_steps) == expected


@pytest.mark.parametrize(
    ("value", "best", "greater", "threshold", "expected"),
    [(1.0, None, False, 0.0, True), (math.nan, None, False, 0.0, False), (0.9, 1.0, False, 0.0, True), (1.0, 1.0, False, 0.0, False),
     (0.95, 1.0, False, 0.1, False), (0.8, 0.7, True, 0.05, True), (0.6, 0.7, True, 0.0, False)])
def test_improved(value: float, best: float | None, greater: bool, threshold: float, expected: bool) -> None:
    """Strictly better by more than the threshold, in the metric's own direction."""
    assert improved(value, best, greater, threshold) is expected
