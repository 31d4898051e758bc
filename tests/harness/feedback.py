"""The synthetic preferences of `tests.harness.pairs` as single answers that are called good or bad."""

from __future__ import annotations

import json
from pathlib import Path


def write_feedback(pairs: Path, path: Path) -> Path:
    """One row for each pair of the file, by turns its chosen and its rejected answer."""
    with path.open("w", encoding="utf-8") as file:
        for number, line in enumerate(pairs.read_text(encoding="utf-8").splitlines()):
            row = json.loads(line)
            good = number % 2 == 0
            answer = row["chosen" if good else "rejected"]
            file.write(json.dumps({"instruction": row["instruction"], "output": answer, "kto_tag": good}) + "\n")
    return path
