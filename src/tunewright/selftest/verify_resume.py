"""`tunewright verify-resume`: whether a run of the user's own configuration that ends early goes on bit for bit."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tunewright.errors import InputError, NumericError, Preempted, StorageError, TunewrightError, UsageError

if TYPE_CHECKING:
    from tunewright.config.run import RunConfig

USAGE: Final = """usage: tunewright verify-resume CONFIG [key=value ...] [--key value ...] [--steps N] [--cuts all|N]
                                [--folder DIR] [--keep]

Prove on this machine that training as the configuration says is continued exactly. It is run once in one go, and once in processes
that end after a checkpoint and are started again; after each cut every file of the checkpoint is compared, number by number: weights,
optimizer, schedule, random numbers, position and log. Exit code 5 if something differs.

  --steps   steps of the run (default 6)
  --cuts    after which steps a process ends: all (the default), or so many at even distances
  --folder  where to put both runs, which are removed at the end; by itself beside output_dir
  --keep    leave them there
"""
COMMAND: Final = [sys.executable, "-m", "tunewright"]
PATIENCE_S: Final = 60.0

Start = Callable[[Sequence[str], Path], int]
"""Runs `tunewright` with these words, its output going to a file, and returns the exit code."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What the command line asks for besides the configuration."""

    steps: int
    cuts: tuple[int, ...]
    folder: Path | None
    keeps: bool


def run(argv: Sequence[str]) -> int:
    """Prove it, with a line for each cut. Returns the exit code."""
    if not argv or not {"-h", "--help"}.isdisjoint(argv):
        sys.stdout.write(USAGE)
        return 0 if argv else UsageError.exit_code
    from tunewright.commands.preflight import read_ready

    wish, words = read_wish(argv)
    return prove(read_ready(words, "train").config, wish, process)


def read_wish(argv: Sequence[str]) -> tuple[Wish, list[str]]:
    """The options, and the words of the configuration. Raises `UsageError` for a number that cannot be."""
    from tunewright.commands.own_options import take_options

    options, words = take_options(argv, "verify-resume", ("--steps", "--cuts", "--folder"), ("--keep",))
    steps = _number("--steps", options.get("--steps", "6"), 2, "a run of one step has nothing to go on with")
    asked = options.get("--cuts", "all")
    number = steps - 1 if asked == "all" else _number("--cuts", asked, 1, "write all, or how many")
    cuts = sorted({max(1, min(steps - 1, round(place * steps / (number + 1)))) for place in range(1, number + 1)})
    folder = options.get("--folder")
    return Wish(steps, tuple(cuts), None if folder is None else Path(folder).expanduser(), "--keep" in options), words


def _number(name: str, written: str, least: int, mend: str) -> int:
    if not written.isdecimal() or int(written) < least:
        raise UsageError(f"{name} must be a whole number of at least {least}, not {written!r}", mend=mend)
    return int(written)


def prove(run: RunConfig, wish: Wish, start: Start) -> int:
    """Both runs, and what differs. Raises `NumericError` with the first difference, and the error of a run that fails."""
    from tunewright.engine.signals import stop_on_signals

    with stop_on_signals() as stop:
        stop.end_at_once("before it was shown")
        with _place(run, wish) as place:
            proof = Proof(run, wish, place, start)
            began = time.monotonic()
            proof.started("straight", wish.steps)
            _say(f"in one go: {wish.steps} steps in {time.monotonic() - began:.0f} s")
            found = proof.first_difference()
            if found is None:
                cuts = "one cut" if len(wish.cuts) == 1 else f"{len(wish.cuts)} cuts"
                _say(f"resume is exact: {cuts} in {wish.steps} steps, and every file of every checkpoint is the same")
                return 0
            raise proof.error(*found)


@contextmanager
def _place(run: RunConfig, wish: Wish) -> Iterator[Path]:
    """A new folder for both runs, with room for their checkpoints; it is removed at the end, unless it is to be kept."""
    beside = wish.folder or Path(str(run.run.output_dir)).expanduser().absolute().parent
    beside.mkdir(parents=True, exist_ok=True)
    _demand_room(run, wish.steps, beside)
    place = Path(tempfile.mkdtemp(prefix="verify-resume-", dir=beside))
    try:
        yield place
    finally:
        if wish.keeps:
            _say(f"kept: {place}")
        else:
            shutil.rmtree(place, ignore_errors=True)


def _demand_room(run: RunConfig, steps: int, beside: Path) -> None:
    """The straight run keeps a checkpoint of each step, the other one two of them; both write their weights at the end."""
    from tunewright.adapters.footprint import checkpoint_bytes
    from tunewright.commands.preflight import in_words, local_model
    from tunewright.models.unopened import tensor_shapes

    directory = local_model(run)
    if directory is None or run.model.gguf_file or run.model.train_from_scratch:
        return
    need, free = (steps + 5) * checkpoint_bytes(run, tensor_shapes(directory)), _free(beside)
    if need > free:
        raise StorageError(f"the checkpoints of both runs need about {in_words(need)}, {in_words(free)} are left", where=str(beside),
                           mend="fewer --steps, or a --folder on another disk")


def _free(folder: Path) -> int:
    return shutil.disk_usage(folder).free


@dataclass(frozen=True, slots=True)
class Proof:
    """Runs below `place`: `straight` in one go, and `cut`."""

    run: RunConfig
    wish: Wish
    place: Path
    start: Start

    def started(self, name: str, upto: int, since: int = 0) -> None:
        """Run `name` from step `since`, where it is, to `upto`. Raises the error that it ends with."""
        settings = {**settings_of(self.run, self.wish.steps), "output_dir": str(self.place / name),
                    "save_total_limit": 2 if name == "cut" else None, "stop_after": upto - since if upto < self.wish.steps else None}
        file, log = self.place / f"{name}.json", self.place / f"{name}.log"
        file.write_text(json.dumps(settings), encoding="utf-8")
        code = self.start(["train", str(file)], log)
        if code != (0 if upto == self.wish.steps else Preempted.exit_code):
            raise _failed(f"the run from step {since} to step {upto}", code, log)

    def first_difference(self) -> tuple[int, int, str] | None:
        """Cut the run and compare what each process leaves: the step after which the process began, the step at which it differs, and in
        what; None if it never does."""
        from tunewright.selftest.compare import checkpoints, differences, directory_differences, headed

        since = 0
        straight = self.place / "straight"
        for upto in (*self.wish.cuts, self.wish.steps):
            self.started("cut", upto, since)
            theirs, ours = checkpoints(straight), checkpoints(self.place / "cut")
            for step in (step for step in ours if step > since and step in theirs):
                if found := directory_differences(theirs[step], ours[step]):
                    _say(f"{_from(since)}: step {step}: {headed(found)}")
                    return since, step, headed(found)
            if upto == self.wish.steps and (found := differences(straight, self.place / "cut")):
                _say(f"{_from(since)}: at the end: {headed(found)}")
                return since, upto, headed(found)
            _say(f"{_from(since)}: identical at step {upto}")
            since = upto
        return None

    def error(self, since: int, step: int, told: str) -> NumericError:
        """What the difference means: where the same run twice in one go differs too, resuming is not the reason."""
        from tunewright.selftest.compare import checkpoints, directory_differences

        if since:
            self.started("again", step)
            again, straight = (checkpoints(self.place / name)[step] for name in ("again", "straight"))
        if not since or directory_differences(straight, again):
            return NumericError(f"two runs in one go are not the same at step {step} ({told}): something is not repeatable",
                                mend="full_determinism=true stops at an operation that is not; code of your own must draw its random "
                                "numbers from the generators of random, numpy or torch that a checkpoint holds")
        return NumericError(f"the run that went on after step {since} is not the same at step {step} ({told})",
                            mend="code of your own must keep no state between steps; else report it with the configuration")


def settings_of(run: RunConfig, steps: int) -> dict[str, Any]:
    """The configuration in our own names, what differs from our defaults: it trains so many steps, saves each, and does nothing else."""
    from tunewright.config.table import table, values

    found = {name: value for name, value in values(run).items() if value != table()[name].param.default and not table()[name].param.secret}
    found |= {"max_steps": steps, "save_strategy": "steps", "save_steps": 1, "save_epochs": None, "save_only_model": False,
              "do_train": True, "do_eval": False, "do_predict": False, "merge_lora_and_save": False, "push_to_hub": False, "report_to": [],
              "plot_loss": False, "plot_lora_matrix": False, "profile": False, "overwrite_output_dir": False,
              "resume_from_checkpoint": "auto", "disable_tqdm": True, "early_stopping_patience": None, "logging_dir": None}
    if run.evaluation.eval_strategy == "steps":
        found["eval_steps"] = max(1, steps // 2)
    return {"dialect": "native", **{name: _plain(value) for name, value in found.items()}}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, tuple | list) else value


def process(words: Sequence[str], log: Path) -> int:
    """`tunewright` in a process of its own, and those that it launches; it is ended with this one."""
    with log.open("ab") as output:
        child = subprocess.Popen([*COMMAND, *words], stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                                 start_new_session=True)
        try:
            return child.wait()
        except BaseException:
            child.terminate()
            try:
                with suppress(subprocess.TimeoutExpired):
                    child.wait(PATIENCE_S)
            finally:
                child.kill()
                child.wait()
            raise


def _failed(what: str, code: int, log: Path) -> TunewrightError:
    """An error with the exit code of a process that did not end as it should, and what it said last."""
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()] if log.exists() else []
    told = next((line for line in reversed(lines) if "error: " in line), lines[-1] if lines else "it said nothing")
    error = InputError(f"{what} ended with exit code {code}: {told.partition('error: ')[2] or told}")
    error.exit_code = code if code > 0 else 1
    return error


def _from(since: int) -> str:
    return f"cut after step {since}" if since else "from the start"


def _say(line: str) -> None:
    print(line, flush=True)
