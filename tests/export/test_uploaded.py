"""Exported models that go to a hub, and models that a training run merges at its end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.export.test_merge import base_at, export_run, trained
from tests.harness.fake_hub import reachable
from tests.models.tiny import probe_logits
from tunewright.cli import main
from tunewright.commands.preflight import read_ready
from tunewright.commands.train import train
from tunewright.config.hub import HubConfig
from tunewright.errors import ConfigError, InputError, LostRankError
from tunewright.export import merge
from tunewright.selftest.hub import OWNER, Hub
from tunewright.selftest.workspace import Workspace


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with reachable(monkeypatch) as found:
        yield found


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return Workspace.make(tmp_path_factory.mktemp("merged"))


def test_hub_config_is_private_unless_said_otherwise() -> None:
    assert HubConfig().hub_private_repo is True


@pytest.mark.effect("export_hub_model_id")
@pytest.mark.parametrize(("dialect", "visibility"), [("native", "private"), ("llamafactory", "public")])
def test_the_exported_model_is_uploaded_whole(hub: Hub, tmp_path: Path, dialect: str, visibility: str) -> None:
    """Every file of the export, byte for byte, in one commit; without the parameter nothing is sent."""
    _, directory = trained(tmp_path, base_at(tmp_path / "base"))
    merge.export(export_run(directory, tmp_path / "plain"))
    assert hub.commits == [] and hub.repositories == {}
    words = ["export", "--dialect", dialect, "--model", str(directory), "--out", str(tmp_path / "out"), "--export_hub_model_id", "m"]
    assert main(words) == 0
    ((name, _, files),) = hub.commits
    assert name == f"{OWNER}/m" and hub.repositories[name]["visibility"] == visibility
    assert files == {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert {"model.safetensors", "config.json", "tokenizer.json"} <= set(files)


def test_an_upload_that_fails_leaves_the_exported_model(hub: Hub, tmp_path: Path) -> None:
    _, directory = trained(tmp_path, base_at(tmp_path / "base"))
    hub.failures = [500] * 1000
    with pytest.raises(LostRankError, match=rf"was not uploaded: .*500.*; hf upload {OWNER}/m {tmp_path}/out"):
        merge.export(export_run(directory, tmp_path / "out", export_hub_model_id="m"))
    assert (tmp_path / "out" / "model.safetensors").is_file()


def test_a_denied_repository_is_known_before_the_merge(hub: Hub, tmp_path: Path) -> None:
    hub.creation_status = 403
    _, directory = trained(tmp_path, base_at(tmp_path / "base"))
    with pytest.raises(InputError, match="denies access"):
        merge.export(export_run(directory, tmp_path / "out", export_hub_model_id="m"))
    assert not (tmp_path / "out").exists()


def run(workspace: Workspace, output_dir: Path, **changes: Any) -> None:
    words = [f"{name}={value}" for name, value in workspace.settings(output_dir, max_steps=4, **changes).items()]
    train(read_ready(words, "train").config)


@pytest.mark.slow
@pytest.mark.effect("merge_lora_and_save")
@pytest.mark.parametrize("named", [False, True])
def test_a_run_merges_its_adapter_at_the_end(workspace: Workspace, tmp_path: Path, named: bool) -> None:
    """Oracle: peft's own merge of the saved adapter. Without export_dir it goes to `merged`; without the switch nothing is merged."""
    from peft import PeftModel

    target = tmp_path / "elsewhere" if named else tmp_path / "out" / "merged"
    run(workspace, tmp_path / "out", merge_lora_and_save=True, **({"export_dir": target} if named else {}))
    base = AutoModelForCausalLM.from_pretrained(workspace.path / "model")
    expected = probe_logits(PeftModel.from_pretrained(base, tmp_path / "out").merge_and_unload())
    torch.testing.assert_close(probe_logits(AutoModelForCausalLM.from_pretrained(target)), expected, rtol=1e-4, atol=1e-4)
    untrained = probe_logits(AutoModelForCausalLM.from_pretrained(workspace.path / "model"))
    assert (probe_logits(AutoModelForCausalLM.from_pretrained(target)) - untrained).abs().max() > 1e-3
    assert not (target / "adapter_config.json").exists()
    with pytest.raises(ConfigError, match="which is not empty"):
        run(workspace, tmp_path / "out", merge_lora_and_save=True, **({"export_dir": target} if named else {}))
    if not named:
        run(workspace, tmp_path / "out", merge_lora_and_save=True, overwrite_output_dir=True)
        assert (target / "model.safetensors").is_file()
    run(workspace, tmp_path / "plain")
    assert not (tmp_path / "plain" / "merged").exists()
