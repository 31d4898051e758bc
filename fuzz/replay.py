"""Read the corpus again: `python -m fuzz.replay [TARGET ...]`. A line for each input that still finds something, and exit code 1."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from fuzz.judging import judged
from fuzz.target import CORPUS
from fuzz.targets import TARGETS


def main(names: Sequence[str]) -> int:
    """Replay the named targets, or all."""
    found = 0
    for name in names or TARGETS:
        target = TARGETS[name]
        for path in sorted((CORPUS / name).glob("*")):
            finding = judged(target.one, path.read_bytes(), target.cpu_s)
            if finding is not None:
                found += 1
                print(f"{name}/{path.name}: {finding.kind} at {finding.place}: {finding.said}")
    return int(found > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
