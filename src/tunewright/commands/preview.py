"""`tunewright preview`: the tokens of rows, trained and not trained."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tunewright.commands.own_options import take_options
from tunewright.errors import StorageError, UsageError, require

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from tunewright.config.run import RunConfig
    from tunewright.data.examples import PreparedSet
    from tunewright.data.preview import Line

USAGE = """usage: tunewright preview CONFIG [--rows N|FIRST-LAST|N,M,...] [--set train|validation] [--ids] [--html FILE]
                          [key=value ...] [--key value ...]

Show the tokens of training rows as the model gets them: trained ones underlined and coloured (in ⟦ ⟧ without colour),
with the file and line each row came from, its segments and positions. Rows count from 0; `row=N` means `--rows N`.

  --rows   which rows (0-2 if not given)      --ids    one token in each line, with id and position
  --set    which set (train, else validation) --html   write a page instead
"""
_OF_A_STREAM = 1024
_WITH_VALUE = ("--rows", "--set", "--html")


@dataclass(frozen=True, slots=True)
class Wish:
    """What to show: rows as they were written, the name of the set, the page to write, and whether to list tokens."""

    rows: str | None = None
    chosen_set: str | None = None
    html: Path | None = None
    ids: bool = False


@dataclass(frozen=True, slots=True)
class Shown:
    """Rows of a set, the tokenizer that made them, and what the segments of a row are called, if they have names."""

    examples: PreparedSet
    rows: tuple[int, ...]
    tokenizer: PreTrainedTokenizerBase
    names: tuple[str, ...]


def run(argv: list[str]) -> int:
    """Show rows. Returns the exit code."""
    if not argv or not {"-h", "--help"}.isdisjoint(argv):
        sys.stdout.write(USAGE)
        return 0 if argv else 2
    from tunewright.commands.preflight import read_ready
    from tunewright.data.stage_layout import segment_names

    wish, rest = parse(argv)
    require(wish.html is None or wish.html.absolute().parent.is_dir(), f"--html: no folder {wish.html and wish.html.parent}",
            mend="make it, or name a file elsewhere")
    config = read_ready(rest, "preview").config
    examples, tokenizer = prepared_examples(config, wish.chosen_set)
    shown = Shown(examples, tuple(chosen_rows(wish.rows, len(examples))), tokenizer, segment_names(config.run.stage))
    if wish.html is not None:
        _write_page(shown, wish.html)
    else:
        _print(shown, ids=wish.ids)
    return 0


def parse(argv: Sequence[str]) -> tuple[Wish, list[str]]:
    """Our own options, and the words that are left for the configuration."""
    found, rest = take_options(argv, "preview", _WITH_VALUE, ("--ids",), _as_option)
    html = Path(os.path.expanduser(found["--html"])) if "--html" in found else None
    return Wish(found.get("--rows"), found.get("--set"), html, "--ids" in found), rest


def chosen_rows(written: str | None, total: int) -> list[int]:
    """The rows that `3`, `0-4` or `1,5,7` means, out of `total`; the first three if nothing is written.

    Raises `UsageError` if it cannot be read or names a row that is not there.
    """
    if total == 0:
        raise UsageError("the set has no rows to show")
    if written is None:
        return list(range(min(3, total)))
    rows: list[int] = []
    for part in written.split(","):
        first, _, last = part.partition("-")
        if not (first.isdecimal() and (last or first).isdecimal()):
            raise UsageError(f"--rows is {written!r}", mend="write a row, a range or a list: 3, 0-4 or 1,5,7")
        low, high = int(first), int(last or first)
        if high >= total or low > high:
            raise UsageError(f"--rows is {written!r}, but the rows are 0 to {total - 1}", mend="choose among them")
        rows += range(low, high + 1)
    return rows


def _as_option(word: str) -> str:
    """`row=3` and `rows=3` as they are meant."""
    name, given, value = word.partition("=")
    return f"--rows={value}" if given and name in ("row", "rows") else word


def prepared_examples(config: RunConfig, name: str | None) -> tuple[PreparedSet, PreTrainedTokenizerBase]:
    """The chosen set of the run, prepared as `train` prepares it, and the tokenizer."""
    from tunewright.adapters.vocabulary import own_tokenizer
    from tunewright.data.pipeline import build
    from tunewright.data.quirks import chosen as chosen_quirks
    from tunewright.data.templates import load_renderer
    from tunewright.models.load import quiet_transformers
    from tunewright.models.tokenizer import load_tokenizer

    quiet_transformers()
    tokenizer = load_tokenizer(own_tokenizer(config.model, config.tokenizer), config.tokenizer)
    renderer = None if config.run.stage == "pt" else load_renderer(config.template, tokenizer, chosen_quirks(config.data.data_compat))
    trains = replace(config, run=replace(config.run, do_train=bool(config.data.dataset)))
    prepared = build(trains, tokenizer, renderer, report=lambda line: print(line, file=sys.stderr))
    sets = {**({} if prepared.train is None else {"train": prepared.train}), **prepared.evaluation}
    from tunewright.data.streaming.stream import Stream

    chosen = name or next(iter(sets), "")
    if chosen not in sets:
        raise UsageError(f"--set is {name!r}", mend=f"the sets of this run are: {', '.join(sets) or 'none'}")
    examples = sets[chosen]
    return examples.head(_OF_A_STREAM) if isinstance(examples, Stream) else examples, tokenizer


def _write_page(shown: Shown, path: Path) -> None:
    from tunewright.data.preview import preview_html

    examples = [(shown.examples[row], shown.examples.origins(row)) for row in shown.rows]
    page = preview_html(examples, shown.tokenizer, "tunewright preview", shown.names)
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise StorageError(f"the page cannot be written: {error.strerror}", where=str(path)) from error
    print(path)


def _print(shown: Shown, *, ids: bool) -> None:
    from rich.console import Console

    from tunewright.data.preview import plain, preview_lines, token_lines

    lines = token_lines if ids else preview_lines
    console = Console(highlight=False, soft_wrap=True)
    in_colour = console.is_terminal and not os.environ.get("NO_COLOR")
    for row in shown.rows:
        for line in lines(shown.examples[row], shown.tokenizer, shown.examples.origins(row), shown.names):
            if in_colour:
                console.print(coloured(line))
            else:
                print(plain(line))
        print()


def coloured(line: Line) -> object:
    """The line as rich text: trained tokens green and underlined."""
    from rich.text import Text

    styles = {"trained": "green underline", "context": "dim", "note": "bold blue"}
    return Text.assemble(*((part.text, styles[part.kind]) for part in line))
