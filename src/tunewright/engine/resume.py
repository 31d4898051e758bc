"""Where a run starts: afresh, or from its newest intact checkpoint with the same settings."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tunewright.engine.checkpoint import Checkpoint, CheckpointStore, damage, read_checkpoint
from tunewright.engine.durable import write_json
from tunewright.errors import InputError

if TYPE_CHECKING:
    from tunewright.config.run import RunConfig
    from tunewright.runtime import Ranks

RUN_FILE: Final = "run.json"
_NO_VALUE: Final = "(none)"

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Start:
    """The run's checkpoint store, and the checkpoint to go on from or None for the first step."""

    store: CheckpointStore
    checkpoint: Checkpoint | None


def begin(run: RunConfig, ranks: Ranks, report: Report) -> Start:
    """Open the output directory: give a new run its id, or find where an old one stopped.

    The main rank, which holds the lock, decides; the others are told. Raises InputError if the directory holds another run that
    was not to be resumed, or if the named checkpoint is missing or damaged.
    """
    (answer,) = ranks.gather_objects(_decide(run, ranks, report) if ranks.is_main else None)[:1]
    if "error" in answer:
        raise InputError(**answer["error"])
    path = answer["checkpoint"]
    store = CheckpointStore(Path(str(run.run.output_dir)), answer["run_id"], ranks)
    return Start(store, None if path is None else read_checkpoint(Path(path)))


def demand_same_settings(checkpoint: Checkpoint, current: Mapping[str, Any], allowed: tuple[str, ...]) -> None:
    """Raise InputError with a table of old and new unless all recorded settings agree or are named in allow_change."""
    changed = [name for name in sorted(set(checkpoint.settings) | set(current))
               if checkpoint.settings.get(name, _NO_VALUE) != current.get(name, _NO_VALUE) and name not in allowed]
    if not changed:
        return
    pairs = [(name, checkpoint.settings.get(name, _NO_VALUE), current.get(name, _NO_VALUE)) for name in changed]
    table = "; ".join(f"{name}: {_shown(old)} -> {_shown(new)}" for name, old, new in pairs)
    raise InputError(f"the run in this output_dir was made with other settings ({table})", where=str(checkpoint.path),
                     mend=f"put them back, allow_change={','.join(changed)}, another output_dir, or overwrite_output_dir=true")


def recorded_settings(run: RunConfig) -> dict[str, Any]:
    """The parameters that decide what a run computes, as JSON values."""
    from tunewright.config.table import table, values

    now = values(run)
    return {name: _plain(now[name]) for name, row in table().items() if row.param.recorded}


def _decide(run: RunConfig, ranks: Ranks, report: Report) -> dict[str, Any]:
    try:
        return _choose(run, ranks, report)
    except InputError as error:  # told to every rank, which then raise together
        return {"error": {"message": error.message, "where": error.where, "mend": error.mend}}


def _choose(run: RunConfig, ranks: Ranks, report: Report) -> dict[str, Any]:
    root = Path(str(run.run.output_dir))
    wanted = run.run.resume_from_checkpoint or "none"
    known = _run_id(root)
    if known is not None and run.run.overwrite_output_dir:
        _set_aside(root, known, ranks, report)
        known = None
    store = CheckpointStore(root, known or secrets.token_hex(8), ranks)
    store.recover()
    chosen = _wanted(wanted, store, report)
    if chosen is None and store.committed() and wanted == "none":
        raise InputError(f"output_dir {root} holds the checkpoints of another run",
                         mend="resume_from_checkpoint=auto goes on with it; overwrite_output_dir=true sets it aside")
    if known is None:
        write_json(root / RUN_FILE, _run_facts(run, store.run_id))
    if chosen is not None:
        report(f"resuming from {chosen.path} (step {chosen.step})")
    return {"run_id": store.run_id, "checkpoint": None if chosen is None else str(chosen.path)}


def _wanted(wanted: str, store: CheckpointStore, report: Report) -> Checkpoint | None:
    if wanted == "none":
        return None
    if wanted == "auto":
        found = store.newest_intact(report)
        if found is None and store.committed():
            raise InputError(f"none of the checkpoints in {store.root} is intact", mend="overwrite_output_dir=true starts afresh")
        return found
    checkpoint = read_checkpoint(Path(wanted))
    have = ", ".join(str(one.path) for one in store.committed()) or "none"
    if checkpoint is None:
        raise InputError(f"resume_from_checkpoint: {wanted} is not a checkpoint", mend=f"there are: {have}")
    problems = damage(checkpoint)
    if problems:
        raise InputError(f"resume_from_checkpoint: {problems[0]}", where=wanted, mend=f"there are: {have}")
    return checkpoint


def _set_aside(root: Path, run_id: str, ranks: Ranks, report: Report) -> None:
    """Move the old run's checkpoints and record into `previous-<run id>`; nothing is deleted."""
    shelf = root / f"previous-{run_id}"
    shelf.mkdir(exist_ok=True)
    for checkpoint in CheckpointStore(root, run_id, ranks).committed():
        os.rename(checkpoint.path, shelf / checkpoint.path.name)
    os.rename(root / RUN_FILE, shelf / RUN_FILE)
    report(f"the run that was in {root} is now in {shelf}")


def _run_id(root: Path) -> str | None:
    path = root / RUN_FILE
    if not path.exists():
        return None
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["run_id"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError("is not the record of a run", where=str(path), mend="move the file away or choose another output_dir") from error


def _run_facts(run: RunConfig, run_id: str) -> dict[str, Any]:
    """What later commands (chat, export) need to know of a run. No parameter that holds a secret is in it."""
    from datetime import UTC, datetime

    from tunewright.config.table import table, values
    from tunewright.engine.cards import package_versions

    config = {name: _plain(value) for name, value in values(run).items() if not table()[name].param.secret}
    return {"run_id": run_id, "created": datetime.now(UTC).isoformat(timespec="seconds"), "versions": package_versions(), "config": config}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, tuple | list) else value


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."
