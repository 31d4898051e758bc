"""Documents to sequences, splits and blends. Oracles: naive restatements token by token, and numbers worked by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from tunewright.config.proportions import borders, read_proportions
from tunewright.data.megatron.blend import Draws, interleave
from tunewright.data.megatron.reader import open_tokens
from tunewright.data.megatron.samples import BlendedSet, StreamSet
from tunewright.data.megatron.stream import Stream, by_document, end_to_end
from tunewright.data.megatron.writer import IndexedWriter
from tunewright.data.records import IGNORE_INDEX, Origin
from tunewright.errors import InputError

VOCABULARY = 30_000


def numbered(folder: Path, shapes: list[list[int]]) -> tuple[Stream, list[list[int]]]:
    """Documents of sequences of these lengths; every token is another number, so that it can be told where it went. And the order."""
    count = 0
    documents: list[list[int]] = []
    with IndexedWriter(folder / "t", np.dtype("int32")) as writer:
        for shape in shapes:
            sequences = []
            for length in shape:
                sequences.append(list(range(count, count + length)))
                count += length
            writer.add_document(sequences)
            documents.append([token for sequence in sequences for token in sequence])
    order = np.random.default_rng(0).permutation(len(shapes))
    return Stream.of(open_tokens(folder / "t"), order), [documents[number] for number in order]


SHAPES = some.lists(some.lists(some.integers(0, 9), max_size=3), min_size=1, max_size=12)


@given(shapes=SHAPES, longest=some.integers(2, 12))
def test_each_token_is_predicted_once(tmp_path_factory: pytest.TempPathFactory, shapes: list[list[int]], longest: int) -> None:
    """End to end: sequences of at most `longest` tokens whose trained labels, one after the other, are the stream but its first token;
    every input before a label is the token before it."""
    stream, ordered = numbered(tmp_path_factory.mktemp("any"), shapes)
    tokens = [token for document in ordered for token in document]
    examples = StreamSet(stream, end_to_end(len(stream), longest), False, VOCABULARY)
    trained = [label for example in examples for label in example.labels.tolist() if label != IGNORE_INDEX]
    assert trained == tokens[1:]
    assert [len(example.input_ids) for example in examples] == examples.lengths.tolist()
    assert all(length == longest for length in examples.lengths[:-1]) and all(2 <= length <= longest for length in examples.lengths)
    for example in examples:
        start = tokens.index(int(example.input_ids[0]))
        assert example.input_ids.tolist() == tokens[start : start + len(example.input_ids)]
        assert example.labels.tolist() == [IGNORE_INDEX, *example.input_ids.tolist()[1:]]
        assert example.bounds.tolist() == [0, len(example.input_ids)]
    assert (examples.num_trained_tokens, len(stream)) == (len(trained), len(tokens))


@given(shapes=SHAPES, longest=some.integers(2, 12), alone=some.booleans())
def test_isolated_documents(tmp_path_factory: pytest.TempPathFactory, shapes: list[list[int]], longest: int, alone: bool) -> None:
    """Isolated, laid end to end or alone: each token of a document but its first is predicted once, and no segment holds two documents."""
    stream, ordered = numbered(tmp_path_factory.mktemp("any"), shapes)
    cuts = by_document(stream.documents(), longest) if alone else end_to_end(len(stream), longest)
    examples = StreamSet(stream, cuts, True, VOCABULARY)
    owner = {token: number for number, document in enumerate(ordered) for token in document}
    trained: list[int] = []
    for example in examples:
        assert len(example.input_ids) <= longest and (not alone or example.bounds.tolist() == [0, len(example.input_ids)])
        for begin, end in zip(example.bounds, example.bounds[1:], strict=False):
            segment = example.input_ids[begin:end].tolist()
            assert len({owner[token] for token in segment}) == 1 and segment == list(range(segment[0], segment[0] + len(segment)))
            assert example.labels[begin:end].tolist() == [IGNORE_INDEX, *segment[1:]]
            trained += segment[1:]
    assert trained == [token for document in ordered for token in document[1:]]
    assert examples.num_trained_tokens == len(trained)


def test_sequences_by_hand(tmp_path: Path) -> None:
    """Documents [0 1 2], [3], [4 5 6 7] in that order and sequences of 4: the last token of one is the first of the next."""
    with IndexedWriter(tmp_path / "t", np.dtype("uint8")) as writer:
        for document in ([0, 1, 2], [3], [4, 5, 6, 7]):
            writer.add(document)
    stream = Stream.of(open_tokens(tmp_path / "t"), np.arange(3))
    plain = StreamSet(stream, end_to_end(8, 4), False, 8)
    apart = StreamSet(stream, end_to_end(8, 4), True, 8)
    no = IGNORE_INDEX
    assert [(one.input_ids.tolist(), one.labels.tolist(), one.bounds.tolist(), one.sample_id) for one in plain] == [
        ([0, 1, 2, 3], [no, 1, 2, 3], [0, 4], 0), ([3, 4, 5, 6], [no, 4, 5, 6], [0, 4], 1), ([6, 7], [no, 7], [0, 2], 2)]
    assert [(one.input_ids.tolist(), one.labels.tolist(), one.bounds.tolist()) for one in apart] == [
        ([0, 1, 2, 3], [no, 1, 2, no], [0, 3, 4]), ([3, 4, 5, 6], [no, no, 5, 6], [0, 1, 4]), ([6, 7], [no, 7], [0, 2])]
    alone = StreamSet(stream, by_document(stream.documents(), 3), True, 8)
    assert [one.input_ids.tolist() for one in alone] == [[0, 1, 2], [4, 5, 6], [6, 7]]
    file = str(tmp_path / "t.bin")
    assert [plain.origins(number) for number in range(3)] == [
        (Origin(file, 0), Origin(file, 1)), (Origin(file, 1), Origin(file, 2)), (Origin(file, 2),)]
    assert (plain.num_tokens, plain.num_trained_tokens, apart.num_trained_tokens) == (10, 7, 5)
    assert len({plain.digest(), apart.digest(), StreamSet(stream, end_to_end(8, 5), False, 8).digest()}) == 3
    with pytest.raises(IndexError):
        plain[3]


def test_megatrons_samples(tmp_path: Path) -> None:
    """Megatron with sequences of S draws the tokens i * S to i * S + S of the stream; ours of S + 1 are the same tokens, and its rest."""
    stream, ordered = numbered(tmp_path, [[5], [8], [1], [13]])
    tokens = [token for document in ordered for token in document]
    size = 4
    theirs = [tokens[start : start + size + 1] for start in range(0, (len(tokens) - 1) // size * size, size)]
    ours = [example.input_ids.tolist() for example in StreamSet(stream, end_to_end(len(stream), size + 1), False, VOCABULARY)]
    assert ours == [*theirs, tokens[24:]] and len(theirs) == 6


def test_a_foreign_token_is_named(tmp_path: Path) -> None:
    with IndexedWriter(tmp_path / "t", np.dtype("int64")) as writer:
        writer.add([1, 2])
        writer.add([3, 2**32 + 1])
    examples = StreamSet(Stream.of(open_tokens(tmp_path / "t"), np.arange(2)), end_to_end(4, 9), False, 8)
    with pytest.raises(InputError) as caught:
        examples[0]
    assert caught.value.line() == (f"{tmp_path}/t.bin row 2: token id {2**32 + 1} is none of the tokenizer, which has 8 tokens; "
                                   "use the tokenizer that the file was written with")


def slow_interleave(weights: list[float], sizes: list[int]) -> list[tuple[int, int]]:
    """Naive restatement: all lags anew for each draw; the first of the largest wins."""
    drawn: list[int] = []
    while any(drawn.count(number) < size for number, size in enumerate(sizes)):
        step = max(len(drawn), 1)
        lags = [weight / sum(weights) * step - drawn.count(number) for number, weight in enumerate(weights)]
        drawn.append(lags.index(max(lags)))
    return [(number, drawn[:place].count(number) % sizes[number]) for place, number in enumerate(drawn)]


@given(sets=some.lists(some.tuples(some.sampled_from([0.1, 0.3, 0.7, 1.0, 2.0, 30.0]), some.integers(1, 6)), min_size=1, max_size=4))
def test_blend_is_the_naive_one(sets: list[tuple[float, int]]) -> None:
    weights, sizes = [one[0] for one in sets], [one[1] for one in sets]
    found = interleave(weights, sizes)
    assert list(zip(found.sets.tolist(), found.rows.tolist(), strict=True)) == slow_interleave(weights, sizes)


@given(sizes=some.lists(some.integers(1, 40), min_size=1, max_size=6))
def test_weights_as_the_sizes_draw_everything_once(sizes: list[int]) -> None:
    found = interleave([float(size) for size in sizes], sizes)
    assert sorted(zip(found.sets.tolist(), found.rows.tolist(), strict=True)) == [
        (number, row) for number, size in enumerate(sizes) for row in range(size)]


def test_blend_by_hand() -> None:
    """0.3 and 0.7: lags 0.3, 0.7 -> b; 0.3, -0.3 -> a; -0.4, 0.4 -> b; -0.1, 0.1 -> b; 0.2, -0.2 -> a; -0.5, 0.5 -> b: a is done with
    its two, b drew rows 0 to 3 of four. a is drawn when 0.3 s is over its count, its 3000th time at s = 9997, and at no draw is a share off
    by more than one draw."""
    found = interleave([0.3, 0.7], [2, 4])
    assert found.sets.tolist() == [1, 0, 1, 1, 0, 1] and found.rows.tolist() == [0, 0, 1, 2, 1, 3]
    many = interleave([0.3, 0.7], [3000, 10])
    shares = np.cumsum(many.sets == 0) - 0.3 * np.arange(1, len(many.sets) + 1)
    assert len(many.sets) == 9998 and (np.abs(shares) <= 1).all()
    assert many.rows[many.sets == 1][:12].tolist() == [*range(10), 0, 1]


def test_blended_sequences(tmp_path: Path) -> None:
    sets = []
    for name, documents in (("a", [[1, 2], [3, 4, 5]]), ("b", [[6, 7]])):
        with IndexedWriter(tmp_path / name, np.dtype("uint8")) as writer:
            for document in documents:
                writer.add(document)
        stream = Stream.of(open_tokens(tmp_path / name), np.arange(len(documents)))
        sets.append(StreamSet(stream, by_document(stream.documents(), 8), True, 8))
    blend = BlendedSet(sets, Draws(np.array([0, 1, 0, 1], np.int16), np.array([1, 0, 0, 0])))
    assert [(one.input_ids.tolist(), one.sample_id) for one in blend] == [([3, 4, 5], 0), ([6, 7], 1), ([1, 2], 2), ([6, 7], 3)]
    assert (blend.lengths.tolist(), blend.num_tokens, blend.num_trained_tokens) == ([3, 2, 2, 2], 9, 5)
    assert [str(blend.origin(number)) for number in range(4)] == [
        f"{tmp_path}/a.bin row 2", f"{tmp_path}/b.bin row 1", f"{tmp_path}/a.bin row 1", f"{tmp_path}/b.bin row 1"]
    other = BlendedSet(sets, Draws(np.array([1, 0, 0, 1], np.int16), np.array([0, 1, 0, 0])))
    assert blend.digest() != other.digest() and len(blend.origins(0)) == 1


SPLITS = {
    ("100,0,0", 7): (0, 7, 7, 7),
    ("949,50,1", 1000): (0, 949, 999, 1000),
    ("949,50,1", 10): (0, 9, 10, 10),      # 9.49, 9.99
    ("1,1", 5): (0, 2, 5, 5),              # 2.5 to the even 2
    ("1,1", 7): (0, 4, 7, 7),              # 3.5 to the even 4
    ("0.5, 0.25, 0.25", 6): (0, 3, 4, 6),  # 4.5 to the even 4
    ("1", 3): (0, 3, 3, 3),
    ("0,0,2", 3): (0, 0, 0, 3),
    ("969,30,1", 100): (0, 97, 100, 100),  # 96.9, 99.9
}


@pytest.mark.parametrize(("text", "number"), SPLITS)
def test_splits(text: str, number: int) -> None:
    assert borders(read_proportions(text), number) == SPLITS[text, number]


@pytest.mark.parametrize(("text", "message"), [
    ("", "'' is not a number from 0 on"), ("90,x", "'x' is not a number from 0 on"), ("90,-1", "'-1' is not a number from 0 on"),
    ("nan", "'nan' is not a number from 0 on"), ("0,0", "all parts are 0"),
    ("1,2,3,4", "4 numbers, but the parts are training, validation, test"),
])
def test_no_proportions(text: str, message: str) -> None:
    with pytest.raises(ValueError, match="^" + message.replace("(", r"\(") + "$"):
        read_proportions(text)
