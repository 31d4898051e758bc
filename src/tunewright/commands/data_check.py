"""`tunewright data check`: everything that looks wrong with the rows of data sets, as lines, JSON and a page."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tunewright.commands.own_options import take_options
from tunewright.errors import ConfigError, StorageError, UsageError, require

if TYPE_CHECKING:
    from tunewright.config.run import RunConfig
    from tunewright.data.doctor.examine import Tokens
    from tunewright.data.doctor.report import DoctorReport

USAGE: Final = """usage: tunewright data check CONFIG|DATA... [key=value ...] [--html FILE] [--json FILE] [--audit FILE]
                             [--rows-only] [--first N] [--fewest-trained N]

Read every row of the data sets of a configuration, or of files, folders and registered names, and report what looks wrong:
rows that are dropped, cut or changed and why; duplicates, also across training and evaluation sets; roles; labels; control
tokens, lost characters and keys in texts; lengths. With a model or a tokenizer (model_name_or_path, tokenizer_name_or_path)
tokens are counted as a run would train them. DATA with a CONFIG stands in place of its training sets.

  --html   write a page with histograms          --rows-only       look at rows alone, open no tokenizer
  --json   write everything as JSON              --fewest-trained  report rows with fewer trained tokens (4 if not given)
  --audit  write one JSON line for every row that is dropped or changed, as a run's data_audit.jsonl
  --first  look at the first N rows of each set (all if not given, but 100000 of one that is trained as a stream)

Megatron's files (data_manager_type=mg) hold tokens: their documents, lengths, the parts of split, and what ends them are reported.

Exit code 2 means that a run would be refused: rows cannot be read, or more of them than max_dropped_fraction are dropped.
"""
_WITH_VALUE: Final = ("--html", "--json", "--audit", "--fewest-trained", "--first")
_FEWEST: Final = "4"
_CONFIG_ENDINGS: Final = (".yaml", ".yml")


@dataclass(frozen=True, slots=True)
class Wish:
    """Where to write what, how few trained tokens are too few, whether to leave tokens alone, and how many rows to look at."""

    html: Path | None
    json: Path | None
    audit: Path | None
    fewest: int
    rows_only: bool
    first: int | None


def run(argv: list[str]) -> int:
    """Examine, print, write, and return 0; what would stop a run is raised as one ConfigError."""
    if not argv or argv[0] in ("-h", "--help"):
        sys.stdout.write(USAGE)
        return 0 if argv else UsageError.exit_code
    wish, words = parse(argv)
    settings, named = sorted_words(words)
    report = _examined(_config(settings, named), wish)
    from tunewright.data.marks import visible

    sys.stdout.write("".join(f"{visible(line)}\n" for line in report.lines()))
    _write(report, wish)
    if report.problems:
        raise ConfigError([replace(one, message=visible(one.message), rule=None) for one in report.problems])
    return 0


def parse(argv: Sequence[str]) -> tuple[Wish, list[str]]:
    """Our own options, and the words that are left. Options may be written with underscores."""
    found, rest = take_options(argv, "data check", _WITH_VALUE, ("--rows-only",), _with_hyphens)
    html, as_json, audit = (_target(found.get(name), name) for name in _WITH_VALUE[:3])
    fewest = found.get("--fewest-trained", _FEWEST)
    require(fewest.isdecimal(), f"--fewest-trained is {fewest!r}", mend="write a whole number")
    first = found.get("--first")
    require(first is None or (first.isdecimal() and int(first) > 0), f"--first is {first!r}", mend="write a whole number from 1 on")
    return Wish(html, as_json, audit, int(fewest), "--rows-only" in found, None if first is None else int(first)), rest


def sorted_words(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words for the configuration, and the names of data sets among them."""
    from tunewright.dialects.arguments import parse_arguments

    files = parse_arguments(words).files
    data = [word for word in files if not _is_config(word)]
    left = list(words)
    for word in data:
        left.remove(word)
    return left, data


def _is_config(word: str) -> bool:
    """Whether a file is a configuration: by its ending, and a .json file by being one object that is no row of any format."""
    path = Path(word)
    if path.suffix.lower() in _CONFIG_ENDINGS:
        return True
    if path.suffix.lower() != ".json" or not path.is_file() or path.stat().st_size > 1 << 20:
        return False
    from tunewright.data.formats.convert import detect

    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return False
    return isinstance(found, dict) and detect(found) is None


def _config(settings: list[str], named: list[str]) -> RunConfig:
    """The configuration, with the data sets that are named on the command line in place of its training sets."""
    from tunewright.data.doctor.examine import stage_of
    from tunewright.dialects.read import examine

    examined = examine(settings)
    if examined.problems:
        raise ConfigError(list(examined.problems))
    reading = examined.reading.resolve()
    for note in reading.notes:
        _say(f"note: {note}")
    run = reading.config
    if named:
        run = replace(run, data=replace(run.data, dataset=tuple(named)))
    if not (run.data.dataset or run.data.eval_dataset):
        raise UsageError("no data set is named", mend="give files, folders or names, or a configuration with dataset")
    if named and run.data.data_manager_type == "lf" and "stage" not in reading.given:
        run = replace(run, run=replace(run.run, stage=stage_of(named[0], run)))
    return run


def _examined(run: RunConfig, wish: Wish) -> DoctorReport:
    from tunewright.data.doctor.examine import Plan, examine

    if run.data.data_manager_type == "mg":
        return _examined_tokens(run, wish)
    tokens = None if wish.rows_only else _tokens(run)
    with _audit_lines(wish.audit) as write:
        return examine(Plan(run, tokens, wish.fewest, write, _say, wish.first))


def _examined_tokens(run: RunConfig, wish: Wish) -> DoctorReport:
    """Megatron's files; with a tokenizer, its vocabulary and its end-of-text token too."""
    from tunewright.data.doctor.token_files import Vocabulary, examine_token_files

    require(wish.first is None, "--first: Megatron's files are never read whole anyhow", mend="remove it, or set max_samples")
    vocabulary = None
    if not wish.rows_only and (run.model.model_name_or_path or run.tokenizer.tokenizer_name_or_path):
        from tunewright.models.load import quiet_transformers
        from tunewright.models.tokenizer import load_tokenizer

        quiet_transformers()
        tokenizer = load_tokenizer(run.model, run.tokenizer)
        vocabulary = Vocabulary(len(tokenizer), tokenizer.eos_token_id)
    with _audit_lines(wish.audit) as write:
        return examine_token_files(run, vocabulary, wish.fewest, write, _say)


def _tokens(run: RunConfig) -> Tokens | None:
    """The encoder of the run, or None if it names neither a model nor a tokenizer."""
    if not (run.model.model_name_or_path or run.tokenizer.tokenizer_name_or_path):
        _say("rows only: tokens are counted where model_name_or_path or tokenizer_name_or_path is given")
        return None
    from tunewright.data.control_tokens import control_tokens
    from tunewright.data.doctor.examine import Tokens
    from tunewright.data.quirks import chosen
    from tunewright.data.row_encoder import row_encoder
    from tunewright.data.templates import load_renderer
    from tunewright.models.load import quiet_transformers
    from tunewright.models.tokenizer import load_tokenizer

    quiet_transformers()
    tokenizer = load_tokenizer(run.model, run.tokenizer)
    renderer = None if run.run.stage == "pt" else load_renderer(run.template, tokenizer, chosen(run.data.data_compat))
    literals = renderer.control if renderer is not None else control_tokens(tokenizer, "")
    return Tokens(row_encoder(run, tokenizer, renderer), tuple(literals))


@contextmanager
def _audit_lines(path: Path | None) -> Iterator[Callable[[str], object]]:
    """Somewhere to write lines to."""
    if path is None:
        yield lambda _: None
        return
    try:
        with path.open("w", encoding="utf-8") as file:
            yield file.write
    except OSError as error:
        raise _not_written(path, error) from error


def _write(report: DoctorReport, wish: Wish) -> None:
    if wish.json is not None:
        _put(wish.json, json.dumps(report.to_json(), ensure_ascii=False, indent=1) + "\n")
    if wish.html is not None:
        from tunewright.data.doctor.page import page

        _put(wish.html, page(report))
    for path in (wish.html, wish.json, wish.audit):
        if path is not None:
            print(path)


def _put(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise _not_written(path, error) from error


def _not_written(path: Path, error: OSError) -> StorageError:
    return StorageError(f"cannot be written: {error.strerror}", where=str(path))


def _target(written: str | None, name: str) -> Path | None:
    if written is None:
        return None
    path = Path(os.path.expanduser(written))
    require(path.absolute().parent.is_dir(), f"{name}: no folder {path.parent}", mend="make it, or name a file elsewhere")
    return path


def _with_hyphens(word: str) -> str:
    """One of our own options written with underscores, with hyphens; any other word as it is."""
    name, given, value = word.partition("=")
    ours = name.replace("_", "-")
    return f"{ours}{given}{value}" if ours in (*_WITH_VALUE, "--rows-only") else word


def _say(line: str) -> None:
    print(line, file=sys.stderr)
