"""Runs that are to go on with other settings, other rows, other models or other code: refused, with exactly what changed, from what to
what."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tunewright.selftest import killing
from tunewright.selftest.check import Check, Outcome, Size, Tools
from tunewright.selftest.killing import Case, Ended, NotAsPromised
from tunewright.selftest.setups import FULL, STAGES, Changes, settings_of
from tunewright.selftest.workspace import Workspace

if TYPE_CHECKING:
    from tunewright.config.table import Row

PREEMPTED, REFUSED = 75, 2
PARAMETERS, WHOLE = "parameters", "whole runs"
FACTS: Final = ("training data", "ranks", "starting weights", "weights of ref_model", "weights of reward_model", "code of reward_funcs")
"""What is compared besides parameters."""


@dataclass(frozen=True, slots=True)
class Change:
    """A run of `before` that ended after two steps is to go on. `act` changes files below the folder, `settings` the configuration;
    `names`: what must be told, or nothing where the run may go on."""

    names: tuple[str, ...]
    before: Changes = field(default_factory=dict)
    settings: Changes = field(default_factory=dict)
    act: Callable[[Path], None] = lambda folder: None


def halved(folder: Path) -> None:
    """Keep every second row."""
    _rewrite(folder / "rows.jsonl", lambda lines: lines[::2])


def exchanged(folder: Path) -> None:
    """Let the third row and the ninth change places."""
    _rewrite(folder / "rows.jsonl", lambda lines: [*lines[:2], lines[8], *lines[3:8], lines[2], *lines[9:]])


def _rewrite(path: Path, change: Callable[[list[str]], list[str]]) -> None:
    path.write_text("".join(change(path.read_text(encoding="utf-8").splitlines(keepends=True))), encoding="utf-8")


def other_weights(name: str) -> Callable[[Path], None]:
    """The model of that name drawn with another seed."""
    def act(folder: Path) -> None:
        from tunewright.selftest.tiny import write_model

        write_model(folder / name, seed=1)

    return act


def other_head(folder: Path) -> None:
    """Another value head for the reward model, of the same size."""
    from safetensors.torch import load_file, save_file

    path = folder / "judge" / "value_head.safetensors"
    save_file({name: tensor + 1 for name, tensor in load_file(path).items()}, path)


def touched(folder: Path) -> None:
    """Give the reference's file another date."""
    (folder / "reference" / "model.safetensors").touch()


def other_code(folder: Path) -> None:
    """Rewards of another letter, from a function of the same name."""
    _rewrite(folder / "rewards.py", lambda lines: [line.replace('"a"', '"e"') for line in lines])


MODEL: Final = ("model_name_or_path", "starting weights")
REFERRED: Final = {**STAGES["dpo"], "ref_model": "{path}/reference"}
JUDGED: Final = {**{name: value for name, value in STAGES["ppo"].items() if name != "reward_funcs"}, "reward_model": "{path}/judge"}
CHANGED: Final[Mapping[str, Change]] = {
    "every second row of the same file": Change(("training data",), act=halved),
    "two rows of the same file exchanged": Change(("training data",), act=exchanged),
    "other weights under the same name": Change(("starting weights",), act=other_weights("model")),
    "another model of the same size": Change(MODEL, settings={"model_name_or_path": "{path}/reference"}),
    "a model of another family, LoRA": Change(MODEL, settings={"model_name_or_path": "{path}/family"}),
    "a model of another family, full": Change(MODEL, FULL, {"model_name_or_path": "{path}/family"}),
    "another optimizer": Change(("optim",), settings={"optim": "adafactor"}),
    "another reference under the same name": Change(("weights of ref_model",), REFERRED, act=other_weights("reference")),
    "a reference whose file has another date": Change((), REFERRED, act=touched),
    "a reward model with another head": Change(("weights of reward_model",), JUDGED, act=other_head),
    "another reward from the same function": Change(("code of reward_funcs",), STAGES["grpo"], act=other_code),
    "another rate, --allow-change": Change((), settings={"learning_rate": 0.003, "--allow-change": "learning_rate"}),
    "another rate, allow_change": Change((), settings={"learning_rate": 0.003, "allow_change": "learning_rate"}),
    "two others, one allowed": Change(("weight_decay",), settings={
        "learning_rate": 0.003, "weight_decay": 0.1, "allow_change": "learning_rate"}),
}
SAMPLE: Final = ("two rows of the same file exchanged", "another reference under the same name", "another reward from the same function",
                 "another rate, --allow-change")


def groups(size: Size) -> Sequence[str]:
    """Parameters are compared without a run."""
    return (PARAMETERS, WHOLE)


def run(group: str, size: Size, tools: Tools) -> Iterator[Outcome]:
    """One change at a time."""
    found = _of_parameters(tools.folder) if group == PARAMETERS else _of_runs(tools, SAMPLE if size is Size.SAMPLE else tuple(CHANGED))
    for case, wrong in found:
        yield Outcome(group, case, not wrong, wrong)


def _of_parameters(folder: Path) -> Iterator[tuple[str, str]]:
    """Each parameter: what is compared is refused by its name alone, and goes with it allowed; what is not compared may change."""
    from tunewright.config.table import replace, table
    from tunewright.dialects.read import read_config
    from tunewright.engine.resume import recorded_parameters

    reading = read_config(["model_name_or_path=demo", f"output_dir={folder / 'run'}"]).config
    facts = dict.fromkeys(FACTS, "before")
    settings = recorded_parameters(reading) | facts
    for name, row in table().items():
        other = other_value(row, getattr(getattr(reading, row.group), name))
        if other is not None:
            changed = recorded_parameters(replace(reading, {name: other}))
            yield name, _told(settings, changed | facts, [name] if row.param.recorded else [])
    for name in facts:
        yield name, _told(settings, {**settings, name: "after"}, [name])


def _told(before: Mapping[str, Any], after: Mapping[str, Any], names: list[str]) -> str:
    """What is wrong with the refusal of these settings, where those of the checkpoint are `before`."""
    from tunewright.engine.checkpoint import Checkpoint
    from tunewright.engine.resume import demand_same_settings
    from tunewright.errors import InputError

    checkpoint = Checkpoint(Path("checkpoint-3"), 3, {"settings": before})
    wanted = [f"{name}: {_shown(before[name])} -> {_shown(after[name])}" for name in names]
    try:
        demand_same_settings(checkpoint, after, ())
        told = []
    except InputError as error:
        told = [error.message]
    demand_same_settings(checkpoint, after, tuple(names))
    expected = [f"the run in this output_dir was made with other settings ({one})" for one in wanted]
    return "" if told == expected else f"told: {told}, not {expected}"


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


def other_value(row: Row, value: Any) -> Any:
    """Another value that the declaration allows; None where there is no other."""
    from tunewright.config.coerce import BadValueError, coerce

    for one in _candidates(row, value):
        try:
            found = coerce(row, one)
        except BadValueError:
            continue
        if found != value:
            return found
    return None


def _candidates(row: Row, value: Any) -> Iterator[Any]:
    """Values to try, of which one is another and allowed."""
    if row.base == "bool":
        yield not value
    yield from row.param.choices or ()
    if row.base in ("int", "float"):
        start = value if value is not None else row.param.minimum or row.param.above or 0
        yield from (start + 1, start - 1, start / 2, start + 0.25, (start + (row.param.below or row.param.maximum or 1)) / 2)
    if row.base in ("names", "numbers", "datasets"):
        yield from (["0.25"], ["other"])
    if row.base == "mapping":
        yield {"other": 1}
    yield from ("other", "other=1", "1,2,3")


def _of_runs(tools: Tools, names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Each change after a run of its own."""
    for number, name in enumerate(names):
        folder = tools.folder / str(number)
        try:
            yield name, _refused(tools, folder, CHANGED[name])
        except NotAsPromised as error:
            yield name, str(error)
        shutil.rmtree(folder)


def _refused(tools: Tools, folder: Path, change: Change) -> str:
    """A run of two steps, the change, and what is wrong with what then happens."""
    _files(tools, folder, change)
    settings = settings_of(change.before, folder, folder / "run")
    _done(tools, {**settings, "stop_after": "2"}, PREEMPTED)
    change.act(folder)
    again = {**settings, **settings_of(change.settings, folder, folder / "run"), **{
        name: settings[name] for name in change.before if name not in change.settings}, "max_steps": "8", "stop_after": "1"}
    before = _files_in(folder / "run")
    ended: Ended = tools.server().run(_case(again))
    if not change.names:
        return "" if ended.code == PREEMPTED else f"it does not go on: {ended.last_lines()}"
    if ended.code != REFUSED:
        return f"exit code {ended.code}: {ended.last_lines()}"
    told = re.search(r"^error: .*made with other settings \(.*\); put them back, allow_change=(.*?), another output_dir", ended.output,
                     re.MULTILINE)
    if told is None or tuple(told[1].split(",")) != change.names:
        return f"not refused because of {', '.join(change.names)}: {ended.last_lines()}"
    after = _files_in(folder / "run")
    if written := [name for name in sorted({*before, *after}) if before.get(name) != after.get(name)]:
        return f"the run that was refused has written {', '.join(written)}"
    rows = [line for line in ended.output.splitlines() if line.startswith(change.names)]
    return "" if len(rows) == len(change.names) else f"the table has {len(rows)} rows: {ended.last_lines()}"


def _files(tools: Tools, folder: Path, change: Change) -> None:
    """Rows and models; a reward model where it is asked for."""
    from tunewright.selftest.rows import write_every_kind
    from tunewright.selftest.tiny import write_model

    Workspace.make(folder)
    write_every_kind(folder)
    if "reference" in str({**change.before, **change.settings}):
        write_model(folder / "reference", seed=3)
    if "family" in str(change.settings):
        write_model(folder / "family", kind="qwen3")
    if "judge" in str(change.before):
        _done(tools, settings_of({**STAGES["rm"], "max_steps": 1}, folder, folder / "judge"), 0)


def _files_in(output_dir: Path) -> dict[str, bytes]:
    """All but who holds the lock."""
    return {str(path.relative_to(output_dir)): path.read_bytes() for path in output_dir.rglob("*")
            if path.is_file() and path.name != ".tunewright.lock"}


def _done(tools: Tools, settings: Mapping[str, str], code: int) -> None:
    tools.server().done(_case(settings), code)


def _case(settings: Mapping[str, str]) -> Case:
    return Case("command_line", {"settings": dict(settings)}, settings["output_dir"])


def missing(group: str) -> str | None:
    """Parameters are compared in this process."""
    return None if group == PARAMETERS else killing.missing(group)


CHECK: Final = Check(
    "changes", "A run that is to go on with another setting, other rows, another model, reference, reward or optimizer is refused, and "
    "nothing is written; each change is named with what was and what is, and nothing else is, unless `allow_change` names it.", 305,
    groups, run, missing)
