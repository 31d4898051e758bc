"""Rules on mixtures and streams."""

from __future__ import annotations

import math

from tunewright.config.literals import show
from tunewright.config.rules.rule import Broken, Case, Rule


def probabilities_without_turns(case: Case) -> str | None:
    data = case.run.data
    return "says how sets take turns, but mix_strategy is concat" if data.interleave_probs and data.mix_strategy == "concat" else None


def probabilities_not_whole(case: Case) -> str | None:
    probabilities = case.run.data.interleave_probs
    total = math.fsum(probabilities)
    if any(not 0 < one <= 1 for one in probabilities):
        return f"{show(probabilities)}: a probability is above 0 and at most 1"
    return f"{show(probabilities)} sum to {total:g}" if probabilities and abs(total - 1) > 1e-6 else None


def probabilities_for_other_sets(case: Case) -> str | None:
    data = case.run.data
    if not data.interleave_probs or not data.dataset or len(data.interleave_probs) == len(data.dataset):
        return None
    return f"{len(data.interleave_probs)} probabilities, but {len(data.dataset)} data sets"


def turns_of_token_files(case: Case) -> str | None:
    data = case.run.data
    is_mixed = data.data_manager_type == "mg" and data.mix_strategy != "concat"
    return f"{data.mix_strategy}, but data_manager_type is mg, which blends by the weights in dataset" if is_mixed else None


def stream_without_end(case: Case) -> str | None:
    run = case.run
    endless = run.data.streaming and run.run.do_train and run.batching.max_steps <= 0
    return "on, but max_steps is not given: nobody knows how many rows a stream has" if endless else None


def stream_cannot(case: Case) -> list[Broken]:
    """What needs to know all rows before the first step."""
    run = case.run
    if not run.data.streaming:
        return []
    found = []
    sorters = {"group_by_length": run.batching.group_by_length, "sortish_sampler": run.batching.sortish_sampler}
    found += [Broken(name, "sorts rows by length, but the rows of a stream are not known before they are read",
                     "remove it, or set streaming: false") for name, is_on in sorters.items() if is_on]
    if run.batching.micro_batch_tokens is not None:
        found.append(Broken("micro_batch_tokens", "divides the rows of a step by their lengths, but streaming is on, and the rows of a "
                            "stream are not known before they are read", "remove it, or set streaming: false"))
    if 0 < run.data.val_size < 1:
        found.append(Broken("val_size", f"{show(run.data.val_size)} is a part of all rows, but streaming is on, and nobody knows how many "
                            "rows a stream has", "write a number of rows, such as 1000"))
    if run.data.tokenized_path is not None:
        found.append(Broken("tokenized_path", "keeps the tokens of all rows, but streaming is on, which makes them as they are needed",
                            "remove it, or set streaming: false"))
    if run.data.data_manager_type == "mg":
        found.append(Broken("streaming", "on, but Megatron's files are never read whole anyhow", "remove it"))
    return found


def stream_of_feedback(case: Case) -> str | None:
    run = case.run
    unpaired = run.data.streaming and run.run.stage == "kto"
    return "on, but stage is kto, which gives a prompt the answer of the row after it: that may be of another rank" if unpaired else None


def small_buffer(case: Case) -> str | None:
    run = case.run
    rows = run.batching.per_device_train_batch_size * (run.run.num_processes or 1)
    is_small = run.data.streaming and rows > run.data.buffer_size
    return f"{run.data.buffer_size} rows are fewer than the {rows} of one batch" if is_small else None


RULES = (
    Rule("probabilities-without-turns", ("interleave_probs", "mix_strategy"), probabilities_without_turns,
         "set mix_strategy: interleave_under or interleave_over"),
    Rule("probabilities-not-whole", ("interleave_probs",), probabilities_not_whole, "write one for each set, such as 0.7,0.3"),
    Rule("probabilities-for-other-sets", ("interleave_probs", "dataset"), probabilities_for_other_sets, "give one for each set",
         purposes=("train", "preview")),
    Rule("turns-of-token-files", ("mix_strategy", "data_manager_type"), turns_of_token_files, "write weights before the sets in dataset"),
    Rule("stream-without-end", ("streaming", "max_steps"), stream_without_end, "set max_steps", purposes=("train",)),
    Rule("stream-cannot", ("group_by_length", "sortish_sampler", "micro_batch_tokens", "val_size", "tokenized_path", "streaming",
                           "data_manager_type"), stream_cannot, purposes=("train", "eval", "predict", "preview")),
    Rule("stream-of-feedback", ("streaming", "stage"), stream_of_feedback, "set streaming: false",
         purposes=("train", "eval", "predict", "preview")),
    Rule("small-buffer", ("buffer_size", "streaming"), small_buffer, "make it much larger: only rows in it are shuffled together",
         purposes=("train",), is_error=False),
)
