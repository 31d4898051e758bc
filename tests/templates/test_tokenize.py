"""Documents and truncation. Oracle: by hand and transformers' own call."""

from __future__ import annotations

import pytest

from tests.templates.families import Family, make_tokenizer, tokenizer_of
from tunewright.data.records import IGNORE_INDEX
from tunewright.data.tokenize import encode_text, encode_texts, truncate
from tunewright.errors import InputError


def test_a_document_ends_with_one_eos() -> None:
    """The ids of the text and EOS; a text that ends with EOS gets no second one; the first label is not trained."""
    tokenizer = tokenizer_of("vicuna")
    own = tokenizer("hello there", add_special_tokens=False)["input_ids"]
    end = tokenizer.eos_token_id
    assert encode_text("hello there", tokenizer) == ([*own, end], [IGNORE_INDEX, *own[1:], end])
    assert encode_text("hello there</s>", tokenizer)[0] == [*own, end]
    assert encode_texts(["hello there"] * 2, tokenizer) == [encode_text("hello there", tokenizer)] * 2


def test_a_document_begins_with_bos_where_the_tokenizer_adds_one() -> None:
    """A tokenizer with a post-processor that puts BOS first, as Llama's."""
    from tokenizers.processors import TemplateProcessing

    tokenizer = make_tokenizer(Family(("<s>", "</s>"), "<s>", "</s>", "</s>"))
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", tokenizer.bos_token_id)])
    own = tokenizer("hello", add_special_tokens=False)["input_ids"]
    assert encode_text("hello", tokenizer)[0] == [tokenizer.bos_token_id, *own, tokenizer.eos_token_id]


@pytest.mark.parametrize("text", ["", " \n"])
def test_empty_documents_are_refused(text: str) -> None:
    """One line with a mend."""
    with pytest.raises(InputError, match="a document is empty; remove it"):
        encode_text(text, tokenizer_of("vicuna"))


@pytest.mark.parametrize(("length", "policy", "expected"), [
    (9, "drop", ([1, 2, 3, 4, 5], [-100, -100, 3, 4, 5])),
    (5, "cut_right", ([1, 2, 3, 4, 5], [-100, -100, 3, 4, 5])),
    (4, "drop", None),
    (4, "cut_right", ([1, 2, 3, 4], [-100, -100, 3, 4])),
    (2, "cut_right", ([1, 2], [-100, -100])),
    (3, "cut_left", ([3, 4, 5], [-100, 4, 5])),
    (1, "cut_left", ([5], [-100])),
])
def test_truncate(length: int, policy: str, expected: tuple | None) -> None:
    """By hand, of five tokens of which the last three are trained."""
    assert truncate([1, 2, 3, 4, 5], [-100, -100, 3, 4, 5], length, policy) == expected
