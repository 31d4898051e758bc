"""Learning-rate schedules. Oracle: the closed formulas, worked out here by hand for each step."""

from __future__ import annotations

import math

import pytest
import torch

from tunewright.config.optimization import ScheduleConfig
from tunewright.engine.schedules import ARGUMENTS, build_schedule, check_schedule, warmup_steps
from tunewright.errors import InputError

PEAK = 0.4


def rates(schedule: ScheduleConfig, total: int) -> list[float]:
    """Learning rates of steps 0 .. total."""
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=PEAK)
    scheduler = build_schedule(optimizer, schedule, total)
    found = []
    for _ in range(total + 1):
        found.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    return found


def cos01(turns: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * turns))


CASES = {
    "linear": (ScheduleConfig(lr_scheduler_type="linear", warmup_steps=2), 6, [0, 0.5, 1, 0.75, 0.5, 0.25, 0]),
    "linear without warm-up": (ScheduleConfig(lr_scheduler_type="linear"), 4, [1, 0.75, 0.5, 0.25, 0]),
    "cosine": (ScheduleConfig(lr_scheduler_type="cosine", warmup_ratio=0.25), 4,
               [0, 1, cos01(1 / 3), cos01(2 / 3), 0]),
    "cosine, a full wave": (ScheduleConfig(lr_scheduler_type="cosine", lr_scheduler_kwargs={"num_cycles": 1}), 4,
                            [1, 0.5, 0, 0.5, 1]),
    "cosine with restarts": (ScheduleConfig(lr_scheduler_type="cosine_with_restarts", lr_scheduler_kwargs={"num_cycles": 2}), 4,
                             [1, 0.5, 1, 0.5, 0]),
    "cosine with a least rate": (ScheduleConfig(lr_scheduler_type="cosine_with_min_lr", lr_scheduler_kwargs={"min_lr": 0.1}), 4,
                                 [0.25 + 0.75 * cos01(t / 4) for t in range(5)]),
    "cosine with a least share": (
        ScheduleConfig(lr_scheduler_type="cosine_with_min_lr", warmup_steps=1, lr_scheduler_kwargs={"min_lr_rate": 0.5}), 3,
        [0, 1, 0.75, 0.5]),
    "cosine to min_lr": (ScheduleConfig(lr_scheduler_type="cosine", min_lr=0.1, warmup_steps=1), 5,
                         [0, *(0.25 + 0.75 * cos01(t / 4) for t in range(5))]),
    "cosine, a full wave above min_lr": (
        ScheduleConfig(lr_scheduler_type="cosine", min_lr=0.2, lr_scheduler_kwargs={"num_cycles": 1}), 4, [1, 0.75, 0.5, 0.75, 1]),
    "cosine to zero, said": (ScheduleConfig(lr_scheduler_type="cosine", min_lr=0.0), 4, [cos01(t / 4) for t in range(5)]),
    "polynomial": (ScheduleConfig(lr_scheduler_type="polynomial", lr_scheduler_kwargs={"power": 2, "lr_end": 0.1}), 4,
                   [(0.3 * (1 - t / 4) ** 2 + 0.1) / 0.4 for t in range(5)]),
    "constant": (ScheduleConfig(lr_scheduler_type="constant", warmup_steps=2), 3, [1, 1, 1, 1]),
    "constant with warm-up": (ScheduleConfig(lr_scheduler_type="constant_with_warmup", warmup_steps=2), 4, [0, 0.5, 1, 1, 1]),
    "inverse square root": (ScheduleConfig(lr_scheduler_type="inverse_sqrt", warmup_steps=2), 4,
                            [0, 0.5, 1, math.sqrt(2 / 3), math.sqrt(2 / 4)]),
    "inverse square root, timescale": (
        ScheduleConfig(lr_scheduler_type="inverse_sqrt", lr_scheduler_kwargs={"timescale": 3}), 2,
        [1, math.sqrt(3 / 4), math.sqrt(3 / 5)]),
    "WSD, a third stable": (
        ScheduleConfig(lr_scheduler_type="warmup_stable_decay", warmup_steps=1, lr_scheduler_kwargs={"decay_type": "linear"}), 7,
        [0, 1, 1, 1, 0.75, 0.5, 0.25, 0]),
    "WSD, all given": (
        ScheduleConfig(lr_scheduler_type="warmup_stable_decay", warmup_steps=2,
                       lr_scheduler_kwargs={"num_stable_steps": 1, "num_decay_steps": 2, "min_lr_ratio": 0.2}), 6,
        [0.2, 0.6, 1, 1, 0.2 + 0.8 * 0.5, 0.2, 0.2]),
    "WSD, decay given": (
        ScheduleConfig(lr_scheduler_type="warmup_stable_decay", lr_scheduler_kwargs={"num_decay_steps": 2, "decay_type": "1-sqrt"}),
        4, [1, 1, 1, 1 - math.sqrt(0.5), 0]),
}


@pytest.mark.parametrize("name", CASES)
def test_rates_follow_the_formula(name: str) -> None:
    schedule, total, expected = CASES[name]
    assert rates(schedule, total) == pytest.approx([PEAK * share for share in expected], abs=1e-12)


def test_every_choice_has_a_case() -> None:
    """The declaration's choices, our table and the cases above name the same schedules."""
    from dataclasses import fields

    declared = next(field for field in fields(ScheduleConfig) if field.name == "lr_scheduler_type").metadata["param"].choices
    assert set(declared) == set(ARGUMENTS) == {schedule.lr_scheduler_type for schedule, _, _ in CASES.values()}


def test_groups_keep_their_own_rates() -> None:
    """LoRA+ gives groups different peaks; the schedule multiplies each."""
    optimizer = torch.optim.SGD([{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": 0.4},
                                 {"params": [torch.nn.Parameter(torch.zeros(1))], "lr": 6.4}], lr=0.4)
    scheduler = build_schedule(optimizer, ScheduleConfig(lr_scheduler_type="linear", warmup_steps=2), 4)
    optimizer.step()
    scheduler.step()
    assert scheduler.get_last_lr() == pytest.approx([0.2, 3.2])


@pytest.mark.parametrize(("steps", "ratio", "total", "expected"), [
    (0, 0.0, 10, 0), (3, 0.0, 10, 3), (3, 0.9, 10, 3), (0, 0.1, 11, 2), (0, 0.5, 4, 2), (10, 0.0, 10, 10)])
def test_warmup_steps(steps: int, ratio: float, total: int, expected: int) -> None:
    """Positive steps win; a ratio is rounded up (0.1 of 11 is 1.1, hence 2)."""
    assert warmup_steps(ScheduleConfig(warmup_steps=steps, warmup_ratio=ratio), total) == expected


def test_warmup_beyond_the_run_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """A vocabulary's own default may be made for longer runs: the rate then rises to the end, and the run says so."""
    assert warmup_steps(ScheduleConfig(warmup_steps=11), 10) == 11
    assert "the learning rate rises for 11 steps, but the run has 10" in caplog.text


@pytest.mark.parametrize(("kind", "given", "message"), [
    ("linear", {"num_cycles": 1}, "`num_cycles` is no argument of the schedule linear; it takes none"),
    ("cosine", {"cycles": 1}, "`cycles` is no argument of the schedule cosine; it takes num_cycles"),
    ("cosine", {"num_cycles": "2"}, "num_cycles is '2'; use a number above 0"),
    ("cosine_with_restarts", {"num_cycles": 1.5}, "num_cycles is 1.5; use an integer >= 1"),
    ("cosine_with_restarts", {"num_cycles": True}, "num_cycles is True"),
    ("cosine_with_min_lr", None, "needs exactly one of min_lr and min_lr_rate"),
    ("cosine_with_min_lr", {"min_lr": 0.1, "min_lr_rate": 0.1}, "needs exactly one"),
    ("cosine_with_min_lr", {"min_lr": 0.5}, "min_lr is 0.5, not below learning_rate 0.4"),
    ("polynomial", {"lr_end": 0.4}, "lr_end is 0.4, not below"),
    ("inverse_sqrt", {"timescale": 0}, "timescale is 0; use an integer >= 1"),
    ("warmup_stable_decay", {"decay_type": "exponential"}, "decay_type is 'exponential'; use linear, cosine or 1-sqrt"),
    ("warmup_stable_decay", {"num_decay_steps": -1}, "num_decay_steps is -1"),
])
def test_wrong_arguments_name_the_key(kind: str, given: dict[str, object] | None, message: str) -> None:
    with pytest.raises(InputError) as caught:
        check_schedule(ScheduleConfig(lr_scheduler_type=kind, lr_scheduler_kwargs=given), PEAK)
    assert message in caught.value.line() and "lr_scheduler_kwargs" in caught.value.line()


def test_polynomial_needs_a_step_to_decay_in() -> None:
    with pytest.raises(InputError, match="warm-up takes all 4 steps"):
        rates(ScheduleConfig(lr_scheduler_type="polynomial", warmup_steps=4), 4)
