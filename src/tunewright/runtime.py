"""Ranks: who this process is, how it speaks to the others, and how several processes are started on one machine.

Torch is imported inside functions, so that light commands can ask for `Ranks` without paying for it.
"""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NoReturn

from tunewright.errors import LostRankError

LOGGER_NAME = "tunewright"
LISTEN_FD = "TUNEWRIGHT_LISTEN_FD"
"""Environment variable of rank 0: the socket, already listening, on which it serves the ranks' meeting point."""
PARENT_FD = "TUNEWRIGHT_PARENT_FD"
"""Environment variable of every launched rank: a pipe that ends when the launcher dies."""
STEPS_FD = "TUNEWRIGHT_STEPS_FD"
"""Environment variable of every launched rank: memory in which each notes the last step that it took, 8 bytes for each."""


@dataclass(frozen=True, slots=True)
class Ranks:
    """Which of how many processes this is. `local_rank` counts on this machine and names the device."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0

    @property
    def is_main(self) -> bool:
        """Whether this rank prints and writes."""
        return self.rank == 0

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Ranks:
        """Read RANK, WORLD_SIZE and LOCAL_RANK, which torchrun and our launcher set; a lone process without them."""
        rank = int(environment.get("RANK", "0"))
        return cls(rank, int(environment.get("WORLD_SIZE", "1")), int(environment.get("LOCAL_RANK", str(rank))))

    def barrier(self) -> None:
        """Wait until every rank is here."""
        self.all_reduce_sum([0.0])

    def all_reduce_sum(self, values: Sequence[float]) -> list[float]:
        """Element-wise sum over the ranks, in float64; the same bits on each of them."""
        if self.world_size == 1:
            return [float(value) for value in values]
        import torch
        from torch import distributed

        tensor = torch.tensor(list(values), dtype=torch.float64, device=_device())
        with lost_rank_named(self, "adding up numbers"):
            distributed.all_reduce(tensor)
        return [float(value) for value in tensor.tolist()]

    def gather_objects(self, value: Any) -> list[Any]:
        """The JSON value of every rank, on every rank, in the order of ranks. Nothing is pickled; floats keep every bit."""
        if self.world_size == 1:
            return [value]
        import torch
        from torch import distributed

        device = _device()
        text = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8).to(device)
        with lost_rank_named(self, "gathering values"):
            sizes = [torch.zeros(1, dtype=torch.int64, device=device) for _ in range(self.world_size)]
            distributed.all_gather(sizes, torch.tensor([text.numel()], dtype=torch.int64, device=device))
            longest = max(int(size) for size in sizes)
            parts = [torch.zeros(longest, dtype=torch.uint8, device=device) for _ in range(self.world_size)]
            distributed.all_gather(parts, torch.nn.functional.pad(text, (0, longest - text.numel())))
        return [json.loads(bytes(part[: int(size)].tolist())) for part, size in zip(parts, sizes, strict=True)]


@contextmanager
def process_group(ranks: Ranks, *, timeout_s: int, backend: str | None = None) -> Iterator[None]:
    """Join the other ranks for the length of the block; nothing happens for a lone process.

    `timeout_s` bounds every wait for another rank, on gloo as on nccl. With `backend` absent, CPU tensors go over gloo and GPU
    tensors over nccl. Raises LostRankError if the ranks do not all arrive.
    """
    if ranks.world_size == 1:
        yield
        return
    import torch
    from torch import distributed

    chosen = backend or ("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    timeout = timedelta(seconds=timeout_s)
    if torch.cuda.is_available():
        torch.cuda.set_device(ranks.local_rank % torch.cuda.device_count())
    _watch_parent()
    with lost_rank_named(ranks, "joining"):
        if LISTEN_FD in os.environ or PARENT_FD in os.environ:
            distributed.init_process_group(
                chosen, store=_store(ranks, timeout), rank=ranks.rank, world_size=ranks.world_size, timeout=timeout)
        else:
            distributed.init_process_group(chosen, timeout=timeout)
    try:
        yield
    finally:
        distributed.destroy_process_group()


def _store(ranks: Ranks, timeout: timedelta) -> Any:
    """The meeting point of ranks that our launcher started: rank 0 serves it on the socket it inherited, so no port can be lost."""
    from torch._C._distributed_c10d import TCPStore

    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    if not ranks.is_main:
        return TCPStore(host, port, ranks.world_size, is_master=False, timeout=timeout)
    return TCPStore(host, port, ranks.world_size, is_master=True, timeout=timeout, master_listen_fd=int(os.environ[LISTEN_FD]))


def _watch_parent() -> None:
    """Ask this rank to stop, as SIGTERM does, once the launcher is gone: nobody would be left to end it."""
    if PARENT_FD not in os.environ:
        return
    descriptor = int(os.environ[PARENT_FD])

    def wait_for_the_end() -> None:
        os.read(descriptor, 1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait_for_the_end, name="parent-watch", daemon=True).start()


@contextmanager
def lost_rank_named(ranks: Ranks, doing: str) -> Iterator[None]:
    """Turn the communication library's error into LostRankError that says which rank noticed, and during what; a lone process has none."""
    if ranks.world_size == 1:
        yield
        return
    from torch.distributed import DistError

    try:
        yield
    except DistError as error:
        raise _lost(ranks, doing, error) from error
    except RuntimeError as error:
        if not re.search(r"gloo|connection (closed|reset|refused)|timed? ?out|broken pipe|nccl", str(error), re.IGNORECASE):
            raise
        raise _lost(ranks, doing, error) from error


def _lost(ranks: Ranks, doing: str, error: Exception) -> LostRankError:
    reason = str(error).strip().splitlines()[0]
    after = _after(int(os.environ[STEPS_FD]), ranks.rank) if STEPS_FD in os.environ else ""
    return LostRankError(
        f"rank {ranks.rank} of {ranks.world_size} lost contact with another rank while {doing}{after} ({reason})",
        mend="see what the other rank printed, then start again to continue from the last checkpoint")


def tell_step(ranks: Ranks, step: int) -> None:
    """Note that this rank took a step, for whoever tells of it once it is lost."""
    if STEPS_FD in os.environ:
        os.pwrite(int(os.environ[STEPS_FD]), step.to_bytes(8, "little"), 8 * ranks.rank)


def _after(steps: int, rank: int) -> str:
    """` after step N`, where the rank said so."""
    step = int.from_bytes(os.pread(steps, 8, 8 * rank), "little")
    return f" after step {step}" if step else ""


def _device() -> Any:
    """Where small tensors for the ranks live: on the CPU wherever the group can carry CPU tensors."""
    import torch
    from torch import distributed

    on_gpu_only = str(distributed.get_backend()) == "nccl" and "gloo" not in str(distributed.get_backend_config())
    return torch.device("cuda", torch.cuda.current_device()) if on_gpu_only else torch.device("cpu")


def seed_everything(seed: int, ranks: Ranks) -> None:
    """Seed Python, NumPy and torch. Each rank gets numbers of its own (seed + rank), so that dropout differs between rows."""
    import random

    import numpy as np
    import torch

    own = (seed + ranks.rank) % 2**32
    random.seed(own)
    np.random.seed(own)
    torch.manual_seed(own)


def demand_determinism() -> None:
    """Let torch run deterministic operations only; one without such a form raises when it is used."""
    import torch

    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False


class _MaskSecrets(logging.Filter):
    """Access tokens, keys and passwords in URLs become `***` in every message."""

    _SECRET = re.compile(r"hf_[A-Za-z0-9]{20,}|sk-[A-Za-z0-9_-]{16,}|AKIA[0-9A-Z]{16}|(?<=://)[^/\s:@]{1,200}:[^/\s@]{1,200}(?=@)")

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg = self._SECRET.sub("***", record.getMessage())
        record.args = ()
        return True


@dataclass(frozen=True, slots=True)
class LogLevels:
    """The least severe messages that the main rank tells, and the others; `detail` is `debug` with file and line, `passive` what each
    tells by itself. `on_each_node`: the first rank of every machine tells what the main rank tells."""

    main: str = "passive"
    others: str = "passive"
    on_each_node: bool = False


def configure_logging(ranks: Ranks, levels: LogLevels = LogLevels()) -> logging.Logger:
    """The package's logger: by itself the main rank tells everything, the others only warnings, with their number in front."""
    leads = ranks.is_main or (levels.on_each_node and ranks.local_rank == 0)
    level = levels.main if leads else levels.others
    chosen = {"passive": "INFO" if leads else "WARNING", "detail": "DEBUG"}.get(level, level.upper())
    form = "%(pathname)s:%(lineno)d: %(message)s" if level == "detail" else "%(message)s"
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(form if ranks.is_main else f"[rank {ranks.rank}] {form}"))
    handler.addFilter(_MaskSecrets())
    logger = logging.getLogger(LOGGER_NAME)
    logger.handlers = [handler]
    logger.setLevel(chosen)
    logger.propagate = False
    return logger


def end_process(code: int) -> NoReturn:
    """End this process with `code`; a rank among several ends at once, without the interpreter's own tear-down.

    Threads of the communication library and of autograd may ask for the interpreter while it goes; Python 3.11 then unwinds them
    through C++ that does not allow it, and a run that succeeded would end by SIGABRT. All files are closed by then.
    """
    if in_ranked_world():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def in_ranked_world(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether torchrun or our launcher started this process."""
    return "WORLD_SIZE" in environment and "RANK" in environment


def wanted_processes(num_processes: int | None, *, use_cpu: bool) -> int:
    """Processes on this machine: as many as asked for, else one per accelerator, else one."""
    if num_processes is not None:
        return num_processes
    if use_cpu:
        return 1
    import torch

    return max(1, torch.accelerator.device_count())


def launch_ranks(command: Sequence[str], num_processes: int, *, grace_s: float = 5.0) -> int:
    """Run `command` once per rank on this machine and return the exit code of the job.

    `command` is a list and is never split or joined. SIGTERM, SIGINT and SIGUSR1 are passed on to every rank. Once a rank
    has failed the others get `grace_s` to end by themselves, and are then killed. The exit code is that of the first rank
    that failed for a reason of its own; 6, with its number said, if a rank was killed from outside; 0 if all succeeded.
    """
    listener = socket.create_server(("127.0.0.1", 0), backlog=num_processes)
    alive_read, alive_write = os.pipe()
    steps = os.memfd_create("steps")
    ranks: list[subprocess.Popen[bytes]] = []
    asked: list[int] = []

    def pass_on(number: int, _frame: object) -> None:
        asked.append(number)
        for process in ranks:
            if process.poll() is None:
                process.send_signal(number)

    with listener, _handled((signal.SIGTERM, signal.SIGINT, signal.SIGUSR1), pass_on):
        try:
            for rank in range(num_processes):
                ranks.append(_start_rank(command, Ranks(rank, num_processes, rank), listener, (alive_read, steps)))
            os.close(alive_read)
            ended = _ended(ranks, grace_s)
            for rank in sorted(set(range(num_processes)) - {one for one, _ in ended}):
                print(f"rank {rank} does not answer{_after(steps, rank)}; {grace_s:g} s after the failure it is killed", file=sys.stderr)
            return _job_code(ended, asked, steps)
        finally:
            for process in ranks:
                if process.poll() is None:
                    process.kill()
                    process.wait()
            os.close(alive_write)
            os.close(steps)


def _start_rank(command: Sequence[str], ranks: Ranks, listener: socket.socket, shared: tuple[int, int]) -> subprocess.Popen[bytes]:
    """One rank in a session of its own, so that a Ctrl-C of the terminal reaches it once, through the launcher. `shared`: the
    descriptors of the pipe and of the steps."""
    environment = environment_of(ranks, listener, shared)
    inherited = [*shared, listener.fileno()] if ranks.is_main else shared
    return subprocess.Popen(list(command), env=environment, pass_fds=inherited, start_new_session=True)


def environment_of(ranks: Ranks, listener: socket.socket, shared: tuple[int, int]) -> dict[str, str]:
    """The environment of a launched rank."""
    cores = str(max(1, (os.cpu_count() or 1) // ranks.world_size))
    environment = {
        "OMP_NUM_THREADS": cores, **os.environ, "RANK": str(ranks.rank), "LOCAL_RANK": str(ranks.local_rank),
        "WORLD_SIZE": str(ranks.world_size), "LOCAL_WORLD_SIZE": str(ranks.world_size), "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(listener.getsockname()[1]), PARENT_FD: str(shared[0]), STEPS_FD: str(shared[1])}
    if ranks.is_main:
        environment[LISTEN_FD] = str(listener.fileno())
    return environment


@contextmanager
def _handled(numbers: Sequence[signal.Signals], handler: Callable[[int, object], None]) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def _ended(ranks: Sequence[subprocess.Popen[bytes]], grace_s: float) -> list[tuple[int, int]]:
    """(rank, exit code) in the order in which the ranks ended; those that had to be killed after a failure are left out."""
    ended: list[tuple[int, int]] = []
    deadline = float("inf")
    while len(ended) < len(ranks) and time.monotonic() < deadline:
        for rank, process in enumerate(ranks):
            code = process.poll()
            if code is None or any(rank == one for one, _ in ended):
                continue
            ended.append((rank, code))
            if code != 0:
                deadline = min(deadline, time.monotonic() + grace_s)
        time.sleep(0.05)
    return ended


def _job_code(ended: Sequence[tuple[int, int]], asked: Sequence[int], steps: int) -> int:
    """The job's exit code; `asked` are the signals that the launcher itself was sent. Tells which rank was the first to fail, where the
    others lost it."""
    killed = [(rank, -code) for rank, code in ended if code < 0]
    if killed and asked:
        return 128 + asked[-1]
    if killed:
        rank, number = killed[0]
        print(f"rank {rank} was ended by {signal.Signals(number).name}{_after(steps, rank)}; start again to continue from the last "
              "checkpoint", file=sys.stderr)
        return LostRankError.exit_code
    if any(code == LostRankError.exit_code for _, code in ended):
        first = next(((rank, code) for rank, code in ended if code != LostRankError.exit_code), None)
        if first is not None:
            print(f"rank {first[0]} ended with exit code {first[1]}{_after(steps, first[0])}, the others lost it", file=sys.stderr)
    own = [code for _, code in ended if code not in (0, LostRankError.exit_code)]
    return own[0] if own else max((code for _, code in ended), default=0)
