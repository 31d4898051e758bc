"""What the kill server can run: whole training runs of a tiny model, on one rank or two."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import Any

from tunewright.selftest.workspace import as_text


def warm_up() -> None:
    """Import what every child needs: what a run in a child has imported, and measure the machine."""
    import torch

    from tunewright.models.load import quiet_transformers
    from tunewright.planning.machine import machine_for

    quiet_transformers()
    torch.set_num_threads(1)
    machine = machine_for(use_cpu=True, processes=1)
    _ = machine.rates(torch.float32), machine.bandwidth
    for name in _imported_by_a_run():
        import_module(name)
    _decide_without_an_estimate()


def _decide_without_an_estimate() -> None:
    """Runs whose configuration leaves nothing open are not estimated: that takes longer than to train a tiny model for two epochs."""
    from tunewright.planning import decide as planning

    real = planning.decide

    def decide(run: Any, examples: Any, ranks: Any, recorded: Any) -> Any:
        is_open = run.precision.gradient_checkpointing_auto or run.batching.auto_find_batch_size
        return real(run, examples, ranks, recorded) if is_open else planning.Decided(run, ())

    planning.decide = decide


def _imported_by_a_run() -> list[str]:
    """The modules that a run of two steps in a child of its own has loaded and this process has not."""
    from tunewright.selftest.tiny import write_model, write_rows

    with tempfile.TemporaryDirectory() as folder:
        place, told = Path(folder), Path(folder, "modules.json")
        child = os.fork()
        if child == 0:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.dup2(1, 2)
            write_model(place / "model")
            write_rows(place / "rows.jsonl", 4)
            train({"model_name_or_path": place / "model", "dataset": place / "rows.jsonl", "output_dir": place / "run", "max_steps": 2,
                   "data_cache_dir": "none", "plot_loss": False})
            told.write_text(json.dumps([name for name in sys.modules if not name.startswith("__")]))
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0, "a run of two steps fails"
        return [name for name in json.loads(told.read_text()) if name not in sys.modules]


def train(settings: Mapping[str, Any], stop_after: int | None = None, copy_after: Mapping[str, str] | None = None) -> int:
    """Train as `settings` say; with `stop_after`, kill -9 this process in the middle of the step that follows so many.

    `copy_after`: numbers of steps, and where the output directory is then copied to instead.
    """
    from tunewright.commands.train import train as run_training

    if stop_after is not None:
        at_each_step(lambda taken: _die(taken > stop_after))
    if copy_after:
        at_each_step(lambda taken: _copy(settings, copy_after.get(str(taken - 1))))
    run_training(_config(settings))
    return 0


def _config(settings: Mapping[str, Any]) -> Any:
    from tunewright.dialects.read import read_config

    return read_config([f"{name}={as_text(value)}" for name, value in settings.items()], purpose="train").resolve().config


def _die(now: bool) -> None:
    if now:
        os.kill(os.getpid(), signal.SIGKILL)


def _copy(settings: Mapping[str, Any], target: str | None) -> None:
    if target is not None:
        shutil.copytree(settings["output_dir"], target)


def settle(settings: Mapping[str, Any], states: Mapping[str, str], told: str, timed: bool = True) -> int:
    """What the start of a run makes of each of the `states`, directories that are put in the place of the output directory one after the
    other: the run is started, and ended where it would open the model. Its log is put in order as `engine.training.prepare` does it.

    `told` gets for each state the step of the checkpoint that it goes on from, and a digest of the tree; or the error.
    """
    from tunewright.commands import train as command
    from tunewright.engine import resume, snapshot
    from tunewright.engine.trackers import open_trackers
    from tunewright.errors import TunewrightError
    from tunewright.selftest.settling import tree_digest

    class Settled(Exception):
        """The start is over; its argument is the step to go on from."""

    def opens(run: Any, rows: Any, start: Any) -> Any:
        step = 0 if start.checkpoint is None else snapshot.read_state(start.checkpoint.path).global_step
        open_trackers(run.logging, start.store.root, start.store.ranks, step).close()
        raise Settled(step)

    config, found, root = _config(settings), {}, Path(settings["output_dir"])
    command._read_rows, command._open = cache(command._read_rows), opens  # the rows are those of every state
    wrap(resume, "demand_same_settings", lambda _: _agreed)  # one process settles what two ranks have left
    for name, state in states.items():
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(state, root)
        try:
            command.train(config)
        except Settled as settled:
            found[name] = [settled.args[0], tree_digest(root, timed=timed)]
        except TunewrightError as error:
            found[name] = [-1, error.line()]
    shutil.rmtree(root, ignore_errors=True)
    Path(told).write_text(json.dumps(found))
    return 0


def _agreed(*_: Any) -> None:
    """In the place of a comparison of settings."""


def train_on_two_ranks(
    settings: Mapping[str, Any], stop_after: int | None = None, copy_after: Mapping[str, str] | None = None, mine: int = 0,
) -> int:
    """The same with another rank in a child process of this one, which is rank `mine`: only its file operations count."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    os.environ.update(WORLD_SIZE="2", LOCAL_WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    other = os.fork()
    rank = str(1 - mine if other == 0 else mine)
    os.environ.update(RANK=rank, LOCAL_RANK=rank)
    if other == 0:
        ctypes.CDLL(os.environ["TW_SHIM"]).tw_arm(b"/nowhere", 0, ctypes.c_long(0), b"")
        os._exit(_code(settings))
    try:
        return train(settings, stop_after, copy_after)
    finally:
        os.waitpid(other, 0)


def command_line(settings: Mapping[str, Any]) -> int:
    """The same as a user starts it: `tunewright train name=value ...`, with its exit code."""
    from tunewright.cli import main

    return main(["train", *(f"{name}={as_text(value)}" for name, value in settings.items())])


def train_and_signal(settings: Mapping[str, Any], step: int, number: int, times: int) -> int:
    """Train, and send this process a signal, `times` times, in the middle of step `step`."""
    def act(taken: int) -> None:
        for _ in range(times if taken == step else 0):
            os.kill(os.getpid(), number)

    at_each_step(act)
    return train(settings)


def wrap(owner: Any, name: str, around: Callable[[Any], Any]) -> None:
    """Put a function around one that is there, for the rest of this process."""
    setattr(owner, name, around(getattr(owner, name)))


def at_each_step(act: Callable[[int], None]) -> None:
    """Call `act` with the number of the step, counted from 1 in this process, after its backward pass."""
    from tunewright.engine import loop

    taken = count(1)

    def accumulating(accumulate: Any) -> Any:
        def accumulate_and_act(*arguments: Any) -> Any:
            total = accumulate(*arguments)
            act(next(taken))
            return total

        return accumulate_and_act

    wrap(loop, "accumulate", accumulating)


def _code(settings: Mapping[str, Any]) -> int:
    from tunewright.errors import TunewrightError

    try:
        return train(settings)
    except TunewrightError as error:
        return error.exit_code
