"""Learning-rate schedules: transformers' formulas, chosen by name, with their arguments checked by name.

| name | after warm-up, t in [0, 1] from its end to the last step | arguments (default) |
|---|---|---|
| linear | 1 - t | |
| cosine | (1 + cos(2 pi n t)) / 2, with min_lr between the peak and that rate | num_cycles n (0.5) |
| cosine_with_restarts | (1 + cos(pi (n t mod 1))) / 2 | num_cycles n (1) |
| cosine_with_min_lr | cosine between the peak and the least rate | min_lr or min_lr_rate, num_cycles (0.5) |
| polynomial | (1 - t)^power between the peak and lr_end | power (1), lr_end (1e-7) |
| constant, constant_with_warmup | 1 | |
| inverse_sqrt | 1 / sqrt((step - warm-up + timescale) / timescale) | timescale (warm-up steps, or 10,000) |
| warmup_stable_decay | 1, then down to min_lr_ratio | num_stable_steps, num_decay_steps, min_lr_ratio (0), *_type, num_cycles (0.5) |

warmup_stable_decay stays at the peak for a third of the steps after warm-up and decays over the rest, unless told otherwise.
Warm-up rises linearly from 0 (`constant` has none). The first optimizer step uses the rate at step 0, so with warm-up its rate is 0.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from tunewright.errors import InputError, refuse

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler

    from tunewright.config.optimization import ScheduleConfig

Check = Callable[[Any], bool]

log = logging.getLogger(__name__)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _positive(value: Any) -> bool:
    return _is_number(value) and value > 0


def _not_negative(value: Any) -> bool:
    return _is_number(value) and value >= 0


def _fraction(value: Any) -> bool:
    return _is_number(value) and 0 <= value <= 1


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _positive_count(value: Any) -> bool:
    return _count(value) and bool(value > 0)


def _warmup_shape(value: Any) -> bool:
    return value in ("linear", "cosine", "1-sqrt")


_CYCLES: Final = ("a number above 0", _positive)
_SHAPE: Final = ("linear, cosine or 1-sqrt", _warmup_shape)

ARGUMENTS: Final[Mapping[str, Mapping[str, tuple[str, Check]]]] = {
    "linear": {},
    "cosine": {"num_cycles": _CYCLES},
    "cosine_with_restarts": {"num_cycles": ("an integer >= 1", _positive_count)},
    "cosine_with_min_lr": {"num_cycles": _CYCLES, "min_lr": ("a number >= 0", _not_negative),
                           "min_lr_rate": ("a number from 0 to 1", _fraction)},
    "polynomial": {"power": ("a number above 0", _positive), "lr_end": ("a number >= 0", _not_negative)},
    "constant": {},
    "constant_with_warmup": {},
    "inverse_sqrt": {"timescale": ("an integer >= 1", _positive_count)},
    "warmup_stable_decay": {
        "num_stable_steps": ("an integer >= 0", _count), "num_decay_steps": ("an integer >= 0", _count),
        "min_lr_ratio": ("a number from 0 to 1", _fraction), "warmup_type": _SHAPE, "decay_type": _SHAPE, "num_cycles": _CYCLES},
}
"""Per schedule, the arguments that `lr_scheduler_kwargs` may hold: what is allowed in words, and its test."""

_BUILDERS: Final[Mapping[str, str]] = {
    "linear": "get_linear_schedule_with_warmup",
    "cosine": "get_cosine_schedule_with_warmup",
    "cosine_with_restarts": "get_cosine_with_hard_restarts_schedule_with_warmup",
    "cosine_with_min_lr": "get_cosine_with_min_lr_schedule_with_warmup",
    "polynomial": "get_polynomial_decay_schedule_with_warmup",
    "constant": "get_constant_schedule",
    "constant_with_warmup": "get_constant_schedule_with_warmup",
    "inverse_sqrt": "get_inverse_sqrt_schedule",
    "warmup_stable_decay": "get_wsd_schedule",
}


def warmup_steps(schedule: ScheduleConfig, total_steps: int) -> int:
    """Steps of warm-up: `warmup_steps` if positive, else `warmup_ratio` of the run, rounded up as transformers does.

    More than the run has is told, not refused: a vocabulary's own default may be made for longer runs.
    """
    steps = schedule.warmup_steps if schedule.warmup_steps > 0 else math.ceil(total_steps * schedule.warmup_ratio)
    if steps > total_steps:
        log.warning("the learning rate rises for %d steps, but the run has %d: it ends below learning_rate; set warmup_steps",
                    steps, total_steps)
    return steps


def check_schedule(schedule: ScheduleConfig, learning_rate: float) -> None:
    """Raise InputError, naming the key, unless `lr_scheduler_kwargs` fits the schedule. Needs no torch."""
    name, given = schedule.lr_scheduler_type, dict(schedule.lr_scheduler_kwargs or {})
    known = ARGUMENTS[name]
    for key, value in given.items():
        if key not in known:
            allowed = f"it takes {', '.join(known)}" if known else "it takes none"
            refuse(f"lr_scheduler_kwargs: `{key}` is no argument of the schedule {name}", mend=allowed)
        words, fits = known[key]
        if not fits(value):
            refuse(f"lr_scheduler_kwargs: {key} is {value!r}", mend=f"use {words}")
    if name == "cosine_with_min_lr" and ("min_lr" in given) == ("min_lr_rate" in given):
        refuse("lr_scheduler_kwargs: cosine_with_min_lr needs exactly one of min_lr and min_lr_rate",
               mend='for instance {"min_lr_rate": 0.1}')
    for key in ("min_lr", "lr_end"):
        if key in given and given[key] >= learning_rate:
            refuse(f"lr_scheduler_kwargs: {key} is {given[key]}, not below learning_rate {learning_rate}", mend="use a smaller one")
    if name == "polynomial" and "lr_end" not in given and learning_rate <= 1e-7:
        refuse(f"learning_rate {learning_rate} is not above lr_end, 1e-7 unless given", mend='set lr_scheduler_kwargs: {"lr_end": 0}')


def build_schedule(optimizer: Optimizer, schedule: ScheduleConfig, total_steps: int) -> LRScheduler:
    """The schedule for a run of `total_steps` optimizer steps; each parameter group's own rate is multiplied by it.

    Raises InputError as `check_schedule` does.
    """
    from transformers import optimization

    check_schedule(schedule, float(optimizer.defaults["lr"]))
    falls_short = schedule.lr_scheduler_type == "cosine" and schedule.min_lr is not None
    name = "cosine_with_min_lr" if falls_short else schedule.lr_scheduler_type
    builder: Callable[..., LRScheduler] = getattr(optimization, _BUILDERS[name])
    return builder(optimizer, **_arguments(schedule, total_steps))


def _arguments(schedule: ScheduleConfig, total_steps: int) -> dict[str, Any]:
    """Keyword arguments of the builder: the user's, the length of warm-up and of the run, and what we derive for the rest."""
    name, given = schedule.lr_scheduler_type, dict(schedule.lr_scheduler_kwargs or {})
    if name == "cosine" and schedule.min_lr is not None:
        given["min_lr"] = schedule.min_lr
    if name == "constant":
        return given
    warmup = warmup_steps(schedule, total_steps)
    given["num_warmup_steps"] = warmup
    if name in ("constant_with_warmup", "inverse_sqrt"):
        return given
    if name == "polynomial" and warmup == total_steps:
        raise InputError(f"warm-up takes all {total_steps} steps, which leaves polynomial none to decay in", mend="shorten it")
    if name == "warmup_stable_decay":
        return given | _stable_and_decay(given, total_steps - warmup)
    return given | {"num_training_steps": total_steps}


def _stable_and_decay(given: Mapping[str, Any], remaining: int) -> dict[str, int]:
    """Steps at the peak and steps of decay, from what is given: by default one third and two thirds (as LLaMA-Factory)."""
    if "num_stable_steps" in given:
        stable = int(given["num_stable_steps"])
    elif "num_decay_steps" in given:
        stable = max(0, remaining - int(given["num_decay_steps"]))
    else:
        stable = remaining // 3
    return {"num_stable_steps": stable, "num_decay_steps": int(given.get("num_decay_steps", max(0, remaining - stable)))}
