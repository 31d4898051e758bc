"""The data sets that a run names, found, tokenised and audited one by one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from tunewright.config.data import DatasetSpec
from tunewright.config.derive import data_seed
from tunewright.config.run import RunConfig
from tunewright.data.audit import SetAudit
from tunewright.data.cache import Tokenised
from tunewright.data.draws import Draws
from tunewright.data.examples import TokenStore
from tunewright.data.packed_set import first_token
from tunewright.data.sources import Settled, settle, source_of
from tunewright.data.spread import token_spreads
from tunewright.data.tokenise_set import Tokeniser
from tunewright.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Report = Callable[[str], None]


class Sets:
    """Reads data sets and collects their audits. `first_token` takes the place of the first one of every packed sequence, unless it is
    None."""

    def __init__(self, run: RunConfig, tokenizer: PreTrainedTokenizerBase, tokeniser: Tokeniser, report: Report,
                 vocab_size: int | None) -> None:
        self.audits: list[SetAudit] = []
        self.seed = data_seed(run)
        self.run = run
        self.draws = Draws(run)
        self.tokeniser = tokeniser
        self.report = report
        self.vocab_size = vocab_size
        self.first_token = first_token(run, tokenizer)
        self._tokenizer = tokenizer

    def settled(self, specs: Sequence[DatasetSpec], key: str) -> tuple[Settled, ...]:
        """The data sets of `specs`, found and understood."""
        found = tuple(settle(source_of(spec, self.run.data, key, self.report), self.run.run.stage) for spec in specs)
        for one in found:
            self.report(one.line)
        return found

    def stores(self, settled: Sequence[Settled]) -> list[TokenStore]:
        """The tokens of each data set."""
        return [self._tokens(one).store for one in settled]

    def _tokens(self, settled: Settled) -> Tokenised:
        data = self.run.data
        made = self.tokeniser(settled, self.draws.choice(settled))
        audit = SetAudit(settled.source.name, made.rows, made.notes, *token_spreads(made.store))
        for line in audit.summary():
            self.report(line)
        audit.check(data.max_dropped_fraction)
        self.audits.append(audit)
        check_vocabulary(made.store, self.ids_to((settled,)))
        return made

    def ids_to(self, settled: Sequence[Settled]) -> int | None:
        """The first id that no row may have: the model's, if it is known, else the tokenizer's for rows that it did not make."""
        if self.vocab_size is None and any(one.layout.kind == "tokens" for one in settled):
            return max(self._tokenizer.get_vocab().values()) + 1
        return self.vocab_size


def check_vocabulary(store: TokenStore, vocab_size: int | None) -> None:
    """Raise `InputError` for a token id from `vocab_size` on, with the row that holds it."""
    ids = store.input_ids
    if vocab_size is None or len(ids) == 0 or int(ids.max()) < vocab_size:
        return
    place = int(np.argmax(np.asarray(ids) >= vocab_size))
    row = int(np.searchsorted(store.offsets, place, side="right")) - 1
    raise InputError(f"token id {int(ids[place])} is none of the vocabulary, which has {vocab_size}", where=str(store.origin(row)),
                     mend="use the tokenizer that belongs to the model")
