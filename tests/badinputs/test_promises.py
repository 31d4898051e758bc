"""What holds for every bad input: soon, without torch, without a weight read, without a traceback. Measured in processes of their own."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

from tests.badinputs.workspace import copy_workspace
from tunewright.selftest.bad_case import NATIVE, written
from tunewright.selftest.bad_files import ADAPTER, DATA, MODEL, OUTPUT, TEMPLATE
from tunewright.selftest.bad_settings import WRONG

LIMIT_S = 2.0
"""CPU seconds in which a bad input must be answered."""

PROGRAM = """
import contextlib, io, json, os, sys
from tunewright.cli import main
opened = []
sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" and "safetensors" in str(args[0]) else None)
answers = []
for folder, words in json.load(sys.stdin):
    os.chdir(folder)
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        code = main(words)
    answers.append([code, said.getvalue()])
heavy = [name for name in ("torch", "transformers", "peft", "accelerate", "datasets", "numpy") if name in sys.modules]
json.dump({"answers": answers, "heavy": heavy}, sys.stdout)
"""


def _environment() -> dict[str, str]:
    searched = os.pathsep.join(path for path in sys.path if path)
    return {**os.environ, "PYTHONPATH": searched, "OMP_NUM_THREADS": "1"}


def test_no_torch_for_any_of_them(original: Path, tmp_path: Path) -> None:
    """Every wrong setting and every damaged file, for `train`: exit code 2, no traceback, and at the end no heavy package is loaded."""
    asked = []
    for number, one in enumerate([*DATA, *MODEL, *ADAPTER, *TEMPLATE, *OUTPUT]):
        folder = copy_workspace(original, tmp_path / str(number))
        (folder / "c.yaml").write_text(written(NATIVE, one.settings))
        if one.spoil is not None:
            with contextlib.chdir(folder):
                one.spoil(folder)
        asked.append((str(folder), ["train", "c.yaml"]))
    ready = copy_workspace(original, tmp_path / "ready")
    for number, wrong in enumerate(WRONG):
        (ready / f"{number}.yaml").write_text(written(NATIVE, {wrong.key: wrong.value}))
        asked.append((str(ready), ["train", f"{number}.yaml"]))
    ended = subprocess.run([sys.executable, "-c", PROGRAM], input=json.dumps(asked), capture_output=True, text=True, check=True,
                           env=_environment())
    found = json.loads(ended.stdout)
    wrong_codes = [(words, answer) for (_, words), answer in zip(asked, found["answers"], strict=True) if answer[0] != 2]
    assert wrong_codes == []
    assert len(found["answers"]) > 100
    assert not [said for _, said in found["answers"] if "Traceback" in said or not said.startswith("error: ")]
    assert found["heavy"] == []


def test_time(original: Path, tmp_path: Path) -> None:
    """A process of its own for each: start, imports and answer together take less than two CPU seconds, for `check` and `train`."""
    folder = copy_workspace(original, tmp_path / "here")
    (folder / "c.yaml").write_text(written(NATIVE, {"lora_target": "q_porj", "learnig_rate": "1", "eval_dataset": "gone.jsonl"}))
    for verb in ("check", "train"):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        ended = subprocess.run([sys.executable, "-m", "tunewright", verb, "c.yaml"], cwd=folder, capture_output=True, text=True,
            check=False,
                               env=_environment())
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert ended.returncode == 2
        assert [line.partition(";")[0] for line in ended.stderr.splitlines()] == [
            "error: c.yaml:7: lora_target: 'q_porj' matches no module of this model", "error: c.yaml:8: learnig_rate: unknown key",
            "error: c.yaml:9: eval_dataset: `gone.jsonl` is not a name in data/dataset_info.json, a file or a folder"]
        assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < LIMIT_S


def test_no_room_is_told_before_training(original: Path, tmp_path: Path) -> None:
    """Full tuning of a model with 10^12 weights (a sparse file, so that only its size is real) needs more than any disk here has."""
    folder = copy_workspace(original, tmp_path / "here")
    numbers = 10**12
    header = json.dumps({"model.embed_tokens.weight": {"dtype": "F32", "shape": [10**6, 10**6], "data_offsets": [0, 4 * numbers]}}).encode()
    weights = folder / "model" / "model.safetensors"
    weights.write_bytes(len(header).to_bytes(8, "little") + header)
    os.truncate(weights, 8 + len(header) + 4 * numbers)
    (folder / "c.yaml").write_text(written(NATIVE, {"finetuning_type": "full"}))
    ended = subprocess.run([sys.executable, "-m", "tunewright", "check", "c.yaml"], cwd=folder, capture_output=True, text=True, check=False,
                           env=_environment())
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: c.yaml:3: output_dir: two checkpoints need about 24000.0 GB, out has ")
    assert ended.stderr.endswith(" GB left; free some space, or name another directory\n")
    assert not (folder / "out").exists()
