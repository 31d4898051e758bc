"""The process behind `tests.harness.killing`: imports once, forks a child for each case read from standard input."""

from __future__ import annotations

import ctypes
import json
import os
import sys
import tempfile
import traceback
from typing import Any

MODES = {"count": 0, "kill": 1, "tear": 2, "full": 3, "copy": 4}


def main() -> None:
    """Serve cases until standard input ends."""
    from tests.harness import scenarios

    scenarios.warm_up()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        answers.write(json.dumps(serve(json.loads(line))) + "\n")
        answers.flush()


def serve(case: dict[str, Any]) -> dict[str, Any]:
    """Run one case in a forked child."""
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as journal:
        child = os.fork()
        if child == 0:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
            os._exit(act(case, journal.fileno()))
        _, status = os.waitpid(child, 0)
        output.seek(0)
        journal.seek(0)
        return {"code": os.waitstatus_to_exitcode(status), "output": output.read().decode(errors="replace"),
                "operations": journal.read().decode().splitlines()}


def act(case: dict[str, Any], journal: int) -> int:
    """In the child: arm the shim and run the scenario. Returns the exit code."""
    from tests.harness import scenarios
    from tunewright.errors import TunewrightError

    shim = ctypes.CDLL(os.environ["TW_SHIM"])
    shim.tw_journal.restype = ctypes.c_char_p
    if case["mode"] in MODES:
        shim.tw_arm(case["root"].encode(), MODES[case["mode"]], ctypes.c_long(case["at"]), case["copies"].encode())
    try:
        code = int(getattr(scenarios, case["scenario"])(**case["arguments"]) or 0)
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
