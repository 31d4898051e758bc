"""`tunewright plan`, from the command line to its table. Oracles: the run's own prepared set; sums; what is imported."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tunewright.cli import main
from tunewright.planning.cards import CARDS, card_of
from tunewright.planning.machine import _group_free, of_card
from tunewright.selftest.tiny import write_model, write_rows


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plan")
    write_model(path / "model")
    write_rows(path / "rows.jsonl", 30)
    return path


def words(workspace: Path, **changes: Any) -> list[str]:
    settings = {"model_name_or_path": workspace / "model", "dataset": workspace / "rows.jsonl", "output_dir": workspace / "out",
                "data_cache_dir": workspace / "cache", "per_device_train_batch_size": 5, "use_cpu": "true", **changes}
    return [f"{name}={value}" for name, value in settings.items()]


def planned(workspace: Path, capsys: pytest.CaptureFixture[str], *more: str, **changes: Any) -> dict[str, Any]:
    assert main(["plan", *words(workspace, **changes), "--json", *more]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_help_imports_nothing_heavy() -> None:
    code = ("import sys; from tunewright.cli import main; main(['plan', '--help']); "
            "sys.exit(any(name in sys.modules for name in ('torch', 'transformers', 'numpy', 'peft')))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("usage: tunewright plan CONFIG")


def test_the_table(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every line of it, numbers replaced."""
    assert main(["plan", *words(workspace)]) == 0
    lines = [re.sub(r"\d+(\.\d+)?(e-?\d+)?", "#", line) for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == "memory at its peak on the CPU, in GB:"
    assert [re.split(r"\s{2,}", line.strip())[0] for line in lines[1:-6]][-2:] == ["framework", "together"]
    assert lines[-6] == "available: # GB (of this #% may be planned for): it fits"
    assert lines[-5] == "gradient checkpointing off: # layers keep # GB for the backward pass; on: # GB"
    assert lines[-4] == "largest micro-batch: # rows, # positions, by the lengths of the first # rows"
    assert lines[-3] == "tokens per step: #"
    assert re.fullmatch(r"time: # (s|min|h) a step, # (s|min|h) for # steps", lines[-2])
    assert lines[-1] == ("largest safe micro-batch: # of the longest rows (per_device_train_batch_size: #), # tokens "
                         "(micro_batch_tokens: #)")


def test_components_add_up_and_nothing_is_written(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = planned(workspace, capsys)
    assert sum(found["components"].values()) == found["peak_bytes"]
    assert found["fits"] and found["layers"] == 2 and found["steps"] == 3 * 6
    assert not (workspace / "out").exists() and not (workspace / "cache").exists()


def test_cached_lengths_are_the_true_ones(workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Once `prepare` has made the tokens. Oracle: the lengths in the cache."""
    import numpy as np

    before = planned(workspace, capsys, data_cache_dir=tmp_path)
    assert main(["prepare", *words(workspace, data_cache_dir=tmp_path)]) == 0
    capsys.readouterr()
    after = planned(workspace, capsys, data_cache_dir=tmp_path)
    (offsets,) = (np.load(path) for path in tmp_path.glob("*/offsets.npy"))
    assert (before["rows"], after["rows"]) == ("the lengths of the first 30 rows", "the lengths of all 30 rows")
    assert after["tokens_per_step"] == round(offsets[-1] / 6)
    assert after["largest_batch"]["positions"] <= before["largest_batch"]["positions"] == sorted_sum(np.diff(offsets), 5)


def sorted_sum(lengths: Any, count: int) -> int:
    return int(sum(sorted(lengths)[-count:]))


def test_packed_sequences_are_full(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = planned(workspace, capsys, packing="true", cutoff_len=64, per_device_train_batch_size=2)
    assert found["largest_batch"] == {"rows": 2, "positions": 128}


def test_a_budget_of_tokens_bounds_the_largest_batch(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of 40 tokens, where five rows have more: fewer rows, no more positions than that, less memory, as many steps and tokens in each."""
    plain, found = planned(workspace, capsys), planned(workspace, capsys, micro_batch_tokens=40)
    assert found["largest_batch"]["positions"] <= 40 < plain["largest_batch"]["positions"]
    assert found["components"]["activations"] < plain["components"]["activations"]
    assert found["steps"] == plain["steps"]


def test_what_a_stream_may_not_have_is_not_suggested(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", *words(workspace, streaming="true", max_steps=3)]) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith("largest safe micro-batch: ") and line.endswith(" tokens")


def test_a_card_that_is_not_here(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = planned(workspace, capsys, "--card", "H100")
    assert (found["device"], found["available_bytes"]) == ("H100", 80 << 30)
    assert found["components"]["framework"] > 1 << 29  # CUDA's context
    assert main(["plan", *words(workspace), "--card", "Abacus"]) == 2
    assert capsys.readouterr().err.startswith("error: --card: 'Abacus' is not known; choose one of B200, H200, ")


def test_auto_is_planned_as_it_will_be(workspace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from tunewright.planning import machine

    assert not planned(workspace, capsys, gradient_checkpointing="auto")["gradient_checkpointing"]
    monkeypatch.setattr(machine, "free_bytes", lambda: 0)
    found = planned(workspace, capsys, gradient_checkpointing="auto")
    assert found["gradient_checkpointing"] and not found["fits"] and found["largest_safe"] is None
    assert found["activations_bytes"] < found["activations_bytes_otherwise"]


def test_the_largest_safe_batch_fits_and_a_larger_one_does_not(workspace: Path, capsys: pytest.CaptureFixture[str],
                                                              monkeypatch: pytest.MonkeyPatch) -> None:
    """The suggestion is planned for in turn, with 8 MB of memory; so is one of a tenth more rows."""
    from tunewright.planning import machine

    monkeypatch.setattr(machine, "resident_bytes", lambda: 0)
    monkeypatch.setattr(machine, "free_bytes", lambda: 8_000_000 + machine.OBJECTS_BYTES)
    safe = planned(workspace, capsys, disable_shuffling="true")["largest_safe"]["per_device_train_batch_size"]
    longest = max(len(line) for line in (workspace / "rows.jsonl").read_text().splitlines())
    same = [line for line in (workspace / "rows.jsonl").read_text().splitlines() if len(line) == longest][:1]
    (workspace / "alike.jsonl").write_text("\n".join(same) + "\n")
    fits = [planned(workspace, capsys, dataset=workspace / "alike.jsonl", per_device_train_batch_size=size)["fits"]
            for size in (int(safe * 0.9), int(safe * 1.3))]
    assert fits == [True, False]


@pytest.mark.parametrize(("name", "card"), [
    ("NVIDIA H100 80GB HBM3", "H100"), ("NVIDIA H100 PCIe", "H100 PCIe"), ("NVIDIA A100-SXM4-40GB", "A100-SXM4-40GB"),
    ("NVIDIA L40S", "L40S"), ("NVIDIA L4", "L4"), ("NVIDIA A10G", "A10G"), ("Tesla T4", "T4"), ("NVIDIA GeForce RTX 4090", "RTX 4090")])
def test_cards_are_known_by_their_drivers_names(name: str, card: str) -> None:
    assert card_of(name).name == card


def test_an_unknown_card_is_made_up_from_its_processors() -> None:
    found = card_of("Future 1", 100)
    assert (found.name, found.memory_gib) == ("Future 1", 0) and found.half_tflops == pytest.approx(160)
    assert of_card(found, 5).available == 5
    assert all(card.half_tflops >= card.single_tflops for card in CARDS)


def test_the_limit_of_a_container_counts(tmp_path: Path) -> None:
    """100 allowed, 70 used of which 20 are files: 50 are left."""
    (tmp_path / "memory.max").write_text("100\n")
    (tmp_path / "memory.current").write_text("70\n")
    (tmp_path / "memory.stat").write_text("anon 50\ninactive_file 20\n")
    assert _group_free(tmp_path) == 50
    (tmp_path / "memory.max").write_text("max\n")
    assert _group_free(tmp_path) is None
