"""Our own vocabulary where a value says what its name alone does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunewright.dialects.read import examine

FILE = "model_name_or_path: m\ndataset: d\noutput_dir: o\n"


@pytest.mark.parametrize(("line", "arguments", "expected"), [
    ("gradient_checkpointing: auto\n", [], (False, True)),
    ("gradient_checkpointing: auto\n", ["gradient_checkpointing=true"], (True, False)),
    ("gradient_checkpointing: true\n", ["--gradient_checkpointing", "auto"], (False, True)),
    ("precision:\n  gradient_checkpointing: auto\n", [], (False, True)),
    ("gradient_checkpointing_auto: true\n", [], (False, True)),
    ("", [], (False, False)),
])
def test_gradient_checkpointing_may_be_auto(tmp_path: Path, line: str, arguments: list[str], expected: tuple[bool, bool]) -> None:
    (tmp_path / "c.yaml").write_text(FILE + line)
    examined = examine([str(tmp_path / "c.yaml"), *arguments])
    precision = examined.reading.config.precision
    assert (precision.gradient_checkpointing, precision.gradient_checkpointing_auto) == expected
    assert examined.problems == ()


def test_it_may_not_be_anything_else(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(FILE + "gradient_checkpointing: maybe\n")
    (problem,) = examine([str(tmp_path / "c.yaml")]).problems
    assert "gradient_checkpointing" in str(problem)
