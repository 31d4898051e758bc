"""Secrets of the environment and of token files are in nothing that a command writes, prints, uploads or hands to a process in words.

Every secret variable holds a canary. After each command the canary is looked for, plain and in the encodings in which programs hide a
text without meaning to, in all files that it could write - its folder, its home with every cache -, in both streams, in what a hub
received, and in the words of the processes that it started.
"""

from __future__ import annotations

import base64
import binascii
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from tunewright.config.environment import VARIABLES
from tunewright.selftest.check import Check, Outcome, Size, Tools
from tunewright.selftest.forked import Ended, commands
from tunewright.selftest.hub import Hub, listening
from tunewright.selftest.network import local_environment, ready

CORE: Final = "Qx7CanaryThatSings9Zk"
"""What all canaries share; long enough for its inner letters to be found in base64, whatever stands before them."""
COMMON: Final = ("HUGGING_FACE_HUB_TOKEN", "OPENAI_API_KEY", "ANTHROPIC_API_KEY", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN",
                 "GITHUB_TOKEN", "SWANLAB_API_KEY", "MODELSCOPE_API_TOKEN", "COMET_API_KEY", "DATABASE_URL", "SSH_PRIVATE_KEY")
"""Secrets of others that lie in many environments."""
ONE_PROCESS, UPLOADS, RANKS = "one process", "uploads", "two ranks"
_PUSHED: Final = ["push_to_hub=true", "hub_strategy=checkpoint"]
LINES: Final[Mapping[str, Sequence[str]]] = {
    "train": ["train", "run.json"],
    "train with everything": ["train", "run.json", "output_dir=full", "finetuning_type=full", "val_size=2", "eval_strategy=steps",
                              "eval_steps=1", "do_predict=true", "template=chat.jinja", "report_to=console"],
    "train with TensorBoard": ["train", "run.json", "output_dir=board", "report_to=tensorboard"],
    "eval": ["eval", "run.json", "eval_dataset=rows.jsonl", "output_dir=evaluated"],
    "predict": ["predict", "run.json", "eval_dataset=rows.jsonl", "output_dir=predicted", "adapter_name_or_path=out"],
    "export": ["export", "out", "export_dir=merged"],
    "chat": ["chat", "merged", "max_new_tokens=4", "use_cpu=true"],
    "prepare": ["prepare", "run.json", "cutoff_len=64"],
    "preview": ["preview", "run.json"],
    "plan": ["plan", "run.json", "output_dir=other"],
    "check": ["check", "run.json", "output_dir=other"],
    "data check": ["data", "check", "rows.jsonl"],
    "template check": ["template", "check", "--model", "model"],
    "convert": ["convert", "run.json", "--to", "llamafactory"],
    "explain": ["explain", "run.json"],
    "env": ["env"],
}
FAILING: Final[Mapping[str, Sequence[str]]] = {
    "no such model, told in full": ["train", "run.json", "output_dir=other", "model_name_or_path=./gone", "--debug"],
    "no such data, told in full": ["train", "run.json", "output_dir=other", "dataset=gone.jsonl", "--debug"],
    "a hub that has not the model": ["train", "run.json", "output_dir=other", "model_name_or_path=someone/gone", "--debug"],
    "a hub that has not the data": ["prepare", "run.json", "dataset=someone/gone", "--debug"],
    "an adapter that is none": ["predict", "run.json", "eval_dataset=rows.jsonl", "adapter_name_or_path=model", "--debug"],
    "a secret among the words": ["train", "run.json", f"hub_token={CORE}1", "--debug"],
    "a secret behind a switch": ["train", "run.json", "--hf_hub_token", f"{CORE}2"],
    "a secret in a file": ["train", "secret.yaml", "--debug"],
    "a secret in a file, checked": ["check", "secret.yaml"],
    "a secret in a file, converted": ["convert", "secret.yaml", "--to", "llamafactory"],
}
"""What ends with an error; the last ones are given a canary where it does not belong, and must not repeat it."""


def groups(size: Size) -> Sequence[str]:
    """Two ranks take time to start."""
    return (ONE_PROCESS, UPLOADS, RANKS) if size is Size.FULL else (ONE_PROCESS,)


def run(group: str, size: Size, tools: Tools) -> Iterator[Outcome]:
    """Each command, with canaries in its environment."""
    folder = ready(tools.folder / group.replace(" ", "-"))
    with listening() as hub:
        environment = local_environment(folder, **canaries(), HF_ENDPOINT=hub.endpoint, NO_PROXY="127.0.0.1")
        if group == RANKS:
            yield from _ranks(folder, environment)
        elif group == UPLOADS:
            yield from _uploads(folder, environment, hub)
        else:
            yield from _one_process(folder, environment, hub)


def canaries() -> dict[str, str]:
    """A canary for every variable that we call a secret, and for those that others have."""
    names = [*(one.name for one in VARIABLES if one.secret), *COMMON]
    return {name: f"hf_{CORE}{number:02}" for number, name in enumerate(names)}


def forms() -> dict[str, bytes]:
    """The canary's core as it may stand in a file: name of the encoding -> bytes that it must have."""
    plain = CORE.encode()
    found = {"plain": plain, "reversed": plain[::-1], "UTF-16": CORE.encode("utf-16-le"), "UTF-32": CORE.encode("utf-32-le"),
             "hexadecimal": binascii.hexlify(plain), "capital hexadecimal": binascii.hexlify(plain).upper()}
    for shift in range(3):
        # Of a text whose beginning is not known, the groups of three bytes that lie wholly inside.
        inner = base64.b64encode(plain[shift: shift + (len(plain) - shift) // 3 * 3])
        found[f"base64 {shift}"] = inner
        found[f"base64 for addresses {shift}"] = inner.replace(b"+", b"-").replace(b"/", b"_")
    return found


def hidden(content: bytes) -> list[str]:
    """The encodings in which `content` holds a canary."""
    return [name for name, form in forms().items() if form in content]


def found_in(folder: Path, since: float = 0.0) -> list[str]:
    """The files below `folder`, written since then, that hold a canary in their bytes or in their name."""
    told = []
    for path in sorted(folder.rglob("*")):
        if CORE in path.name:
            told.append(f"{path.relative_to(folder)}: its name")
        if path.is_file() and path.stat().st_mtime >= since and path.name != "secret.yaml":
            told += [f"{path.relative_to(folder)}: {form}" for form in hidden(path.read_bytes())]
    return told


def _one_process(folder: Path, environment: Mapping[str, str], hub: Hub) -> Iterator[Outcome]:
    (folder / "secret.yaml").write_text(f"model_name_or_path: model\ndataset: rows.jsonl\nhf_hub_token: {CORE}3\napi_key: {CORE}4\n")
    lines = {name: words for name, words in LINES.items() if "TensorBoard" not in name or find_spec("tensorboard")}
    with commands(["train", "run.json", "output_dir=first"], folder, environment) as process:
        for name, words in lines.items():
            yield _judged(ONE_PROCESS, name, process.run(words, folder, said="Hello\nexit\n"), folder, hub, fails=False)
        for name, words in FAILING.items():
            yield _judged(ONE_PROCESS, name, process.run(words, folder), folder, hub, fails=True)


def _uploads(folder: Path, environment: Mapping[str, str], hub: Hub) -> Iterator[Outcome]:
    """With the token of the environment, and with that of `hf auth login`."""
    lines = {"an adapter": ["train", "run.json", *_PUSHED], "a model": ["train", "run.json", "finetuning_type=full", *_PUSHED]}
    token = f"hf_{CORE}file"
    (folder / "home" / ".cache" / "huggingface").mkdir(parents=True)
    file = folder / "home" / ".cache" / "huggingface" / "token"
    plain = {name: value for name, value in environment.items() if name not in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")}
    for source, given in (("environment", dict(environment)), ("file", plain)):
        if source == "file":
            file.write_text(token)
        wanted = f"Bearer {token if source == 'file' else environment['HF_TOKEN']}"
        with commands((), folder, given) as process:
            for name, words in lines.items():
                hub.tokens.clear()
                ended = process.run([*words, f"output_dir={source}-{name.replace(' ', '-')}"], folder)
                if source == "file":
                    file.unlink()
                outcome = _judged(UPLOADS, f"{name}, token from the {source}", ended, folder, hub, fails=False)
                if source == "file":
                    file.write_text(token)
                used = outcome.passed and wanted not in hub.tokens
                yield Outcome(UPLOADS, outcome.case, False, "the token was not used: the case shows nothing") if used else outcome


def _ranks(folder: Path, environment: Mapping[str, str]) -> Iterator[Outcome]:
    """The words of every process while two ranks train; then files and streams."""
    started = subprocess.Popen([sys.executable, "-m", "tunewright", "train", "run.json", "num_processes=2"], cwd=folder,
                               env=dict(environment), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    seen: set[bytes] = set()
    while started.poll() is None:
        seen |= set(_words_of_processes(folder))
        time.sleep(0.2)
    said = started.stdout.read() if started.stdout is not None else b""
    told = {"files": found_in(folder), "streams": hidden(said), "words": sorted({form for words in seen for form in hidden(words)})}
    for where, found in told.items():
        passed = not found and started.returncode == 0 and len(seen) >= 3
        yield Outcome(RANKS, where, passed, "" if passed else f"{found[:1] or said[-200:]!r}, {len(seen)} processes")


def _words_of_processes(folder: Path) -> Iterator[bytes]:
    """The words of each process whose working directory is `folder`."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").resolve() == folder.resolve():
                yield process.name.encode() + b" " + (process / "cmdline").read_bytes()
        except OSError:
            continue  # It has ended, or belongs to somebody else.


def _judged(group: str, case: str, ended: Ended, folder: Path, hub: Hub, *, fails: bool) -> Outcome:
    """What one command left, said and sent."""
    told = [*found_in(folder), *(f"streams: {form}" for form in hidden(f"{ended.out}\0{ended.err}".encode())),
            *(f"uploaded: {form}" for content in (*hub.files(), *hub.bodies) for form in hidden(content))]
    if not told and ended.code != (2 if fails else 0):
        told = [f"exit code {ended.code}: {ended.last_line()}"]
    return Outcome(group, case, not told, next(iter(told), ""))


CHECK: Final = Check("secrets", "No token is written, printed, uploaded or handed on in the words of a process.", 33, groups, run)
