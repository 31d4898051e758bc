"""Faults that are put into runs: in a data-loader worker, in a rank, in the numbers of a step, by signals. Each function here is a scenario
that runs in a child of the kill server and returns its exit code."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from unittest import mock

from tunewright.selftest.killing import Case, Ended, Server
from tunewright.selftest.scenarios import at_each_step, command_line, wrap

Settings = Mapping[str, Any]
FAULTY: Final = "a fault that was put in"


def asked(server: Server, scenario: Callable[..., int], settings: Settings, **arguments: Any) -> Ended:
    """The outcome of a scenario of this module: its exit code, and what was printed."""
    name = f"{__name__}:{scenario.__name__}"
    return server.run(Case(name, {"settings": dict(settings), **arguments}, str(settings["output_dir"])))


def plain_run(settings: Settings, ranks: int = 1) -> int:
    """`tunewright train`, undisturbed."""
    return command_line(settings) if ranks == 1 else _launched(settings, ranks, lambda rank: None)


def worker_fault(settings: Settings, fault: str, row: str, ranks: int = 1, rank: int = 0) -> int:
    """The data-loader worker (without workers, the process itself) that reads `row`, as `file:line`, has a fault. Prints `at: ` and the row
    that the sequence is named by, and `left: ` with the number of processes that outlived the run."""
    def prepare(mine: int) -> None:
        if mine == rank:
            _put_into_reading(fault, row)

    if ranks > 1:
        return _launched(settings, ranks, prepare)
    prepare(0)
    code = command_line(settings)
    print(f"left: {len(multiprocessing.active_children())}")
    return code


def rank_fault(settings: Settings, fault: str, rank: int, ranks: int, place: str, step: int) -> int:
    """Rank `rank` has a fault in `step`, in the save after it, or in the evaluation after it. Prints `took: ` and the seconds from there to
    the end of the job."""
    reader, writer = os.pipe()

    def prepare(mine: int) -> None:
        if mine == rank:
            _put_into(place, step, lambda: _told(writer, fault))

    code = _launched(settings, ranks, prepare)
    os.set_blocking(reader, False)
    began = os.read(reader, 100).decode()
    print(f"took: {time.time() - float(began):.1f}")
    return code


def signals_to_ranks(settings: Settings, ranks: int, at: Sequence[tuple[int, int, float]], step: int) -> int:
    """Signals: (number, rank or -1 for the launcher, seconds after the first rank came to `step`). Steps take a tenth of a second at least.
    Prints `codes: ` and the exit code of each rank."""
    reader, writer = os.pipe()

    def prepare(mine: int) -> None:
        def slowly(taken: int) -> None:
            time.sleep(0.1)
            if taken == step and mine == 0:
                os.write(writer, b".")

        at_each_step(slowly)

    def send(pids: Sequence[int]) -> None:
        os.read(reader, 1)
        began = time.monotonic()
        for number, rank, delay in sorted(at, key=lambda one: one[2]):
            time.sleep(max(0.0, began + delay - time.monotonic()))
            try:
                os.kill(os.getppid() if rank < 0 else pids[rank], number)
            except ProcessLookupError:
                continue

    return _launched(settings, ranks, prepare, send)


def number_fault(settings: Settings, updates: Sequence[int], value: str, where: str, ranks: int = 1, rank: int = 0) -> int:
    """The loss, or one gradient, of the so-manieth updates is `value` (nan, inf, -inf), on one rank."""
    if ranks > 1:
        return _launched(settings, ranks, lambda mine: _spoil(updates, value, where) if mine == rank else None)
    _spoil(updates, value, where)
    return command_line(settings)


def replayed(settings: Settings, script: str) -> int:
    """What `python replay.py` does."""
    from tunewright.commands.replay import replay

    return replay(script)


@dataclass(slots=True)
class _Forked:
    """As much of `subprocess.Popen` as the launcher needs, for a child that shares what was imported."""

    pid: int
    code: int | None = field(default=None)

    def poll(self) -> int | None:
        """The exit code once it has ended."""
        if self.code is None:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            self.code = os.waitstatus_to_exitcode(status) if ended else None
        return self.code

    def wait(self) -> None:
        """Until it has ended."""
        while self.poll() is None:
            time.sleep(0.01)

    def send_signal(self, number: int) -> None:
        """Pass a signal on."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """End it."""
        self.send_signal(signal.SIGKILL)


def _launched(
    settings: Settings, number: int, prepare: Callable[[int], None], beside: Callable[[Sequence[int]], None] | None = None,
) -> int:
    """The launcher's own work, with ranks that are forked instead of started anew. `beside` runs in a process of its own and is given
    their ids."""
    from tunewright import runtime
    from tunewright.engine.signals import STOP_SIGNALS

    started: list[_Forked] = []
    helper = 0

    def start(command: Sequence[str], ranks: runtime.Ranks, listener: Any, shared: tuple[int, int]) -> _Forked:
        nonlocal helper
        environment = runtime.environment_of(ranks, listener, shared)
        child = os.fork()
        if child == 0:
            _be_rank(settings, ranks.rank, environment, prepare)
        started.append(_Forked(child))
        if beside is not None and len(started) == number:
            helper = os.fork()
            if helper == 0:
                for one in STOP_SIGNALS:
                    signal.signal(one, signal.SIG_DFL)
                beside([one.pid for one in started])
                os._exit(0)
        return started[-1]

    with mock.patch.object(runtime, "_start_rank", start):
        code = runtime.launch_ranks([], number, grace_s=2.0)
    if helper:
        os.kill(helper, signal.SIGKILL)
        os.waitpid(helper, 0)
    print("codes:", ", ".join(str(one.poll()) for one in started), flush=True)
    return code


def _be_rank(settings: Settings, rank: int, environment: Mapping[str, str], prepare: Callable[[int], None]) -> None:
    """In the child: a rank, until it ends."""
    from tunewright.engine.signals import STOP_SIGNALS

    code = 1
    try:
        os.setsid()
        for number in STOP_SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        os.environ.update(environment)
        prepare(rank)
        code = command_line(settings)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _have(fault: str) -> None:
    """Do to this process what the fault is."""
    if fault == "raises":
        raise ValueError(FAULTY)
    if fault == "exits":
        sys.stdout.flush()
        os._exit(3)
    if fault == "hangs":
        time.sleep(3600)
    os.kill(os.getpid(), {"killed": signal.SIGKILL, "stopped": signal.SIGSTOP, "crashed": signal.SIGSEGV}[fault])
    time.sleep(1)


def _told(writer: int, fault: str) -> None:
    os.write(writer, str(time.time()).encode())
    _have(fault)


def _put_into_reading(fault: str, row: str) -> None:
    """Of a set in memory, into the reading of the sequence that has the row; of a stream, into the work on rows that has it among them."""
    from torch.utils.data import get_worker_info

    from tunewright.data.streaming.rows import RowMaker
    from tunewright.engine import batches

    def reading(read: Any) -> Any:
        def read_with_fault(self: Any, index: int) -> Any:
            example = read(self, index)
            if row in map(str, self.examples.origins(index)):
                os.write(1, f"at: {self.examples.origin(index)}\n".encode())
                _have(fault)
            return example

        return read_with_fault

    def making(make: Any) -> Any:
        def make_with_fault(self: Any, rows: Any) -> Any:
            if get_worker_info() is not None and row in (f"{self.files[raw.file].file.path}:{raw.line}" for raw in rows):
                _have(fault)
            return make(self, rows)

        return make_with_fault

    wrap(batches._Collated, "_read", reading)
    wrap(RowMaker, "__call__", making)


def _put_into(place: str, step: int, act: Callable[[], None]) -> None:
    """Act in `step`, in the save after it, or in the evaluation after it."""
    from tunewright.engine import session
    from tunewright.engine.checkpoint import CheckpointStore

    taken = [0]

    def count(number: int) -> None:
        taken[0] = number
        if place == "a step" and number == step:
            act()

    def publishing(publish: Any) -> Any:
        def publish_with_fault(self: Any, at: int, *rest: Any, **more: Any) -> Any:
            if place == "a save" and at == step:
                act()
            return publish(self, at, *rest, **more)

        return publish_with_fault

    def evaluating(evaluate: Any) -> Any:
        def evaluate_with_fault(*arguments: Any) -> Any:
            if place == "an evaluation" and taken[0] == step:
                act()
            return evaluate(*arguments)

        return evaluate_with_fault

    at_each_step(count)
    wrap(CheckpointStore, "publish", publishing)
    wrap(session, "evaluate_sets", evaluating)


def _spoil(updates: Sequence[int], value: str, where: str) -> None:
    """Of a gradient: what this rank brings into the average."""
    from tunewright.engine import loop
    from tunewright.stages.stage import Role

    taken = [0]

    def spoiled(gradient: Any) -> Any:
        changed = gradient.clone()
        changed[(0,) * changed.dim()] = float(value)
        return changed

    def accumulating(accumulate: Any) -> Any:
        def accumulate_spoiled(machinery: Any, *arguments: Any) -> Any:
            taken[0] += 1
            if taken[0] not in updates:
                return accumulate(machinery, *arguments)
            if where == "loss":
                return accumulate(machinery, *arguments)._replace(loss=float(value))
            trained = next(one for one in machinery.models[Role.POLICY].parameters() if one.requires_grad)
            hook = trained.register_hook(spoiled)
            try:
                return accumulate(machinery, *arguments)
            finally:
                hook.remove()

        return accumulate_spoiled

    wrap(loop, "accumulate", accumulating)
