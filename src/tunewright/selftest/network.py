"""Local work opens no socket: audited by Python, in a namespace without a network, and counted by the kernel's own calls."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from tunewright.selftest.check import Check, Outcome, Size, Tools
from tunewright.selftest.forked import Ended, commands
from tunewright.selftest.tiny import CHATML, write_model, write_rows

AUDITED, CUT_OFF, TRACED = "audited by Python", "without a network", "system calls"
WITHOUT_NETWORK: Final = ("unshare", "--user", "--map-root-user", "--net")
_ONLINE: Final = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")
"""Nothing here may depend on being told that there is no network."""


def groups(size: Size) -> Sequence[str]:
    """What this machine can do: namespaces may be refused, strace may be missing."""
    may_cut = shutil.which("unshare") is not None and _succeeds([*WITHOUT_NETWORK, "true"])
    may_trace = size is Size.FULL and shutil.which("strace") is not None and _succeeds(["strace", "-o", os.devnull, "true"])
    return (AUDITED, *([CUT_OFF] if may_cut and size is Size.FULL else []), *([TRACED] if may_trace else []))


def run(group: str, size: Size, tools: Tools) -> Iterator[Outcome]:
    """Each command of `lines`, and the imports that it needs."""
    folder = ready(tools.folder / group.replace(" ", "-"))
    if group == TRACED:
        yield from _traced(folder)
        return
    prefix = WITHOUT_NETWORK if group == CUT_OFF else ()
    with commands(LINES["train"], folder, local_environment(folder), prefix) as process:
        yield _judged(group, "imports of a run", process.imports)
        yield from (_judged(group, name, process.run(words, folder, said="Hello\nexit\n")) for name, words in lines())


def ready(folder: Path) -> Path:
    """A folder with a model, rows, a template and a configuration."""
    folder.mkdir(parents=True)
    write_model(folder / "model")
    write_rows(folder / "rows.jsonl", 8)
    (folder / "chat.jinja").write_text(CHATML)
    settings = {"model_name_or_path": "model", "dataset": "rows.jsonl", "use_cpu": True, "max_steps": 2, "save_steps": 1, "lora_rank": 2,
                "output_dir": "out", "data_cache_dir": "cache", "per_device_train_batch_size": 2, "max_new_tokens": 4}
    (folder / "run.json").write_text(json.dumps(settings))
    return folder


LINES: Final[Mapping[str, Sequence[str]]] = {
    "train": ["train", "run.json"],
    "check": ["check", "run.json", "output_dir=other"],
    "plan": ["plan", "run.json", "output_dir=other"],
    "prepare": ["prepare", "run.json", "cutoff_len=64"],
    "preview": ["preview", "run.json"],
    "train, evaluated, all of it": ["train", "run.json", "output_dir=full", "finetuning_type=full", "val_size=2", "eval_strategy=steps",
                                    "eval_steps=1", "do_predict=true", "template=chat.jinja"],
    "eval": ["eval", "run.json", "eval_dataset=rows.jsonl", "output_dir=evaluated"],
    "predict": ["predict", "run.json", "eval_dataset=rows.jsonl", "output_dir=predicted", "adapter_name_or_path=out"],
    "export": ["export", "out", "export_dir=merged"],
    "chat": ["chat", "merged", "max_new_tokens=4", "use_cpu=true"],
    "template list": ["template", "list"],
    "template check": ["template", "check", "--model", "model"],
    "data check": ["data", "check", "rows.jsonl"],
    "env": ["env"],
}
"""What works on local files, in an order in which each finds what it needs."""


def lines() -> Iterator[tuple[str, Sequence[str]]]:
    """Name and words of each command: the local work, and the help of every verb."""
    from tunewright.commands.verbs import COMMANDS

    yield from LINES.items()
    yield from ((f"{verb} --help", [verb, "--help"]) for verb in COMMANDS.names())


def local_environment(folder: Path, **more: str) -> dict[str, str]:
    """This process's environment with a home directory of its own, and nothing that forbids a network."""
    home = folder / "home"
    home.mkdir(exist_ok=True)
    kept = {name: value for name, value in os.environ.items() if name not in _ONLINE and not name.startswith(("HF_", "XDG_"))}
    return {**kept, "HOME": str(home), "PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "OMP_NUM_THREADS": "1",
            "TOKENIZERS_PARALLELISM": "false", "MPLBACKEND": "Agg", **more}


def _judged(group: str, case: str, ended: Ended) -> Outcome:
    if ended.network:
        return Outcome(group, case, False, f"{len(ended.network)} network events: {ended.network[0]}")
    return Outcome(group, case, ended.code == 0, "" if ended.code == 0 else f"exit code {ended.code}: {ended.last_line()}")


def _traced(folder: Path) -> Iterator[Outcome]:
    """Whole processes under strace: sockets of IP that the kernel was asked for, by whichever library."""
    for name, words in LINES.items():
        log = folder / "trace.txt"
        ended = subprocess.run(
            ["strace", "--follow-forks", "--seccomp-bpf", "-e", "trace=socket,connect", "-o", str(log), sys.executable, "-m", "tunewright",
             *words], cwd=folder, env=local_environment(folder), input="Hello\nexit\n", capture_output=True, text=True, check=False)
        asked = [line for line in log.read_text().splitlines() if "AF_INET" in line]
        said = f"{len(asked)} calls: {asked[0][:200]}" if asked else f"exit code {ended.returncode}: {ended.stderr.strip()[-200:]}"
        passed = not asked and ended.returncode == 0
        yield Outcome(TRACED, name, passed, "" if passed else said)


def _succeeds(words: Sequence[str]) -> bool:
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


CHECK: Final = Check(
    "network", "Import, help, check, plan, prepare, train, predict, chat and export on local files open no network socket.", 82, groups,
    run)
