"""The process behind `tunewright.selftest.killing`: imports once, forks a child for each case read from standard input."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import tempfile
import traceback
from importlib import import_module
from typing import Any, Final

MODES: Final = {"count": 0, "kill": 1, "tear": 2, "full": 3, "copy": 4}
PR_SET_PDEATHSIG: Final = 1
PR_SET_CHILD_SUBREAPER: Final = 36


def main() -> None:
    """Serve cases until standard input ends."""
    from tunewright.selftest.scenarios import warm_up

    _set(PR_SET_CHILD_SUBREAPER, 1)
    _set(PR_SET_PDEATHSIG, signal.SIGKILL)
    warm_up()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        answers.write(json.dumps(serve(json.loads(line))) + "\n")
        answers.flush()


def serve(case: dict[str, Any]) -> dict[str, Any]:
    """Run one case in a forked child, to the end of the last process that it started."""
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as journal:
        child = os.fork()
        if child == 0:
            _set(PR_SET_PDEATHSIG, signal.SIGKILL)
            os.setpgid(0, 0)
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
            os._exit(act(case, journal.fileno()))
        _, status = os.waitpid(child, 0)
        _wait_for_orphans(child)
        output.seek(0)
        journal.seek(0)
        return {"code": os.waitstatus_to_exitcode(status), "output": output.read().decode(errors="replace"),
                "operations": journal.read().decode().splitlines()}


def _set(option: int, value: int) -> None:
    """Of this process: that it is given children whose parent ended, or that it ends with its own parent."""
    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _wait_for_orphans(group: int) -> None:
    """A rank or a data-loader worker outlives a process that was killed, until it notices."""
    try:
        while True:
            os.waitpid(-group, 0)
    except ChildProcessError:
        return


def act(case: dict[str, Any], journal: int) -> int:
    """In the child: arm the shim and run the scenario. Returns the exit code."""
    from tunewright.errors import TunewrightError

    shim = ctypes.CDLL(os.environ["TW_SHIM"])
    shim.tw_journal.restype = ctypes.c_char_p
    if case["mode"] in MODES:
        shim.tw_arm(case["root"].encode(), MODES[case["mode"]], ctypes.c_long(case["at"]), case["copies"].encode())
    module, _, function = case["scenario"].rpartition(":")
    try:
        code = int(getattr(import_module(module or "tunewright.selftest.scenarios"), function)(**case["arguments"]) or 0)
    except TunewrightError as error:
        print(f"error: {error.line()}")
        code = error.exit_code
    except BaseException:
        traceback.print_exc()
        code = 1
    if case["mode"] in ("count", "copy"):
        os.write(journal, shim.tw_journal())
    sys.stdout.flush()
    sys.stderr.flush()
    return code


if __name__ == "__main__":
    main()
