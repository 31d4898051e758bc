"""Options that meet in one run, on two ranks and killed in the middle: the same bits as the run that nothing interrupted.

Oracle: that run. One case for each room that keeps a position or draws random numbers; streams are in `tests.engine.test_stream_runs`.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.engine.resuming import Workspace, results
from tests.harness.killing import KILLED, Case, Server, server
from tunewright.data.megatron.writer import IndexedWriter

pytestmark = pytest.mark.slow

CASES: dict[str, dict[str, Any]] = {
    "rows by length, accumulated, in pieces, packed": {
        "group_by_length": True, "gradient_accumulation_steps": 2, "cutoff_policy": "split", "cutoff_len": 32, "packing": True,
        "per_device_train_batch_size": 1, "val_size": 3, "eval_strategy": "epoch", "lora_dropout": 0.2},
    "a blend of token files with a part held out": {
        "stage": "pt", "data_manager_type": "mg", "dataset": "0.3,{path}/a,0.7,{path}/b", "split": "99,1,0", "cutoff_len": 64,
        "max_steps": 12, "eval_strategy": "steps", "eval_steps": 5, "gradient_accumulation_steps": 2, "lora_dropout": 0.1},
    "new tokens that begin at their descriptions": {
        "add_tokens": "<step>", "new_special_tokens_config": "{path}/tokens.json", "init_special_tokens": "desc_init_w_noise",
        "resize_vocab": True, "mix_strategy": "interleave_over", "interleave_probs": "0.8,0.2",
        "dataset": "{path}/rows.jsonl,{path}/held_out.jsonl"},
    "prepared sets that the killed run made": {
        "tokenized_path": "{out}.tokens", "packing": True, "cutoff_len": 64, "per_device_train_batch_size": 1},
}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    made = Workspace.make(tmp_path_factory.mktemp("combinations"))
    chance = random.Random(0)
    for name, count in (("a", 100), ("b", 60)):
        with IndexedWriter(made.path / name, np.dtype("uint16")) as writer:
            for _ in range(count):
                writer.add([chance.randrange(3, 300) for _ in range(chance.randint(2, 60))])
    (made.path / "tokens.json").write_text(json.dumps({"<tool>": "kettle lantern"}))
    return made


@pytest.fixture(scope="module")
def kill_server() -> Iterator[Server]:
    with server() as running:
        yield running


def run(kill_server: Server, workspace: Workspace, out: Path, changes: dict[str, Any], stop_after: int | None = None) -> None:
    filled = {name: value.format(path=workspace.path, out=out) if isinstance(value, str) else value for name, value in changes.items()}
    chosen = workspace.settings(out, ddp_timeout=10, save_steps=2, **filled)
    outcome = kill_server.run(Case("train_on_two_ranks", {"settings": chosen, "stop_after": stop_after}, chosen["output_dir"]))
    assert outcome.code == (0 if stop_after is None else KILLED), outcome.output


@pytest.mark.parametrize("name", CASES)
def test_two_ranks_go_on_where_they_were(kill_server: Server, workspace: Workspace, tmp_path: Path, name: str) -> None:
    run(kill_server, workspace, tmp_path / "straight", CASES[name])
    expected = results(tmp_path / "straight")
    at = random.Random(name).randrange(2, expected["state"]["global_step"])
    run(kill_server, workspace, tmp_path / "killed", CASES[name], stop_after=at)
    run(kill_server, workspace, tmp_path / "killed", CASES[name])
    assert results(tmp_path / "killed") == expected
    audits = [(tmp_path / one / "data_audit.json").read_bytes() for one in ("straight", "killed")]
    assert audits[0] == audits[1]
