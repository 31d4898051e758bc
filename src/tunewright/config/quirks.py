"""LLaMA-Factory's quirks in data: what it does, what is done here instead, and which are read. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Quirk:
    """One thing that LLaMA-Factory does to data. `ours` is done instead; `refusal` says why it cannot be had, "" where it can.

    `refusal` completes the sentence `NAME: refused: <refusal>`.
    """

    name: str
    theirs: str
    ours: str
    refusal: str = ""


QUIRKS: Final = tuple(Quirk(*one) for one in (
    # The registry.
    ("columns-partial-defaults", "`columns` unsets every column that it does not name", "such columns keep their defaults"),
    ("tags-partial-defaults", "`tags` unsets every tag that it does not name", "such tags keep their defaults"),
    ("unknown-keys-ignored", "a registry's keys that it does not know are not read", "such a key is an error"),
    ("listdir-order", "a folder's files are read in the order of the file system, hidden ones too", "sorted, without hidden ones"),
    # Rows.
    ("turns-by-parity", "questions or tool results in odd places, answers or calls in even ones",
     "any number of results may follow a call, and none comes first"),
    ("empty-answer-trained", "an empty answer is trained: its end of turn", "it is context, and a row without another is left out"),
    ("history-not-list-ignored", "a history that is not a list is not read", "it is an error"),
    ("answer-not-text-dropped", "a row whose answer is not text is left out", "it is an error"),
    ("openai-tool-join", "results that follow each other are one, joined by Qwen's tags", "each is a message"),
    ("openai-thinking-sentence", "`detailed thinking off` is appended to system prompts", "system prompts stay as they are"),
    ("openai-function-is-call", "the role `function` is a call by the assistant", "it is the result of a call, as OpenAI says"),
    ("trailing-tool-dropped", "results after the last answer are cut off", "the row is left out: no answer follows"),
    ("pair-other-form-dropped", "answers in the other form (text in a list of messages, a message in Alpaca) leave the row out",
     "both forms are read"),
    ("ranking-bad-role-kept", "an answer that is not the assistant's is kept", "the row is left out"),
    ("kto-empty-desired", "an empty answer called good counts as bad", "it counts as good"),
    ("kto-tag-not-boolean-dropped", "a mark that is not true or false leaves the row out",
     "0, 1 and the texts true and false are read, and anything else is an error"),
    # Read by others than the formats.
    ("num-samples-numpy", "`num_samples` draws from numpy's global generator, so that each set changes the draws of the next",
     "rows are a function of the seed"),
    ("kto-batch-kl", "the mismatched answer of KTO is that of the row before in one batch of preprocessing",
     "it is that of the row after it in the optimizer step", "the estimate would depend on how rows are preprocessed"),
    ("truncate-silent", "rows that are cut are not counted", "each is in the audit", "what was cut is always said"),
    ("zero-target-kept", "a row without a trained token stays", "it is left out",
     "it would train nothing, and its batch might divide by zero"),
    ("packing-batch-local", "rows are packed within one batch of preprocessing", "over the whole set"),
    ("packing-pad-ones", "plain packing attends to padding", "padding is never attended to",
     "padding would become part of what the model reads"),
    ("pt-bos-overwrite", "the first token of a packed block becomes BOS", "every token stays"),
    ("val-size-one", "val_size 1 is the fraction 1.0, and an error", "it is one row", "it could only end in an error"),
    ("llama3-tool-date-today", "Llama 3's tool prompt has the date of the clock", "the date is the run's",
     "two runs of one configuration would differ"),
    ("think-block-in-history", "earlier answers are trained with their thoughts, whatever the template", "the template decides"),
))
"""Every quirk, in the order of a run."""

READ: Final = tuple(quirk.name for quirk in QUIRKS if not quirk.refusal)
"""Names of those that can be chosen; `compat` stands for all of them."""

REFUSED: Final = {quirk.name: quirk.refusal for quirk in QUIRKS if quirk.refusal}
"""Names of the others, with the reason."""
