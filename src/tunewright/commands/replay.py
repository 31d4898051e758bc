"""What `replay.py` beside the evidence of a step does: take that step of the run once more, and name the module at fault."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunewright.errors import NumericError, Preempted, TunewrightError

if TYPE_CHECKING:
    from tunewright.config.run import RunConfig


def replay(script: str) -> int:
    """Run from the last checkpoint before the step that `script` lies beside, watching every module. Returns 5 once a number is not finite,
    0 if all are this time."""
    from tunewright.commands.train import train
    from tunewright.engine.health import ROWS_FILE
    from tunewright.runtime import Ranks, in_ranked_world, launch_ranks

    folder = Path(script).resolve().parent
    facts = json.loads((folder / ROWS_FILE).read_text(encoding="utf-8"))
    if not in_ranked_world():
        shutil.rmtree(folder / "replay", ignore_errors=True)
        if facts["ranks"] > 1:
            return launch_ranks([sys.executable, str(Path(script).resolve())], facts["ranks"])
    is_main = Ranks.from_environment().is_main
    try:
        os.chdir(facts["directory"])
        train(_watched(folder, int(facts["step"])))
        return 0
    except NumericError as error:
        return _told(error.message, NumericError.exit_code, is_main=is_main)
    except Preempted:
        return _told(f"step {facts['step']}: every number was finite this time", 0, is_main=is_main)
    except TunewrightError as error:
        return _told(f"error: {error.line()}", error.exit_code, is_main=is_main)


def _told(message: str, code: int, *, is_main: bool) -> int:
    if is_main:
        print(message, flush=True)
    return code


def _watched(folder: Path, step: int) -> RunConfig:
    """The run as its record has it, ended after the step, watched, and with an output directory of its own."""
    from tunewright.config.coerce import coerce
    from tunewright.config.table import build, table
    from tunewright.engine.resume import RUN_FILE, other_runs

    root = folder.parent
    config: dict[str, Any] = json.loads((root / RUN_FILE).read_text(encoding="utf-8"))["config"]
    before = [path for path in other_runs(root) if int(path.name.rpartition("-")[2]) < step]
    taken = int(before[-1].name.rpartition("-")[2]) if before else 0
    changed = {
        "output_dir": str(folder / "replay"), "resume_from_checkpoint": str(before[-1]) if before else "none", "stop_after": step - taken,
        "debug": ["underflow_overflow"], "max_nonfinite_steps": 1, "allow_change": ["max_nonfinite_steps"], "overwrite_output_dir": False,
        "report_to": [], "push_to_hub": False}
    return build({name: coerce(table()[name], value) for name, value in {**config, **changed}.items()})
