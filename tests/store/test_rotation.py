"""Rotation deletes checkpoints of its own run alone, and never the last two that are intact.

Oracle: the rules restated over sets of steps, on random histories of saves, damages, restarts and kills.
"""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunewright.engine.checkpoint import CheckpointStore, Content, damage, read_checkpoint
from tunewright.runtime import Ranks

FOREIGN = ("checkpoint-mine-precious", "checkpoint-7", "checkpoint-", "checkpoint-8.bak", "my-checkpoint-9", "notes", "checkpoint-010")


def publish(store: CheckpointStore, step: int) -> None:
    def write(folder: Path) -> None:
        (folder / "inner").mkdir()
        (folder / "weights").write_text(f"weights of {step}")
        (folder / "inner" / "more").write_text(f"more of {step}")

    store.publish(step, Content(write, lambda folder: None, {"step": step}), estimate=0)


def plant_canaries(root: Path) -> dict[str, str]:
    """What a user may have there: path -> content."""
    for name in FOREIGN:
        (root / name).mkdir()
        (root / name / "model.safetensors").write_text(f"precious {name}")
    publish(CheckpointStore(root, "another run", Ranks()), 500)
    publish(CheckpointStore(root, "run", Ranks()), 3)
    (root / "checkpoint-3").rename(root / "checkpoint-3000")  # a copy that the user gave another number
    (root / "elsewhere").mkdir()
    publish(CheckpointStore(root / "elsewhere", "run", Ranks()), 4)
    (root / "checkpoint-4").symlink_to(root / "elsewhere" / "checkpoint-4")
    (root / "checkpoint-9").write_text("a file")
    (root / "adapter_model.safetensors").write_text("final")
    return contents(root)


def contents(root: Path) -> dict[str, str]:
    return {str(path.relative_to(root)): path.read_text() for path in root.rglob("*") if path.is_file()}


def intact(root: Path) -> set[int]:
    found = [read_checkpoint(path) for path in root.glob("checkpoint-*") if not path.is_symlink()]
    return {one.step for one in found if one and one.manifest["run_id"] == "run" and one.path.name == f"checkpoint-{one.step}"
            and not damage(one)}


def spoil(path: Path, chance: random.Random) -> None:
    """One of the damages that a disk, or a person, does to a checkpoint."""
    victim = path / chance.choice(["weights", "inner/more", "manifest.json"])
    kind = chance.choice(["missing", "cut", "bit"])
    if kind == "missing":
        victim.unlink(missing_ok=True)
    elif victim.exists():
        content = bytearray(victim.read_bytes())
        if kind == "bit" and content:
            content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        victim.write_bytes(content if kind == "bit" else content[: len(content) // 2])


@pytest.mark.slow
@settings(max_examples=60)
@given(seed=st.integers(0, 2**32), limit=st.integers(1, 5), events=st.integers(4, 12))
def test_random_histories(tmp_path_factory: pytest.TempPathFactory, seed: int, limit: int, events: int) -> None:
    """Saves at rising steps, each followed by a rotation; between them restarts, damages, and repeats of an earlier step."""
    chance = random.Random(seed)
    root = tmp_path_factory.mktemp("history")
    canaries = plant_canaries(root)
    store, step, best = CheckpointStore(root, "run", Ranks()), 20, None
    for _ in range(events):
        if chance.random() < 0.4:
            store = CheckpointStore(root, "run", Ranks())
            store.recover()
            if (mine := store.committed()) and chance.random() < 0.6:
                spoil(chance.choice(mine).path, chance)
            newest = store.newest_intact(lambda line: None)
            assert (newest.step if newest else None) == max(intact(root), default=None)
            step = newest.step if newest and chance.random() < 0.5 else step
        step += chance.randint(1, 3)
        publish(store, step)
        best = step if chance.random() < 0.3 else best
        before = intact(root)
        store.rotate(limit, [best] if best is not None else [])
        after = intact(root)
        newest_steps = set(sorted(before)[-max(limit, 2):])
        assert newest_steps <= after <= before, "the newest intact ones stay, nothing appears"
        assert after - newest_steps <= {best}, "no more than the limit and the best stay"
        assert best not in before or best in after
        assert len(after) >= min(2, len(before))
        assert {name: text for name, text in contents(root).items() if name in canaries} == canaries
        assert read_checkpoint(root / f"checkpoint-{step}") is not None
    shutil.rmtree(root)


def test_without_a_limit_nothing_goes(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, "run", Ranks())
    for step in range(1, 6):
        publish(store, step)
        store.rotate(None, [])
    assert [one.step for one in store.committed()] == [1, 2, 3, 4, 5]


def test_other_ranks_delete_nothing(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, "run", Ranks())
    for step in range(1, 6):
        publish(store, step)
    CheckpointStore(tmp_path, "run", Ranks(rank=1, world_size=1)).rotate(1, [])
    assert len(store.committed()) == 5


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_the_best_is_kept_besides_the_newest(tmp_path: Path, limit: int) -> None:
    store = CheckpointStore(tmp_path, "run", Ranks())
    for step in (1, 2, 3, 4, 5, 6):
        publish(store, step)
        store.rotate(limit, [2])
    assert [one.step for one in store.committed()] == sorted({2, *range(7 - max(2, limit), 7)})


@pytest.mark.parametrize("name", ["checkpoint-5", "checkpoint-9", "checkpoint-4"])
def test_what_stands_where_a_checkpoint_must_go_is_set_aside(tmp_path: Path, name: str) -> None:
    """A directory without a manifest, a file, and a link: twice, so that the second finds the first's name taken."""
    def put() -> None:
        place = tmp_path / name
        if name == "checkpoint-5":
            place.mkdir()
            (place / "precious").write_text("mine")
        elif name == "checkpoint-9":
            place.write_text("mine")
        else:
            place.symlink_to(tmp_path / "nowhere")

    step = int(name[-1])
    put()
    publish(CheckpointStore(tmp_path, "run", Ranks()), step)
    shutil.rmtree(tmp_path / name)
    put()
    publish(CheckpointStore(tmp_path, "run", Ranks()), step)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, f"set-aside-{name}", f"set-aside-{name}-2"])
    assert intact(tmp_path) == {step}


def test_a_killed_publication_is_finished_and_the_rest_removed(tmp_path: Path) -> None:
    """A staging directory is published if it is whole and this run's; half a one, another run's, and trash go."""
    store = CheckpointStore(tmp_path, "run", Ranks())
    publish(store, 1)
    (tmp_path / "checkpoint-1").rename(tmp_path / ".staging-1")
    publish(store, 2)
    (tmp_path / "checkpoint-2").rename(tmp_path / ".staging-2")
    (tmp_path / ".staging-2" / "weights").write_text("half")
    publish(CheckpointStore(tmp_path, "other", Ranks()), 3)
    (tmp_path / "checkpoint-3").rename(tmp_path / ".staging-3")
    (tmp_path / ".trash-4").mkdir()
    store.recover()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-1"]
    assert intact(tmp_path) == {1}


def test_a_checkpoint_comes_back_if_its_successor_was_lost(tmp_path: Path) -> None:
    """Killed between the two renames that replace a checkpoint, and then the new one went bad: the old one is still the truth."""
    store = CheckpointStore(tmp_path, "run", Ranks())
    publish(store, 3)
    shutil.copytree(tmp_path / "checkpoint-3", tmp_path / ".staging-3")
    (tmp_path / "checkpoint-3").rename(tmp_path / ".trash-3")
    (tmp_path / ".staging-3" / "weights").write_text("gone bad")
    store.recover()
    assert [one.step for one in store.committed()] == [3]
    assert not damage(store.committed()[0])
    assert not (tmp_path / ".trash-3").exists()
