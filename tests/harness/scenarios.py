"""What the kill server can run: whole training runs of a tiny model, on one rank or two."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any


def warm_up() -> None:
    """Import what every child needs: what a run in a child has imported, and measure the machine."""
    import torch

    from tunewright.planning.machine import machine_for

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
    from tests.harness.tiny import write_model, write_rows

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
        _kill_after(stop_after)
    if copy_after:
        _at_each_step(lambda taken: _copy(settings, copy_after.get(str(taken - 1))))
    run_training(_config(settings))
    return 0


def _config(settings: Mapping[str, Any]) -> Any:
    from tunewright.dialects.read import read_config

    return read_config([f"{name}={_text(value)}" for name, value in settings.items()], purpose="train").resolve().config


def _copy(settings: Mapping[str, Any], target: str | None) -> None:
    if target is not None:
        shutil.copytree(settings["output_dir"], target)


def settle(settings: Mapping[str, Any], states: Mapping[str, str], told: str, timed: bool = True) -> int:
    """What the start of a run makes of each of the `states`, directories that are put in the place of the output directory one after the
    other: the run is started, and ended where it would open the model. Its log is put in order as `engine.training.prepare` does it.

    `told` gets for each state the step of the checkpoint that it goes on from, and a digest of the tree; or the error.
    """
    from tests.harness.settling import tree_digest
    from tunewright.commands import train as command
    from tunewright.engine import snapshot
    from tunewright.engine.trackers import open_trackers
    from tunewright.errors import TunewrightError

    class Settled(Exception):
        """The start is over; its argument is the step to go on from."""

    def opens(run: Any, rows: Any, start: Any) -> Any:
        step = 0 if start.checkpoint is None else snapshot.read_state(start.checkpoint.path).global_step
        open_trackers(run.logging, start.store.root, start.store.ranks, step).close()
        raise Settled(step)

    config, found, root = _config(settings), {}, Path(settings["output_dir"])
    command._read_rows, command._open = cache(command._read_rows), opens  # the rows are those of every state
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


def train_on_two_ranks(
    settings: Mapping[str, Any], stop_after: int | None = None, copy_after: Mapping[str, str] | None = None,
) -> int:
    """The same with a second rank in a child process of this one; the first rank's exit code, or the other's if that failed first."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    os.environ.update(WORLD_SIZE="2", LOCAL_WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    other = os.fork()
    rank = "1" if other == 0 else "0"
    os.environ.update(RANK=rank, LOCAL_RANK=rank)
    if other == 0:
        import ctypes

        ctypes.CDLL(os.environ["TW_SHIM"]).tw_arm(b"/nowhere", 0, ctypes.c_long(0), b"")
        os._exit(_code(settings))
    try:
        return train(settings, stop_after, copy_after)
    finally:
        os.waitpid(other, 0)


def command_line(settings: Mapping[str, Any]) -> int:
    """The same as a user starts it: `tunewright train name=value ...`, with its exit code."""
    from tunewright.cli import main

    return main(["train", *(f"{name}={_text(value)}" for name, value in settings.items())])


def write_token_files(prefix: str, documents: list[list[int]]) -> int:
    """Write documents as Megatron's files, and read them back."""
    from pathlib import Path

    import numpy as np

    from tunewright.data.megatron.reader import open_tokens
    from tunewright.data.megatron.writer import IndexedWriter

    with IndexedWriter(Path(prefix), np.dtype("uint16")) as writer:
        for document in documents:
            writer.add(document)
    found = open_tokens(Path(prefix))
    return int([found.document(number).tolist() for number in range(found.num_documents)] != documents)


def train_at_home(settings: Mapping[str, Any], home: str) -> int:
    """Train with `home` as the user's home directory and working directory."""
    os.environ["HOME"] = home
    os.chdir(home)
    return train(settings)


def train_to_a_number_that_is_not_finite(settings: Mapping[str, Any], step: int, value: str, where: str) -> int:
    """Train with the loss, or one gradient, of a step replaced by `value` (nan, inf)."""
    from tunewright.engine import loop
    from tunewright.stages.stage import Role

    real, taken = loop.accumulate, 0

    def accumulate(machinery: Any, *arguments: Any) -> Any:
        nonlocal taken
        total = real(machinery, *arguments)
        taken += 1
        if taken != step:
            return total
        if where == "loss":
            return total._replace(loss=float(value))
        trained = next(one for one in machinery.models[Role.POLICY].parameters() if one.grad is not None)
        trained.grad.view(-1)[0] = float(value)
        return total

    loop.accumulate = accumulate
    return train(settings)


def train_and_signal(settings: Mapping[str, Any], step: int, number: int, times: int) -> int:
    """Train, and send this process a signal, `times` times, in the middle of step `step`."""
    def act(taken: int) -> None:
        for _ in range(times if taken == step else 0):
            os.kill(os.getpid(), number)

    _at_each_step(act)
    return train(settings)


def signal_two_ranks(settings: Mapping[str, Any], step: int, number: int, skew_s: float, first: int) -> int:
    """Two ranks as children of this process, which signals rank `first` in step `step`, and the other `skew_s` later.

    Prints `codes: <rank 0>, <rank 1>`; a rank that does not end within a minute is killed and shows as -9. Steps are slowed to
    a tenth of a second, so that the signals meet ranks at work.
    """
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    os.environ.update(WORLD_SIZE="2", LOCAL_WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    reader, writer = os.pipe()
    children = [_start_rank(rank, settings, step, writer) for rank in (0, 1)]
    for _ in children:
        os.read(reader, 1)
    order = (children[first], children[1 - first])
    os.kill(order[0], number)
    time.sleep(skew_s)
    os.kill(order[1], number)
    print("codes:", ", ".join(str(_ended(child)) for child in children), flush=True)
    return 0


def _start_rank(rank: int, settings: Mapping[str, Any], step: int, writer: int) -> int:
    child = os.fork()
    if child:
        return child

    def act(taken: int) -> None:
        time.sleep(0.1)
        if taken == step:
            os.write(writer, b".")

    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank))
    _at_each_step(act)
    code = _code(settings)
    sys.stdout.flush()
    os._exit(code)


def _ended(child: int, patience_s: float = 60.0) -> int:
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _at_each_step(act: Callable[[int], None]) -> None:
    """Call `act` with the number of the step, counted from 1, after its backward pass."""
    from tunewright.engine import loop

    real, taken = loop.accumulate, 0

    def accumulate(*arguments: Any) -> Any:
        nonlocal taken
        total = real(*arguments)
        taken += 1
        act(taken)
        return total

    loop.accumulate = accumulate


def _code(settings: Mapping[str, Any]) -> int:
    from tunewright.errors import TunewrightError

    try:
        return train(settings)
    except TunewrightError as error:
        return error.exit_code


def _kill_after(steps: int) -> None:
    """Kill this process in the middle of step `steps` + 1, after its backward pass."""
    from tunewright.engine import loop

    real, taken = loop.accumulate, 0

    def accumulate(*arguments: Any) -> Any:
        nonlocal taken
        total = real(*arguments)
        taken += 1
        if taken > steps:
            os.kill(os.getpid(), signal.SIGKILL)
        return total

    loop.accumulate = accumulate


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
