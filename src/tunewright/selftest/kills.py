"""Runs that are killed at each of their file operations, and gone on with to the same end.

One run of a set-up leaves a copy of its output directory at each of its operations, torn in the middle of writes; that a copy is what a
kill leaves, and that no operation escapes the count, are cases of their own.
"""

from __future__ import annotations

import json
import random
import re
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from tunewright.selftest import killing
from tunewright.selftest.check import Check, Outcome, Size, Tools
from tunewright.selftest.killing import KILLED, Case
from tunewright.selftest.settling import before_renames, copied, end_of, judged, misplaced, settled, states
from tunewright.selftest.workspace import Workspace, results

TWO: Final = "train_on_two_ranks"
TWO_RANKS: Final = {"per_device_train_batch_size": 2, "ddp_timeout": 10}
STREAM: Final = {"streaming": True, "buffer_size": 7, "max_steps": 12, "per_device_train_batch_size": 2}


@dataclass(frozen=True, slots=True)
class Setup:
    """A run to kill. Of its operations every `full`th is a case, and every `sample`th of a sample (0: none); and the middle of some
    steps. `HERE` in a value is the workspace."""

    changes: Mapping[str, Any] = field(default_factory=dict)
    scenario: str = "train"
    full: int = 3
    sample: int = 0
    steps: tuple[int, ...] = (2, 5, 10)


SETUPS: Final[Mapping[str, Setup]] = {
    "LoRA with dropout": Setup({"lora_dropout": 0.2}, full=1, sample=2),
    "full": Setup({"finetuning_type": "full"}, full=1, sample=2),
    "LoRA on two ranks": Setup({**TWO_RANKS, "lora_dropout": 0.2}, TWO, full=1, sample=3),
    "full on two ranks": Setup({**TWO_RANKS, "finetuning_type": "full"}, TWO, full=1),
    "stopped by a signal": Setup(scenario="tunewright.selftest.kills:stopped_by_signal", full=1, sample=11, steps=()),
    "evaluation, best model": Setup({
        "eval_strategy": "steps", "eval_steps": 2, "load_best_model_at_end": True, "val_size": 4, "compute_accuracy": True}, full=1,
        sample=11),
    "reward model": Setup({"stage": "rm", "dataset": "HERE/pairs.jsonl"}, sample=29),
    "ppo": Setup({
        "stage": "ppo", "reward_funcs": "HERE/rewards.py:share", "ppo_buffer_size": 2, "max_new_tokens": 8, "num_train_epochs": 1,
        "save_steps": 2},
        steps=(2, 5), sample=29),
    "freeze": Setup({"finetuning_type": "freeze", "freeze_trainable_layers": 1}),
    "accumulation, uneven tail": Setup({"gradient_accumulation_steps": 4}),
    "DoRA, LoRA+": Setup({"use_dora": True, "loraplus_lr_ratio": 4}),
    "PiSSA": Setup({"pissa_init": True, "pissa_iter": 4}),
    "length grouping": Setup({"group_by_length": True}),
    "packing": Setup({"packing": True, "cutoff_len": 64, "per_device_train_batch_size": 2}),
    "padding-free": Setup({"padding_free": True}),
    "two data-loader workers": Setup({"dataloader_num_workers": 2}),
    "Adafactor": Setup({"optim": "adafactor"}),
    "gradient checkpointing": Setup({"gradient_checkpointing": True}),
    "stream": Setup({**STREAM, "lora_dropout": 0.2}, sample=29),
    "packed stream on two ranks": Setup({**STREAM, **TWO_RANKS, "packing": True, "cutoff_len": 64, "per_device_train_batch_size": 1}, TWO),
}


FIRST: Final = 60
"""Operations of a run that goes on in which it puts right what it found, and the next are those of any run."""
RECOVERED: Final = {"in the middle of a save": ("write /.staging-6/", True), "before a publication": ("rename /checkpoint-6 ", False),
                    "in a rotation": ("unlink ", False), "in the final save": ("rename /adapter_model.safetensors ", False)}
"""Where a run is killed that is then killed again: the start of an operation, and whether it has to be torn in two."""
MUTATING: Final = ("open", "openat", "creat", "rename", "renameat", "renameat2", "unlink", "unlinkat", "mkdir", "mkdirat", "rmdir", "link",
                   "linkat", "symlink", "symlinkat", "truncate", "copy_file_range", "sendfile", "fallocate")
UNNAMED: Final = "rename of a file of safetensors"
Said = Iterator[tuple[str, str]]


def groups(size: Size) -> Sequence[str]:
    """A set-up each, and the cases that need a hand of their own."""
    chosen = [name for name, setup in SETUPS.items() if size is Size.FULL or setup.sample]
    return (*chosen, *(name for name in SPECIAL if size is Size.FULL or name != STRACE))


def run(group: str, size: Size, tools: Tools) -> Iterator[Outcome]:
    """The states of a set-up, or the cases of a group of its own."""
    workspace = Workspace.make(tools.folder / "workspace")
    found = SPECIAL[group](workspace, size, tools) if group in SPECIAL else _points(SETUPS[group], workspace, size, tools)
    yield from (Outcome(group, case, not said, said) for case, said in found)


def _points(setup: Setup, workspace: Workspace, size: Size, tools: Tools) -> Said:
    """Every state goes on from the newest checkpoint that was published, to the end of the run that nothing disturbed."""
    settings = workspace.settings(tools.folder / "run", **here(setup.changes, workspace))
    again = setup.scenario if setup.scenario in ("train", TWO) else "train"
    every = setup.full if size is Size.FULL else setup.sample
    operations = copied(tools.server(), setup.scenario, settings, tools.folder / "copies", every, setup.steps)
    if again != setup.scenario:
        tools.server().done(Case(again, {"settings": settings}, settings["output_dir"]))
    expected = results(tools.folder / "run")
    found = {**states(tools.folder / "copies"), **before_renames(operations, tools.folder / "copies")}
    settles = settled(tools.server(), settings, found)
    wrong = misplaced(operations, settles)
    for case, said in judged(tools.server(), again, settings, found, expected, settles):
        yield _at(case, operations), wrong.get(case) or said


def here(changes: Mapping[str, Any], workspace: Workspace) -> dict[str, Any]:
    """With the files of the workspace in the place of `HERE`."""
    return {name: value.replace("HERE", str(workspace.path)) if isinstance(value, str) else value for name, value in changes.items()}


def _at(case: str, operations: Sequence[str]) -> str:
    return f"operation {case}, {operations[int(case) - 1]}" if case.isdigit() else case


def stopped_by_signal(settings: Mapping[str, Any]) -> int:
    """A scenario: a run that SIGTERM stops in step 5."""
    from tunewright.errors import Preempted
    from tunewright.selftest.scenarios import train_and_signal

    try:
        return train_and_signal(settings, 5, signal.SIGTERM, 1) or 1
    except Preempted:
        return 0


def _either_rank(workspace: Workspace, size: Size, tools: Tools) -> Said:
    """Kills of one rank of two: the other ends by itself, and the state that both leave is gone on from."""
    server = tools.server()
    straight = workspace.settings(tools.folder / "straight", **TWO_RANKS, lora_dropout=0.2)
    settings = workspace.settings(tools.folder / "run", **TWO_RANKS, lora_dropout=0.2)
    killed: dict[str, Path] = {}
    for rank, every in ((1, 1 if size is Size.FULL else 5), (0, 15 if size is Size.FULL else 150)):
        counted = server.done(Case(TWO, {"settings": straight, "mine": rank}, straight["output_dir"], "count"))
        expected = results(tools.folder / "straight")
        shutil.rmtree(tools.folder / "straight")
        for at in range(every, len(counted.operations) + 1, every):
            name = f"rank {rank} at its operation {at}, {counted.operations[at - 1]}"
            ended = server.run(Case(TWO, {"settings": settings, "mine": rank}, settings["output_dir"], "kill", at))
            if ended.code != KILLED:
                yield name, f"ended with {ended.code}: {ended.last_lines()}"
            killed[name] = (tools.folder / "run").rename(tools.folder / f"killed-{len(killed)}")
    yield from judged(server, TWO, settings, killed, expected)


def _killed_again(workspace: Workspace, size: Size, tools: Tools) -> Said:
    """A run that puts right what a kill left is killed in that, at each operation: it goes on from where it would have."""
    server, settings = tools.server(), workspace.settings(tools.folder / "run", lora_dropout=0.2)
    operations = copied(server, "train", settings, tools.folder / "first")
    expected = results(tools.folder / "run")
    for place, (start, is_torn) in RECOVERED.items():
        number = _number(operations, start, is_torn)
        base = settled(server, settings, {"base": tools.folder / "first" / str(number)})["base"]
        shutil.copytree(tools.folder / "first" / str(number), tools.folder / "run")
        copies = tools.folder / place
        again = copied(server, "train", settings, copies, 1 if size is Size.FULL else 7)
        found = {name: path for name, path in states(copies).items() if int(name) <= FIRST}
        settles = settled(server, settings, found)
        for case, said in judged(server, "train", settings, found, expected, settles):
            back = settles[case].step < base.step
            yield f"killed {place}, then at {_at(case, again)}", f"goes on from {settles[case].step}, not {base.step}" if back else said


def _number(operations: Sequence[str], start: str, is_torn: bool = False) -> int:
    """Of the first operation that begins so; writes are torn where their number is odd."""
    return next(number for number, one in enumerate(operations, start=1) if one.startswith(start) and (number % 2 or not is_torn))


def _set_aside(workspace: Workspace, size: Size, tools: Tools) -> Said:
    """A run in the directory of another, which `overwrite_output_dir` sets aside: nothing of the old one is lost at any operation."""
    server, settings = tools.server(), workspace.settings(tools.folder / "run", lora_dropout=0.2)
    server.done(Case("train", {"settings": {**settings, "lora_dropout": "0.1"}}, settings["output_dir"]))
    old = _weights(tools.folder / "run")
    over = {**settings, "overwrite_output_dir": "true"}
    operations = copied(server, "train", over, tools.folder / "copies", 1 if size is Size.FULL else 7)
    expected = results(tools.folder / "run")
    found = {name: path for name, path in states(tools.folder / "copies").items() if int(name) <= FIRST}
    lost = {name for name, path in found.items() if not old <= _weights(path)}
    for case, said in judged(server, "train", over, found, expected):
        yield _at(case, operations), "weights of the old run are gone" if case in lost else said


def _weights(root: Path) -> set[bytes]:
    return {path.read_bytes() for path in root.rglob("*.safetensors")}


def _copies(workspace: Workspace, size: Size, tools: Tools) -> Said:
    """What a kill leaves is what the copy holds: names, and the bytes of all files that tell no times."""
    server, settings = tools.server(), workspace.settings(tools.folder / "run", lora_dropout=0.2)
    operations = copied(server, "train", settings, tools.folder / "copies")
    drawn = random.Random(tools.seed).sample(range(1, len(operations) + 1), 20 if size is Size.FULL else 2)
    for number in sorted({*drawn, *(_number(operations, *place) for place in RECOVERED.values())}):
        shutil.rmtree(tools.folder / "run")
        is_torn = operations[number - 1].startswith("write ") and number % 2 == 1
        ended = server.run(Case("train", {"settings": settings}, settings["output_dir"], "tear" if is_torn else "kill", number))
        same = ended.code == KILLED and _tensors(tools.folder / "run") == _tensors(tools.folder / "copies" / str(number))
        yield f"operation {number}, {operations[number - 1]}", "" if same else f"the copy is not what a kill left, code {ended.code}"


def _inside_a_step(workspace: Workspace, size: Size, tools: Tools) -> Said:
    """Killed in the middle of a step: the process itself, with data-loader workers, or with another rank that ends by itself."""
    for scenario, changes in (("train", {"dataloader_num_workers": 2}), (TWO, TWO_RANKS)):
        settings = workspace.settings(tools.folder / scenario, lora_dropout=0.2, **changes)
        root, copies = tools.folder / scenario, tools.folder / f"{scenario}.copies"
        steps = (2, 5, 10) if size is Size.FULL else (5,)
        copied(tools.server(), scenario, settings, copies, 0, steps)
        expected = results(root)
        for step in steps:
            shutil.rmtree(root)
            ended = tools.server().run(Case(scenario, {"settings": settings, "stop_after": step}, settings["output_dir"]))
            same = ended.code == KILLED and _tensors(root) == _tensors(copies / f"step-{step}")
            left = root.rename(tools.folder / "killed")
            wrong = "" if same else f"the copy is not what a kill left, code {ended.code}"
            yield f"{scenario}, after step {step}", wrong or end_of(tools.server(), scenario, settings, left, expected)


def _tensors(directory: Path) -> dict[str, bytes]:
    """Every file with its bytes if it holds tensors: those files tell no times. Temporary names are drawn anew in each process."""
    return {re.sub(r"\.tmp\w+$", ".tmp", str(path.relative_to(directory))): path.read_bytes() if path.suffix == ".safetensors" else b""
            for path in directory.rglob("*") if path.is_file()}


def _traced(workspace: Workspace, size: Size, tools: Tools) -> Said:
    """Every call that changes the directory, as the system sees it, is in the journal, or among the renames that `before_renames` makes up
    for."""
    settings = workspace.settings(tools.folder / "run", lora_dropout=0.2, push_to_hub=False)
    case = Case("train", {"settings": settings}, settings["output_dir"], "count")
    log = tools.folder / "strace.txt"
    traced = subprocess.run(
        ["strace", "-f", "-s", "4096", "-o", str(log), "-e", f"trace={','.join(f'?{name}' for name in MUTATING)}", *killing.command()],
        input=json.dumps(asdict(case)) + "\n", capture_output=True, text=True, env=killing.environment(tools.folder))
    operations = json.loads(traced.stdout.splitlines()[-1])["operations"]
    journal = Counter(UNNAMED if "/.tmp" in one and one.startswith("write ") else " ".join(one.split(" ")[:2]) for one in operations)
    seen = Counter(_mutations(log.read_text(), tools.folder / "run"))
    yield "the run is traced", "" if sum(seen.values()) >= 100 else f"only {sum(seen.values())} calls were seen"
    for call, times in seen.items():
        yield call, "" if journal[call] >= times else f"{times} calls, {journal[call]} in the journal"


def _mutations(trace: str, root: Path) -> Iterator[str]:
    """The operations of a trace below a directory, named as the journal names them."""
    names = {"openat": "open", "creat": "open", "renameat": "rename", "renameat2": "rename", "unlinkat": "unlink", "mkdirat": "mkdir",
             "linkat": "link", "symlinkat": "symlink"}
    for line in trace.splitlines():
        found = re.match(r"\d+ +(\w+)\((.*)\) += (-?\d+)", line)
        if found is None or int(found[3]) < 0 or ("open" in found[1] and not re.search(r"O_(WRONLY|RDWR|CREAT|TRUNC)", found[2])):
            continue
        paths = [one for one in re.findall(r'"((?:[^"\\]|\\.)*)"', found[2])]
        if paths and paths[-1].startswith(f"{root}/"):
            call = f"{names.get(found[1], found[1])} {paths[-1].removeprefix(str(root))}"
            yield UNNAMED if "rename" in found[1] and "/.tmp" in paths[0] else call


STRACE: Final = "the count, against the system's"
SPECIAL: Final[Mapping[str, Callable[[Workspace, Size, Tools], Said]]] = {
    "one rank of two": _either_rank, "killed again": _killed_again, "a run that is set aside": _set_aside,
    "inside a step": _inside_a_step, "the copies, against kills": _copies, STRACE: _traced}

CHECK: Final = Check(
    "kills", "A run that is killed at any of its file operations (opening, saves, rotation, the best model, a save for a signal, the final "
    "save; LoRA, full and others, one rank and two) goes on to bit-identical weights; no committed checkpoint is lost.",
    3700, groups, run, killing.missing)
