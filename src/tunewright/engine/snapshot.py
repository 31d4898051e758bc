"""Optimizer, schedule and random numbers to files and back, every bit; safetensors and JSON only.

Tensors of the optimizer are stored under `<parameter name>|<key>`, so that another order of parameters does no harm and another
set of them is noticed and named. State that belongs to no parameter has a name of the optimizer's own in that place.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tunewright.engine.optimizers.groups import parameters_of
from tunewright.engine.state import TrainState
from tunewright.errors import InputError
from tunewright.stages.stage import Remembering

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.amp.grad_scaler import GradScaler
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler

    from tunewright.stages.stage import Stage

OPTIMIZER_TENSORS: Final = "optimizer.safetensors"
OPTIMIZER_VALUES: Final = "optimizer.json"
SCHEDULE: Final = "scheduler.json"
LOSS_SCALE: Final = "loss_scale.json"
STATE: Final = "train_state.json"
STAGE: Final = "stage.json"
PEER_STATE: Final = "trainer_state.json"
_SEPARATOR: Final = "|"
_RATES: Final = ("base_lrs", "_last_lr")


def write_optimizer(optimizer: Optimizer, model: nn.Module, directory: Path) -> None:
    """Write the optimizer's state: tensors to one file, numbers and parameter groups to another."""
    from safetensors.torch import save_file

    names = _names(optimizer, model)
    name_of = {id(parameter): names[index] for index, parameter in enumerate(parameters_of(optimizer))}
    tensors: dict[str, Tensor] = {}
    values: dict[str, Any] = {}
    owners: Mapping[Any, Any] = optimizer.state
    for owner, entries in owners.items():
        for key, value in entries.items():
            place = f"{owner if isinstance(owner, str) else name_of[id(owner)]}{_SEPARATOR}{key}"
            if hasattr(value, "dtype"):
                tensors[place] = value.detach().contiguous()
            else:
                values[place] = value
    groups = [{**group, "params": [name_of[id(parameter)] for parameter in group["params"]]} for group in optimizer.param_groups]
    save_file(_apart(tensors), directory / OPTIMIZER_TENSORS)
    _write(directory / OPTIMIZER_VALUES, {
        "kind": _kind(optimizer), "values": values, "groups": groups, "shapes": _shapes(optimizer, names)})


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same with a copy of each tensor whose memory another has: the 8-bit optimizers share their tables of numbers, which
    safetensors does not store twice."""
    seen: set[int] = set()
    found = {}
    for place, tensor in tensors.items():
        at = tensor.data_ptr()
        found[place] = tensor.clone() if at in seen and at else tensor
        seen.add(at)
    return found


def read_optimizer(optimizer: Optimizer, model: nn.Module, directory: Path) -> None:
    """Restore the state that `write_optimizer` wrote, at the precision it had.

    Rates, decay and the like stay those of `optimizer`: they are the settings', and a changed one was allowed by name. The
    schedule, read afterwards, puts its own on the rates. Raises InputError for another kind of optimizer or other parameters.
    """
    from safetensors.torch import load_file

    names = _names(optimizer, model)
    indices = {name: index for index, name in names.items()}
    stored = _read(directory / OPTIMIZER_VALUES)
    _demand_same_kind(stored["kind"], _kind(optimizer), directory)
    _demand_same_parameters(stored["shapes"], _shapes(optimizer, names), directory)
    state: dict[int | str, dict[str, Any]] = {}
    for place, value in {**load_file(directory / OPTIMIZER_TENSORS), **stored["values"]}.items():
        name, _, key = place.rpartition(_SEPARATOR)
        state.setdefault(indices.get(name, name), {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    _undo_casts(optimizer, state)


def _kind(optimizer: Optimizer) -> str:
    """Whose state it is: torch's `AdamW` is not that of bitsandbytes, and not the one that BAdam has added its position to."""
    owners: Mapping[Any, Any] = optimizer.state
    library = "bitsandbytes " if type(optimizer).__module__.startswith("bitsandbytes") else ""
    return " with ".join([library + type(optimizer).__name__, *(owner for owner in owners if isinstance(owner, str))])


def _demand_same_kind(stored: str, present: str, directory: Path) -> None:
    if stored != present:
        raise InputError(f"the checkpoint's optimizer is {stored}, this run's is {present}: the one cannot go on with the other's state",
                         where=str(directory), mend="resume with the optim it was made with")


def _demand_same_parameters(stored: Mapping[str, list[int]], present: Mapping[str, list[int]], directory: Path) -> None:
    differing = sorted(name for name in {*stored, *present} if stored.get(name) != present.get(name))
    if differing:
        shown = ", ".join(f"{name} ({_shape(stored.get(name))} -> {_shape(present.get(name))})" for name in differing[:3])
        raise InputError(f"the checkpoint's optimizer has other parameters: {shown}; {len(differing)} in all", where=str(directory),
                         mend="resume with the tuning it was made with")


def _undo_casts(optimizer: Optimizer, state: Mapping[int | str, Mapping[str, Any]]) -> None:
    """torch casts loaded state to the parameter's type; Adafactor keeps float32 for bfloat16 parameters and would lose bits."""
    parameters = parameters_of(optimizer)
    for owner, entries in state.items():
        if isinstance(owner, str):
            continue
        live = optimizer.state[parameters[owner]]
        for key, value in entries.items():
            if hasattr(value, "dtype") and live[key].dtype != value.dtype:
                live[key] = value.to(live[key].device)


def write_schedule(schedule: LRScheduler, directory: Path) -> None:
    """Write the schedule's counters; its formula is a function of the settings."""
    plain = {key: value for key, value in schedule.state_dict().items() if _is_plain(value) and key != "lr_lambdas"}
    _write(directory / SCHEDULE, plain)


def read_schedule(schedule: LRScheduler, directory: Path) -> None:
    """Restore the counters that `write_schedule` wrote, and set the rates to the schedule's formula at that step.

    The base rates stay those of `schedule`, so that a changed learning rate takes effect.
    """
    from torch.optim.lr_scheduler import LambdaLR

    stored = {key: value for key, value in _read(directory / SCHEDULE).items() if key not in _RATES}
    if not isinstance(schedule, LambdaLR):
        raise TypeError(f"{type(schedule).__name__} has no formula to set the rates by")
    schedule.load_state_dict({**stored, "lr_lambdas": [None] * len(schedule.lr_lambdas)})
    rates = [base * formula(schedule.last_epoch) for formula, base in zip(schedule.lr_lambdas, schedule.base_lrs, strict=True)]
    for group, rate in zip(schedule.optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    schedule._last_lr = rates


def write_loss_scale(scaler: GradScaler | None, directory: Path) -> None:
    """Write the state of float16's loss scaling, where there is one."""
    if scaler is not None:
        _write(directory / LOSS_SCALE, scaler.state_dict())


def read_loss_scale(scaler: GradScaler | None, directory: Path) -> None:
    """Restore what `write_loss_scale` wrote."""
    if scaler is not None and (directory / LOSS_SCALE).is_file():
        scaler.load_state_dict(_read(directory / LOSS_SCALE))


def write_stage(stage: Stage, directory: Path) -> None:
    """Write what the stage knows from earlier steps, if it knows something."""
    if isinstance(stage, Remembering):
        _write(directory / STAGE, stage.state())


def read_stage(stage: Stage, directory: Path) -> None:
    """Restore what `write_stage` wrote. Raises InputError for a checkpoint of another stage."""
    if not isinstance(stage, Remembering):
        return
    if not (directory / STAGE).is_file():
        raise InputError(f"the checkpoint has no {STAGE}, without which stage {stage.name} cannot go on", where=str(directory),
                         mend="resume_from_checkpoint=none and another output_dir")
    stage.restore(_read(directory / STAGE))


def write_random(rank: int, directory: Path) -> None:
    """Write the states of this rank's random-number generators: Python, NumPy, torch, and every CUDA device."""
    import numpy as np
    import torch

    version, words, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    _write(_random_file(rank, directory), {
        "python": [version, list(words), gauss],
        "numpy": [kind, [int(word) for word in keys], int(position), int(has_gauss), float(cached)],
        "torch": _hex(torch.get_rng_state()),
        "cuda": [_hex(state) for state in torch.cuda.get_rng_state_all()] if torch.cuda.is_available() else []})


def read_random(rank: int, directory: Path) -> None:
    """Restore what `write_random` wrote for this rank."""
    import numpy as np
    import torch

    content = _read(_random_file(rank, directory))
    version, words, gauss = content["python"]
    random.setstate((version, tuple(words), gauss))
    kind, keys, position, has_gauss, cached = content["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), position, has_gauss, cached))
    torch.set_rng_state(_bytes(content["torch"]))
    if content["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all([_bytes(state) for state in content["cuda"]])


def write_state(state: TrainState, total_steps: int, epoch: float, directory: Path) -> None:
    """Write the position of the run, for us and, as trainer_state.json, for tools that plot Hugging Face's."""
    (directory / STATE).write_text(state.to_json(), encoding="utf-8")
    _write(directory / PEER_STATE, peer_state(state, total_steps, epoch))


def peer_state(state: TrainState, total_steps: int, epoch: float) -> dict[str, Any]:
    """The fields of Hugging Face's trainer_state.json that a run of ours has."""
    best = None if state.best_step is None else f"checkpoint-{state.best_step}"
    return {"best_metric": state.best_metric, "best_model_checkpoint": best, "best_global_step": state.best_step, "epoch": epoch,
            "global_step": state.global_step, "max_steps": total_steps, "log_history": state.log_history}


def read_state(directory: Path) -> TrainState:
    """The position of the run that made the checkpoint. Raises InputError if the file does not tell it."""
    try:
        return TrainState.from_json((directory / STATE).read_text(encoding="utf-8"))
    except (ValueError, TypeError, RecursionError) as error:
        raise InputError(f"the position of the run cannot be read: {' '.join(str(error).split())[:300]}", where=str(directory / STATE),
                         mend="resume from another checkpoint") from error


def _names(optimizer: Optimizer, model: nn.Module) -> dict[int, str]:
    """The optimizer's index of each parameter -> its name in the model."""
    name_of = {id(parameter): name for name, parameter in model.named_parameters()}
    return {index: name_of[id(parameter)] for index, parameter in enumerate(parameters_of(optimizer))}


def _shapes(optimizer: Optimizer, names: Mapping[int, str]) -> dict[str, list[int]]:
    return {names[index]: list(parameter.shape) for index, parameter in enumerate(parameters_of(optimizer))}


def _shape(shape: list[int] | None) -> str:
    return "absent" if shape is None else " x ".join(map(str, shape)) or "a number"


def _random_file(rank: int, directory: Path) -> Path:
    return directory / f"random-{rank}.json"


def _write(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, sort_keys=True), encoding="utf-8")


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _hex(state: Tensor) -> str:
    return bytes(state.cpu().tolist()).hex()


def _bytes(text: str) -> Tensor:
    import torch

    return torch.frombuffer(bytearray.fromhex(text), dtype=torch.uint8).clone()


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | str) or (isinstance(value, list | tuple) and all(map(_is_plain, value)))
