"""Kill a run at any chosen file operation, or fill its disk, and run it again.

A server process is started with the shim (`shim.c`) loaded and the libraries imported once; it forks a child for each case, so
that a case costs a training run of a tiny model and no imports. A scenario is a function of `tests.harness.scenarios`. All tests
of a process share one server: to start it takes longer than twenty cases.
"""

from __future__ import annotations

import atexit
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).parents[2]
KILLED = -9


@dataclass(frozen=True)
class Case:
    """One child: `scenario` with keyword `arguments`; `mode` none, count, kill, tear, full or copy, at operation (or byte) `at`.

    `root` is the directory whose operations count. In mode copy it is copied to `copies`/<number> at each operation whose number `at`
    divides, as a kill there would leave it: before the operation, or in the middle of a write with an odd number.
    """

    scenario: str
    arguments: Mapping[str, Any]
    root: str
    mode: str = "none"
    at: int = 0
    copies: str = ""


@dataclass(frozen=True)
class Outcome:
    """How the child ended: its exit code (-9 if it was killed), what it printed, the operations it counted."""

    code: int
    output: str
    operations: tuple[str, ...]


class Server:
    """Speaks JSON lines with the server process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def run(self, case: Case) -> Outcome:
        """Fork a child for the case and wait for it."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(asdict(case)) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        return Outcome(answer["code"], answer["output"], tuple(answer["operations"]))


@contextmanager
def server() -> Iterator[Server]:
    """The server of this process, which is started for the first block and ends with the process."""
    yield _started()


@cache
def _started() -> Server:
    folder = Path(tempfile.mkdtemp())
    shim = compile_shim(folder)
    environment = {
        **os.environ, "LD_PRELOAD": str(shim), "TW_SHIM": str(shim), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false", "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")])}
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.harness.kill_server"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=environment, cwd=ROOT)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    atexit.register(_end, process)
    return Server(process)


def compile_shim(folder: Path) -> Path:
    """Compile shim.c with the compiler at hand."""
    names = [[name] for name in ("cc", "gcc", "clang") if shutil.which(name)]
    compiler = names[0] if names else [sys.executable, "-m", "ziglang", "cc"]
    library = folder / "shim.so"
    subprocess.run([*compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(Path(__file__).with_name("shim.c")), "-ldl"], check=True)
    return library


def digest(directory: Path, names: Sequence[str]) -> dict[str, str]:
    """SHA-256 of the named files of a directory."""
    return {name: hashlib.sha256((directory / name).read_bytes()).hexdigest() for name in names}


def _end(process: subprocess.Popen[str]) -> None:
    pipe: IO[str] | None = process.stdin
    if pipe:
        pipe.close()
    process.wait(timeout=60)
    if process.stdout:
        process.stdout.close()
