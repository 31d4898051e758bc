"""A run -> the command-line flags of Megatron-LM and MindSpeed-LLM, by the mapping table of document 004.

Which flag stands for which parameter is in that table; the forms of the values are Megatron's own (its `arguments.py`).
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from tunewright.config.derive import derived
from tunewright.config.literals import show
from tunewright.config.refused.table import refused_in
from tunewright.config.run import RunConfig
from tunewright.config.table import Row, names_in, table, values
from tunewright.dialects.known import get_dialect
from tunewright.dialects.loss import does_not_matter, unsaid
from tunewright.dialects.read import Reading
from tunewright.dialects.report import Kind, Line, Translation
from tunewright.dialects.translate import form_in, unread_in
from tunewright.errors import refuse


@dataclass(frozen=True, slots=True)
class Said:
    """A flag with its value, None for a bare one; or, without a flag, why there is none."""

    flag: str | None
    value: Any = None
    why: str | None = None


@dataclass(frozen=True, slots=True)
class _Case:
    """A run with open values filled in; the values under the names of document 004; and the number of cards."""

    run: RunConfig
    theirs: Mapping[str, Any]
    cards: int

    @property
    def replicas(self) -> int:
        """The data-parallel degree: how many groups of cards see rows of their own."""
        return self.cards // (int(self.theirs["tp_size"]) * int(self.theirs["cp_size"]))


def _is(flag: str, name: str) -> Callable[[_Case], list[Said]]:
    """The value as it stands; nothing where it is absent."""
    return lambda case: [] if case.theirs[name] is None else [Said(flag, case.theirs[name])]


def _switch(flag: str, name: str) -> Callable[[_Case], list[Said]]:
    """A bare flag where the value is true."""
    return lambda case: [Said(flag)] if case.theirs[name] else []


def _data_path(case: _Case) -> list[Said]:
    files = [one["file_name"] if isinstance(one, Mapping) else one for one in case.run.data.dataset]
    return [Said("--data-path", files)] if files else []


def _tokenizer(case: _Case) -> list[Said]:
    name = case.theirs["tokenizer_name_or_path"] or case.run.model.model_name_or_path
    return [Said("--tokenizer-name-or-path", name)] if name else []


def _workers(case: _Case) -> list[Said]:
    return [Said("--workers", case.run.data.preprocessing_num_workers or 1)]


def _algorithm(case: _Case) -> list[Said]:
    known = {"ulysses": "ulysses_cp_algo"}
    return [Said("--context-parallel-algo", known.get(case.theirs["cp_type"], case.theirs["cp_type"]))]


def _recompute(case: _Case) -> list[Said]:
    """Every layer is recomputed as a whole, one at a time; the method `uniform` needs to be told how many make one piece."""
    if not case.run.precision.gradient_checkpointing:
        return []
    return [Said("--recompute-granularity", "full"), Said("--recompute-method", "uniform"), Said("--recompute-num-layers", 1)]


STYLES: Final[Mapping[str, str]] = {
    "linear": "linear", "cosine": "cosine", "constant": "constant", "constant_with_warmup": "constant",
    "inverse_sqrt": "inverse-square-root", "warmup_stable_decay": "WSD",
}
"""Our schedule -> the name of the same shape after `--lr-decay-style`."""


def _style(case: _Case) -> list[Said]:
    schedule = case.run.schedule.lr_scheduler_type
    if schedule not in STYLES:
        return [Said(None, why=f"--lr-decay-style has no {schedule}, only {', '.join(dict.fromkeys(STYLES.values()))}")]
    return [Said("--lr-decay-style", STYLES[schedule])]


def _warmup(case: _Case) -> list[Said]:
    """Megatron warms every schedule up; ours leaves `constant` alone."""
    schedule, steps = case.run.schedule, case.run.batching.max_steps
    if schedule.lr_scheduler_type == "constant":
        return [Said("--lr-warmup-fraction", 0)]
    if schedule.warmup_steps == 0:
        return [Said("--lr-warmup-fraction", schedule.warmup_ratio)]
    if steps > 0:
        return [Said("--lr-warmup-fraction", schedule.warmup_steps / steps)]
    return [Said(None, why=f"warmup_steps {schedule.warmup_steps} is a fraction of a length that only max_steps tells")]


def _iterations(case: _Case) -> list[Said]:
    batching = case.run.batching
    if batching.max_steps > 0:
        return [Said("--train-iters", batching.max_steps)]
    return [Said(None, why=f"Megatron counts iterations, not epochs: num_train_epochs {show(batching.num_train_epochs)} is left out; "
                           "give max_steps")]


def _every(flag: str, name: str, strategy: Callable[[RunConfig], str]) -> Callable[[_Case], list[Said]]:
    """A number of steps; a fraction becomes one where the length of the run is known."""

    def said(case: _Case) -> list[Said]:
        interval, length, chosen = case.theirs[name], case.run.batching.max_steps, strategy(case.run)
        if chosen != "steps":
            return [Said(None, why=f"{flag} counts steps, and here it is {chosen}")]
        if interval >= 1:
            return [Said(flag, int(interval))]
        if length > 0:
            return [Said(flag, max(1, round(interval * length)))]
        return [Said(None, why=f"{name} {show(interval)} is a fraction of a length that only max_steps tells")]

    return said


def _global_batch(case: _Case) -> list[Said]:
    batching = case.run.batching
    return [Said("--global-batch-size",
                 case.replicas * batching.per_device_train_batch_size * batching.gradient_accumulation_steps)]


TABLE: Final[tuple[tuple[str, Callable[[_Case], list[Said]]], ...]] = (
    ("model_name_or_path", _is("--load", "model_name_or_path")),
    ("tokenizer_name_or_path", _tokenizer),
    ("dataset", _data_path),
    ("cutoff_len", _is("--seq-length", "cutoff_len")),
    ("preprocessing_num_workers", _workers),
    ("packing", _switch("--pack", "packing")),
    ("tp_size", _is("--tensor-model-parallel-size", "tp_size")),
    ("ep_size", _is("--expert-model-parallel-size", "ep_size")),
    ("cp_size", _is("--context-parallel-size", "cp_size")),
    ("cp_type", _algorithm),
    ("recompute", _recompute),
    ("per_device_train_batch_size", _is("--micro-batch-size", "per_device_train_batch_size")),
    ("disable_shuffling", _switch("--no-shuffle", "disable_shuffling")),
    ("lr_scheduler_type", _style),
    ("warmup_ratio", _warmup),
    ("max_steps", _iterations),
    ("save_steps", _every("--save-interval", "save_steps", lambda run: run.checkpoints.save_strategy)),
    ("logging_steps", _every("--log-interval", "logging_steps", lambda run: run.logging.logging_strategy)),
    ("gradient_accumulation_steps", _global_batch),
)
"""Names of document 004 and what is said for them; `recompute` stands in two rows of its table."""

_TOLD_ELSEWHERE: Final[Mapping[str, str]] = {
    "warmup_steps": "warmup_ratio", "num_train_epochs": "max_steps", "save_strategy": "save_steps",
    "logging_strategy": "logging_steps",
}
"""Parameters that a line about another one speaks of."""

_NEVER_ASSUMED: Final = ("finetuning_type", "learning_rate")
"""Parameters without a flag that are told even when they have their defaults: Megatron has another default, or none."""


def to_flags(reading: Reading, cards: int = 1) -> Translation:
    """The flags for a job of `cards` cards, and what has none. Raises InputError where the cards do not divide into groups."""
    run = derived(reading.config)[0]
    case = _Case(run, _theirs(run), cards)
    group = int(case.theirs["tp_size"]) * int(case.theirs["cp_size"])
    if cards < 1 or cards % group:
        refuse(f"--cards {cards}: not a multiple of tp_size * cp_size = {group}", where="command line", mend=f"give a multiple of {group}")
    flags: dict[str, Any] = {}
    report: list[Line] = []
    told: set[str] = set(_TOLD_ELSEWHERE)
    for name, say in TABLE:
        field = names_in("mindspeed_fsdp2")[name][0].field if name in names_in("mindspeed_fsdp2") else name
        told.add(field)
        for said in say(case):
            report.append(_line(reading, field, case.theirs[name], said))
            if said.flag is not None:
                flags[said.flag] = said.value
    report += _without_flag(reading, run, told)
    return Translation("megatron", flags, tuple(report))


def _theirs(run: RunConfig) -> dict[str, Any]:
    """Every name of document 004 that the table speaks of, with our value, or with the only one that is accepted."""
    current, honoured, others = values(run), names_in("mindspeed_fsdp2"), refused_in("mindspeed_fsdp2")
    return {name: _form(honoured[name][0], current) if name in honoured else others[name][1].values[0]
            for name, _ in TABLE}


def _form(row: Row, current: Mapping[str, Any]) -> Any:
    return form_in(row, current[row.field], get_dialect("mindspeed_fsdp2"))


def _line(reading: Reading, field: str, value: Any, said: Said) -> Line:
    if said.flag is None:
        return Line(field, "no equivalent", None, f"{field}: {said.why}", is_lost=True)
    shown = said.flag if said.value is None else f"{said.flag} {show(said.value)}"
    if field not in reading.given:
        return Line(field, "default made explicit", said.flag, shown)
    kind: Kind = "renamed" if said.value is None or show(said.value) == show(value) else "value mapped"
    return Line(field, kind, said.flag, f"{field} {show(value)} -> {shown}" if kind == "value mapped" else f"{field} -> {said.flag}")


def _without_flag(reading: Reading, run: RunConfig, told: set[str]) -> list[Line]:
    """A line for each parameter that was written and that the mapping table does not have."""
    current, unread = values(run), unread_in(reading.config)
    found = []
    for name, row in table().items():
        if name in told or (name not in reading.given and name not in _NEVER_ASSUMED):
            continue
        if name in unread:
            found.append(Line(name, "no equivalent", None, does_not_matter(name, current[name], unread[name], None)))
        else:
            shown = None if row.param.secret else current[name]
            found.append(Line(name, "no equivalent", None, unsaid(name, row, shown, "the table of Megatron's flags"), is_lost=True))
    return found


def to_text(translation: Translation, *, suffix: str) -> str:
    """The flags, one on each line: to be pasted behind a launcher, or (.sh) as a script that takes the launcher as its arguments,
    `sh flags.sh torchrun pretrain_gpt.py`."""
    lines = [" ".join([flag, *map(shlex.quote, _words(value))]) for flag, value in translation.settings.items()]
    if suffix.lower() == ".sh":
        return "#!/bin/sh\n" + " \\\n  ".join(['exec "$@"', *lines]) + "\n"
    return " \\\n".join(lines) + "\n"


def _words(value: Any) -> list[str]:
    return [] if value is None else [show(one) for one in value] if isinstance(value, list) else [show(value)]
