"""A damaged checkpoint is passed over, by name, and the run ends as it would have.

Oracle: the same run undisturbed, compared bit for bit by `tests.engine.resuming.results`.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.engine.resuming import Workspace, results
from tests.harness.killing import Server
from tests.store.running import copy, finished, run

pytestmark = pytest.mark.slow
FLIPS = 4
Damage = Callable[[Path, random.Random], None]


def missing(path: Path, _: random.Random) -> None:
    path.unlink()


def empty(path: Path, _: random.Random) -> None:
    path.write_bytes(b"")


def half(path: Path, _: random.Random) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def one_bit(path: Path, chance: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    path.write_bytes(content)


DAMAGES: tuple[Damage, ...] = (missing, empty, half, *(one_bit for _ in range(FLIPS)))


def check_matrix(kill_server: Server, workspace: Workspace, folder: Path, **changes: object) -> int:
    """Every file of the newest checkpoint x every damage; returns the cases."""
    straight = finished(kill_server, workspace, folder / "straight", **changes)
    expected = results(straight)
    files = sorted(path.relative_to(straight / "checkpoint-12") for path in (straight / "checkpoint-12").rglob("*") if path.is_file())
    assert Path("manifest.json") in files and len(files) >= 12
    cases = 0
    for number, (name, damage) in enumerate((name, damage) for name in files for damage in DAMAGES):
        output_dir = copy(straight, folder / "damaged")
        damage(output_dir / "checkpoint-12" / name, random.Random(number))
        (output_dir / "adapter_model.safetensors").unlink(missing_ok=True)  # so that the end is this run's, not the copy
        outcome = run(kill_server, workspace, output_dir, **changes)
        assert outcome.code == 0, (name, damage.__name__, outcome.output)
        said = next(line for line in outcome.output.splitlines() if "falling back" in line)
        assert str(output_dir / "checkpoint-12") in said and name.as_posix() in said, (name, damage.__name__, said)
        assert f"resuming from {output_dir / 'checkpoint-9'} (step 9)" in outcome.output
        assert results(output_dir) == expected, (name, damage.__name__)
        cases += 1
    assert cases == len(files) * len(DAMAGES)
    return cases


def test_every_file_of_the_newest_checkpoint_times_every_damage(kill_server: Server, workspace: Workspace, tmp_path: Path) -> None:
    """LoRA with dropout: adapter, optimizer, schedule, random numbers, positions, tokenizer, manifest."""
    assert check_matrix(kill_server, workspace, tmp_path, lora_dropout=0.2) >= 84


def test_a_manifest_that_is_still_json_but_edited_is_damaged(kill_server: Server, workspace: Workspace, tmp_path: Path) -> None:
    """Each of its fields changed or dropped in turn; a file with no entry would otherwise go unguarded."""
    straight = finished(kill_server, workspace, tmp_path / "straight")
    expected = results(straight)
    manifest = json.loads((straight / "checkpoint-12" / "manifest.json").read_text())
    edits = {
        "step": 3, "format": 2, "run_id": "0" * 16, "world_size": 2, "files": manifest["files"][1:], "digest": "0" * 64,
        "settings": {**manifest["settings"], "learning_rate": 0.5}}
    assert set(edits) == set(manifest)
    for name, value in edits.items():
        for edited in ({**manifest, name: value}, {key: one for key, one in manifest.items() if key != name}):
            output_dir = copy(straight, tmp_path / "edited")
            (output_dir / "checkpoint-12" / "manifest.json").write_text(json.dumps(edited))
            outcome = run(kill_server, workspace, output_dir)
            assert outcome.code == 0, (name, outcome.output)
            assert "checkpoint-12: manifest.json is missing or damaged; falling back" in outcome.output, name
            assert "(step 9)" in outcome.output and results(output_dir) == expected, name


@pytest.mark.parametrize("name", ["manifest.json", "optimizer.safetensors"])
def test_with_every_checkpoint_damaged_the_run_is_refused(
    kill_server: Server, workspace: Workspace, tmp_path: Path, name: str
) -> None:
    output_dir = finished(kill_server, workspace, tmp_path / "run")
    for checkpoint in output_dir.glob("checkpoint-*"):
        empty(checkpoint / name, random.Random(0))
    before = sorted(path.name for path in output_dir.iterdir())
    outcome = run(kill_server, workspace, output_dir, "command_line")
    assert outcome.code == 2, outcome.output
    assert [line for line in outcome.output.splitlines() if line.startswith("error:")] == [
        f"error: none of the checkpoints in {output_dir} is intact; overwrite_output_dir=true starts afresh"]
    assert sorted(path.name for path in output_dir.iterdir()) == before


def test_a_damaged_checkpoint_that_cannot_be_told_to_be_ours_is_kept(
    kill_server: Server, workspace: Workspace, tmp_path: Path
) -> None:
    """Its manifest is gone, so whose it is nobody knows: the new checkpoint 12 takes its name, and it stays under another."""
    output_dir = finished(kill_server, workspace, tmp_path / "run")
    missing(output_dir / "checkpoint-12" / "manifest.json", random.Random(0))
    kept = sorted(path.name for path in (output_dir / "checkpoint-12").iterdir())
    outcome = run(kill_server, workspace, output_dir)
    assert outcome.code == 0 and "it is now" in outcome.output, outcome.output
    assert sorted(path.name for path in (output_dir / "set-aside-checkpoint-12").iterdir()) == kept
    assert (output_dir / "checkpoint-12" / "manifest.json").is_file()
