"""The benchmark of training on a GPU, where there is none: it says so, and it runs on a CPU."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.gpu_measured import section

ROOT = Path(__file__).resolve().parents[2]


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(ROOT / "benchmarks" / "gpu_training.py"), "--folder", str(folder), *words],
                          capture_output=True, text=True, check=False)


def test_without_a_gpu_it_says_so(tmp_path: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    found = run(tmp_path)
    assert found.returncode == 2 and found.stdout == "" and found.stderr.startswith("error: no NVIDIA GPU is at hand")


def test_it_runs_on_a_cpu(tmp_path: Path) -> None:
    """Two steps of two rows of 192 tokens are timed."""
    found = run(tmp_path, "--quick", "--tunings", "lora", "--sides", "tunewright")
    assert found.returncode == 0, found.stderr
    (side,) = [line for line in map(json.loads, (tmp_path / "quick.jsonl").read_text().splitlines()) if line["what"] == "side"]
    assert side["tokens_per_s"] == pytest.approx(2 * 2 * 192 / side["wall"]) and len(side["losses"]) == 6 and side["gpu_mb"] is None


def test_the_page_shows_medians_and_failures(tmp_path: Path) -> None:
    lines = [{"run": "1", "what": "machine", "card": {"name": "H200", "tflops": 989}},
             *({"run": "1", "what": "side", "shape": "1b", "tuning": "full", "side": "tunewright", "batch": 64, "tokens_per_s": speed,
                "share": 0.5, "gpu_mb": 100} for speed in (10.0, 30.0)),
             {"run": "1", "what": "side", "shape": "1b", "tuning": "full", "side": "trainer-liger", "batch": 64, "failure": "no liger"}]
    (tmp_path / "gpu.jsonl").write_text("\n".join(map(json.dumps, lines)))
    page = section(tmp_path / "gpu.jsonl")
    assert "| tunewright | 20 (10 to 30) | 50 % | 100 |" in page
    assert "| plain Trainer + peft + Liger | failed: no liger | | |" in page and "target: 50 % of the peak" in page


def test_the_page_says_that_nothing_is_measured(tmp_path: Path) -> None:
    assert "Not measured: no GPU was at hand." in section(tmp_path / "gpu.jsonl")
