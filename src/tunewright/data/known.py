"""The training set of a run where an earlier one, or `tunewright prepare`, has made its tokens: nothing is tokenised here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tunewright.data.draws import Draws
from tunewright.data.pipeline import build
from tunewright.data.row_encoder import tokeniser_of
from tunewright.data.sources import settle, source_of
from tunewright.data.streaming.stream import Stream
from tunewright.data.token_folder import holds_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from tunewright.config.run import RunConfig
    from tunewright.data.examples import PreparedSet
    from tunewright.data.templates import Renderer


def unheard(line: str) -> None:
    """A report that nobody reads."""


def prepared_before(run: RunConfig, tokenizer: PreTrainedTokenizerBase, renderer: Renderer | None) -> PreparedSet | None:
    """The training set from `tokenized_path`, Megatron's files or the token cache; None unless all of it is there."""
    trains = replace(run, data=replace(run.data, eval_dataset=()), run=replace(run.run, do_train=True))
    if not _is_there(trains, tokenizer, renderer):
        return None
    found = build(trains, tokenizer, renderer, report=unheard).train
    return None if isinstance(found, Stream) else found


def _is_there(run: RunConfig, tokenizer: PreTrainedTokenizerBase, renderer: Renderer | None) -> bool:
    data = run.data
    if data.data_manager_type == "mg":
        return True
    if data.tokenized_path is not None:
        return holds_tokens(Path(data.tokenized_path).expanduser())
    tokeniser, draws = tokeniser_of(run, tokenizer, renderer, unheard), Draws(run)
    sets = (settle(source_of(spec, data, "dataset", unheard), run.run.stage) for spec in data.dataset)
    return all(tokeniser.is_cached(settled, draws.choice(settled)) for settled in sets)
