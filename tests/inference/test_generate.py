"""Batched generation against transformers' own, one prompt at a time."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.models.tiny import tiny_model
from tunewright.config.inference import GenerationConfig
from tunewright.inference.generate import generate, room, until_stop
from tunewright.selftest.tiny import write_model

GREEDY = GenerationConfig(do_sample=False, max_new_tokens=12)
PROMPTS = [[5, 6, 7], [8], [9, 10, 11, 12, 13, 14, 15], [16, 17], [18, 19, 20, 21]]


class Padding:
    """All that generation asks of a tokenizer."""

    pad_token_id = 0


def one_by_one(model: Any, **settings: Any) -> list[list[int]]:
    answers = []
    for prompt in PROMPTS:
        output = model.generate(input_ids=torch.tensor([prompt]), pad_token_id=0, use_cache=False, **settings)
        answers.append(output[0, len(prompt):].tolist())
    return answers


@pytest.mark.effect("do_sample")
@pytest.mark.parametrize("family", ["llama", "qwen3", "gpt2", "gemma"])
@pytest.mark.parametrize("batch", [1, 2, 5])
def test_greedy_answers_equal_transformers_one_by_one(family: str, batch: int) -> None:
    """Oracle: plain `generate` without padding and cache, in float64 so that no tie is broken by rounding."""
    model = tiny_model(family).double()
    expected = one_by_one(model, do_sample=False, max_new_tokens=12, eos_token_id=95)
    expected = [answer[:answer.index(95)] if 95 in answer else answer for answer in expected]
    assert generate(model, Padding(), PROMPTS, GREEDY, (95,), batch) == expected


def test_answers_end_before_the_first_of_several_stop_ids() -> None:
    """By hand from the unstopped answer: whatever its third token is becomes a stop id."""
    model = tiny_model("llama")
    whole = generate(model, Padding(), PROMPTS[:1], GREEDY, (95,))[0]
    stop = whole[3]
    assert generate(model, Padding(), PROMPTS[:1], GREEDY, (94, stop))[0] == whole[:whole.index(stop)]


@pytest.mark.effect("temperature", "top_p", "top_k")
@pytest.mark.parametrize("narrow", [{"temperature": 1e-4}, {"top_p": 1e-6}, {"top_k": 1}])
def test_sampling_from_one_token_is_greedy(narrow: dict[str, Any]) -> None:
    """Identity: each of the three alone can leave only the likeliest token. Oracle: transformers' greedy answers."""
    wide = {"do_sample": True, "temperature": 5.0, "top_p": 1.0, "top_k": 0, "max_new_tokens": 12}
    model = tiny_model("llama").double()
    expected = one_by_one(model, do_sample=False, max_new_tokens=12, eos_token_id=95)
    assert generate(model, Padding(), PROMPTS, GenerationConfig(**{**wide, **narrow}), (95,)) == expected
    assert generate(model, Padding(), PROMPTS, GenerationConfig(**wide), (95,)) != expected


def test_sampling_is_a_function_of_the_seed_and_leaves_the_stream_alone() -> None:
    settings = GenerationConfig(do_sample=True, temperature=2.0, top_p=1.0, top_k=0, max_new_tokens=12)
    model = tiny_model("llama")
    torch.manual_seed(1)
    position = torch.get_rng_state()
    first = generate(model, Padding(), PROMPTS, settings, (95,))
    assert torch.equal(torch.get_rng_state(), position)
    torch.rand(5)
    assert generate(model, Padding(), PROMPTS, settings, (95,)) == first
    torch.manual_seed(2)
    assert generate(model, Padding(), PROMPTS, settings, (95,)) != first


@pytest.mark.effect("num_beams", "repetition_penalty", "length_penalty", "max_new_tokens")
@pytest.mark.parametrize(("settings", "others"), [
    ({"num_beams": 3}, {}), ({"repetition_penalty": 5.0}, {}), ({"num_beams": 3, "length_penalty": -8.0}, {"num_beams": 3})])
def test_settings_reach_transformers(settings: dict[str, Any], others: dict[str, Any]) -> None:
    """Oracle: the same settings given to `generate` by name, and not what it answers without the last of them. Token 10 ends some of
    the beams early."""
    model = tiny_model("llama").double()
    common = {"do_sample": False, "max_new_tokens": 6}

    def plain(**further: Any) -> list[list[int]]:
        return [until_stop(answer, (10,)) for answer in one_by_one(model, eos_token_id=10, **common, **further)]

    ours = generate(model, Padding(), PROMPTS, GenerationConfig(**common, **settings), (10,), 1)
    assert ours == plain(**settings) != plain(**others)


def test_the_models_own_file_does_not_sample_for_us() -> None:
    """A generation_config.json that samples hot does not reach a greedy answer."""
    model = tiny_model("llama")
    plain = generate(model, Padding(), PROMPTS, GREEDY, (95,))
    model.generation_config.do_sample, model.generation_config.temperature, model.generation_config.top_k = True, 9.0, 3
    assert generate(model, Padding(), PROMPTS, GREEDY, (95,)) == plain


@pytest.mark.parametrize(("max_length", "length", "expected"), [(None, 7, 12), (10, 7, 3), (10, 10, 0), (10, 30, 0), (99, 7, 12)])
def test_room(max_length: int | None, length: int, expected: int) -> None:
    assert room(GenerationConfig(max_new_tokens=12, max_length=max_length), length) == expected


@pytest.mark.effect("max_length")
def test_max_length_counts_prompt_and_answer_of_each_row() -> None:
    answers = generate(tiny_model("llama"), Padding(), PROMPTS, GenerationConfig(do_sample=False, max_length=8), ())
    assert [len(answer) for answer in answers] == [5, 7, 1, 6, 4]
    assert generate(tiny_model("llama"), Padding(), [[5] * 9], GenerationConfig(do_sample=False, max_length=8), ()) == [[]]


def test_edges() -> None:
    model = tiny_model("llama").train()
    assert generate(model, Padding(), [], GREEDY, (95,)) == []
    generate(model, Padding(), PROMPTS[:1], GREEDY, (95,))
    assert model.training
    assert until_stop([1, 2, 3, 2], (2, 9)) == [1]
    assert until_stop([1, 2], ()) == [1, 2]


def test_decoding_leaves_control_tokens_out(tmp_path: Any) -> None:
    from transformers import AutoTokenizer

    from tunewright.inference.generate import decode

    tokenizer = AutoTokenizer.from_pretrained(write_model(tmp_path))
    ids = tokenizer("anchor", add_special_tokens=False)["input_ids"]
    assert decode(tokenizer, [[*ids, tokenizer.eos_token_id], []]) == ["anchor", ""]
