"""Bad input ends with exit code 2 and one line that names place and key, what is wrong and what to do: soon, with nothing written.

Each case spoils one thing of a run that is ready, and says by hand what the answer is. The commands run in forked children of a process
that has imported what `tunewright check` of a good run imports: neither torch nor transformers, and no case may import them. Some
mistakes show only once a tokenizer is open, or are found by what resumes a run; their process has imported those packages before.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from tunewright.selftest.bad_case import LLAMAFACTORY, NATIVE, Case, case, written
from tunewright.selftest.bad_files import ADAPTER, DATA, MODEL, OUTPUT, TEMPLATE
from tunewright.selftest.bad_lines import MISTAKES, OPENED, READY
from tunewright.selftest.bad_runs import CASES, SETTINGS
from tunewright.selftest.bad_settings import WRONG, Wrong, expected
from tunewright.selftest.check import Check, Outcome, Size, Tools
from tunewright.selftest.forked import HEAVY, Commands, Ended, commands
from tunewright.selftest.network import local_environment
from tunewright.selftest.tiny import write_model, write_rows

LIMIT_S: Final = 2.0
"""CPU seconds in which an answer must come."""
FILE, WORDS, FILES, LINES, RUNS = "settings in a file", "settings among words", "damaged files", "mistakes of new users", "runs in the way"
_SAMPLED: Final = {FILE: 16, WORDS: 16, FILES: 12, LINES: 6, RUNS: 1}
"""Of so many cases one is in the sample."""

_QUOTES: Final = "\"'"

Asked = tuple[str, Case, Mapping[str, str]]
"""Name, case, and the files that are written first."""


def groups(size: Size) -> Sequence[str]:
    """By what is wrong; the last one trains a run first, which is not for a sample."""
    return tuple(_SAMPLED) if size is Size.FULL else tuple(_SAMPLED)[:-1]


def cases(group: str) -> Iterator[Asked]:
    """The cases of a group; `words` of each are the whole command line."""
    if group == FILE:
        for wrong in WRONG:
            yield from _in_files(wrong)
    elif group == WORDS:
        for wrong in WRONG:
            yield from _among_words(wrong)
    elif group == FILES:
        for one in (*DATA, *MODEL, *ADAPTER, *TEMPLATE, *OUTPUT):
            yield one.name, replace(one, words=("train", "c.yaml", *one.words)), {"c.yaml": written(NATIVE, one.settings)}
    elif group == LINES:
        for name, mistake in MISTAKES.items():
            yield name, Case(name, mistake.expected, {}, tuple(mistake.words.split()), mistake.spoil, mistake.code), {"c.yaml": READY}
    else:
        for one in CASES:
            yield one.name, replace(one, words=("train", "c.yaml")), {"c.yaml": written(SETTINGS, one.settings)}


def _in_files(wrong: Wrong) -> Iterator[Asked]:
    """YAML in two vocabularies, and JSON."""
    import yaml

    values = {key: yaml.safe_load(value) for key, value in {**NATIVE, wrong.key: wrong.value}.items()}
    texts = {"YAML": ("c.yaml", written(NATIVE, {wrong.key: wrong.value})),
             "LLaMA-Factory's": ("c.yaml", written(LLAMAFACTORY, {wrong.key: wrong.value})),
             "JSON": ("c.json", json.dumps(values, indent=1))}
    for form, (name, text) in texts.items():
        line = 1 + next(number for number, row in enumerate(text.splitlines()) if re.match(rf'\s*"?{wrong.key}"?:', row))
        one = case(wrong.key, expected(f"{name}:{line}", wrong.key, wrong))
        yield f"{wrong.key}={wrong.value[:24]}, {form}", replace(one, words=("train", name)), {name: text}


def _among_words(wrong: Wrong) -> Iterator[Asked]:
    """Up to three forms of the command line, each with the name as it was typed there."""
    names = dict.fromkeys((wrong.key, f"--{wrong.key}", f"--{wrong.key.replace('_', '-')}"))
    for word in (f"{name}={wrong.value.strip(_QUOTES)}" for name in names):
        typed = word.partition("=")[0]
        one = case(wrong.key, expected("command line", typed, wrong._replace(key=typed)))
        yield word[:60], replace(one, words=("check", "c.yaml", word)), {"c.yaml": READY}


def run(group: str, size: Size, tools: Tools) -> Iterator[Outcome]:
    """The group's cases, or one of some."""
    base = tools.folder / "base"
    base.mkdir()
    write_model(base / "model")
    write_rows(base / "rows.jsonl", 8)
    asked = [one for number, one in enumerate(cases(group)) if size is Size.FULL or number % _SAMPLED[group] == 0]
    environment = local_environment(tools.folder, HF_HUB_OFFLINE="1")
    if group == RUNS:
        _finished(base, environment)
    for is_late in (False, True):
        chosen = [one for one in asked if (group == RUNS or one[0] in OPENED) is is_late]
        if chosen:
            (base / "c.yaml").write_text(READY)
            with commands(("check", "c.yaml", "output_dir=other"), base, environment, packages=HEAVY if is_late else ()) as process:
                for number, one in enumerate(chosen):
                    yield judged(group, process, one, base, tools.folder / f"{is_late}-{number}")


def _finished(base: Path, environment: Mapping[str, str]) -> None:
    """The run that lies in the way."""
    (base / "c.yaml").write_text(written(SETTINGS, {}))
    with commands((), base, environment) as process:
        ended = process.run(("train", "c.yaml"), base)
    if ended.code:
        raise RuntimeError(f"the run could not be trained: {ended.last_line()}")


def judged(group: str, process: Commands, asked: Asked, base: Path, folder: Path) -> Outcome:
    """One command in a copy of the folder."""
    name, one, files = asked
    shutil.copytree(base, folder)
    for file, content in files.items():
        (folder / file).write_text(content)
    if one.spoil is not None:
        one.spoil(folder)
    before = _tree(folder)
    ended = process.run(one.words, folder)
    faults = (*faults_of(ended, one), *(["a file was written"] if _tree(folder) != before else []))
    shutil.rmtree(folder)
    return Outcome(group, name, not faults, next(iter(faults), ""))


def faults_of(ended: Ended, one: Case) -> Iterator[str]:
    """What is not as it must be in a command's answer."""
    lines = [line for line in ended.err.splitlines() if line.startswith("error")]
    if "Traceback" in ended.err or "internal error" in ended.err:
        yield f"a traceback: {ended.last_line()}"
    if ended.code != one.code:
        yield f"exit code {ended.code}: {ended.last_line()}"
    patterns = ["error: " + ".*".join(re.escape(part.strip()) for part in wanted.split(" ... ")) for wanted in one.expected]
    if len(lines) != len(patterns) or not all(re.match(pattern, line) for pattern, line in zip(patterns, lines, strict=True)):
        yield f"said {lines[:1]} instead of {one.expected[:1]}"
    if ended.cpu_s >= LIMIT_S:
        yield f"{ended.cpu_s:.1f} s of CPU"
    if any("/torch/__init__" in path for path in ended.opened):
        yield "torch was imported"


def _tree(folder: Path) -> Mapping[str, str]:
    """Every path below the folder, with its size, and a digest where it is small; the lock of a run is not looked at."""
    found = {}
    for path in folder.rglob("*"):
        if path.name != ".tunewright.lock":
            size = path.lstat().st_size
            is_small = path.is_file() and size < 10**7
            found[str(path.relative_to(folder))] = f"{size} {hashlib.sha256(path.read_bytes()).hexdigest() if is_small else ''}"
    return found


CHECK: Final = Check(
    "bad-input", "Bad input ends with exit code 2 and one line that names the place, what is wrong and what to do: within 2 CPU seconds, "
    "with nothing written, and before torch is imported unless a tokenizer or a checkpoint must be opened to see it.", 413, groups, run)
