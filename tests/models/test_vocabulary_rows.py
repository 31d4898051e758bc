"""The rows of new tokens. Oracles: numpy by hand for the means, transformers' own resizing for shapes and ties."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, GPTJConfig, LlamaConfig

from tunewright.config.model import ModelConfig, TokenizerConfig
from tunewright.errors import InputError
from tunewright.models.load import check_vocabulary
from tunewright.models.surgery.vocabulary import Row, begin, fit_vocabulary, matrices, mean_row, noise, padded, resize
from tunewright.models.tokenizer import load_tokenizer
from tunewright.selftest.tiny import write_model

WIDTH = 32


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("rows") / "model")


def tokenizer_of(home: Path, **tokens: Any) -> tuple[Any, TokenizerConfig]:
    config = TokenizerConfig(**tokens)
    return load_tokenizer(ModelConfig(model_name_or_path=str(home)), config), config


def model_of(rows: int, *, tied: bool = False, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    shape = LlamaConfig(vocab_size=rows, hidden_size=WIDTH, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4,
                        tie_word_embeddings=tied, initializer_range=0.3, pad_token_id=0, eos_token_id=2)
    return AutoModelForCausalLM.from_config(shape).eval()


def embedding(model: Any) -> np.ndarray[Any, Any]:
    return np.asarray(model.get_input_embeddings().weight.detach().numpy(), dtype=np.float64)


def output(model: Any) -> np.ndarray[Any, Any]:
    return np.asarray(model.get_output_embeddings().weight.detach().numpy(), dtype=np.float64)


@pytest.mark.parametrize(("tokens", "rows"), [(1, 64), (64, 64), (65, 128), (389, 448), (151665, 151680)])
def test_rows_come_in_multiples_of_64(tokens: int, rows: int) -> None:
    assert padded(tokens) == rows


def test_noise_is_a_function_of_seed_text_and_matrix() -> None:
    """N(0, 1 / width) in its own stream: the same whatever was drawn before, another for another text, matrix or seed."""
    first = noise("<Q>", 4096, which="input", seed=7)
    torch.manual_seed(123)
    state = torch.get_rng_state()
    assert torch.equal(noise("<Q>", 4096, which="input", seed=7), first)
    assert torch.equal(torch.get_rng_state(), state)
    others = [noise("<A>", 4096, which="input", seed=7),
              noise("<Q>", 4096, which="output", seed=7), noise("<Q>", 4096, which="input", seed=8)]
    assert all(abs(float(torch.corrcoef(torch.stack([first, other]))[0, 1])) < 0.1 for other in others)
    assert float(first.std()) == pytest.approx(1 / math.sqrt(4096), rel=0.05) and abs(float(first.mean())) < 0.002


def test_rows_begin_as_told() -> None:
    """Worked by hand: rows 0 to 2 were there, of which 1 is spare and taken; 3 and 4 are new, 5 is padding."""
    matrix = torch.tensor([[1.0, 2.0], [9.0, 9.0], [3.0, 6.0], [7.0, 7.0], [7.0, 7.0], [7.0, 7.0]])
    begin(matrix, 3, {1: Row(), 3: Row((0,)), 4: Row((0, 2), torch.tensor([0.5, -0.5]))})
    assert matrix.tolist() == [[1, 2], [2, 4], [3, 6], [1, 2], [2.5, 3.5], [2, 4]]


def test_a_mean_in_parts_is_the_mean() -> None:
    """More rows than a part has; oracle: numpy. bfloat16 rows are summed in float64."""
    matrix = torch.randn(20_000, 3, generator=torch.Generator().manual_seed(0)).bfloat16()
    np.testing.assert_allclose(mean_row(matrix).numpy(), matrix.double().numpy().mean(0), rtol=1e-12)
    kept = np.delete(matrix.double().numpy(), [5, 19_999], axis=0)
    np.testing.assert_allclose(mean_row(matrix, [5, 19_999]).numpy(), kept.mean(0), rtol=1e-9)


@pytest.mark.parametrize("tied", [True, False])
def test_growth_keeps_old_rows_and_ties(home: Path, tied: bool) -> None:
    """389 rows and two new tokens: 448 rows. New ones are mean and noise, padding is the mean, in both matrices; logits of old tokens
    stay. Oracle for shape and tie: transformers' own resizing."""
    tokenizer, config = tokenizer_of(home, add_tokens=("<a>",), add_special_tokens=("<b>",))
    old = len(tokenizer) - 2
    model, before = model_of(old, tied=tied), model_of(old, tied=tied)
    before.generation_config.eos_token_id = model.generation_config.eos_token_id
    torch.manual_seed(5)
    state = torch.get_rng_state()
    assert fit_vocabulary(model, tokenizer, config, seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    plain = model_of(old, tied=tied)
    plain.resize_token_embeddings(old + 2, pad_to_multiple_of=64)
    assert model.config.vocab_size == plain.config.vocab_size == 448
    shapes, expected = ({name: value.shape for name, value in one.state_dict().items()} for one in (model, plain))
    assert shapes == expected
    assert (model.get_input_embeddings().weight is model.get_output_embeddings().weight) == tied
    assert model.generation_config.to_dict() == before.generation_config.to_dict()
    for which, now, then in (("input", embedding(model), embedding(before)), ("output", output(model), output(before))):
        np.testing.assert_array_equal(now[:old], then)
        mean = then.mean(0)
        for row, text in ((old, "<a>"), (old + 1, "<b>")):
            drawn = noise(text, WIDTH, which="input" if tied else which, seed=3).double().numpy()
            np.testing.assert_allclose(now[row], mean + drawn, rtol=0, atol=1e-6)
        np.testing.assert_allclose(now[old + 2:], np.tile(mean, (448 - old - 2, 1)), rtol=0, atol=1e-6)
    ids = torch.arange(3, 20)[None]
    with torch.no_grad():
        torch.testing.assert_close(model(input_ids=ids).logits[..., :old], before(input_ids=ids).logits, rtol=1e-5, atol=1e-5)
    check_vocabulary(tokenizer, model)


def test_spare_rows_begin_anew(home: Path) -> None:
    """A model with more rows than the tokenizer: none is added, the new token's is written, spare ones stay."""
    tokenizer, config = tokenizer_of(home, add_tokens=("<a>",))
    new = len(tokenizer) - 1
    model, before = model_of(448), model_of(448)
    assert fit_vocabulary(model, tokenizer, config, seed=3) and model.config.vocab_size == 448
    now, then = embedding(model), embedding(before)
    mean = np.delete(then, new, axis=0).mean(0)
    np.testing.assert_allclose(now[new], mean + noise("<a>", WIDTH, which="input", seed=3).double().numpy(), rtol=0, atol=1e-6)
    np.testing.assert_array_equal(np.delete(now, new, axis=0), np.delete(then, new, axis=0))


@pytest.mark.parametrize(("init", "with_noise"), [("desc_init", False), ("desc_init_w_noise", True)])
def test_descriptions(home: Path, tmp_path: Path, init: str, with_noise: bool) -> None:
    """The mean of the rows of the description's tokens in each matrix; the new token within it does not count, nor do ordinary new
    tokens have a description. Oracle: the ids of transformers' own tokenizer without the new tokens, and numpy."""
    (tmp_path / "t.yaml").write_text('"<a>": river bridge river\n"<b>": <a> candle\n')
    tokenizer, config = tokenizer_of(
        home, add_tokens=("<c>",), new_special_tokens_config=str(tmp_path / "t.yaml"), init_special_tokens=init)
    plain, _ = tokenizer_of(home)
    old = len(plain)
    model, before = model_of(old), model_of(old)
    assert fit_vocabulary(model, tokenizer, config, seed=1)
    words = {"<a>": plain("river bridge river")["input_ids"], "<b>": plain(" candle")["input_ids"]}
    for which, now, then in (("input", embedding(model), embedding(before)), ("output", output(model), output(before))):
        for text, ids in words.items():
            drawn = noise(text, WIDTH, which=which, seed=1).double().numpy() * with_noise
            np.testing.assert_allclose(now[tokenizer.convert_tokens_to_ids(text)], then[ids].mean(0) + drawn, rtol=0, atol=1e-6)
        drawn = noise("<c>", WIDTH, which=which, seed=1).double().numpy()
        np.testing.assert_allclose(now[tokenizer.convert_tokens_to_ids("<c>")], then.mean(0) + drawn, rtol=0, atol=1e-6)


def test_a_description_in_new_words_only(home: Path, tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_text('"<a>": <b>\n"<b>": candle\n')
    tokenizer, config = tokenizer_of(home, new_special_tokens_config=str(tmp_path / "t.yaml"), init_special_tokens="desc_init")
    with pytest.raises(InputError, match="new_special_tokens_config: the description of '<a>' has only new tokens"):
        fit_vocabulary(model_of(len(tokenizer) - 2), tokenizer, config, seed=1)


@pytest.mark.effect("resize_vocab")
def test_resize_vocab_fits_the_model_to_its_tokenizer(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A tokenizer with more tokens than the model has rows is refused without it; where nothing lacks it says so and changes nothing."""
    tokenizer, without = tokenizer_of(home)
    model = model_of(380)
    assert not fit_vocabulary(model, tokenizer, without, seed=0) and model.config.vocab_size == 380
    with pytest.raises(InputError, match=r"makes ids up to 388 .* but the model has 380 embedding rows") as caught:
        check_vocabulary(tokenizer, model)
    assert caught.value.mend == "use the tokenizer that belongs to the model, or set resize_vocab: true"
    assert fit_vocabulary(model, tokenizer, TokenizerConfig(resize_vocab=True), seed=0) and model.config.vocab_size == 448
    check_vocabulary(tokenizer, model)
    text = tokenizer.convert_ids_to_tokens(385)
    expected = embedding(model_of(380)).mean(0) + noise(text, WIDTH, which="input", seed=0).double().numpy()
    np.testing.assert_allclose(embedding(model)[385], expected, rtol=0, atol=1e-6)
    with caplog.at_level("INFO", "tunewright"):
        assert not fit_vocabulary(model, tokenizer, TokenizerConfig(resize_vocab=True), seed=0)
    assert "resize_vocab changes nothing: the model has 448 embedding rows for 389 tokens" in caplog.messages


def test_a_bias_of_the_head_grows_with_it(home: Path) -> None:
    """GPT-J's head has one: new entries are the mean of those that were there."""
    tokenizer, config = tokenizer_of(home, add_tokens=("<a>",))
    old = len(tokenizer) - 1
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(GPTJConfig(
        vocab_size=old, n_embd=WIDTH, n_layer=1, n_head=2, rotary_dim=8, n_positions=64, tie_word_embeddings=False))
    head = model.get_output_embeddings()
    nn.init.normal_(head.bias)
    before = head.bias.detach().clone()
    fit_vocabulary(model, tokenizer, config, seed=0)
    bias = model.get_output_embeddings().bias.detach()
    assert torch.equal(bias[:old], before)
    torch.testing.assert_close(bias[old:], before.double().mean().float().expand(448 - old))


def test_what_cannot_grow_is_refused() -> None:
    """Quantised weights, weights over several devices, heads of another kind: the reason, in one line."""
    model = model_of(64)
    model.is_quantized = True
    with pytest.raises(InputError, match="the vocabulary cannot grow: the weights of the model are quantised"):
        resize(model, 128)
    odd = model_of(64)
    odd.set_output_embeddings(nn.Sequential(nn.Linear(WIDTH, 64)))
    with pytest.raises(InputError, match="output head of this llama is of a kind of its own"):
        resize(odd, 128)
    assert set(matrices(model_of(64))) == {"input", "output"} and set(matrices(model_of(64, tied=True))) == {"input"}


def test_sharded_rows_are_refused() -> None:
    """A DTensor on a mesh of one device."""
    from torch.distributed import destroy_process_group, init_process_group
    from torch.distributed.tensor import Shard, distribute_tensor, init_device_mesh

    store = torch.distributed.HashStore()
    init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        model = model_of(64)
        weight = distribute_tensor(model.get_input_embeddings().weight.detach(), init_device_mesh("cpu", (1,)), [Shard(0)])
        model.get_input_embeddings().weight = nn.Parameter(weight)
        with pytest.raises(InputError, match="the weights are spread over several devices"):
            resize(model, 128)
    finally:
        destroy_process_group()
