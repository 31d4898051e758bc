"""LLaMA-Factory's preprocessing of one file, timed; run by its own Python, which has llamafactory 0.9.5 and nothing of ours.

usage: peer_llamafactory.py ROWS.jsonl MODEL WORKERS FOLDER  ->  one JSON line, and tokens.npz in FOLDER.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np


def main(rows: str, model: str, workers: int, folder: Path) -> dict[str, object]:
    """Tokenise as a training run does; time counts from the moment the tokenizer and the template are ready."""
    _without_sound()
    from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
    from llamafactory.hparams import get_train_args
    from llamafactory.model import load_tokenizer

    columns = {"prompt": "instruction", "query": "input", "response": "output", "history": "history"}
    (folder / "dataset_info.json").write_text(json.dumps({"rows": {"file_name": rows, "columns": columns}}))
    model_args, data_args, training_args, _, _ = get_train_args({
        "model_name_or_path": model, "stage": "sft", "do_train": True, "finetuning_type": "lora", "dataset": "rows",
        "dataset_dir": str(folder), "template": "chatml", "cutoff_len": 2048, "preprocessing_num_workers": workers,
        "output_dir": str(folder / "out"), "overwrite_cache": True, "report_to": "none", "use_cpu": True, "bf16": False})
    tokenizer_module = load_tokenizer(model_args)
    template = get_template_and_fix_tokenizer(tokenizer_module["tokenizer"], data_args)
    begin, cpu = time.perf_counter(), _cpu()
    made = get_dataset(template, model_args, data_args, training_args, stage="sft", **tokenizer_module)["train_dataset"]
    seconds, cpu, peak = time.perf_counter() - begin, _cpu() - cpu, _peak(resource.RUSAGE_SELF)
    ids, labels = (_flat(made.data.column(name)) for name in ("input_ids", "labels"))
    lengths = np.fromiter(map(len, made["input_ids"]), np.int64)
    np.savez(folder / "tokens.npz", ids=ids, labels=labels, lengths=lengths, rows=np.arange(len(made)))
    return {"seconds": seconds, "cpu": cpu, "rows": len(made), "rss_parent": peak, "rss_worker": _peak(resource.RUSAGE_CHILDREN),
            "tokens": len(ids), "trained": int((labels != -100).sum())}


def _flat(column: Any) -> np.ndarray:
    """All numbers of a column of lists."""
    return np.concatenate([chunk.flatten().to_numpy() for chunk in column.chunks]).astype(np.int32)


def _without_sound() -> None:
    """LLaMA-Factory imports torchaudio at its start, whose builds do not fit every build of torch; text needs nothing of it."""
    try:
        import torchaudio  # noqa: F401
    except (ImportError, OSError, RuntimeError):
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchaudio"]:
            del sys.modules[name]
        stub = ModuleType("torchaudio")
        stub.__spec__ = ModuleSpec("torchaudio", None)
        sys.modules["torchaudio"] = stub


def _cpu() -> float:
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


def _peak(who: int) -> float:
    return resource.getrusage(who).ru_maxrss / 1024


if __name__ == "__main__":
    result = main(sys.argv[1], sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]))
    print("RESULT " + json.dumps(result), flush=True)
