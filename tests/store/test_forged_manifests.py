"""A manifest with a right digest and wrong content, which only a forger writes, is no manifest. Worked by hand."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from tunewright.engine.checkpoint import MANIFEST, damage, read_checkpoint

FILE = {"name": "a.json", "size": 2, "sha256": hashlib.sha256(b"{}").hexdigest()}
GOOD = {"format": 1, "run_id": "a", "step": 3, "world_size": 1, "settings": {}, "files": [FILE]}


def forged(folder: Path, **changes: Any) -> Path:
    """A checkpoint whose manifest has these changes and the digest that belongs to them; a value of None takes the key away."""
    manifest = {key: value for key, value in {**GOOD, **changes}.items() if value is not None}
    digest = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
    (folder / MANIFEST).write_text(json.dumps({**manifest, "digest": digest}))
    (folder / "a.json").write_text("{}")
    return folder


def test_the_good_one_is_read(tmp_path: Path) -> None:
    checkpoint = read_checkpoint(forged(tmp_path))
    assert checkpoint is not None and checkpoint.step == 3 and damage(checkpoint) == []


@pytest.mark.parametrize("changes", [
    {"files": None}, {"files": {}}, {"files": [1]}, {"files": [{"name": "a.json"}]}, {"files": [{**FILE, "size": "2"}]},
    {"files": [{**FILE, "sha256": None}]}, {"files": [{**FILE, "name": "../other/a.json"}]}, {"files": [{**FILE, "name": "/etc/passwd"}]},
    {"files": [{**FILE, "name": "a/../../b"}]}, {"files": [{**FILE, "name": "a\0b"}]}, {"run_id": 1}, {"run_id": None},
    {"step": float("inf")}, {"step": "3"}, {"step": True}, {"step": None}, {"settings": []}, {"settings": None},
])
def test_what_the_store_never_writes_is_no_checkpoint(tmp_path: Path, changes: dict[str, Any]) -> None:
    assert read_checkpoint(forged(tmp_path, **changes)) is None


def test_a_name_that_no_file_system_takes_is_damage(tmp_path: Path) -> None:
    checkpoint = read_checkpoint(forged(tmp_path, files=[{**FILE, "name": "a" * 5000}]))
    assert checkpoint is not None
    assert damage(checkpoint) == [f"{'a' * 5000} cannot be read (File name too long)"]
