"""CPU seconds of the commands that a user waits for: help, version, check; tunewright, LLaMA-Factory and TRL in turns.

    python benchmarks/startup.py [--repeats 5] [--peer-python llamafactory=PATH] [--peer-python trl=PATH] [--own-only]

Whole processes, as the operating system accounts for them; one run of each goes before those that count, so that files are in memory.
The result is benchmarks/results/startup.json; `python benchmarks/table.py` puts it into docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any, Final, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))
from environments import python_of

HERE: Final = Path(__file__).parent

_CHECKED: Final = "check"
_SILENCE: Final = "silence"


class Command(NamedTuple):
    """Words after the program, the peer whose program it is (None: ours), and the target in CPU seconds."""

    peer: str | None
    program: str
    words: tuple[str, ...]
    target: float | None


COMMANDS: Final = (
    Command(None, "tunewright", ("--help",), 0.3),
    Command(None, "tunewright", ("train", "--help"), 0.5),
    Command(None, "tunewright", ("version",), 0.2),
    Command(None, "tunewright", (_CHECKED, "run.yaml"), 2.0),
    Command("llamafactory", "llamafactory-cli", ("version",), None),
    Command("llamafactory", "llamafactory-cli", ("help",), None),
    Command("llamafactory", "llamafactory-cli", ("train", "-h"), None),
    Command("trl", "trl", ("--help",), None),
)


def main() -> int:
    """Measure, write the result, print it. Returns the exit code: 1 if a command fails."""
    wish = _arguments()
    wish.folder.mkdir(parents=True, exist_ok=True)
    given = {peer: Path(path) for peer, _, path in (word.partition("=") for word in wish.peer_python)}
    taken = [command for command in COMMANDS if command.peer is None or not wish.own_only]
    pythons = {peer: given.get(peer) or python_of(peer, wish.folder / "environments") for peer in sorted({c.peer for c in taken if c.peer})}
    _write_run(wish.folder)
    _write_silence(wish.folder / _SILENCE)
    spent: dict[Command, list[float]] = {command: [] for command in taken}
    for number in range(wish.repeats + 1):
        for command in taken:
            seconds = _seconds(command, pythons, wish.folder)
            if number:
                spent[command].append(seconds)
    result = {"cores": os.cpu_count(), "commands": [_told(command, seconds) for command, seconds in spent.items()]}
    wish.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    for command, seconds in spent.items():
        target = "" if command.target is None else f", target {command.target}"
        print(f"{' '.join((command.program, *command.words)):28}{statistics.median(seconds):7.2f} CPU s "
              f"({min(seconds):.2f} to {max(seconds):.2f}){target}")
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--peer-python", action="append", default=[], metavar="PEER=PATH", help="python of an environment with the peer")
    parser.add_argument("--own-only", action="store_true", help="without the peers")
    parser.add_argument("--folder", type=Path, default=Path("/tmp/tunewright-benchmark"))
    parser.add_argument("--output", type=Path, default=HERE / "results" / "startup.json")
    return parser.parse_args()


def _write_run(folder: Path) -> None:
    """A small model, rows and a run of them, which is what `check` checks."""
    from tunewright.selftest.tiny import write_model, write_rows

    model = write_model(folder / "tiny")
    rows = write_rows(folder / "rows.jsonl", 100)
    (folder / "run.yaml").write_text(
        f"model_name_or_path: {model}\ndataset: {rows}\noutput_dir: {folder / 'never'}\nfinetuning_type: lora\n", encoding="utf-8")


def _write_silence(folder: Path) -> None:
    """An empty torchaudio, which LLaMA-Factory imports at its start and does not need: its builds do not fit every build of torch."""
    folder.mkdir(exist_ok=True)
    (folder / "torchaudio.py").write_text("", encoding="utf-8")


def _seconds(command: Command, pythons: dict[str, Path], folder: Path) -> float:
    """CPU seconds of one run, children included."""
    if command.peer is None:
        words = [sys.executable, "-m", command.program, *command.words]
    else:
        words = [str(pythons[command.peer].parent / command.program), *command.words]
    surroundings = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "DISABLE_VERSION_CHECK": "1",
                    "PYTHONPATH": str(HERE.parent / "src" if command.peer is None else folder / _SILENCE)}
    before = _spent()
    done = subprocess.run(words, env=surroundings, cwd=folder, capture_output=True, text=True, check=False)
    seconds = _spent() - before
    if done.returncode:
        raise SystemExit(f"error: {' '.join(words)}: exit code {done.returncode}\n{done.stderr[-2000:]}")
    return seconds


def _spent() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return children.ru_utime + children.ru_stime


def _told(command: Command, seconds: list[float]) -> dict[str, Any]:
    return {"command": " ".join((command.program, *command.words)), "target": command.target, "cpu": [round(one, 3) for one in seconds]}


if __name__ == "__main__":
    raise SystemExit(main())
