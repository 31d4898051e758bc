"""tunewright's preprocessing of one file, timed as `peer_llamafactory.py` times LLaMA-Factory's.

usage: own_preprocessing.py ROWS.jsonl MODEL WORKERS FOLDER  ->  one JSON line, and tokens.npz in FOLDER.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from pathlib import Path

import numpy as np

from tunewright.config.data import DataConfig, TemplateConfig
from tunewright.config.model import ModelConfig, TokenizerConfig
from tunewright.config.run import RunConfig
from tunewright.config.run_control import RunControl
from tunewright.data.examples import ExampleSet
from tunewright.data.pipeline import build
from tunewright.data.templates import load_renderer
from tunewright.models.tokenizer import load_tokenizer


def main(rows: str, model: str, workers: int, folder: Path) -> dict[str, object]:
    """Tokenise as a training run does; time counts from the moment the tokenizer and the template are ready."""
    tokenizer = load_tokenizer(ModelConfig(model_name_or_path=model), TokenizerConfig())
    renderer = load_renderer(TemplateConfig(template="chatml"), tokenizer)
    data = DataConfig(dataset=(rows,), cutoff_len=2048, preprocessing_num_workers=workers, data_cache_dir=str(folder / "cache"))
    run = RunConfig(run=RunControl(stage="sft", do_train=True), data=data)
    begin, cpu = time.perf_counter(), _cpu()
    made = build(run, tokenizer, renderer, report=lambda line: print(line, file=sys.stderr)).train
    seconds, cpu, peak, anonymous = time.perf_counter() - begin, _cpu() - cpu, _peak(resource.RUSAGE_SELF), _anonymous()
    assert isinstance(made, ExampleSet)
    store = made.stores[0]
    np.savez(folder / "tokens.npz", ids=store.input_ids, labels=store.labels, lengths=np.diff(store.offsets), rows=store.origins[:, 1])
    return {"seconds": seconds, "cpu": cpu, "rows": len(made), "rss_parent": peak, "rss_worker": _peak(resource.RUSAGE_CHILDREN),
            "tokens": len(store.input_ids), "trained": int((store.labels != -100).sum()), "anonymous_parent": anonymous}


def _cpu() -> float:
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


def _peak(who: int) -> float:
    return resource.getrusage(who).ru_maxrss / 1024


def _anonymous() -> float:
    """Megabytes of this process that are no mapped files, now."""
    lines = Path("/proc/self/status").read_text().splitlines() if Path("/proc/self/status").exists() else []
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon")), 0.0)


if __name__ == "__main__":
    result = main(sys.argv[1], sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]))
    print("RESULT " + json.dumps(result), flush=True)
