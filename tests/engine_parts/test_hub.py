"""Uploads to a hub on this machine: which files arrive, when, and what happens when the hub does not answer.

Oracle: what the server received, compared with the files of the run; which files belong to which strategy is transformers'
documented meaning of hub_strategy.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness.fake_hub import CANARY, reachable
from tunewright.commands.preflight import read_ready
from tunewright.commands.train import train
from tunewright.config.hub import HubConfig
from tunewright.dialects.read import read_config
from tunewright.engine.hub import Repository, Uploads, repository_name, uploading
from tunewright.engine.signals import stop_on_signals
from tunewright.errors import ConfigError, InputError, Interrupted
from tunewright.runtime import Ranks
from tunewright.selftest.hub import OWNER, Hub
from tunewright.selftest.workspace import Workspace, results


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return Workspace.make(tmp_path_factory.mktemp("hub"))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with reachable(monkeypatch) as found:
        yield found


def train_with(workspace: Workspace, output_dir: Path, **changes: Any) -> dict[str, float]:
    """A run of 12 steps with checkpoints after 3, 6, 9 and 12, read as the command line does."""
    words = [f"{name}={value}" for name, value in workspace.settings(output_dir, push_to_hub=True, **changes).items()]
    return train(read_ready(words, "train").config)


def model_names(directory: Path) -> set[str]:
    """The files of a checkpoint that plain peft and transformers read."""
    return {name for name in ("adapter_config.json", "adapter_model.safetensors", "tokenizer.json", "tokenizer_config.json",
                              "chat_template.jinja") if (directory / name).is_file()}


@pytest.mark.slow
@pytest.mark.effect("push_to_hub", "hub_private_repo")
def test_a_run_uploads_its_result_and_no_secret(hub: Hub, workspace: Workspace, tmp_path: Path, capfd: Any) -> None:
    """Weights, tokenizer, card and figures arrive as they are on this disk; state and rows do not. The token is in no file."""
    train_with(workspace, tmp_path / "my run", hub_strategy="end", hub_private_repo=False)
    ((name, _, files),) = hub.commits
    assert name == f"{OWNER}/my-run" and hub.repositories[name]["visibility"] == "public"
    assert set(files) >= {*model_names(tmp_path / "my run"), "README.md", "train_results.json", "all_results.json"}
    assert len(model_names(tmp_path / "my run")) == 5
    assert not any(word in place for place in files for word in ("optimizer", "state", "audit", "log", "checkpoint", "run.json"))
    assert files == {place: (tmp_path / "my run" / place).read_bytes() for place in files}
    assert hub.tokens == {f"Bearer {CANARY}"}
    everything = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()] + [*hub.content().values()]
    assert not any(CANARY.encode() in content for content in everything)
    assert CANARY not in "".join(capfd.readouterr())


@pytest.mark.slow
@pytest.mark.effect("hub_strategy")
@pytest.mark.parametrize(("strategy", "folders"), [
    ("every_save", set()), ("checkpoint", {"last-checkpoint"}),
    ("all_checkpoints", {"checkpoint-3", "checkpoint-6", "checkpoint-9", "checkpoint-12"})])
def test_strategies(hub: Hub, workspace: Workspace, tmp_path: Path, strategy: str, folders: set[str]) -> None:
    """Four saves and the end: five commits (always push, so that none is left out), with the checkpoints that the strategy says.

    A run that uploads and one that does not come to the same bits, and rotation has its way in the end.
    """
    train_with(workspace, tmp_path / "up", hub_strategy=strategy, hub_always_push=True)
    assert [message.split()[-1] for _, message, _ in hub.commits] == [
        "checkpoint-3", "checkpoint-6", "checkpoint-9", "checkpoint-12", "result"]
    assert all(set(files) >= model_names(tmp_path / "up") for _, _, files in hub.commits)
    assert {place.split("/")[0] for place in hub.content() if "/" in place} == folders
    for folder in folders:
        state = json.loads(hub.content()[f"{folder}/train_state.json"])
        assert state["global_step"] == (12 if folder == "last-checkpoint" else int(folder.split("-")[1]))
        assert f"{folder}/manifest.json" in hub.content()
    final = tmp_path / "up" / "adapter_model.safetensors"
    assert hub.content()["adapter_model.safetensors"] == final.read_bytes()
    words = [f"{name}={value}" for name, value in workspace.settings(tmp_path / "plain").items()]
    train(read_ready(words, "train").config)
    assert results(tmp_path / "up") == results(tmp_path / "plain")


@pytest.mark.slow
def test_a_hub_that_fails_does_not_end_a_run(hub: Hub, workspace: Workspace, tmp_path: Path, capfd: Any) -> None:
    """Every commit is answered with 500: the run ends well, its files are whole, and a warning says how to upload them by hand."""
    hub.failures = [500] * 1000
    train_with(workspace, tmp_path / "out", hub_strategy="end")
    assert (tmp_path / "out" / "adapter_model.safetensors").is_file() and hub.commits == []
    told = [line for line in capfd.readouterr().err.splitlines() if "was not uploaded" in line]
    assert len(told) == 1 and f"hf upload {OWNER}/out {tmp_path}/out" in told[0] and "500" in told[0]


def checkpoint(tmp_path: Path, step: int) -> Path:
    directory = tmp_path / f"checkpoint-{step}"
    directory.mkdir()
    (directory / "adapter_model.safetensors").write_bytes(bytes([step]))
    (directory / "optimizer.safetensors").write_bytes(b"state")
    return directory


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.effect("hub_always_push")
@pytest.mark.parametrize(("always", "expected"), [(False, [1, 3]), (True, [1, 2, 3])])
def test_a_save_while_an_upload_is_under_way(hub: Hub, tmp_path: Path, always: bool, expected: list[int]) -> None:
    """The hub keeps the first commit waiting: the second save is left out, or queued. What is read may not be deleted meanwhile."""
    hub.open.clear()
    words = [f"output_dir={tmp_path}", "push_to_hub=true", "hub_model_id=org/m", "hub_strategy=every_save", f"hub_always_push={always}"]
    with uploading(read_config(words).config, Ranks()) as found:
        assert found is not None
        found.saved(1, checkpoint(tmp_path, 1))
        assert found.in_use() == {1}
        found.saved(2, checkpoint(tmp_path, 2))
        assert found.in_use() == ({1, 2} if always else {1})
        hub.open.set()
        wait_until(lambda: not found.in_use())
        found.saved(3, checkpoint(tmp_path, 3))
        wait_until(lambda: not found.in_use())
    assert {name for name, _, _ in hub.commits} == {"org/m"}
    assert [files["adapter_model.safetensors"][0] for _, _, files in hub.commits] == expected
    assert hub.places() == [["adapter_model.safetensors"]] * len(expected)


def test_the_end_uploads_a_checkpoint_that_was_left_out(hub: Hub, tmp_path: Path) -> None:
    """`last-checkpoint` is the last one, even if its turn came while the hub was busy."""
    hub.open.clear()
    found = Uploads(Repository("org/m", is_private=True), "checkpoint", always=False)
    found.saved(1, checkpoint(tmp_path, 1))
    found.saved(2, checkpoint(tmp_path, 2))
    (tmp_path / "README.md").write_text("# card")
    hub.open.set()
    found.finish(tmp_path)
    assert hub.content()["last-checkpoint/adapter_model.safetensors"] == bytes([2])
    assert hub.content()["last-checkpoint/optimizer.safetensors"] == b"state" and hub.content()["README.md"] == b"# card"


def test_a_signal_ends_the_wait(hub: Hub, tmp_path: Path) -> None:
    """Nobody who asks a finished run to stop waits for a slow hub."""
    hub.open.clear()
    found = Uploads(Repository("org/m", is_private=True), "end", always=False)
    started = time.monotonic()
    with pytest.raises(Interrupted, match="stopped by SIGINT after training"), stop_on_signals() as stop:
        stop.end_at_once("after training")
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
        found.finish(checkpoint(tmp_path, 1))
    assert time.monotonic() - started < 5 and hub.commits == []
    hub.open.set()
    wait_until(lambda: len(hub.commits) == 1)


@pytest.mark.parametrize(("failures", "attempts", "arrives"), [([500, 503], 3, True), ([500, 500, 500], 3, False), ([403], 1, False)])
def test_attempts(hub: Hub, tmp_path: Path, failures: list[int], attempts: int, arrives: bool) -> None:
    """Three attempts; a denial is not asked again."""
    hub.failures = list(failures)
    failure = Repository("org/m", is_private=True, waits_s=(0.0, 0.0)).commit({"a": _file(tmp_path)}, "m")
    assert (hub.attempts, len(hub.commits), failure is None) == (attempts, int(arrives), arrives)


def _file(tmp_path: Path) -> Path:
    (tmp_path / "a").write_text("x")
    return tmp_path / "a"


@pytest.mark.parametrize("code", [401, 403])
def test_a_denied_repository_is_known_before_training(hub: Hub, workspace: Workspace, tmp_path: Path, code: int) -> None:
    hub.creation_status = code
    with pytest.raises(InputError, match="denies access to"):
        train_with(workspace, tmp_path / "out")
    assert not list(tmp_path.glob("out/checkpoint-*"))


def test_offline_or_without_a_token_is_known_before_training(
    hub: Hub, workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The command line names the setting; nothing is written."""
    from huggingface_hub import constants

    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(ConfigError, match=r"push_to_hub: there is no token for the hub; set HF_TOKEN, or log in once"):
        train_with(workspace, tmp_path / "out")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match=r"push_to_hub: the hub is out of reach, because HF_HUB_OFFLINE is set; unset it"):
        train_with(workspace, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.effect("hub_model_id")
@pytest.mark.parametrize(("given", "expected"), [
    (None, "my-run"), ("name", "name"), ("team/name", "team/name"), ("team/", "team/my-run")])
def test_names(hub: Hub, given: str | None, expected: str) -> None:
    """What the run leaves out is the last part of output_dir and, at the hub, the owner of the token."""
    assert repository_name(HubConfig(hub_model_id=given), "/tmp/x/my run") == expected
    repository = Repository(repository_name(HubConfig(hub_model_id=given), "/tmp/x/my run"), is_private=True)
    repository.open()
    assert repository.name == (expected if "/" in expected else f"{OWNER}/{expected}")
    assert hub.repositories[repository.name]["visibility"] == "private"


@pytest.mark.parametrize(("words", "expected"), [
    (["--push_to_hub_organization", "team"], "team/out"), (["--push_to_hub_model_id", "m"], "m"),
    (["--push_to_hub_organization", "team", "--push_to_hub_model_id", "m"], "team/m"),
    (["--push_to_hub_organization", "team", "--hub_model_id", "own/m"], None), (["--hub_model_id", "own/m"], "own/m")])
def test_names_of_llamafactory(words: list[str], expected: str | None) -> None:
    """transformers 4.44: the organisation is the owner of what push_to_hub_model_id, or else output_dir, names."""
    given = ["--output_dir", "some/out", *words]
    if expected is None:
        with pytest.raises(ConfigError, match="contradicts"):
            read_config(given, dialect="llamafactory")
        return
    assert read_config(given, dialect="llamafactory").config.hub.hub_model_id == expected
