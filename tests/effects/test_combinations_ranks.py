"""Options that meet in one run, on two ranks and killed in the middle: the same bits as the run that nothing interrupted.

Oracle: that run. One case for each room that keeps a position or draws random numbers; streams are in `tests.engine.test_stream_runs`.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tunewright.data.megatron.writer import IndexedWriter
from tunewright.selftest.killing import KILLED, Case, Server, server
from tunewright.selftest.settling import copied, go_on, states
from tunewright.selftest.workspace import Workspace, results

pytestmark = pytest.mark.slow

PREPARED = "prepared sets that the killed run made"
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
    PREPARED: {
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
def kill_server() -> Server:
    return server()


def chosen(workspace: Workspace, out: Path, name: str, **more: Any) -> dict[str, str]:
    filled = {key: value.format(path=workspace.path, out=out) if isinstance(value, str) else value for key, value in CASES[name].items()}
    return workspace.settings(out, save_steps=2, **filled, **more)


def run(kill_server: Server, settings: dict[str, str], stop_after: int | None = None) -> None:
    outcome = kill_server.run(Case("train_on_two_ranks", {"settings": settings, "stop_after": stop_after}, settings["output_dir"]))
    assert outcome.code == (0 if stop_after is None else KILLED), outcome.output


@pytest.mark.parametrize("name", [name for name in CASES if name != PREPARED])
def test_two_ranks_go_on_where_they_were(kill_server: Server, workspace: Workspace, tmp_path: Path, name: str) -> None:
    """From what a kill inside step 6 leaves, or inside step 4 where there are no more."""
    settings = chosen(workspace, tmp_path / "run", name)
    copied(kill_server, "train_on_two_ranks", settings, tmp_path / "copies", 0, (3, 5))
    expected, audit = results(tmp_path / "run"), (tmp_path / "run" / "data_audit.json").read_bytes()
    assert go_on(kill_server, "train_on_two_ranks", settings, list(states(tmp_path / "copies").values())[-1]) == expected
    assert (tmp_path / "run" / "data_audit.json").read_bytes() == audit


def test_two_ranks_that_are_killed_go_on_where_they_were(kill_server: Server, workspace: Workspace, tmp_path: Path) -> None:
    """With prepared sets that the killed run made."""
    settings = {one: chosen(workspace, tmp_path / one, PREPARED, ddp_timeout=10) for one in ("straight", "killed")}
    run(kill_server, settings["straight"])
    run(kill_server, settings["killed"], stop_after=3)
    run(kill_server, settings["killed"])
    assert results(tmp_path / "killed") == results(tmp_path / "straight")
    audits = [(tmp_path / one / "data_audit.json").read_bytes() for one in ("straight", "killed")]
    assert audits[0] == audits[1]
