"""A driver in a process, an environment and a folder of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

HERE: Final = Path(__file__).parent
Line = dict[str, Any]


def ran(driver: str, python: Path, job: Line, threads: int, folder: Path) -> Line:
    """What a driver told; `failure` instead where it did not come to its end. Its output is kept as last-DRIVER.log in `folder`."""
    work = folder / "work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    (work / "job.json").write_text(json.dumps({**job, "output": str(work / "output")}), encoding="utf-8")
    surroundings = {
        **os.environ, "HF_HOME": str(work / "hf"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads),
        "TOKENIZERS_PARALLELISM": "false", "DISABLE_VERSION_CHECK": "1", **({} if job.get("gpu") else {"CUDA_VISIBLE_DEVICES": ""}),
        "PYTHONPATH": str(HERE.parent / "src") if driver.startswith("own_") else ""}
    command = [str(python), str(HERE / "drivers" / f"{driver}.py"), str(work / "job.json")]
    done = subprocess.run(command, env=surroundings, capture_output=True, text=True, check=False)
    (folder / f"last-{driver}.log").write_text(f"{done.stdout}\n{done.stderr}", encoding="utf-8")
    told = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    shutil.rmtree(work, ignore_errors=True)
    if done.returncode or not told:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        return {"failure": f"exit code {done.returncode}: {last[:300]}"}
    found: Line = json.loads(told[-1].removeprefix("RESULT "))
    return found


def untrained_adapter(model: Path, folder: Path) -> Path:
    """The adapter that every side begins with; made once for each model of a name."""
    adapter = folder / f"adapter-{model.name}"
    if not (adapter / "adapter_config.json").exists():
        done = ran("untrained_adapter", Path(sys.executable), {"model": str(model), "adapter": str(adapter)}, 1, folder)
        if "failure" in done:
            raise SystemExit(f"error: no adapter for {model}: {done['failure']}")
    return adapter
