"""Every measured kind of bad input has a case here, or a reason; a gigabyte of rows is answered as soon as a few."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path

import pytest

from tests.badinputs.faults_rows import ROWS
from tests.badinputs.workspace import answer
from tests.repository.source import ROOT

GIGABYTE = 10**9


def test_every_kind_has_its_cases() -> None:
    """68 kinds were measured; the places that are named exist, and no kind has both cases and a reason."""
    assert len(ROWS) == 68
    assert [row.what for row in ROWS if bool(row.places) == bool(row.why_not)] == []
    assert [row.what for row in ROWS if row.why_not] == [
        "images that are missing, corrupt or too large", "wrong requests to a server", "hostile bodies sent to a server"]
    missing = [place for row in ROWS for place in row.places if not _exists(*place.split("::"))]
    assert missing == []


def _exists(file: str, name: str) -> bool:
    """Whether the file defines a test of that name, or quotes it."""
    text = (ROOT / file).read_text(encoding="utf-8")
    return re.search(rf"def {re.escape(name)}\(" if name.startswith("test_") else rf"[\"']{re.escape(name)}[\"']", text) is not None


@pytest.mark.parametrize("broken", [False, True])
def test_a_gigabyte_of_rows(broken: bool, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Looked at in part: `check` is done in less than two CPU seconds, and names the line of a broken row at the beginning. What lies
    behind the first megabyte is for `data check` and for training.

    The rows behind the first megabyte lie in one long row, a hole in the file, so that the disk is spared.
    """
    row = json.dumps({"instruction": "x" * 1000, "output": "y"}) + "\n"
    file = Path("large.jsonl")
    file.write_text(row * 6 + ("{\n" if broken else row) + row * 1000)
    os.truncate(file, GIGABYTE)
    Path("c.yaml").write_text("model_name_or_path: model\ndataset: large.jsonl\noutput_dir: out\nuse_cpu: true\n")
    begin = time.process_time()
    code, lines = answer(["check", "c.yaml"], capsys)
    assert time.process_time() - begin < 2
    assert code == (2 if broken else 0)
    assert len(lines) == int(broken)
    assert not broken or lines[0].startswith("error: large.jsonl:7:2: not valid JSON")
