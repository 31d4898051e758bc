"""`tunewright convert`: a configuration in another vocabulary, with a report of what changed."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tunewright.errors import ConfigError, InputError, UsageError, refuse

if TYPE_CHECKING:
    from tunewright.dialects.dialect import Written
    from tunewright.dialects.read import Reading
    from tunewright.dialects.report import Line, Translation

USAGE = """usage: tunewright convert FILE.. [key=value ...] [--from NAME] --to NAME [-o OUT] [--strict] [--cards N]

Write the same run in another vocabulary: every setting under its name there, and every default that differs there made
explicit.

  --from    native, llamafactory, cli_reference, sft_json, qlora_script, mindspeed_fsdp2, axolotl or trl; recognised without
  --to      one of the first six, or megatron: the flags of its command line
  -o OUT    a new file: .yaml or .json, or .sh for a script with one command; without it, standard output
  --strict  exit code 2 if the target cannot say everything
  --cards   for megatron: the number of cards, from which the global batch follows (1)

The report on stderr has one line for each parameter: exact, renamed, value mapped, default made explicit, or no equivalent
and what that changes; its last line counts what has no equivalent.
"""


@dataclass(frozen=True, slots=True)
class _Wanted:
    """The options of the command, and what is left: files and settings."""

    source: str | None
    target: str
    output: Path | None
    is_strict: bool
    cards: int
    rest: tuple[str, ...]


def run(argv: list[str]) -> int:
    """Convert, report on stderr, and return 0; 2 with --strict where something has no equivalent."""
    if not argv or argv[0] in ("-h", "--help"):
        sys.stdout.write(USAGE)
        return 0 if argv else UsageError.exit_code
    wanted = _wanted(argv)
    reading, written, before = _read(wanted)
    translation = _translated(wanted, reading, written)
    report = (*before, *translation.report)
    text = _text(wanted, translation)
    sys.stderr.write("".join(f"note: {note}\n" for note in reading.notes) + "".join(f"{line.text()}\n" for line in report))
    if wanted.output is None:
        sys.stdout.write(text)
    else:
        wanted.output.write_text(text, encoding="utf-8")
    lost = sum(line.is_lost for line in report)
    sys.stderr.write(_last_line(wanted, lost))
    return InputError.exit_code if lost and wanted.is_strict else 0


def _last_line(wanted: _Wanted, lost: int) -> str:
    where = f"{wanted.output}: " if wanted.output else ""
    if lost == 0:
        return f"{where}everything has an equivalent in {wanted.target}\n"
    return f"{where}{lost} {'setting has' if lost == 1 else 'settings have'} no equivalent in {wanted.target}\n"


def _wanted(argv: Sequence[str]) -> _Wanted:
    from tunewright.dialects.foreign import FOREIGN
    from tunewright.dialects.known import READABLE, get_dialect

    rest = list(argv)
    source, target = _option(rest, "--from"), _option(rest, "--to")
    output = _option(rest, "-o") or _option(rest, "--output")
    cards = _option(rest, "--cards")
    is_strict = "--strict" in rest
    if target is None:
        raise UsageError("convert needs a target", mend=f"add --to and one of {', '.join(READABLE)}, megatron")
    if target in FOREIGN:
        raise UsageError(f"--to {target}: files of {FOREIGN[target].title} are read, not written",
                         mend=f"choose one of {', '.join(READABLE)}, megatron")
    if target != "megatron":
        target = _target(target)
    if source is not None and source not in FOREIGN:
        source = get_dialect(source, where="--from").name
    if cards is not None and not cards.isdigit():
        raise UsageError(f"--cards {cards}: not a number", mend="write --cards 8")
    if output is not None and Path(output).exists():
        refuse("exists already, and convert overwrites nothing", where=output, mend="name another file")
    words = tuple(word for word in rest if word != "--strict")
    return _Wanted(source, target, Path(output) if output else None, is_strict, int(cards or 1), words)


def _target(word: str) -> str:
    from tunewright.config.spelling import nearest
    from tunewright.dialects.known import READABLE, get_dialect

    if nearest(word, (*READABLE, "megatron"), 1) == ["megatron"]:
        raise UsageError(f"--to: '{word}' is not a vocabulary", mend="did you mean megatron?")
    return get_dialect(word, where="--to").name


def _read(wanted: _Wanted) -> tuple[Reading, list[Written], tuple[Line, ...]]:
    """The run, what it was made from, and what was lost on the way from the file of another program."""
    from tunewright.dialects.arguments import parse_arguments
    from tunewright.dialects.document import read_document
    from tunewright.dialects.foreign import FOREIGN, recognised
    from tunewright.dialects.read import read_config, written_in

    arguments = parse_arguments(wanted.rest)
    documents = [read_document(path) for path in arguments.files if Path(path).exists()]
    source = wanted.source or (recognised(documents[0].values) if documents and arguments.dialect is None else None)
    if source is not None and source in FOREIGN:
        return _read_foreign(wanted, source)
    reading = read_config(wanted.rest, dialect=source)
    return reading, [*(one for document in documents for one in written_in(document)), *arguments.written], ()


def _read_foreign(wanted: _Wanted, source: str) -> tuple[Reading, list[Written], tuple[Line, ...]]:
    from tunewright.dialects.arguments import parse_arguments
    from tunewright.dialects.document import read_document
    from tunewright.dialects.foreign import understand
    from tunewright.dialects.read import examine_written

    arguments = parse_arguments(wanted.rest)
    if len(arguments.files) != 1:
        raise UsageError(f"a conversion from {source} takes one file, not {len(arguments.files)}")
    understood = understand(read_document(arguments.files[0]), source)
    examined = examine_written(understood.settings, arguments.written, place=arguments.files[0])
    if examined.problems:
        raise ConfigError(list(examined.problems))
    return examined.reading, [*understood.originals, *arguments.written], understood.report


def _translated(wanted: _Wanted, reading: Reading, written: Sequence[Written]) -> Translation:
    if wanted.target == "megatron":
        from tunewright.dialects.megatron import to_flags

        return to_flags(reading, wanted.cards)
    from tunewright.dialects.data_path import parted
    from tunewright.dialects.translate import translate

    return parted(translate(reading, wanted.target, written), reading)


def _text(wanted: _Wanted, translation: Translation) -> str:
    from tunewright.dialects import shapes

    if wanted.target != "megatron":
        return shapes.to_text(translation, suffix=wanted.output.suffix if wanted.output else shapes.usual_suffix(wanted.target))
    from tunewright.dialects.megatron import to_text

    return to_text(translation, suffix=wanted.output.suffix if wanted.output else "")


def _option(words: list[str], name: str) -> str | None:
    """Take `name VALUE` or `name=VALUE` out of the words."""
    for position, word in enumerate(words):
        if word == name:
            if position + 1 >= len(words):
                raise UsageError(f"{name}: a value is missing", mend=f"write {name} VALUE")
            del words[position]
            return words.pop(position)
        if word.startswith(f"{name}="):
            return words.pop(position).partition("=")[2]
    return None
