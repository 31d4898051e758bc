"""`tunewright prepare`: the data sets of a run to tokens, for runs that come later."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tunewright.config.run import RunConfig

USAGE = """usage: tunewright prepare CONFIG [key=value ...] [--key value ...]

Tokenise all data sets of a configuration, for training and for evaluation, and print what became of their rows. The tokens lie in
tokenized_path if it is set, else in the cache (data_cache_dir), where `train` finds them. No weights of the model are read, and
output_dir is not needed. Stopped, it goes on from there when it is run again.
"""


def run(argv: Sequence[str]) -> int:
    """Tokenise. Returns the exit code."""
    if not argv or not {"-h", "--help"}.isdisjoint(argv):
        sys.stdout.write(USAGE)
        return 0 if argv else 2
    from tunewright.commands.preflight import read_ready
    from tunewright.errors import require

    config = read_ready(argv, "preview").config
    require(config.data.tokenized_path is not None or config.data.data_cache_dir != "none",
            "data_cache_dir is none, and tokenized_path is absent", mend="set one of them to the folder for the tokens")
    require(config.data.data_manager_type != "mg", "data_manager_type is mg, whose files hold tokens already",
            mend="train on them as they are")
    require(not config.data.streaming, "streaming is on, which makes tokens as they are needed", mend="set streaming: false")
    _prepare(config)
    return 0


def _prepare(config: RunConfig) -> None:
    from tunewright.adapters.vocabulary import own_tokenizer
    from tunewright.data.pipeline import build
    from tunewright.data.quirks import chosen
    from tunewright.data.templates import load_renderer
    from tunewright.models.load import quiet_transformers
    from tunewright.models.tokenizer import load_tokenizer

    quiet_transformers()
    tokenizer = load_tokenizer(own_tokenizer(config.model, config.tokenizer), config.tokenizer)
    renderer = None if config.run.stage == "pt" else load_renderer(config.template, tokenizer, chosen(config.data.data_compat))
    both = replace(config, run=replace(config.run, do_train=bool(config.data.dataset)))
    build(both, tokenizer, renderer, report=_say)


def _say(line: str) -> None:
    print(line, flush=True)
