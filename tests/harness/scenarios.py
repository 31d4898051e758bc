"""What the kill server can run: whole training runs of a tiny model, on one rank or two."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Mapping
from typing import Any


def warm_up() -> None:
    """Import what every child needs."""
    import accelerate
    import peft
    import torch
    import transformers.models.llama.modeling_llama

    import tunewright.commands.train
    import tunewright.engine.training
    import tunewright.export.merge

    torch.set_num_threads(1)
    _ = accelerate, peft, transformers, tunewright


def train(settings: Mapping[str, Any], stop_after: int | None = None) -> int:
    """Train as `settings` say; with `stop_after`, kill -9 this process once that many steps were taken."""
    from tunewright.commands.train import train as run_training
    from tunewright.dialects.read import read_config

    if stop_after is not None:
        _kill_after(stop_after)
    words = [f"{name}={_text(value)}" for name, value in settings.items()]
    reading = read_config(words, purpose="train").resolve()
    run_training(reading.config)
    return 0


def train_on_two_ranks(settings: Mapping[str, Any], stop_after: int | None = None) -> int:
    """The same with a second rank in a child process of this one; the first rank's exit code, or the other's if that failed first."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    os.environ.update(WORLD_SIZE="2", LOCAL_WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    other = os.fork()
    rank = "1" if other == 0 else "0"
    os.environ.update(RANK=rank, LOCAL_RANK=rank)
    if other == 0:
        import ctypes

        ctypes.CDLL(os.environ["TW_SHIM"]).tw_arm(b"/nowhere", 0, ctypes.c_long(0))
        os._exit(_code(settings))
    try:
        return train(settings, stop_after)
    finally:
        os.waitpid(other, 0)


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

    def accumulate(*arguments: Any) -> float:
        nonlocal taken
        total = real(*arguments)
        taken += 1
        if taken > steps:
            os.kill(os.getpid(), signal.SIGKILL)
        return total

    loop.accumulate = accumulate


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
