"""Answers drawn with keyed noise. Oracles: a loop that computes every token from scratch, one row at a time, without padding or cache;
the softmax, whose frequencies the draws must have; identities between batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tunewright.config.inference import GenerationConfig
from tunewright.errors import InputError
from tunewright.inference.generate import Answering
from tunewright.kernels import packed_attention
from tunewright.rl.rollout import Answered, KeyedNoise, Request, Sampling, roll_out, seed_of

STOPS = (2, 9)
SETTINGS = GenerationConfig(temperature=0.8, top_p=0.9, top_k=12, max_new_tokens=14)
PLAIN = GenerationConfig(temperature=1.0, top_p=1.0, top_k=0, max_new_tokens=14)
PROMPTS = ([5, 11, 30, 7, 8, 60], [7], [44, 3, 3, 8, 60, 21, 13, 50, 17], [12, 13], [61, 4, 33])


@pytest.fixture(scope="module", params=["sdpa", packed_attention.NAME])
def model(request: pytest.FixtureRequest) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    packed_attention.register()
    shape = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
             "num_key_value_heads": 2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "initializer_range": 0.3}
    with torch.random.fork_rng():
        torch.manual_seed(3)
        found = LlamaForCausalLM(LlamaConfig(**shape))
    found.set_attn_implementation(request.param)
    return found.train()


def sampling(generation: GenerationConfig, batch_size: int = 3, **further: Any) -> Sampling:
    return Sampling(Answering(generation, STOPS, further), 0, batch_size)


def requests(prompts: Sequence[list[int]] = PROMPTS) -> list[Request]:
    return [Request(prompt, (1, 2, number, 0)) for number, prompt in enumerate(prompts)]


@torch.no_grad()
def naive(model: nn.Module, request: Request, generation: GenerationConfig) -> Answered:
    """Token by token, all of them computed anew each time; bounds written out from their definitions."""
    chance = torch.Generator().manual_seed(seed_of(request.key))
    answer: list[int] = []
    model.eval()
    for _ in range(generation.max_new_tokens):
        scores = model(input_ids=torch.tensor([[*request.ids, *answer]]), use_cache=False).logits[0, -1].float() / generation.temperature
        if generation.top_k:
            least = scores.sort(descending=True).values[generation.top_k - 1]
            scores = torch.where(scores >= least, scores, -torch.inf)
        likely = scores.softmax(-1).sort(descending=True)
        before = likely.values.cumsum(-1) - likely.values
        kept = likely.indices[before < generation.top_p]
        bounded = torch.full_like(scores, -torch.inf)
        bounded[kept] = scores[kept]
        noise = -torch.empty(len(scores)).exponential_(generator=chance).log()
        answer.append(int((bounded + noise).argmax()))
        if answer[-1] in STOPS:
            break
    model.train()
    return Answered(answer, answer[-1] in STOPS)


@pytest.mark.parametrize("generation", [SETTINGS, PLAIN, replace(PLAIN, use_cache=False)])
def test_answers_are_those_of_a_plain_loop(model: Any, generation: GenerationConfig) -> None:
    found = roll_out(model, requests(), sampling(generation))
    assert found == [naive(model, request, generation) for request in requests()]
    assert {one.ended for one in found} == {True, False} and model.training
    assert all(1 <= len(one.ids) <= 14 and not set(one.ids[:-1]) & set(STOPS) for one in found)


def test_answers_with_every_fast_path(tmp_path: Path) -> None:
    """An adapter on the model as training runs it - packed attention, grouped LoRA, our norms, MLPs and output head, layers recomputed -
    answers as peft and transformers by themselves do."""
    from tunewright.adapters.trainable import enable_gradient_checkpointing, make_trainable
    from tunewright.config.model import ModelConfig
    from tunewright.config.run import RunConfig
    from tunewright.kernels import plan
    from tunewright.models.load import load_model
    from tunewright.selftest.tiny import write_model

    run = RunConfig(model=ModelConfig(model_name_or_path=str(write_model(tmp_path / "model"))))
    found: list[Any] = []
    for is_fast in (True, False):
        base = load_model(run.model, run.precision)
        kernels = plan.apply(run, base) if is_fast else None
        policy: Any = make_trainable(base, run)
        chance = torch.Generator().manual_seed(4)
        with torch.no_grad():
            for weight in policy.parameters():
                weight += 0.3 * torch.randn(weight.shape, generator=chance)
        if kernels is not None:
            enable_gradient_checkpointing(policy, False)
            assert len(plan.hasten(run, policy)) >= 4
            found = roll_out(policy, requests(), sampling(PLAIN))
        else:
            assert found == [naive(policy, request, PLAIN) for request in requests()]


def test_an_answer_does_not_depend_on_its_batch(model: Any) -> None:
    """All at once, one by one, in another order: the same, and the random numbers of the run are not touched."""
    before = torch.get_rng_state()
    together = roll_out(model, requests(), sampling(PLAIN, 5))
    assert [roll_out(model, [request], sampling(PLAIN))[0] for request in requests()] == together
    assert roll_out(model, requests()[::-1], sampling(PLAIN, 2)) == together[::-1]
    assert torch.equal(before, torch.get_rng_state())


def test_each_part_of_the_key_changes_the_answer(model: Any) -> None:
    keys = [(1, 2, 3, 0), (7, 2, 3, 0), (1, 7, 3, 0), (1, 2, 7, 0), (1, 2, 3, 7)]
    found = roll_out(model, [Request(PROMPTS[0], key) for key in keys], sampling(PLAIN, 5))
    assert len({tuple(one.ids) for one in found}) == 5
    assert roll_out(model, [Request(PROMPTS[0], keys[0])] * 2, sampling(PLAIN)) == [found[0]] * 2


def test_draws_have_the_frequencies_of_the_softmax() -> None:
    """20000 keys: each frequency within four standard deviations of its probability; what is ruled out is never drawn."""
    scores = torch.tensor([0.0, 1.0, -1.0, 2.0, -torch.inf])
    count = 20000
    drawn = KeyedNoise([(0, number) for number in range(count)], torch.device("cpu"))(torch.empty(0), scores.repeat(count, 1)).argmax(-1)
    found, wanted = torch.bincount(drawn, minlength=5) / count, scores.softmax(-1)
    assert ((found - wanted).abs() <= 4 * (wanted * (1 - wanted) / count).sqrt()).all(), (found, wanted)


def test_min_p_of_a_generation_file_bounds_the_draws(model: Any) -> None:
    """At min_p 1 only the likeliest token is left: the greedy answer of transformers."""
    ids = torch.tensor([PROMPTS[0]])
    model.eval()
    greedy = model.generate(input_ids=ids, do_sample=False, max_new_tokens=14, eos_token_id=list(STOPS), pad_token_id=0)[0, 6:].tolist()
    (found,) = roll_out(model, requests()[:1], sampling(PLAIN, min_p=1.0))
    assert found.ids == greedy


def test_settings_of_a_generation_file_that_bound_nothing(model: Any) -> None:
    """transformers writes what is off as 1 or 0, which its own classes do not take; others that they do not take are refused."""
    free = roll_out(model, requests()[:1], sampling(PLAIN))
    assert roll_out(model, requests()[:1], sampling(PLAIN, typical_p=1.0, epsilon_cutoff=0.0, eta_cutoff=0.0, min_p=0)) == free
    assert roll_out(model, requests()[:1], sampling(PLAIN, typical_p=0.05)) != free
    with pytest.raises(InputError, match=r"generation_config: min_p: .*correct the file"):
        roll_out(model, requests()[:1], sampling(PLAIN, min_p=3.0))


def test_max_length_bounds_prompt_and_answer(model: Any) -> None:
    """A prompt of nine tokens has room for three of twelve; one that fills it is refused by its length."""
    bounded = replace(PLAIN, max_length=12)
    found = roll_out(model, requests(), sampling(bounded, 5))
    free = roll_out(model, requests(), sampling(PLAIN, 5))
    rooms = [min(14, 12 - len(prompt)) for prompt in PROMPTS]
    assert [one.ids for one in found] == [one.ids[:room] for one, room in zip(free, rooms, strict=True)]
    assert [one.ended for one in found] == [one.ids[-1] in STOPS for one in found]
    with pytest.raises(InputError, match="a prompt of 9 tokens leaves no room"):
        roll_out(model, requests(), sampling(replace(PLAIN, max_length=9)))
