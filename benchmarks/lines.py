"""What benchmarks write: lines of JSON under the time at which a run of the benchmark began, and the machine that it ran on."""

from __future__ import annotations

import json
import math
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

Line = dict[str, Any]


class Log:
    """Lines of JSON, each written when it is known, under the time at which this run of the benchmark began."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path, self._run = path, time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())

    def add(self, line: Line) -> None:
        """Write one line."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"run": self._run, **line}) + "\n")


def machine(model: Path) -> Line:
    """The line on processor, system, model and command."""
    return {"what": "machine", "processor": _processor(), "cores": os.cpu_count(), "python": platform.python_version(),
            "system": platform.platform(), "model": model.name, "parameters": weights(model), "command": sys.argv[1:]}


def weights(model: Path) -> int:
    """Weights in the files of the model, a tied one once."""
    from safetensors import safe_open

    total = 0
    for path in sorted(model.glob("*.safetensors")):
        with safe_open(path, "np") as file:
            total += sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118 - not a mapping
    return total


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    lines = information.read_text(encoding="utf-8").splitlines() if information.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor())
