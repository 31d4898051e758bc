"""Steps that are not finite: they are not applied, what they were made of is kept, several in a row end the run, and nothing of them is in
the log."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from tunewright.selftest import faults
from tunewright.selftest.check import Check, Outcome, Size, Tools
from tunewright.selftest.killing import Ended, missing
from tunewright.selftest.workspace import Workspace, differing

NUMERIC: Final = 5
BASE: Final = {"lora_dropout": 0.2, "save_total_limit": 9, "logging_steps": 1}
TWO: Final = {**BASE, "per_device_train_batch_size": 2, "num_processes": 2, "use_cpu": True, "ddp_timeout": 30}
WEIGHTS: Final = ("adapter_model.safetensors", "optimizer.safetensors")


@dataclass(frozen=True, slots=True)
class Bad:
    """Updates that are spoiled, how, and on which of how many ranks; `limit`: max_nonfinite_steps."""

    updates: tuple[int, ...]
    value: str = "nan"
    where: str = "loss"
    limit: int = 3
    ranks: int = 1
    rank: int = 0
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def stops_at(self) -> int | None:
        """The step that ends the run: the last of `limit` in a row."""
        runs = (one for one in self.updates if all(one - back in self.updates for back in range(self.limit)))
        return next(runs, None)


ENDS: Final = {f"{where} {value}, at the first": Bad((8,), value, where, limit=1) for where in ("loss", "gradient")
               for value in ("nan", "inf", "-inf")} | {
    "three in a row": Bad((6, 7, 8)), "four, of which two are let pass": Bad((4, 5, 7, 8, 9)), "the first three steps": Bad((1, 2, 3)),
    "two in a row": Bad((8, 9), "inf", "gradient", limit=2), "rank 1 alone": Bad((8,), limit=1, ranks=2, rank=1),
    "the gradient of rank 0 alone": Bad((7, 8, 9), "inf", "gradient", ranks=2),
    "full tuning": Bad((8,), limit=1, settings={"finetuning_type": "full", "learning_rate": 0.001}),
    "bfloat16": Bad((5,), "inf", "gradient", limit=1, settings={"bf16": True})}
GOES_ON: Final = {
    "one step": Bad((5,)), "two in a row": Bad((7, 8)), "a gradient": Bad((5,), "inf", "gradient"), "the first step": Bad((1,)),
    "the last step": Bad((12,)), "every third step": Bad((3, 6, 9)), "before and after a checkpoint": Bad((6, 7)),
    "rank 1 alone": Bad((5,), ranks=2, rank=1), "the gradient of rank 1 alone": Bad((5, 6), "nan", "gradient", ranks=2, rank=1),
    "full tuning": Bad((5,), settings={"finetuning_type": "full", "learning_rate": 0.001})}
SAMPLE: Final = {"the run ends": ("three in a row", "rank 1 alone", "gradient inf, at the first"), "the run goes on": ("two in a row",)}
POISONED: Final = 13
"""The line of the row whose step is taken again."""
REPLAYED: Final = ("one rank", "two ranks")


def groups(size: Size) -> Sequence[str]:
    """What becomes of the run, and the script that takes a step again."""
    return ("the run ends", "the run goes on", "replay")


def chosen(group: str, size: Size) -> Sequence[str]:
    """The cases of a group."""
    every = {"the run ends": tuple(ENDS), "the run goes on": tuple(GOES_ON), "replay": REPLAYED}[group]
    return every if size is Size.FULL else SAMPLE.get(group, every[:1])


def run(group: str, size: Size, tools: Tools) -> Iterator[Outcome]:
    """Every case of the group in a workspace of its own."""
    workspace = Workspace.make(tools.folder / "workspace")
    for number, name in enumerate(chosen(group, size)):
        folder = tools.folder / str(number)
        folder.mkdir()
        if group == "replay":
            wrong = _replayed(workspace, folder, tools, ranks=1 + REPLAYED.index(name))
        elif group == "the run ends":
            wrong = _ended(workspace, folder, tools, ENDS[name])
        else:
            wrong = _went_on(workspace, folder, tools, GOES_ON[name])
        yield Outcome(group, name, not wrong, wrong)


def _settings(workspace: Workspace, output_dir: Path, bad: Bad) -> dict[str, str]:
    base = BASE if bad.ranks == 1 else TWO
    return workspace.settings(output_dir, **{**base, "max_nonfinite_steps": bad.limit, **bad.settings})


def _spoiled(tools: Tools, settings: dict[str, str], bad: Bad) -> Ended:
    return faults.asked(tools.server(), faults.number_fault, settings, updates=list(bad.updates), value=bad.value, where=bad.where,
                        ranks=bad.ranks, rank=bad.rank)


def _ended(workspace: Workspace, folder: Path, tools: Tools, bad: Bad) -> str:
    """Exit 5 at the step that it must end at, with evidence and log as promised. Where the first bad step ends it: again with the fault it
    ends there again, and without it with the bits of a straight run."""
    settings, step = _settings(workspace, folder / "bad", bad), bad.stops_at
    if step is None:
        return "the case itself is wrong"
    ended = _spoiled(tools, settings, bad)
    if ended.code != NUMERIC:
        return f"exit code {ended.code} instead of {NUMERIC}: {ended.last_lines()}"
    quantity = "loss" if bad.where == "loss" else "gradient norm"
    named = f"error: step {step}: the {quantity}"
    if not any(line.startswith(named) and f"{workspace.path / 'rows.jsonl'}:" in line for line in ended.output.splitlines()):
        return f"step and rows are not named: {ended.last_lines()}"
    wrong = _evidence(folder / "bad", bad, [one for one in bad.updates if one <= step]) or _log(folder / "bad", bad, step - 1)
    if wrong or bad.limit > 1:
        return wrong
    begun = (step - 1) // 3 * 3  # where the last checkpoint is
    once_more = _spoiled(tools, settings, replace(bad, updates=(step - begun,)))
    if once_more.code != NUMERIC or not any(line.startswith(named) for line in once_more.output.splitlines()):
        return f"with the same number again, it is let pass: {once_more.last_lines()}"
    again = faults.asked(tools.server(), faults.plain_run, settings, ranks=bad.ranks)
    straight = faults.asked(tools.server(), faults.plain_run, _settings(workspace, folder / "straight", bad), ranks=bad.ranks)
    if again.code or straight.code:
        return f"run again, it ends with {again.code}: {again.last_lines()}"
    return differing(folder / "bad", folder / "straight")


def _went_on(workspace: Workspace, folder: Path, tools: Tools, bad: Bad) -> str:
    """Exit 0; the log leaves the steps out; the weights before and after a step that was left out are the same; a run that is stopped at
    every third step ends with the same bits."""
    settings = _settings(workspace, folder / "bad", bad) | {"save_steps": "1", "save_total_limit": "20"}
    ended = _spoiled(tools, settings, bad)
    if ended.code:
        return f"exit code {ended.code}: {ended.last_lines()}"
    wrong = _evidence(folder / "bad", bad, bad.updates) or _log(folder / "bad", bad, 12) or _unmoved(folder / "bad", bad)
    if wrong:
        return wrong
    pieces = settings | {"output_dir": str(folder / "pieces"), "stop_after": "3"}
    for begun in (0, 3, 6, 9):
        later = replace(bad, updates=tuple(one - begun for one in bad.updates))
        piece = _spoiled(tools, pieces if begun < 9 else {**pieces, "stop_after": "4"}, later)  # so that it ends by itself
        if piece.code != (75 if begun < 9 else 0):
            return f"the piece from step {begun} ends with {piece.code}: {piece.last_lines()}"
    return differing(folder / "bad", folder / "pieces")


def _evidence(output_dir: Path, bad: Bad, steps: Sequence[int]) -> str:
    """Each bad step has a directory with its rows, the tensors of every rank, and the script; there is no other."""
    from safetensors import safe_open

    found = sorted(int(path.name.rpartition("-")[2]) for path in output_dir.glob("bad_step-*"))
    if found != sorted(steps):
        return f"there is evidence of the steps {found} instead of {sorted(steps)}"
    for step in steps:
        folder = output_dir / f"bad_step-{step}"
        facts = json.loads((folder / "rows.json").read_text(encoding="utf-8"))
        if facts["step"] != step or facts["value"] not in (bad.value, "nan", "inf") or not facts["rows"]:
            return f"rows.json of step {step} says {facts}"[:300]
        if any("text" in row or "instruction" in row for row in facts["rows"]):
            return "rows.json has the text of rows"
        for rank in range(bad.ranks):
            with safe_open(folder / f"batch-{rank}.safetensors", framework="pt") as file:
                if not {"0.input_ids", "0.targets"} <= set(file.keys()):
                    return f"the batch of rank {rank} lacks its tokens"
        if not (folder / "replay.py").is_file():
            return "there is no replay.py"
    return ""


def _log(output_dir: Path, bad: Bad, last: int) -> str:
    """One entry for each step up to `last`; those left out have no loss, the others a finite one above 0."""
    entries = [json.loads(line) for line in (output_dir / "trainer_log.jsonl").read_text(encoding="utf-8").splitlines()]
    if [entry["current_steps"] for entry in entries] != list(range(1, last + 1)):
        return f"the log has the steps {[entry['current_steps'] for entry in entries]}"
    for entry in entries:
        step, loss = entry["current_steps"], entry.get("loss")
        left_out = sum(one <= step for one in bad.updates)
        if (step in bad.updates) != (loss is None) or (loss is not None and not (math.isfinite(loss) and loss > 0)):
            return f"step {step} is logged with the loss {loss}"
        if entry.get("bad_steps", 0) != left_out or any(isinstance(one, float) and not math.isfinite(one) for one in entry.values()):
            return f"step {step} is logged as {entry}"[:300]
    return ""


def _unmoved(output_dir: Path, bad: Bad) -> str:
    """The checkpoint after a step that was left out holds the weights and moments of the one before it."""
    for step in bad.updates:
        before, after = output_dir / f"checkpoint-{step - 1}", output_dir / f"checkpoint-{step}"
        if not before.is_dir():
            continue
        for name in WEIGHTS:
            if (before / name).is_file() and (before / name).read_bytes() != (after / name).read_bytes():
                return f"{name} moved in step {step}"
    return ""


def _replayed(workspace: Workspace, folder: Path, tools: Tools, ranks: int) -> str:
    """A token of one row has an infinite embedding: the run leaves its steps out, and the script names the embedding as the first module,
    without a change in the run's directory."""
    rows = _poisoned(workspace, folder)
    bad = Bad((), ranks=ranks, settings={"model_name_or_path": folder / "model", "dataset": rows})
    settings = _settings(workspace, folder / "bad", bad)
    ended = faults.asked(tools.server(), faults.plain_run, settings, ranks=ranks)
    steps = sorted(folder.glob("bad/bad_step-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    if not steps:
        return f"no step was bad, the run ended with {ended.code}: {ended.last_lines()}"
    facts = json.loads((steps[0] / "rows.json").read_text(encoding="utf-8"))
    if f"{rows}:{POISONED}" not in [one["origin"] for one in facts["rows"]]:
        return f"row {POISONED} is not among those of step {facts['step']}"
    before = sorted(str(path) for path in (folder / "bad").rglob("*"))
    again = faults.asked(tools.server(), faults.replayed, settings, script=str(steps[0] / "replay.py"))
    told = next((line for line in again.output.splitlines() if line.startswith(f"step {facts['step']}: the output of ")), "")
    if again.code != NUMERIC or "embed_tokens" not in told:
        return f"replay.py ends with {again.code} and does not name the module: {again.last_lines()}"
    others = sorted(str(path) for path in (folder / "bad").rglob("*") if "replay" not in path.parts)
    return "" if others == [path for path in before if "/replay/" not in path] else "replay.py changed the run's directory"


def _poisoned(workspace: Workspace, folder: Path) -> Path:
    """Rows of which one has digits, and beside them a copy of the model to which the first digit is infinite, though its head gives it a
    finite score. Returns the rows."""
    import shutil

    from safetensors.torch import load_file, save_file
    from transformers import AutoTokenizer

    lines = (workspace.path / "rows.jsonl").read_text(encoding="utf-8").splitlines()
    lines[POISONED - 1] = json.dumps({"instruction": "7 anchors", "output": "bridge"})
    rows = folder / "rows.jsonl"
    rows.write_text("\n".join(lines) + "\n", encoding="utf-8")
    shutil.copytree(workspace.path / "model", folder / "model")
    config = json.loads((folder / "model" / "config.json").read_text(encoding="utf-8"))
    (folder / "model" / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": False}), encoding="utf-8")
    tokenizer = AutoTokenizer.from_pretrained(workspace.path / "model", trust_remote_code=False)
    weights = load_file(folder / "model" / "model.safetensors")
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"].clone()
    weights["model.embed_tokens.weight"][tokenizer.convert_tokens_to_ids("7")] = math.inf
    save_file(weights, folder / "model" / "model.safetensors", metadata={"format": "pt"})
    return rows



CHECK: Final = Check(
    "numbers", "A step whose loss or gradient is not finite is not applied and not logged; its rows and batches are kept with a script "
    "that names the module; `max_nonfinite_steps` in a row end the run with exit code 5, and no healthy checkpoint is lost.",
    sum(len(chosen(group, Size.FULL)) for group in groups(Size.FULL)), groups, run, missing)
