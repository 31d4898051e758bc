"""Rows of one sequence that do not see each other: packed = unpacked, for the models and the attentions that a run can choose.

Oracle: each row by itself through transformers' own forward, with the attention that transformers has for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from tunewright.data.collate import Example, collate_flat, collate_padded, positions_run_on
from tunewright.errors import InputError
from tunewright.kernels import blocked_attention, packed_attention
from tunewright.kernels.isolation import barrier, deafness, obstacle
from tunewright.kernels.plan import apply, plan
from tunewright.planning.numberless import OnMeta
from tunewright.stages.causal_lm import model_inputs
from tunewright.stages.sft import SupervisedFineTuning
from tunewright.stages.stage import Role

GOLDEN = 1e-10
ROUNDED = 1e-6
"""Where a model rounds to float32 besides: in the gradient of Gemma's norms."""
WINDOW = 4
SHAPE = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
MODELS = {
    "llama": {},
    "qwen3": {},
    "qwen3_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "decoder_sparse_step": 1},
    "gpt_oss": {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": WINDOW,
                "layer_types": ["sliding_attention", "full_attention"]},
    "gemma2": {"sliding_window": WINDOW, "attn_logit_softcapping": 5.0, "query_pre_attn_scalar": 8},
    "mistral": {"sliding_window": WINDOW},
}
SEQUENCES = {
    "one row": [[9]],
    "rows of one token first, between and last": [[1, 7, 1, 5, 1]],
    "rows longer than the window": [[3, 11, 4, 9]],
    "two packed sequences in a batch": [[5, 8], [1, 12, 2]],
}


@pytest.fixture(autouse=True)
def exact_softmax(monkeypatch: pytest.MonkeyPatch) -> None:
    """Transformers' eager attention and routers round to float32 in their softmax, whatever the rest; here they do not, so that
    sums in another order agree to 1e-10."""
    plain = torch.nn.functional.softmax
    monkeypatch.setattr(torch.nn.functional, "softmax", lambda logits, dim=None, dtype=None, **rest: plain(logits, dim=dim, **rest))


def run(flash_attn: str, **changes: bool | None) -> SimpleNamespace:
    """As much of a configuration as a plan reads."""
    choice = {"packing": True, "neat_packing": True, "padding_free": False, "shift_attn": False, "ignore_pad_token_for_loss": True,
              **changes}
    return SimpleNamespace(
        model=SimpleNamespace(flash_attn=flash_attn, shift_attn=choice["shift_attn"]),
        data=SimpleNamespace(packing=choice["packing"], neat_packing=choice["neat_packing"]),
        batching=SimpleNamespace(padding_free=choice["padding_free"]),
        loss=SimpleNamespace(ignore_pad_token_for_loss=choice["ignore_pad_token_for_loss"]),
        kernels=SimpleNamespace(slow_paths=()), run=SimpleNamespace(use_cpu=True))


def tiny(kind: str, attention: str | None = None, **changes: object) -> nn.Module:
    """Two random layers in float64; `changes`: of its configuration."""
    import transformers

    transformers.logging.set_verbosity_error()
    config = transformers.CONFIG_MAPPING[kind](**{**SHAPE, **MODELS.get(kind, {}), **changes})
    torch.manual_seed(2)
    model = transformers.AutoModelForCausalLM.from_config(
        config, attn_implementation=attention, experts_implementation="eager", dtype=torch.float64)
    for name, weight in model.named_parameters():
        if "sinks" in name or "experts" in name or "router" in name:
            nn.init.normal_(weight, std=0.3)
    return model


def sequences(lengths: Sequence[Sequence[int]], seed: int = 3) -> list[Example]:
    """Packed sequences of random tokens, every token but the first of a row trained."""
    rng = np.random.default_rng(seed)
    found = []
    for number, rows in enumerate(lengths):
        ids = rng.integers(3, 64, sum(rows)).astype(np.int32)
        bounds = np.cumsum([0, *rows]).astype(np.int32)
        labels = ids.copy()
        labels[bounds[:-1]] = -100
        found.append(Example(ids, labels, bounds, number))
    return found


def rows_of(examples: Sequence[Example]) -> Iterator[Example]:
    for example in examples:
        for start, end in zip(example.bounds[:-1], example.bounds[1:], strict=True):
            yield Example(example.input_ids[start:end], example.labels[start:end], np.array([0, end - start], np.int32), 0)


def with_adapter(model: nn.Module) -> nn.Module:
    """LoRA on every linear layer of the attention, its second factor not zero."""
    import peft

    torch.manual_seed(4)
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"]))
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(weight, std=0.1)
    return adapted.double()


def gradients(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}


def one_by_one(model: nn.Module, examples: Sequence[Example]) -> tuple[float, dict[str, torch.Tensor]]:
    """The plain formula: the sum over the rows of the cross-entropy, each row through transformers' own forward."""
    model.train()
    total = torch.zeros((), dtype=torch.float64)
    for row in rows_of(examples):
        ids, labels = (torch.from_numpy(part.astype(np.int64)) for part in (row.input_ids, row.labels))
        logits = model(input_ids=ids[None], attention_mask=torch.ones_like(ids)[None], use_cache=False).logits
        total = total + torch.nn.functional.cross_entropy(logits[0, :-1], labels[1:], reduction="sum")
    total.backward()
    return float(total.detach()), gradients(model)


@pytest.mark.parametrize("flash_attn", ["disabled", "auto"])
@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("lengths", SEQUENCES.values(), ids=SEQUENCES)
@pytest.mark.parametrize("trained", ["full", "full, checkpointed", "LoRA", "LoRA, checkpointed"])
def test_packed_loss_and_gradients_equal_unpacked(kind: str, flash_attn: str, lengths: list[list[int]], trained: str) -> None:
    """Identity in float64, to 1e-10 of the largest gradient of each tensor; eager and SDPA, where transformers has it for the model."""
    examples = sequences(lengths)
    reference = tiny(kind, "eager" if flash_attn == "disabled" or not tiny(kind)._supports_sdpa else "sdpa")
    model = tiny(kind)
    chosen = apply(run(flash_attn), model)
    assert chosen.flat
    if trained.startswith("LoRA"):
        reference, model = with_adapter(reference), with_adapter(model)
    if trained.endswith("checkpointed"):
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.enable_input_require_grads()
    expected_loss, expected = one_by_one(reference, examples)
    near = ROUNDED if kind == "gemma2" else GOLDEN
    stage = SupervisedFineTuning()
    batch = collate_flat(examples)
    loss = stage.loss({Role.POLICY: model.train()}, batch)
    loss.sum.backward()
    assert loss.count == sum(len(row.input_ids) - 1 for row in rows_of(examples))
    assert float(loss.sum.detach()) == pytest.approx(expected_loss, rel=near, abs=near)
    found = gradients(model)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert torch.allclose(found[name], gradient, rtol=near, atol=near * max(1.0, float(gradient.abs().max()))), name


def token_losses(model: nn.Module, example: Example) -> torch.Tensor:
    """[T] cross-entropy of each token of the sequence, 0 where nothing is trained."""
    batch = collate_flat([example])
    logits = model(**model_inputs(batch), use_cache=False).logits[0]
    return torch.nn.functional.cross_entropy(logits[:-1], batch.targets[0, :-1], reduction="none", ignore_index=-100)


@pytest.mark.parametrize("flash_attn", ["disabled", "auto"])
@pytest.mark.parametrize("kind", MODELS)
def test_other_tokens_in_one_row_leave_the_others_losses_bit_equal(kind: str, flash_attn: str) -> None:
    """Not one bit of the other rows' losses changes. (With experts it is bits of a product whose number of rows depends on where the
    tokens of the changed row go, so that the last one may: to 1e-13 there.)"""
    model = tiny(kind)
    apply(run(flash_attn), model)
    (example,) = sequences([[6, 9, 1, 7]])
    start, end = example.bounds[1:3]
    ids, labels = example.input_ids.copy(), example.labels.copy()
    ids[start:end] = (ids[start:end] - 3 + 17) % 61 + 3
    labels[start + 1 : end] = ids[start + 1 : end]
    with torch.no_grad():
        before = token_losses(model, example)
        after = token_losses(model, example._replace(input_ids=ids, labels=labels))
    inside = slice(start, end - 1)
    assert not torch.isclose(before[inside], after[inside]).any()
    outside = torch.ones(len(before), dtype=torch.bool)
    outside[inside] = False
    if "num_experts_per_tok" in MODELS[kind]:
        assert torch.allclose(before[outside], after[outside], rtol=1e-13, atol=1e-13)
    else:
        assert torch.equal(before[outside], after[outside])


@pytest.mark.parametrize("flash_attn", ["disabled", "auto"])
@pytest.mark.parametrize("kind", ["llama", "qwen3", "qwen3_moe", "gpt_oss"])
def test_plain_packing_leaks_as_it_was_asked_to(kind: str, flash_attn: str) -> None:
    """packing without neat_packing: the loss is that of one sequence over which attention is causal and positions restart with each
    row, as transformers computes it under a mask of ones; not that of the rows one by one."""
    examples = sequences([[6, 9, 1, 7]])
    model = tiny(kind)
    chosen = apply(run(flash_attn, neat_packing=False), model)
    assert not chosen.flat
    assert chosen.reasons[0].endswith("the rows of a packed sequence see each other (packing without neat_packing)")
    batch = collate_padded(examples, 0)
    assert batch.position_ids.tolist() == [[*range(6), *range(9), 0, *range(7)]]
    found = SupervisedFineTuning().loss({Role.POLICY: model}, batch)
    ids, labels = (torch.from_numpy(part.astype(np.int64)) for part in (examples[0].input_ids, examples[0].labels))
    logits = tiny(kind, chosen.attention)(
        input_ids=ids[None], attention_mask=torch.ones_like(ids)[None], position_ids=batch.position_ids, use_cache=False).logits
    expected = torch.nn.functional.cross_entropy(logits[0, :-1], labels[1:], reduction="sum")
    assert float(found.sum.detach()) == pytest.approx(float(expected.detach()), rel=GOLDEN)
    alone, _ = one_by_one(tiny(kind, chosen.attention), examples)
    assert abs(float(found.sum.detach()) - alone) > 1e-3


def test_positions_run_on_for_flash_attention() -> None:
    """FlashAttention takes a position 0 for the beginning of a row; padding never has one."""
    examples = sequences([[2, 3], [4]])
    assert collate_padded(examples, 0).position_ids.tolist() == [[0, 1, 0, 1, 2], [0, 1, 2, 3, 4]]
    assert collate_padded(examples, 0, positions=positions_run_on).position_ids.tolist() == [[0, 1, 2, 3, 4], [0, 1, 2, 3, 4]]


def test_a_window_holds_without_bounds_and_without_a_mask() -> None:
    """What a model of a packed run gives for a single row without a mask, as in an evaluation, is what transformers gives with one."""
    (row,) = rows_of(sequences([[12]]))
    ids = torch.from_numpy(row.input_ids.astype(np.int64))[None]
    expected = tiny("mistral", "eager").eval()(input_ids=ids, use_cache=False).logits
    for flash_attn in ("disabled", "auto"):
        model = tiny("mistral").eval()
        apply(run(flash_attn), model)
        for mask in (None, torch.ones_like(ids)):
            assert torch.allclose(model(input_ids=ids, attention_mask=mask, use_cache=False).logits, expected, atol=GOLDEN)


@pytest.mark.parametrize("kind", ["gpt_oss", "mistral", "gemma2"])
def test_generation_after_packing_is_that_of_the_plain_model(kind: str) -> None:
    """Greedy tokens with a cache, for two prompts of different lengths padded on the left."""
    ids = torch.tensor([[0, 0, 5, 9, 11], [7, 8, 9, 10, 12]])
    mask = (ids != 0).long()
    generate = {"attention_mask": mask, "max_new_tokens": 8, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    expected = tiny(kind, "eager").eval().generate(ids, **generate)
    for flash_attn in ("disabled", "auto"):
        model = tiny(kind).eval()
        apply(run(flash_attn), model)
        assert torch.equal(model.generate(ids, **generate), expected)


STATE = "the model has layers in which a token reaches others by more than attention"
CANNOT = {
    "lfm2": ({"layer_types": ["conv", "full_attention"]}, f"{STATE} (conv)"),
    "mamba": ({"state_size": 4}, f"{STATE} (linear_attention)"),
    "falcon": ({}, "the model's attention is code of its own, which is not told where a row ends"),
}


@pytest.mark.parametrize("kind", CANNOT)
def test_models_that_cannot_are_refused_or_padded_with_the_reason(kind: str) -> None:
    import transformers

    changes, reason = CANNOT[kind]
    shape = {name: value for name, value in SHAPE.items() if name != "head_dim"}
    model = transformers.AutoModelForCausalLM.from_config(transformers.CONFIG_MAPPING[kind](**{**shape, **changes}))
    with pytest.raises(InputError) as caught:
        plan(run("auto"), model)
    assert caught.value.line() == (f"packing: rows of one sequence cannot be kept apart: {reason}; set packing: false, or neat_packing: "
                                   "false to let them see each other")
    padded = plan(run("auto", packing=False, padding_free=True), model)
    assert not padded.flat
    assert padded.reasons[0].endswith(f"sequences are padded: {reason}")
    assert not plan(run("auto", neat_packing=False), model).flat


def test_a_model_that_does_not_pass_the_bounds_on_is_stopped() -> None:
    """Nemotron's layers keep what they are given from their attention, which would silently see all rows if it were chosen."""
    model = tiny("nemotron").train()
    model.set_attn_implementation(packed_attention.register())
    with pytest.raises(InputError, match="the model does not tell its attention where a row ends"):
        SupervisedFineTuning().loss({Role.POLICY: model}, collate_flat(sequences([[3, 4]])))


DEAF = "the model does not tell its attention where a row ends"


@pytest.mark.parametrize("flash_attn", ["disabled", "auto"])
def test_a_model_that_does_not_pass_the_bounds_on_is_padded(flash_attn: str) -> None:
    """Loss and every gradient are those of each row alone through transformers' own forward."""
    examples = sequences([[5], [9], [3]])
    expected_loss, expected = one_by_one(tiny("nemotron", "eager" if flash_attn == "disabled" else "sdpa"), examples)
    model = tiny("nemotron").train()
    chosen = apply(run(flash_attn, packing=False, padding_free=True), model)
    assert not chosen.flat
    assert chosen.reasons[0].endswith(f"sequences are padded: {DEAF}")
    loss = SupervisedFineTuning().loss({Role.POLICY: model}, collate_padded(examples, 0))
    loss.sum.backward()
    assert float(loss.sum.detach()) == pytest.approx(expected_loss, rel=GOLDEN)
    found = gradients(model)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert torch.allclose(found[name], gradient, rtol=ROUNDED, atol=ROUNDED), name


def test_packing_is_refused_where_bounds_do_not_arrive() -> None:
    """The whole line, written by hand; rows that may see each other need no bounds."""
    model = tiny("nemotron")
    for flash_attn in ("disabled", "auto", "fa2"):
        with pytest.raises(InputError) as caught:
            plan(run(flash_attn), model)
        assert caught.value.line() == (f"packing: rows of one sequence cannot be kept apart: {DEAF}; set packing: false, or "
                                       "neat_packing: false to let them see each other")
    assert not plan(run("auto", neat_packing=False), model).flat


@pytest.mark.parametrize("kind", [*MODELS, "nemotron"])
def test_listening_leaves_no_trace(kind: str) -> None:
    """Mode, attention, random numbers and the sum of all weights are as before; it is one pass that does not reach the second layer."""
    model = tiny(kind).train()
    before = (model.config._attn_implementation, torch.get_rng_state(), sum(float(weight.detach().sum()) for weight in model.parameters()))
    layers: list[int] = []
    for number, layer in enumerate(model.model.layers):
        layer.register_forward_pre_hook(lambda *_, number=number: layers.append(number))
    assert deafness(model) == (DEAF if kind == "nemotron" else None)
    assert layers == [0]
    assert all(module.training for module in model.modules())
    assert model.config._attn_implementation == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])
    assert sum(float(weight.detach().sum()) for weight in model.parameters()) == before[2]


def test_every_part_of_a_model_keeps_its_attention() -> None:
    """A model of text and images, whose parts were given different attentions."""
    import transformers

    text = {**SHAPE, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]}}
    sight = {"depth": 1, "embed_dim": 16, "hidden_size": 32, "num_heads": 2, "mlp_ratio": 1}
    config = transformers.Qwen2VLConfig(text_config=text, vision_config=sight)
    model = transformers.Qwen2VLForConditionalGeneration._from_config(
        config, attn_implementation={"": "sdpa", "text_config": "sdpa", "vision_config": "eager"})
    assert deafness(model) is None
    assert model.config._attn_implementation == model.config.text_config._attn_implementation == "sdpa"
    assert model.config.vision_config._attn_implementation == model.model.visual.config._attn_implementation == "eager"


@pytest.mark.parametrize("kind", [*MODELS, "nemotron"])
def test_a_model_of_shapes_comes_to_the_same_plan(kind: str) -> None:
    """The planner's model, on the meta device, against the plan of the real one."""
    with torch.device("meta"):
        shapes = tiny(kind)
        with OnMeta():
            found = apply(run("auto", packing=False, padding_free=True), shapes)
    assert found == apply(run("auto", packing=False, padding_free=True), tiny(kind))


def test_where_blocks_are_wrong_each_row_is_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loss and gradients are still those of transformers' own forward, row by row; the model's own shape was asked for."""
    asked = []
    monkeypatch.setattr(blocked_attention, "disproof", lambda *shape: asked.append(shape) or "blocks are wrong")
    examples = sequences([[100, 5]])
    expected, _ = one_by_one(tiny("llama", "eager"), examples)
    model = tiny("llama").train()
    chosen = apply(run("auto"), model)
    assert asked == [(4, 2, 8, torch.float64)]
    assert chosen.reasons == ("attention tunewright_packed_eager: eager, one call per row: blocks are wrong",)
    loss = SupervisedFineTuning().loss({Role.POLICY: model}, collate_flat(examples))
    assert float(loss.sum.detach()) == pytest.approx(expected, rel=GOLDEN)


def test_what_is_printed() -> None:
    """The line of each choice."""
    said = {(kind, flash_attn): plan(run(flash_attn), tiny(kind)).reasons[0]
            for kind, flash_attn in (("llama", "auto"), ("llama", "disabled"), ("gpt_oss", "auto"), ("gemma2", "sdpa"))}
    assert said == {
        ("llama", "auto"): "attention tunewright_packed: each row by itself, without padding",
        ("llama", "disabled"): "attention tunewright_packed_eager: eager, one call per row: flash_attn asks for it",
        ("gpt_oss", "auto"): "attention tunewright_packed_eager: eager, one call per row: the model has attention sinks",
        ("gemma2", "sdpa"): "attention tunewright_packed_eager: eager, one call per row: the model caps its attention logits",
    }
    assert plan(run("auto", packing=False), tiny("gpt_oss")).attention == "eager"


FAMILIES = (
    "apertus", "arcee", "cohere", "cohere2", "diffllama", "ernie4_5", "exaone4", "gemma", "gemma3_text", "glm", "glm4", "gpt2",
    "gpt_neox", "granite", "hunyuan_v1_dense", "llama4_text", "mixtral", "nanochat", "olmo", "olmo2", "olmo3", "opt", "phi", "phi3",
    "qwen2", "qwen2_moe", "seed_oss", "smollm3", "stablelm", "starcoder2", "vaultgemma")


@pytest.mark.slow
@pytest.mark.parametrize("kind", FAMILIES)
def test_what_is_said_of_a_family_is_so(kind: str) -> None:
    """Where no barrier is named, logits of a row are those of the row alone, to the bit or nearly, whatever lies before it."""
    import transformers

    config = transformers.CONFIG_MAPPING[kind](**SHAPE)
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config, experts_implementation="eager").double().eval()
    if barrier(model):
        assert kind == "stablelm"
        return
    with torch.device("meta"), OnMeta():
        assert apply(run("auto"), transformers.AutoModelForCausalLM.from_config(config)).flat
    lengths = [[9, 11, 1]]
    for flash_attn in ("disabled", "auto"):
        assert apply(run(flash_attn), model).flat, obstacle(model)
        with torch.no_grad():
            logits = [model(**model_inputs(collate_flat([one])), use_cache=False).logits[0, 9:20]
                      for one in (*sequences(lengths), _first_row_changed(*sequences(lengths)))]
            (alone,) = [model(**model_inputs(collate_flat([row])), use_cache=False).logits[0]
                        for row in list(rows_of(sequences(lengths)))[1:2]]
        assert torch.allclose(logits[0], logits[1], rtol=0, atol=1e-12)
        assert torch.allclose(logits[0], alone, rtol=0, atol=1e-9)


def _first_row_changed(example: Example) -> Example:
    ids = example.input_ids.copy()
    ids[:9] = ids[8::-1]
    return example._replace(input_ids=ids)
