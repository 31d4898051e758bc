"""What fuzzing found once is read again, and so is every good input that it begins with.

Oracle: `fuzz.judging`, which knows nothing of what an input means: a reader returns or raises one of our errors in one line.
"""

from __future__ import annotations

import pytest

from fuzz.judging import judged
from fuzz.target import CORPUS
from fuzz.targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_nothing_that_was_found_comes_back(name: str) -> None:
    target = TARGETS[name]
    inputs = {f"seed {number}": seed for number, seed in enumerate(target.seeds())}
    inputs |= {path.name: path.read_bytes() for path in sorted((CORPUS / name).glob("*"))}
    found = {said: judged(target.one, content, target.cpu_s) for said, content in inputs.items()}
    assert {said: finding for said, finding in found.items() if finding is not None} == {}


def test_every_kept_input_belongs_to_a_target() -> None:
    assert {path.name for path in CORPUS.iterdir()} <= set(TARGETS)
