"""Whole label arrays and mask policies. Oracle: by hand, from the golden renders."""

from __future__ import annotations

import pytest

from tests.templates.families import conversation, renderer_of, tokenizer_of
from tunewright.data.masks import MaskPolicy, Span, chosen_spans
from tunewright.data.records import IGNORE_INDEX, Message
from tunewright.data.tokenize import encode_conversation

ROW = conversation(("user", "Hi"), ("assistant", "Yes"), ("user", "Bye"), ("assistant", "No"))
# Pieces of the render, in order, trained ones marked; the tokenizer splits none across a boundary.
PIECES = {
    "chatml": [("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n", 0), ("Yes<|im_end|>", 1),
               ("\n<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n", 0), ("No<|im_end|>", 2), ("\n", 0)],
    "llama2": [("<s>[INST] Hi [/INST]", 0), (" Yes </s>", 1), ("<s>[INST] Bye [/INST]", 0), (" No </s>", 2)],
    "gemma": [("<bos><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\n", 0), ("Yes<end_of_turn>", 1),
              ("\n<start_of_turn>user\nBye<end_of_turn>\n<start_of_turn>model\n", 0), ("No<end_of_turn>", 2), ("\n", 0)],
    "glm4": [("[gMASK]<sop><|user|>\nHi<|assistant|>", 0), ("\nYes<|user|>", 1), ("\nBye<|assistant|>", 0), ("\nNo<|user|>", 2)],
    "llama3": [("<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
                "<|start_header_id|>assistant<|end_header_id|>\n\n", 0),
               ("Yes<|eot_id|>", 1),
               ("<|start_header_id|>user<|end_header_id|>\n\nBye<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n", 0),
               ("No<|eot_id|>", 2)],
    "vicuna": [("A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, and "
                "polite answers to the user's questions. USER: Hi ASSISTANT:", 0), (" Yes</s>", 1), ("USER: Bye ASSISTANT:", 0),
               (" No</s>", 2)],
}
POLICIES = {
    "answers": (MaskPolicy(), {1, 2}),
    "last answer": (MaskPolicy(mask_history=True), {2}),
    "prompt too": (MaskPolicy(train_on_prompt=True), {0, 1, 2}),
    "prompt and last answer": (MaskPolicy(train_on_prompt=True, mask_history=True), {0, 2}),
}


@pytest.mark.parametrize("name", PIECES)
@pytest.mark.parametrize("policy", POLICIES)
def test_labels(name: str, policy: str) -> None:
    """Each piece encoded by itself; trained pieces have their ids as labels, the first token never."""
    tokenizer = tokenizer_of(name)
    masks, trained = POLICIES[policy]
    ids, labels = [], []
    for text, number in PIECES[name]:
        piece = tokenizer(text, add_special_tokens=False)["input_ids"]
        ids += piece
        labels += piece if number in trained else [IGNORE_INDEX] * len(piece)
    labels[0] = IGNORE_INDEX
    assert encode_conversation(ROW, renderer_of(name), tokenizer, masks) == (ids, labels)


def test_an_answer_of_weight_zero_is_not_trained() -> None:
    """`trained=False` keeps an answer as context, with train_on_prompt too."""
    row = conversation(("user", "Hi"), Message("assistant", "Yes", trained=False), ("user", "Bye"), ("assistant", "No"))
    tokenizer = tokenizer_of("chatml")
    for masks, expected in ((MaskPolicy(), "No<|im_end|>"), (MaskPolicy(train_on_prompt=True), None)):
        _, labels = encode_conversation(row, renderer_of("chatml"), tokenizer, masks)
        text = tokenizer.decode([label for label in labels if label != IGNORE_INDEX])
        assert "Yes" not in text
        assert text == expected or (expected is None and text.endswith("Bye<|im_end|>\n<|im_start|>assistant\nNo<|im_end|>\n"))


def test_a_token_over_the_beginning_of_an_answer_is_cut_there() -> None:
    """`Oslo? ` + `Paris`: " Paris" would be one token; the prompt keeps its space, and all of the answer is trained."""
    tokenizer = tokenizer_of("empty")
    assert tokenizer.decode(tokenizer(" Paris")["input_ids"][:1]) == " Paris"
    row = conversation(("user", "Oslo? "), ("assistant", "Paris"))
    ids, labels = encode_conversation(row, renderer_of("empty"), tokenizer)
    prompt, answer = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("Oslo? ", "Paris</s>"))
    assert ids == prompt + answer
    assert labels == [IGNORE_INDEX] * len(prompt) + answer


@pytest.mark.parametrize(("answers", "policy", "expected"), [
    ([], MaskPolicy(), ()),
    ([], MaskPolicy(train_on_prompt=True), ((0, 9),)),
    ([(Span(2, 4), True)], MaskPolicy(), ((2, 4),)),
    ([(Span(2, 4), False)], MaskPolicy(), ()),
    ([(Span(2, 4), False), (Span(6, 9), True)], MaskPolicy(train_on_prompt=True), ((0, 2), (4, 9))),
    ([(Span(2, 4), True), (Span(6, 9), True)], MaskPolicy(train_on_prompt=True, mask_history=True), ((0, 2), (4, 9))),
    ([(Span(2, 4), True), (Span(6, 9), False)], MaskPolicy(mask_history=True), ()),
])
def test_chosen_spans(answers: list[tuple[Span, bool]], policy: MaskPolicy, expected: tuple) -> None:
    """By hand, of nine characters."""
    assert chosen_spans(answers, 9, policy) == expected
