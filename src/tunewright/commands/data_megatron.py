"""`tunewright data megatron`: documents to Megatron's .bin and .idx files."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tunewright.commands.own_options import take_options
from tunewright.errors import UsageError

USAGE = """usage: tunewright data megatron INPUT... --output PREFIX [--overwrite] [key=value ...] [--key value ...]

Tokenise documents and write them as PREFIX.bin and PREFIX.idx, which Megatron reads, and we with data_manager_type: mg. Each
document is closed by the tokenizer's end token. Either both files are complete at the end, or neither is there.

  INPUT        files, folders, patterns or registered names with documents, as `dataset` takes them in pre-training; they come first
  --output     what the two files are called, without .bin and .idx; rows that were left out or changed go to PREFIX.audit.jsonl
  --overwrite  replace files that are there

The tokenizer is that of model_name_or_path or tokenizer_name_or_path. Of the parameters this command reads also prompt_column (the
column of the documents), max_samples, preprocessing_num_workers, max_dropped_fraction and split_special_tokens.

  tunewright data megatron corpus/*.jsonl --output tokens/corpus --model_name_or_path models/qwen --preprocessing_num_workers 8
"""


@dataclass(frozen=True, slots=True)
class Wish:
    """What to read and where to write; `rest`: words of the configuration."""

    inputs: tuple[str, ...]
    prefix: Path
    is_overwriting: bool
    rest: tuple[str, ...]


def run(argv: list[str]) -> int:
    """Write the files. Returns the exit code."""
    if not argv or not {"-h", "--help"}.isdisjoint(argv):
        sys.stdout.write(USAGE)
        return 0 if argv else UsageError.exit_code
    wish = parse(argv)
    _demand_room(wish)
    from tunewright.commands.preflight import read_ready

    # Inputs as a JSON list: their names may hold commas.
    config = read_ready([*wish.rest, f"dataset={json.dumps(wish.inputs, ensure_ascii=False)}", "stage=pt"], "preview").config

    from tunewright.data.megatron.tokenised import write_documents
    from tunewright.models.load import quiet_transformers
    from tunewright.models.tokenizer import load_tokenizer

    quiet_transformers()
    tokenizer = load_tokenizer(config.model, config.tokenizer)
    written = write_documents(config, tokenizer, wish.prefix, lambda line: print(line, file=sys.stderr))
    audit = wish.prefix.with_name(wish.prefix.name + ".audit.jsonl")
    if any(one.notes for one in written.audit.sets):
        written.audit.write(audit)
    else:
        audit.unlink(missing_ok=True)
    print(f"{wish.prefix}: {written.documents} documents, {written.tokens} tokens of {written.dtype.name}, "
          f"{written.tokens / max(written.took_s, 1e-9):,.0f} tokens/s")
    return 0


def parse(argv: Sequence[str]) -> Wish:
    """The inputs, which come first, our own options, and the words that are left for the configuration."""
    begin = next((number for number, word in enumerate(argv) if word.startswith("--")), len(argv))
    inputs = tuple(argv[:begin])
    found, rest = take_options(argv[begin:], "data megatron", ("--output",), ("--overwrite",))
    output = found.get("--output")
    if output == "":
        raise UsageError("--output needs a value", mend="see tunewright data megatron --help")
    if not inputs:
        raise UsageError("no INPUT is named", mend="name the documents before the options, see tunewright data megatron --help")
    if output is None:
        raise UsageError("--output is missing", mend="say what the two files are called, without .bin and .idx")
    path = Path(os.path.expanduser(output))
    return Wish(inputs, path.with_suffix("") if path.suffix in (".bin", ".idx") else path, "--overwrite" in found, tuple(rest))


def _demand_room(wish: Wish) -> None:
    for ending in (".bin", ".idx"):
        path = wish.prefix.with_name(wish.prefix.name + ending)
        if path.exists() and not wish.is_overwriting:
            raise UsageError(f"--output: {path} is there already", mend="name another, or add --overwrite")
