"""Rows that are too long, orders by length, and packing as LLaMA-Factory has it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from tests.data.test_pipeline import (  # noqa: F401 - fixtures
    ASSISTANT,
    BREAK,
    END,
    START,
    USER,
    WORDS,
    Build,
    make,
    renderer,
    rows,
    said,
    tokenizer,
    word,
)
from tunewright.data.cutting import Pair, in_proportion, most_that_fit, pairs_of, shares, together
from tunewright.data.examples import ExampleSet, StoreBuilder, Tokens
from tunewright.data.packing import pack
from tunewright.data.records import Origin
from tunewright.data.sampling import MEGABATCH, epoch_order, sortish_order
from tunewright.errors import InputError

SYSTEM = WORDS.index("system")


def question(*words: int) -> list[int]:
    """What leads to an answer, in ChatML."""
    return [START, USER, BREAK, *map(word, words), END, BREAK, START, ASSISTANT, BREAK]


def answer(*words: int) -> list[int]:
    return [*map(word, words), END]


def row(*turns: tuple[tuple[int, ...], tuple[int, ...]], system: tuple[int, ...] = ()) -> str:
    """Questions and answers, each so many words."""
    messages: list[dict[str, Any]] = [{"role": "system", "content": " ".join(f"w{one}" for one in system)}] if system else []
    for asked, answered in turns:
        messages += [{"role": "user", "content": " ".join(f"w{one}" for one in asked)},
                     {"role": "assistant", "content": " ".join(f"w{one}" for one in answered)}]
    return json.dumps({"messages": messages}) + "\n"


def naive_shares(source_len: int, target_len: int, cutoff_len: int) -> tuple[int, int]:
    """The rule of section 5.3 of the formats' description, sentence by sentence, in floating point."""
    if target_len * 2 < cutoff_len:
        new_target = target_len
        new_source = min(source_len, cutoff_len - target_len)
    elif source_len * 2 < cutoff_len:
        new_source = source_len
        new_target = min(target_len, cutoff_len - source_len)
    else:
        new_target = min(target_len, int(cutoff_len * (target_len / (source_len + target_len))))
        new_source = min(source_len, cutoff_len - new_target)
    return new_source, new_target


@given(st.integers(0, 300), st.integers(0, 300), st.integers(1, 300))
def test_shares_are_llamafactorys(source: int, target: int, budget: int) -> None:
    found = shares(source, target, budget)
    assert found == naive_shares(source, target, budget)
    assert sum(found) == min(source + target, budget)


@pytest.mark.parametrize(("source", "target", "kept"), [
    (30, 9, (11, 9)), (9, 30, (9, 11)), (30, 10, (15, 5)), (10, 10, (10, 10)), (15, 10, (12, 8)), (0, 30, (0, 20)), (30, 0, (20, 0))])
def test_shares_by_hand(source: int, target: int, kept: tuple[int, int]) -> None:
    """A budget of 20: 2 x 9 < 20 keeps the answer; 2 x 9 < 20 keeps the question; 20 x 10 / 40 = 5; what fits stays."""
    assert shares(source, target, 20) == kept


def test_pairs_and_what_is_kept_of_them() -> None:
    """Labels o are trained. Budget 10: the first pair of 4 + 3 fits, the second has 3 left: 2 x 2 < 3 is not so, 2 x 2 < 3 neither, so
    3 x 2 / 4 = 1 of the answer and 2 of the question. From the last on: 4 whole, then 6 for 4 + 3: 6 x 3 / 7 = 2 and 4."""
    labels = [-100, -100, -100, -100, 1, 1, 1, -100, -100, 1, 1]
    pairs = pairs_of(labels)
    assert pairs == [Pair(0, 4, 7), Pair(7, 9, 11)]
    assert in_proportion(pairs, 10) == [slice(0, 4), slice(4, 7), slice(7, 9), slice(9, 10)]
    assert in_proportion(reversed(pairs), 10) == [slice(0, 4), slice(4, 6), slice(7, 9), slice(9, 11)]
    assert in_proportion(pairs, 7) == [slice(0, 4), slice(4, 7)]
    assert pairs_of([*labels, -100])[-1] == Pair(7, 9, 12)
    assert pairs_of([-100, -100]) == [Pair(0, 2, 2)]
    assert pairs_of([1, 1]) == [Pair(0, 0, 2)]
    assert together(pairs, 11) == [slice(0, 11)]
    assert together(pairs, 10) == together(pairs, 3) == [slice(0, 7), slice(7, 11)]


@given(st.integers(1, 40), st.integers(0, 45))
def test_most_that_fit(number: int, largest: int) -> None:
    assert most_that_fit(number, lambda count: count <= largest) == max(1, min(number, largest))


@pytest.mark.effect("cutoff_policy")
def test_the_proportional_rule(make: Build, said: list[str]) -> None:  # noqa: F811
    """One word is one token: a question of 4 words is 12 tokens, an answer of 5 words is 6, and the break after it 1. Of 16 tokens
    2 x 7 < 16 keeps the answer, and the question has 9 left."""
    Path("a.jsonl").write_text(row(((1, 2, 3, 4), (5, 6, 7, 8, 9))) + row(((1,), (2,))))
    prepared = make(dataset=("a.jsonl",), cutoff_len=16, cutoff_policy="proportional")
    asked, answered = question(1, 2, 3, 4), answer(5, 6, 7, 8, 9)
    kept = [*asked[:9], *answered, BREAK]
    assert len(asked) == 12 and len(kept) == 16
    assert prepared.train is not None
    assert rows(prepared.train)[0] == (kept, [-100] * 9 + answered + [-100])
    (note,) = prepared.audit.sets[0].notes
    assert (note.reason, note.detail, note.tokens_lost) == ("longer than cutoff_len 16: cut in proportion", "19 tokens", 3)
    assert "  1 changed: longer than cutoff_len 16: cut in proportion, 3 tokens lost (first: a.jsonl:1)" in said
    assert prepared.audit.sets[0].to_json()["too_long"] == {"cut": 1, "split": 0, "dropped": 0, "tokens_lost": 3}


def test_the_proportional_rule_serves_the_last_answer_first_if_only_it_is_trained(make: Build) -> None:  # noqa: F811
    """Pairs of 9 + 2 and 10 + 3 tokens (the break after an answer belongs to the next question), cut to 20. The last one takes 13 and
    leaves 7: 2 x 2 < 7, so the first keeps its answer and 5 of its question. In file order it is the second pair that is cut, to 9."""
    Path("a.jsonl").write_text(row(((1,), (2,)), ((3,), (4,))))
    first, second = [*question(1)], [BREAK, *question(3)]
    last = [*answer(4), BREAK]
    masked = make(dataset=("a.jsonl",), cutoff_len=20, cutoff_policy="proportional", mask_history=True)
    assert masked.train is not None
    share = shares(len(first), 2, 20 - len(second) - len(last))
    assert rows(masked.train) == [([*first[: share[0]], *answer(2)[: share[1]], *second, *last],
                                   [-100] * (sum(share) + len(second)) + [*answer(4), -100])]
    plain = make(dataset=("a.jsonl",), cutoff_len=20, cutoff_policy="proportional")
    assert plain.train is not None
    share = shares(len(second), len(last), 20 - len(first) - 2)
    assert rows(plain.train)[0][0] == [*first, *answer(2), *second[: share[0]], *last[: share[1]]]


def test_a_conversation_split_at_its_turns(make: Build, said: list[str]) -> None:  # noqa: F811
    """Four turns of 13 tokens and a system prompt of 6: two fit into 34. Each piece is a conversation with the system prompt, each answer
    is trained once, and nothing is lost."""
    turns = [((number,), (number + 10,)) for number in range(4)]
    Path("a.jsonl").write_text(row(*turns, system=(30,)))
    prepared = make(dataset=("a.jsonl",), cutoff_len=34, cutoff_policy="split")
    head = [START, SYSTEM, BREAK, word(30), END, BREAK]
    pieces = []
    for pair in (turns[:2], turns[2:]):
        ids, labels = list(head), [-100] * len(head)
        for asked, answered in pair:
            ids += [*question(*asked), *answer(*answered), BREAK]
            labels += [*[-100] * len(question(*asked)), *answer(*answered), -100]
        pieces.append((ids, labels))
    assert prepared.train is not None
    assert rows(prepared.train) == pieces
    (note,) = prepared.audit.sets[0].notes
    assert (note.action, note.reason) == ("changed", "longer than cutoff_len 34: split")
    assert (note.detail, note.tokens_lost) == ("54 tokens in 2 pieces", 0)
    assert prepared.audit.sets[0].to_json()["too_long"] == {"cut": 0, "split": 1, "dropped": 0, "tokens_lost": 0}
    assert prepared.audit.sets[0].dropped == 0


def test_what_no_turn_border_divides_is_cut_in_proportion(make: Build) -> None:  # noqa: F811
    """The second turn alone is longer than 16: its answer of 8 loses its end; the audit says what is lost."""
    Path("a.jsonl").write_text(row(((1,), (2,)), ((3,), tuple(range(10, 22)))))
    prepared = make(dataset=("a.jsonl",), cutoff_len=16, cutoff_policy="split")
    assert prepared.train is not None
    found = rows(prepared.train)
    share = shares(len(question(3)), 14, 16)
    assert found[0][0] == [*question(1), *answer(2), BREAK]
    assert found[1][0] == [*question(3)[: share[0]], *answer(*range(10, 22))[: share[1]]]
    (note,) = prepared.audit.sets[0].notes
    assert (note.detail, note.tokens_lost) == ("35 tokens in 2 pieces, 1 of them cut in proportion", 23 - 16)


def test_of_pieces_only_the_last_has_the_last_answer(make: Build) -> None:  # noqa: F811
    """mask_history trains the last answer of the conversation: the piece before has none, and is left out and counted."""
    Path("a.jsonl").write_text(row(((1,), (2,)), ((3,), (4,))))
    prepared = make(dataset=("a.jsonl",), cutoff_len=16, cutoff_policy="split", mask_history=True)
    assert prepared.train is not None
    assert [ids for ids, _ in rows(prepared.train)] == [[*question(3), *answer(4), BREAK]]
    (note,) = prepared.audit.sets[0].notes
    assert (note.detail, note.tokens_lost) == ("24 tokens in 2 pieces, 1 of them without a trained token left out", 12)


def test_tokens_are_split_after_answers(make: Build) -> None:  # noqa: F811
    """Rows that were tokenised before: pairs of 3 + 2 tokens, two to a row of 10; a row that is all answer anywhere."""
    ids = list(range(1, 16))
    labels = [token if place % 5 >= 3 else -100 for place, token in enumerate(ids)]
    Path("a.jsonl").write_text("".join(json.dumps({"input_ids": ids, "labels": found}) + "\n" for found in (labels, ids)))
    prepared = make(dataset=("a.jsonl",), cutoff_len=10, cutoff_policy="split")
    assert prepared.train is not None
    assert [found for found, _ in rows(prepared.train)] == [ids[:10], ids[10:], ids[:10], ids[10:]]


def test_documents_are_split_unpacked_too(make: Build) -> None:  # noqa: F811
    """Twelve words and the end: pieces of 8 and 5 tokens; under `proportional` a document has no question and loses its end."""
    Path("a.txt").write_text(" ".join(f"w{number}" for number in range(12)) + "\n")
    lengths = {}
    for policy in ("split", "proportional", "cut_right"):
        prepared = make(stage="pt", dataset=("a.txt",), cutoff_len=8, packing=False, cutoff_policy=policy)
        assert prepared.train is not None
        lengths[policy] = prepared.train.lengths.tolist()
    assert lengths == {"split": [8, 5], "proportional": [8], "cut_right": [8]}


def test_a_split_row_is_held_out_and_answered_as_one(make: Build) -> None:  # noqa: F811
    """All pieces of a row are on one side of val_size, and prediction answers the row once."""
    Path("a.jsonl").write_text("".join(row(((number,), (2,)), ((3,), (4,))) for number in range(6)))
    prepared = make(dataset=("a.jsonl",), cutoff_len=16, cutoff_policy="split", val_size=2)
    assert prepared.train is not None
    held_out = prepared.evaluation["validation"]
    assert (len(prepared.train), len(held_out)) == (8, 4)
    assert len(prepared.prompts()) == 2


def test_dropped_rows_ask_for_a_longer_cutoff(make: Build) -> None:  # noqa: F811
    Path("a.jsonl").write_text(row(((1, 2, 3, 4), (5,))))
    with pytest.raises(InputError, match=r"longer than cutoff_len 8 in 1 of 1 rows: 15 tokens: a.jsonl:1; raise cutoff_len"):
        make(dataset=("a.jsonl",), cutoff_len=8, cutoff_policy="drop")


def test_an_audit_from_the_cache_counts_the_same(make: Build) -> None:  # noqa: F811
    Path("a.jsonl").write_text(row(((1, 2, 3, 4), (5, 6, 7, 8, 9))) + row(((1,), (2,))))
    first, second = (make(dataset=("a.jsonl",), cutoff_len=16, cutoff_policy="proportional").audit.sets[0] for _ in range(2))
    assert first == second


def test_documented_policies() -> None:
    """LLaMA-Factory's cutoff_len, and that of MindSpeed's FSDP2 back end, which took over its data code, cut in proportion; the others
    documents only say that the rest is cut off."""
    from tunewright.config.table import table
    from tunewright.dialects.read import read_config

    assert dict(table()["cutoff_policy"].param.implied) == {"llamafactory": "proportional", "mindspeed_fsdp2": "proportional"}
    assert read_config(["cutoff_len=512"]).config.data.cutoff_policy == "cut_right"


def naive_sortish(lengths: list[int], batch_size: int, seed: int, epoch: int) -> list[int]:
    """The rows as they are drawn, the longest first; then each 50 batches of them, longest first."""
    order = epoch_order(len(lengths), seed, epoch).tolist()
    at = max(range(len(order)), key=lambda place: (lengths[order[place]], -place))
    order[0], order[at] = order[at], order[0]
    size = 50 * batch_size
    return [one for begin in range(0, len(order), size) for one in sorted(order[begin : begin + size], key=lambda one: -lengths[one])]


@given(st.lists(st.integers(1, 50), min_size=1, max_size=400), st.integers(1, 3), st.integers(0, 2**32 - 1), st.integers(0, 5))
def test_sortish_order(lengths: list[int], batch_size: int, seed: int, epoch: int) -> None:
    sizes = np.array(lengths, np.int64)
    order = sortish_order(sizes, batch_size, seed, epoch)
    assert order.tolist() == naive_sortish(lengths, batch_size, seed, epoch)
    assert sorted(order.tolist()) == list(range(len(lengths)))
    assert lengths[order[0]] == max(lengths)


def test_sortish_order_saves_padding_and_changes_with_the_epoch() -> None:
    lengths = np.random.default_rng(0).integers(1, 1000, 8 * MEGABATCH * 2)

    def padding(order: np.ndarray) -> int:
        batches = lengths[order].reshape(-1, 8)
        return int((batches.max(axis=1, keepdims=True) - batches).sum())

    order = sortish_order(lengths, 8, 1, 0)
    assert padding(order) < padding(epoch_order(len(lengths), 1, 0)) / 20
    assert set(order[: 8 * MEGABATCH]) != set(sortish_order(lengths, 8, 1, 1)[: 8 * MEGABATCH])
    assert len(sortish_order(np.empty(0, np.int64), 8, 1, 0)) == 0


def example_set(lengths: list[int]) -> ExampleSet:
    builder = StoreBuilder(["a"])
    for index, length in enumerate(lengths):
        ids = np.full(length, 10 + index, np.int32)
        builder.add(Tokens(ids, ids), Origin("a", index))
    return ExampleSet.of([builder.build()])


@given(st.lists(st.integers(1, 9), min_size=1, max_size=30), st.integers(1, 12))
def test_packing_within_batches_of_rows(lengths: list[int], together_: int) -> None:
    """The quirk packing-batch-local: each batch of rows packed by itself, one after the other."""
    expected = [[at + row for row in rows] for at in range(0, len(lengths), together_) for rows in pack(lengths[at : at + together_], 9)]
    found = example_set(lengths).packed(9, together_)
    assert [[one.index for one in found.origins(number)] for number in range(len(found))] == expected


def test_first_tokens_are_replaced_and_no_others() -> None:
    plain = example_set([2, 3, 4]).packed(5)
    changed = plain.with_first_token(1)
    assert [changed[number].input_ids.tolist() for number in range(2)] == [[1, 10, 11, 11, 11], [1, 12, 12, 12]]
    assert [plain[number].input_ids.tolist() for number in range(2)] == [[10, 10, 11, 11, 11], [12, 12, 12, 12]]
    assert [changed.origins(number) for number in range(2)] == [plain.origins(number) for number in range(2)]
    assert changed.digest() != plain.digest()


def test_quirks_of_packed_documents(make: Build, said: list[str], tokenizer: PreTrainedTokenizerFast) -> None:  # noqa: F811
    """packing-batch-local: the rows of 5 and 3 tokens, which fill a sequence of 8, lie in different batches of one row. pt-bos-overwrite:
    the tokenizer adds no BOS token, so nothing is overwritten."""
    Path("a.txt").write_text("w1 w2 w3 w4\nw5 w6\n")
    counts = {}
    for compat in ("strict", "packing-batch-local", "pt-bos-overwrite"):
        prepared = make(stage="pt", dataset=("a.txt",), cutoff_len=8, data_compat=(compat,), preprocessing_batch_size=1)
        counts[compat] = len(prepared.train or ())
    assert counts == {"strict": 1, "packing-batch-local": 2, "pt-bos-overwrite": 1}
    assert not any("BOS" in line for line in said)


def test_bos_takes_the_place_of_a_first_token(make: Build, said: list[str], tokenizer: PreTrainedTokenizerFast) -> None:  # noqa: F811
    """A document of 12 words in pieces of 8: the tokenizer begins it with BOS; the quirk puts one where the second piece begins."""
    from tokenizers.processors import TemplateProcessing

    Path("a.txt").write_text(" ".join(f"w{number}" for number in range(12)) + "\n")
    tokenizer.bos_token = "<|im_start|>"
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<|im_start|> $A", special_tokens=[("<|im_start|>", START)])
    try:
        second = {}
        for compat in ("strict", "pt-bos-overwrite"):
            prepared = make(stage="pt", dataset=("a.txt",), cutoff_len=8, data_compat=(compat,))
            assert prepared.train is not None
            second[compat] = [one for one, _ in rows(prepared.train)]
    finally:
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="$A", special_tokens=[])
        tokenizer.bos_token = None
    whole = [START, *(word(number) for number in range(12)), END]
    assert second == {"strict": [whole[:8], whole[8:]], "pt-bos-overwrite": [whole[:8], [START, *whole[9:]]]}
    assert said[-1] == f"packing: the first token of each sequence is made {START}, the BOS token (data_compat: pt-bos-overwrite)"
