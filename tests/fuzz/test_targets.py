"""Every reader is given new hostile bytes for FUZZ_SECONDS of CPU: 1 unless the environment says more, a minute for all.

Oracle: `fuzz.judging`. The seed is that of the day where FUZZ_SEED is `today`, else a fixed one; it is printed with what is found.
"""

from __future__ import annotations

import os
import time

import pytest

from fuzz.run import main
from fuzz.targets import TARGETS

SECONDS = os.environ.get("FUZZ_SECONDS", "1")
SEED = str(int(time.time()) // 86_400) if os.environ.get("FUZZ_SEED") == "today" else os.environ.get("FUZZ_SEED", "0")


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_hostile_bytes_are_refused_in_one_line(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["--targets", name, "--seconds", SECONDS, "--seed", SEED])
    said = capsys.readouterr().out
    print(said)
    assert code == 0, f"seed {SEED}: {said}"
