"""Where a run starts: afresh, or from its newest intact checkpoint with the same settings."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tunewright.durable import SMALL, storage_errors, sync_directory, write_json
from tunewright.engine.checkpoint import MANIFEST, Checkpoint, CheckpointStore, damage, read_checkpoint
from tunewright.errors import InputError, StorageError

if TYPE_CHECKING:
    from tunewright.config.run import RunConfig
    from tunewright.runtime import Ranks

RUN_FILE: Final = "run.json"
LEFT_BY_A_RUN: Final = (
    "trainer_log.jsonl", "trainer_state.json", "*_results.json", "data_audit.json*", "stream_audit.jsonl", "bad_step-*",
    "rollouts.jsonl", "generated_predictions.jsonl", "training_*.png", "lora_*.png", "README.md", "adapter_*", "merged_adapters.json",
    "pissa_*", "value_head.safetensors", "reference_logps.safetensors", "model*.safetensors*",
    "config.json", "generation_config.json", "merged", "tokenizer*", "chat_template.jinja",
    "special_tokens_map.json", RUN_FILE)
"""What else than checkpoints a run leaves in its output directory. The record is last: until it moves, the old run is there."""
_ERRORS: Final = {"input": InputError, "storage": StorageError}
_NO_VALUE: Final = "(none)"
_SOURCES: Final = ("weights of ", "code of ")
"""How the names of `engine.run_settings.source_digests` begin."""
_SAMPLES: Final = 64
_SAMPLE: Final = 4096

log = logging.getLogger(__name__)

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
        raise _ERRORS[answer["kind"]](**answer["error"])
    path = answer["checkpoint"]
    store = CheckpointStore(_root(run), answer["run_id"], ranks)
    return Start(store, None if path is None else read_checkpoint(Path(path)))


def demand_same_settings(checkpoint: Checkpoint, current: Mapping[str, Any], allowed: tuple[str, ...]) -> None:
    """Raise InputError, and log a table of what was and what is, unless all recorded settings agree or are named in allow_change.

    A parameter that the checkpoint does not know is newer than it: the run then did what its default does. What digests it does not know
    cannot be compared.
    """
    from tunewright.config.table import table

    newer = {name: _plain(table()[name].param.default) if name in table() else current[name]
             for name in current if name in table() or name.startswith(_SOURCES)}
    before = {**newer, **checkpoint.settings}
    changed = [(name, *map(_shown, pair)) for name in sorted(set(before) | set(current)) if name not in allowed
               for pair in [(before.get(name, _NO_VALUE), current.get(name, _NO_VALUE))] if pair[0] != pair[1]]
    if not changed:
        return
    for line in _table(("setting", "was", "is"), *changed):
        log.info(line)
    listed = "; ".join(f"{name}: {old} -> {new}" for name, old, new in changed)
    raise InputError(f"the run in this output_dir was made with other settings ({listed})", where=str(checkpoint.path),
                     mend=f"put them back, allow_change={','.join(name for name, *_ in changed)}, another output_dir, or "
                     "overwrite_output_dir=true")


def _table(*rows: Sequence[str]) -> list[str]:
    """The rows as lines, in columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def recorded_settings(run: RunConfig) -> dict[str, Any]:
    """The parameters that decide what a run computes, and a digest of the weights it starts from, as JSON values."""
    from tunewright.adapters.directory import adapter_directories
    from tunewright.models.directory import find_model

    started_from = (find_model(run.model), *adapter_directories(run.model))
    return recorded_parameters(run) | {"starting weights": weights_digest(started_from)}


def recorded_parameters(run: RunConfig) -> dict[str, Any]:
    """Those parameters alone."""
    from tunewright.config.table import table, values

    now = values(run)
    return {name: _plain(now[name]) for name, row in table().items() if row.param.recorded}


def weights_digest(directories: Iterable[Path]) -> str:
    """16 hexadecimal digits that change with the weights in the directories, whatever their paths and dates.

    Read are the configurations whole, and of each weights file its size and 64 samples of 4 kB in even distances, the first at
    its header: training moves every number of a tensor, so a few from all over the file tell, at no cost.
    """
    digest = hashlib.sha256()
    for directory in directories:
        for path in sorted(one for pattern in ("*config.json", "*.safetensors", "*.gguf") for one in directory.glob(pattern)):
            digest.update(f"{path.name} {path.stat().st_size}".encode())
            with path.open("rb") as file:
                for place in _places(path.stat().st_size):
                    file.seek(place)
                    digest.update(file.read(_SAMPLE))
    return digest.hexdigest()[:16]


def _places(size: int) -> list[int]:
    """Where to read samples: everywhere in a small file."""
    if size <= _SAMPLES * _SAMPLE:
        return list(range(0, size, _SAMPLE))
    return [number * (size - _SAMPLE) // (_SAMPLES - 1) for number in range(_SAMPLES)]


def _root(run: RunConfig) -> Path:
    return Path(str(run.run.output_dir)).expanduser()


def _decide(run: RunConfig, ranks: Ranks, report: Report) -> dict[str, Any]:
    try:
        with storage_errors(_root(run), SMALL):
            return _choose(run, ranks, report)
    except (InputError, StorageError) as error:  # told to every rank, which then raise together
        kind = "input" if isinstance(error, InputError) else "storage"
        return {"kind": kind, "error": {"message": error.message, "where": error.where, "mend": error.mend}}


def _choose(run: RunConfig, ranks: Ranks, report: Report) -> dict[str, Any]:
    root = _root(run)
    wanted = run.run.resume_from_checkpoint or "none"
    known = _run_id(root)
    named_here = _named_here(wanted, root)
    if run.run.overwrite_output_dir and named_here is None:
        _set_aside(root, known, ranks, report)
        known = None
    store = CheckpointStore(root, known or named_here or secrets.token_hex(8), ranks)
    store.recover()
    if wanted in ("none", "auto"):
        _demand_own(store, known, wanted)
    chosen = _wanted(wanted, store, report)
    _demand_one_line(store, chosen)
    if known is None:
        write_json(root / RUN_FILE, _run_facts(run, store.run_id))
    if chosen is not None:
        report(f"resuming from {chosen.path} (step {chosen.step})")
    return {"run_id": store.run_id, "checkpoint": None if chosen is None else str(chosen.path)}


def _demand_own(store: CheckpointStore, known: str | None, wanted: str) -> None:
    """Refuse to begin where checkpoints are that a new run would take the place of."""
    if known is None and (others := other_runs(store.root)):
        raise InputError(f"output_dir {store.root} has checkpoints ({others[-1].name}) but no {RUN_FILE} that says of which run",
                         mend=f"resume_from_checkpoint={others[-1]} goes on from one; overwrite_output_dir=true sets them aside")
    if wanted == "none" and (store.committed() or store.unreadable()):
        raise InputError(f"output_dir {store.root} holds the checkpoints of another run",
                         mend="resume_from_checkpoint=auto goes on with it; overwrite_output_dir=true sets it aside")


def _named_here(wanted: str, root: Path) -> str | None:
    """The run of the checkpoint that resume_from_checkpoint names, if it is one of `root`: to go on from it says more than
    overwrite_output_dir, which many configurations carry, and tells the run's id where the record is lost."""
    path = Path(wanted).expanduser()
    checkpoint = read_checkpoint(path) if wanted not in ("none", "auto") and path.resolve().parent == root.resolve() else None
    return None if checkpoint is None else str(checkpoint.manifest["run_id"])


def _demand_one_line(store: CheckpointStore, chosen: Checkpoint | None) -> None:
    """Refuse to go on from another run's checkpoint among the checkpoints of this one."""
    if chosen is not None and chosen.manifest["run_id"] != store.run_id and store.committed():
        raise InputError(f"resume_from_checkpoint: {chosen.path} is of another run than the one in output_dir {store.root}",
                         mend="choose another output_dir, or overwrite_output_dir=true, which sets the run there aside")


def other_runs(root: Path) -> list[Path]:
    """Checkpoints of tunewright in a directory, whatever their run, oldest first."""
    found = [path for path in root.glob("checkpoint-*") if path.is_dir() and read_checkpoint(path) is not None]
    return sorted(found, key=lambda path: (len(path.name), path.name))


def _wanted(wanted: str, store: CheckpointStore, report: Report) -> Checkpoint | None:
    if wanted == "none":
        return None
    if wanted == "auto":
        found = store.newest_intact(report)
        if found is None and (store.committed() or store.unreadable()):
            raise InputError(f"none of the checkpoints in {store.root} is intact", mend="overwrite_output_dir=true starts afresh")
        return found
    path = Path(wanted).expanduser()
    checkpoint = read_checkpoint(path)
    have = ", ".join(str(one.path) for one in store.committed()) or "none"
    if checkpoint is None:
        raise InputError(f"resume_from_checkpoint: {path} is not a checkpoint, or its {MANIFEST} is damaged", mend=f"there are: {have}")
    problems = damage(checkpoint)
    if problems:
        raise InputError(f"resume_from_checkpoint: {problems[0]}", where=str(path), mend=f"there are: {have}")
    return checkpoint


def _set_aside(root: Path, run_id: str | None, ranks: Ranks, report: Report) -> None:
    """Move the old run's checkpoints, results and record into `previous-<run id>`; nothing is deleted, other files stay.

    Without a record, checkpoints of any run go.
    """
    if run_id is None and not other_runs(root):
        return
    shelf = root / f"previous-{run_id or secrets.token_hex(8)}"
    shelf.mkdir(exist_ok=True)
    store = CheckpointStore(root, run_id or "", ranks)
    if run_id is not None:
        store.recover()
    old = [one.path for one in store.committed()] + store.unreadable() if run_id is not None else other_runs(root)
    for path in (*old, *(one for pattern in LEFT_BY_A_RUN for one in sorted(root.glob(pattern)))):
        os.rename(path, shelf / path.name)
    sync_directory(shelf)
    sync_directory(root)
    report(f"the run that was in {root} is now in {shelf}")


def _run_id(root: Path) -> str | None:
    path = root / RUN_FILE
    if not path.exists():
        return None
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["run_id"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
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
