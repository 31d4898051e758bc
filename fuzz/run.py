"""Give hostile bytes to every reader: `python -m fuzz.run [--targets a,b] [--seconds 60] [--engine hypothesis|atheris] [--seed 0]
[--record FILE] [--environment FOLDER]`.

Each target runs in a process of its own. Seconds are of CPU. What was found is kept in fuzz/corpus and read again by the tests; the
exit code is 1 if anything was. atheris gets an environment of its own, made with pip where it is not there yet.

The tests do the same with hypothesis for FUZZ_SECONDS a target: 1 unless the environment says otherwise, so that CI has time for all else.
`FUZZ_SECONDS=60 pytest tests/fuzz` gives each a minute, with FUZZ_SEED=today other inputs every day.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from benchmarks.environments import environment
from fuzz.engines import Tally, _keep, summary, with_atheris, with_hypothesis
from fuzz.judging import Finding
from fuzz.target import ROOT
from fuzz.targets import TARGETS

ATHERIS: Final = "atheris==3.0.0"
_CLOCK: Final = (30, 900)
"""Seconds of the clock for one of CPU, and besides: a process that takes longer waits for something that does not come."""


def main(argv: Sequence[str] | None = None) -> int:
    """Fuzz the targets one after the other; 1 if something was found."""
    options = _options(argv)
    if options.child is not None:
        return _child(options)
    started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    found = 0
    for name in options.targets.split(",") if options.targets else TARGETS:
        line = _run(name, options)
        found += len(line["findings"])
        print(f"{name:<20} {line['executions']:>9} executions {line['cpu_s']:>8.1f} s  {len(line['findings'])} findings", flush=True)
        for one in line["findings"]:
            print(f"  {one['kind']} at {one['place'] or 'no line of ours'}: {one['said']}  ({one['input']})", flush=True)
        if options.record:
            _record(options.record, {"run": started, "engine": options.engine, "seed": options.seed, "python": platform.python_version(),
                                     "version": _version(options.engine), **line})
    return int(found > 0)


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m fuzz.run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--targets", help=f"some of {', '.join(TARGETS)}")
    parser.add_argument("--seconds", type=float, default=60, help="of CPU, for each target")
    parser.add_argument("--engine", choices=("hypothesis", "atheris"), default="hypothesis")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--record", type=Path, help="file of JSON lines to which the figures are added")
    parser.add_argument("--environment", type=Path, default=ROOT / "build" / "fuzz", help="folder for the environment with atheris")
    parser.add_argument("--child", nargs=2, metavar=("TARGET", "FOLDER"), help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def _run(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """One target in a process of its own; if that dies, what it had in hand is a finding."""
    with tempfile.TemporaryDirectory(prefix="tunewright-fuzz-") as text:
        folder = Path(text)
        python = sys.executable if options.engine == "hypothesis" else str(environment(options.environment, [ATHERIS]))
        command = [python, "-m", "fuzz.run", "--child", name, text, "--seconds", str(options.seconds), "--engine", options.engine,
                   "--seed", str(options.seed)]
        packages = [one for one in sys.path if one.endswith("site-packages")]
        variables = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT), *packages]), "HF_HUB_OFFLINE": "1",
                     "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        began = time.monotonic()
        with (folder / "said").open("wb") as said:
            try:
                code: int | str = subprocess.run(command, cwd=ROOT, env=variables, stdout=said, stderr=said, check=False,
                                                 timeout=options.seconds * _CLOCK[0] + _CLOCK[1]).returncode
            except subprocess.TimeoutExpired:
                code = "no end"
        result = folder / "result.json"
        if result.is_file():
            return dict(json.loads(result.read_text(encoding="utf-8")))
        tail = (folder / "said").read_bytes()[-300:].decode("utf-8", "replace")
        died = Finding("died", "", f"{code if isinstance(code, str) else f'exit {code}'}: {' '.join(tail.split())}")
        content = (folder / "input").read_bytes() if (folder / "input").is_file() else b""
        return {"target": name, "reads": TARGETS[name].reads, "executions": 0, "cpu_s": round(time.monotonic() - began, 1),
                "findings": [{"kind": died.kind, "place": "", "said": died.said, "input": _keep(name, content, died)}]}


def _child(options: argparse.Namespace) -> int:
    """In the process of one target: fuzz it, and leave the figures in a file."""
    name, folder = options.child[0], Path(options.child[1])

    def report(tally: Tally) -> None:
        (folder / "result.json").write_text(json.dumps(summary(tally, time.process_time())), encoding="utf-8")

    if options.engine == "atheris":
        with_atheris(TARGETS[name], options.seconds, options.seed, folder / "input", report)
    report(with_hypothesis(TARGETS[name], options.seconds, options.seed, folder / "input"))
    return 0


def _version(engine: str) -> str:
    return ATHERIS.partition("==")[2] if engine == "atheris" else version("hypothesis")


def _record(path: Path, line: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    sys.exit(main())
