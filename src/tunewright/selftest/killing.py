"""Kill a run at any chosen file operation, or fill its disk, and run it again.

A server process is started with the shim (`shim.c`) loaded and the libraries imported once; it forks a child for each case, so
that a case costs a training run of a tiny model and no imports. A scenario is a function of `tunewright.selftest.scenarios`, or of another
module as `module:function`. All that is shown in a process shares one server: to start it takes longer than twenty cases.
"""

from __future__ import annotations

import atexit
import importlib.util
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

KILLED: Final = -9


class NotAsPromised(Exception):
    """What a case of a check found, in one line."""


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
class Ended:
    """How the child ended: its exit code (-9 if it was killed), what it printed, the operations it counted."""

    code: int
    output: str
    operations: tuple[str, ...]

    def last_lines(self) -> str:
        """What it printed last, for an outcome."""
        return " | ".join(line for line in self.output.splitlines()[-4:] if line.strip())[-400:]


class Server:
    """Speaks JSON lines with the server process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.pid = process.pid

    def run(self, case: Case) -> Ended:
        """Fork a child for the case and wait for it."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(asdict(case)) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        return Ended(answer["code"], answer["output"], tuple(answer["operations"]))

    def done(self, case: Case, code: int = 0) -> Ended:
        """The same, of a case that has to end with `code`. Raises `NotAsPromised`."""
        ended = self.run(case)
        if ended.code != code:
            raise NotAsPromised(f"{case.scenario} ended with {ended.code} instead of {code}: {ended.last_lines()}")
        return ended


@cache
def server() -> Server:
    """The server of this process; it is started at the first call and ends with the process."""
    folder = Path(tempfile.mkdtemp())
    process = subprocess.Popen(command(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment(folder))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    atexit.register(_end, process)
    return Server(process)


def cpu_seconds() -> float:
    """Used so far by this process, those that it has waited for, and its server with the children of that."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    mine = sum(one.ru_utime + one.ru_stime for one in used)
    if not server.cache_info().currsize:
        return mine
    fields = Path(f"/proc/{server().pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return mine + sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def command() -> list[str]:
    """What starts a server."""
    return [sys.executable, "-m", "tunewright.selftest.kill_server"]


def environment(folder: Path) -> dict[str, str]:
    """Of a server process. The shim is compiled into `folder`."""
    shim = compile_shim(folder)
    return {**os.environ, "LD_PRELOAD": str(shim), "TW_SHIM": str(shim), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false", "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def compile_shim(folder: Path) -> Path:
    """Compile shim.c with the compiler at hand."""
    library = folder / "shim.so"
    source = Path(__file__).with_name("shim.c")
    subprocess.run([*(_compiler() or ["cc"]), "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"], check=True)
    return library


def missing(group: str = "") -> str | None:
    """Why no run can be killed here, whatever the group."""
    if sys.platform != "linux":
        return "needs Linux"
    return None if _compiler() else "needs a C compiler (cc, gcc or clang; or pip install ziglang)"


def _compiler() -> list[str] | None:
    names = [[name] for name in ("cc", "gcc", "clang") if shutil.which(name)]
    if names:
        return names[0]
    return [sys.executable, "-m", "ziglang", "cc"] if importlib.util.find_spec("ziglang") else None


def _end(process: subprocess.Popen[str]) -> None:
    if process.stdin:
        process.stdin.close()
    process.wait(timeout=60)
    if process.stdout:
        process.stdout.close()
