"""Answers behind one copy of their prompt: shared = unshared, for the models and the attentions that a run can choose.

Oracles: the softmax under a mask written out cell by cell; each row by itself through transformers' own forward.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.harness.prompts import Group, groups, one_by_one, shared
from tests.kernels.test_isolation import GOLDEN, MODELS, WINDOW, exact_softmax, gradients, run, tiny, with_adapter
from tunewright.kernels.blocked_attention import Rule
from tunewright.kernels.packed_attention import attend_segments
from tunewright.kernels.plan import apply, plan, share_prefixes
from tunewright.kernels.prefix_sharing import Segment, seen_mask, segments, stacked
from tunewright.stages.sequence_logps import token_logps

also_exact = exact_softmax


@pytest.fixture(autouse=True)
def exact_norms(monkeypatch: pytest.MonkeyPatch) -> None:
    """Transformers' norms round to float32, whatever the rest; here they do not. A shared prompt gets the gradients of its answers added
    up before such a rounding, and not after it."""
    convert = torch.Tensor.to

    def kept(states: Tensor, *given: Any, **named: Any) -> Tensor:
        narrows = states.dtype == torch.float64 and given[:1] == (torch.float32,)
        return states if narrows else convert(states, *given, **named)

    monkeypatch.setattr(torch.Tensor, "to", kept)
    monkeypatch.setattr(torch.Tensor, "float", lambda states: kept(states, torch.float32))


GROUPS = {
    "pairs, answers of one token among them": [(6, (3, 1)), (2, (1, 5)), (4, (1, 1))],
    "a prompt longer than the window, answers too": [(9, (7, 6))],
    "one token of prompt": [(1, (4, 3))],
    "several answers to one prompt, then another prompt": [(5, (2, 4, 1, 3)), (3, (2, 2))],
    "one answer": [(5, (3,)), (4, (2, 3))],
}


def naive(query: Tensor, key: Tensor, value: Tensor, visible: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(D)) v over the keys that `visible` [T, T] allows."""
    heads, width = query.shape[1], query.shape[3]
    key, value = (states.repeat_interleave(heads // states.shape[1], dim=1) for states in (key, value))
    logits = (query @ key.transpose(-1, -2) / width**0.5).masked_fill(~visible, float("-inf"))
    return (torch.softmax(logits, dim=-1) @ value).transpose(1, 2)


def visible(bounds: list[int], prefixes: list[int], window: int | None) -> Tensor:
    """[T, T] bool, cell by cell from the meaning: nearest earlier segment with prefix 0, distances by position."""
    total = bounds[-1]
    owner = [next(n for n in range(len(prefixes)) if bounds[n] <= t < bounds[n + 1]) for t in range(total)]
    position = [t - bounds[owner[t]] + prefixes[owner[t]] for t in range(total)]
    seen = torch.zeros(total, total, dtype=torch.bool)
    for q in range(total):
        root = max((n for n in range(owner[q]) if prefixes[n] == 0), default=None)
        for k in range(total):
            inside = owner[k] == owner[q] or (owner[k] == root and position[k] < prefixes[owner[q]])
            seen[q, k] = inside and 0 <= position[q] - position[k] < (window or total)
    return seen


@pytest.mark.parametrize("blocks", [True, False])
@pytest.mark.parametrize("window", [None, 1, 3, 6, 50])
@pytest.mark.parametrize(("bounds", "prefixes"), [
    ([0, 7, 9], [0, 4]), ([0, 5, 6, 9, 11], [0, 3, 5, 1]), ([0, 2, 4, 9, 12, 13], [0, 0, 2, 0, 2]), ([0, 4, 9], [0, 0]),
    ([0, 6, 8, 10, 12], [0, 3, 3, 3]), ([0, 3, 6, 9, 11, 13], [0, 0, 0, 2, 2]), ([0, 3, 6, 9, 12, 15], [0, 2, 0, 2, 2])])
def test_attention_and_its_gradients(bounds: list[int], prefixes: list[int], window: int | None, blocks: bool,
                                     monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the naive formula in float64, four query heads on two key heads. In blocks of a CPU, and as on other devices."""
    if not blocks:
        monkeypatch.setattr("tunewright.kernels.packed_attention.fits", lambda *given: False)
    torch.manual_seed(1)
    query, key, value = (torch.randn(1, heads, bounds[-1], 8, dtype=torch.float64, requires_grad=True) for heads in (4, 2, 2))
    parts = segments(torch.tensor(bounds), torch.tensor(prefixes))
    expected = naive(query, key, value, visible(bounds, prefixes, window))
    found = attend_segments(query, key, value, parts, Rule(window=window))
    assert torch.allclose(found, expected, rtol=0, atol=1e-12)
    probe = torch.randn_like(expected)
    for ours, theirs in zip(*(torch.autograd.grad(one, (query, key, value), probe) for one in (found, expected)), strict=True):
        assert torch.allclose(ours, theirs, rtol=0, atol=1e-12)


def test_what_a_segment_continues() -> None:
    """By hand: the nearest earlier segment that continues none."""
    found = list(segments(torch.tensor([0, 7, 9, 12, 13, 20, 22]), torch.tensor([0, 4, 7, 0, 0, 3])))
    assert found == [Segment(0, 7, 0, 0), Segment(7, 9, 0, 4), Segment(9, 12, 0, 7), Segment(12, 13, 0, 0), Segment(13, 20, 0, 0),
                     Segment(20, 22, 13, 3)]
    assert list(segments(torch.tensor([0, 2, 5]), None)) == [Segment(0, 2, 0, 0), Segment(2, 5, 0, 0)]


def test_what_is_treated_as_one() -> None:
    """By hand: neighbours of one length that continue nothing, or the same beginning of the same segment, which itself is one apart."""
    def found(bounds: list[int], prefixes: list[int]) -> list[tuple[int, int, int, int]]:
        parts = stacked(segments(torch.tensor(bounds), torch.tensor(prefixes)))
        return [(part.start, part.end, part.copies, part.length()) for part in parts]

    assert found([0, 2, 4, 7, 10, 12], [0] * 5) == [(0, 4, 2, 2), (4, 10, 2, 3), (10, 12, 1, 2)]
    assert found([0, 3, 6, 9, 11, 13], [0, 0, 0, 2, 2]) == [(0, 6, 2, 3), (6, 9, 1, 3), (9, 13, 2, 2)]
    assert found([0, 3, 6, 9, 12], [0, 2, 0, 2]) == [(0, 3, 1, 3), (3, 6, 1, 3), (6, 9, 1, 3), (9, 12, 1, 3)]
    assert found([0, 5, 7, 9, 11], [0, 3, 3, 2]) == [(0, 5, 1, 5), (5, 9, 2, 2), (9, 11, 1, 2)]


@pytest.mark.parametrize("prefixes", [[3, 0], [0, 5]])
def test_a_prefix_that_is_not_there_is_a_fault_of_ours(prefixes: list[int]) -> None:
    with pytest.raises(AssertionError, match="a segment continues"):
        list(segments(torch.tensor([0, 4, 6]), torch.tensor(prefixes)))


def test_whole_masks() -> None:
    """By hand: two queries behind three keys, without a window, and with one of three positions."""
    assert seen_mask(2, 5, None, torch.device("cpu")).long().tolist() == [[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]
    assert seen_mask(2, 5, 3, torch.device("cpu")).long().tolist() == [[0, 1, 1, 1, 0], [0, 0, 1, 1, 1]]
    assert seen_mask(3, 3, 1, torch.device("cpu")).long().tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]


def prepared(kind: str, flash_attn: str) -> tuple[nn.Module, nn.Module]:
    """The model as transformers runs it, and the same under our plan."""
    reference = tiny(kind, "eager" if flash_attn == "disabled" or not tiny(kind)._supports_sdpa else "sdpa")
    model = tiny(kind)
    chosen = share_prefixes(run(flash_attn), apply(run(flash_attn), model), model)
    assert chosen.shares_prefixes
    assert chosen.reasons[-1] == "prompts: computed once for all their answers"
    return reference.train(), model.train()


def compare(reference: nn.Module, model: nn.Module, given: list[Group]) -> None:
    """Log-probabilities of every token, and every gradient of a sum in which each has a factor of its own."""
    expected, found = one_by_one(reference, given), token_logps(model, shared(given))
    assert torch.allclose(found, expected, rtol=GOLDEN, atol=GOLDEN)
    factors = torch.randn(len(expected), dtype=torch.float64, generator=torch.Generator().manual_seed(6))
    for logps in (expected, found):
        (logps * factors).sum().backward()
    wanted, got = gradients(reference), gradients(model)
    assert got.keys() == wanted.keys()
    for name, gradient in wanted.items():
        assert torch.allclose(got[name], gradient, rtol=GOLDEN, atol=GOLDEN * max(1.0, float(gradient.abs().max()))), name


@pytest.mark.parametrize("flash_attn", ["disabled", "auto"])
@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("shapes", GROUPS.values(), ids=GROUPS)
def test_log_probabilities_and_gradients_equal_the_unshared(kind: str, flash_attn: str, shapes: list[Any]) -> None:
    """Identity in float64, to 1e-10 of the largest gradient of each tensor; a window, where a model has one, is of 4 tokens."""
    assert WINDOW == 4
    compare(*prepared(kind, flash_attn), groups(shapes))


@pytest.mark.parametrize("flash_attn", ["disabled", "auto"])
@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("kind", ["llama", "gpt_oss"])
def test_with_an_adapter_and_gradient_checkpointing(kind: str, flash_attn: str, reentrant: bool) -> None:
    """What a checkpointed layer is run again with has the prefixes too."""
    reference, model = (with_adapter(one) for one in prepared(kind, flash_attn))
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    model.enable_input_require_grads()
    compare(reference, model, groups([(6, (3, 1, 2)), (7, (5, 2))]))


@pytest.mark.parametrize("kind", ["llama", "gpt_oss"])
def test_answers_that_are_the_same_have_the_same_log_probabilities(kind: str) -> None:
    """Oracle: the unshared rows; and equal answers are equally likely."""
    (given,) = groups([(5, (4,))])
    twice = [Group(given.prompt, [given.answers[0], given.answers[0].clone()])]
    reference, model = prepared(kind, "auto")
    first, second = token_logps(model, shared(twice)).detach().split(4)
    assert torch.allclose(first, second, rtol=0, atol=1e-12)
    compare(reference, model, twice)


@pytest.mark.parametrize("flash_attn", ["disabled", "auto"])
@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("changed", [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0)])
def test_another_answer_changes_not_one_bit_of_the_others(kind: str, flash_attn: str, changed: tuple[int, int]) -> None:
    """Chosen, rejected, or the answer of another pair. (With experts it is bits of a product whose number of rows depends on where tokens
    go, so that the last one may change: to 1e-13 there.)"""
    model = prepared(kind, flash_attn)[1]
    before_groups = groups([(6, (3, 4)), (3, (2, 5)), (4, (1, 1))])
    group, answer = changed
    after_groups = groups([(6, (3, 4)), (3, (2, 5)), (4, (1, 1))])
    tokens = after_groups[group].answers[answer]
    tokens.copy_((tokens - 3 + 17) % 61 + 3)
    with torch.no_grad():
        before, after = (token_logps(model, shared(one)) for one in (before_groups, after_groups))
    inside = shared(before_groups).sequences.owners == sum(len(one.answers) for one in before_groups[:group]) + answer
    assert not torch.isclose(before[inside], after[inside]).any()
    if "num_experts_per_tok" in MODELS[kind]:
        assert torch.allclose(before[~inside], after[~inside], rtol=1e-13, atol=1e-13)
    else:
        assert torch.equal(before[~inside], after[~inside])


def test_another_prompt_changes_its_own_answers_only() -> None:
    model = prepared("llama", "auto")[1]
    given = groups([(6, (3, 4)), (3, (2, 5))])
    with torch.no_grad():
        before = token_logps(model, shared(given))
        given[0].prompt[2] = (given[0].prompt[2] + 9) % 61 + 3
        after = token_logps(model, shared(given))
    assert not torch.isclose(before[:7], after[:7]).any()
    assert torch.equal(before[7:], after[7:])


class Shifting(nn.Module):
    """A layer of a model that adds what stands one place before, as some models mix tokens without attention."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, hidden: Tensor) -> Tensor:
        found: Tensor = self.inner(hidden + hidden.roll(1, dims=1))
        return found


def test_plans_that_do_not_share_say_why() -> None:
    """The layout, an attention of another make, and a model that mixes tokens behind its attention's back."""
    mixing = tiny("llama")
    mixing.model.layers[1].mlp = Shifting(mixing.model.layers[1].mlp)
    cases = {
        "sequences are padded": (run("auto", packing=False, padding_free=False), tiny("llama")),
        "attention flash_attention_2 is not told of shared prompts": (run("fa2"), tiny("llama")),
        "the model mixes tokens in a way of its own": (run("auto"), mixing),
    }
    for reason, (asked, model) in cases.items():
        chosen = plan(asked, model) if asked.model.flash_attn == "fa2" else apply(asked, model)
        asked_of = share_prefixes(asked, chosen, model)
        assert not asked_of.shares_prefixes
        assert asked_of.reasons[-1].startswith(f"prompts: computed once for each answer: {reason}")
        assert asked_of.reasons[:-1] == chosen.reasons


def test_a_model_of_shapes_is_taken_at_its_word() -> None:
    import transformers

    with torch.device("meta"):
        model = transformers.LlamaForCausalLM(tiny("llama").config)
    assert share_prefixes(run("auto"), apply(run("auto"), model), model).shares_prefixes


def test_the_trial_leaves_no_trace() -> None:
    """Modes, gradients and the state of the random numbers are as before."""
    model = tiny("llama").train()
    model.model.layers[0].eval()
    chosen, state = apply(run("auto"), model), torch.get_rng_state()
    assert share_prefixes(run("auto"), chosen, model).shares_prefixes
    assert (model.training, model.model.layers[0].training, model.model.layers[1].training) == (True, False, True)
    assert torch.equal(torch.get_rng_state(), state)
    assert not gradients(model)


def test_a_shared_prompt_passes_the_router_once() -> None:
    """By hand: what a router counts is tokens. Two answers of 3 and 4 to a prompt of 6 are 13 tokens, not 19."""
    model = prepared("qwen3_moe", "auto")[1]
    counted: list[int] = []
    model.model.layers[0].mlp.gate.register_forward_hook(lambda _, given, found: counted.append(given[0].reshape(-1, 32).shape[0]))
    token_logps(model, shared(groups([(6, (3, 4))])))
    assert counted == [13]


FAMILIES = ("apertus", "cohere2", "exaone4", "gemma3_text", "glm4", "gpt2", "gpt_neox", "granite", "hunyuan_v1_dense", "mixtral", "olmo3",
            "opt", "phi3", "qwen2_moe", "smollm3", "starcoder2")


@pytest.mark.slow
@pytest.mark.parametrize("flash_attn", ["disabled", "auto"])
@pytest.mark.parametrize("kind", FAMILIES)
def test_what_is_said_of_a_family_is_so(kind: str, flash_attn: str) -> None:
    """Where prompts are shared, log-probabilities are those of the rows by themselves, through the same attention unshared."""
    reference, model = (tiny(kind).eval() for _ in range(2))
    assert share_prefixes(run(flash_attn), apply(run(flash_attn), model), model).shares_prefixes
    reference.set_attn_implementation("eager")
    given = groups([(9, (7, 6)), (3, (1, 2))])
    with torch.no_grad():
        assert torch.allclose(token_logps(model, shared(given)), one_by_one(reference, given), rtol=0, atol=1e-9)


@pytest.mark.real
def test_the_real_model() -> None:
    """SmolLM2-135M in float32 with LoRA: log-probabilities and gradients to 1e-4 of the unshared rows', prompts of real tokens."""
    from tests.engine.test_real_step import lora_model, rows
    from tunewright.models.demo_model import ensure

    directory = Path(ensure())
    pieces = [torch.from_numpy(row.input_ids).long() for row in rows(directory)]
    given = [Group(pieces[1], [pieces[0], pieces[5][:40], pieces[3]]), Group(pieces[4][:90], [pieces[6], pieces[5][40:]])]
    reference, model = (lora_model(directory, "sdpa", torch.float32) for _ in range(2))
    base = model.get_base_model()
    assert share_prefixes(run("auto"), apply(run("auto"), base), base).shares_prefixes
    expected, found = one_by_one(reference, given), token_logps(model, shared(given))
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-4 * float(expected.detach().abs().max()))
    for logps in (expected, found):
        (logps[:60].sum() - logps[60:].sum()).backward()
    wanted, got = gradients(reference), gradients(model)
    assert got.keys() == wanted.keys()
    apart = sum(float((got[name] - wanted[name]).square().sum()) for name in wanted)
    assert apart**0.5 <= 1e-4 * sum(float(one.square().sum()) for one in wanted.values()) ** 0.5
