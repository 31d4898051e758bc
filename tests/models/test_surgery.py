"""Stretched rotary positions and models from scratch. Oracles: the papers' formulas written out, and transformers' own initialisation."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from tests.models.tiny import tiny_model, write_tiny
from tunewright.config.model import ModelConfig
from tunewright.config.optimization import PrecisionConfig
from tunewright.errors import InputError
from tunewright.models.load import load_model
from tunewright.models.scratch import initialise_model

FP32 = PrecisionConfig()
WIDTH, BASE, CONTEXT = 8, 10000.0, 128


def frequencies(directory: Path, method: str | None, length: int) -> torch.Tensor:
    """What the opened model rotates by, [D / 2]."""
    config = ModelConfig(model_name_or_path=str(directory), rope_scaling=method)
    model = load_model(config, FP32, length_tokens=length)
    rotary = model.model.rotary_emb
    if method == "dynamic":  # it grows with the sequence that it sees
        rotary(torch.zeros(1, length, 32), torch.arange(length)[None])
    return rotary.inv_freq


def plain() -> list[float]:
    return [BASE ** (-2 * pair / WIDTH) for pair in range(WIDTH // 2)]


def linear(factor: float, length: int) -> list[float]:
    """Positions divided by the factor (Chen et al. 2023, eq. 4)."""
    return [one / factor for one in plain()]


def dynamic(factor: float, length: int) -> list[float]:
    """The base grows by (factor * length / context - (factor - 1)) ^ (D / (D - 2)) (NTK-aware, dynamic)."""
    base = BASE * (factor * length / CONTEXT - (factor - 1)) ** (WIDTH / (WIDTH - 2))
    return [base ** (-2 * pair / WIDTH) for pair in range(WIDTH // 2)]


def yarn(factor: float, length: int) -> list[float]:
    """Interpolated and plain frequencies mixed by a ramp between the pairs that turn 32 times and once (Peng et al. 2023, section 3.2)."""
    def pair_that_turns(times: float) -> float:
        return WIDTH * math.log(CONTEXT / (times * 2 * math.pi)) / (2 * math.log(BASE))

    low, high = max(math.floor(pair_that_turns(32)), 0), min(math.ceil(pair_that_turns(1)), WIDTH - 1)
    ramp = [min(max((pair - low) / (high - low), 0), 1) for pair in range(WIDTH // 2)]
    return [one / factor * share + one * (1 - share) for one, share in zip(plain(), ramp, strict=True)]


def llama3(factor: float, length: int) -> list[float]:
    """Wave lengths beyond the context are divided by the factor, those below a quarter of it kept, smoothed in between (Llama 3.1)."""
    found = []
    for one in plain():
        wave = 2 * math.pi / one
        smooth = (CONTEXT / wave - 1) / (4 - 1)
        found.append(one / factor if wave > CONTEXT else one if wave < CONTEXT / 4 else (1 - smooth) * one / factor + smooth * one)
    return found


@pytest.mark.effect("rope_scaling")
@pytest.mark.parametrize("formula", [linear, dynamic, yarn, llama3])
def test_frequencies_are_those_of_the_papers(tmp_path: Path, formula: object) -> None:
    """300 tokens in a context of 128 need the factor 3."""
    write_tiny(tmp_path)
    expected = torch.tensor(formula(3.0, 300), dtype=torch.float32)  # type: ignore[operator]
    method = formula.__name__  # type: ignore[attr-defined]
    torch.testing.assert_close(frequencies(tmp_path, method, 300), expected, rtol=1e-5, atol=0)
    torch.testing.assert_close(frequencies(tmp_path, None, 300), torch.tensor(plain()), rtol=1e-6, atol=0)


def test_positions_that_fit_are_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_tiny(tmp_path)
    with caplog.at_level("INFO"):
        torch.testing.assert_close(frequencies(tmp_path, "linear", 128), torch.tensor(plain()), rtol=1e-6, atol=0)
    assert "rope_scaling changes nothing: the model holds 128 positions, and cutoff_len is 128" in caplog.text


@pytest.mark.parametrize(("family", "reason"), [("gpt2", "gpt2 has no rotary positions")])
def test_models_that_cannot_be_stretched_are_refused(tmp_path: Path, family: str, reason: str) -> None:
    write_tiny(tmp_path, family)
    with pytest.raises(InputError, match=reason):
        load_model(ModelConfig(model_name_or_path=str(tmp_path), rope_scaling="linear"), FP32, length_tokens=300)


def test_positions_stretched_twice_are_refused(tmp_path: Path) -> None:
    config = ModelConfig(model_name_or_path=str(write_tiny(tmp_path / "a")), rope_scaling="linear")
    load_model(config, FP32, length_tokens=300).save_pretrained(tmp_path / "b")
    with pytest.raises(InputError, match="the positions of this llama are stretched already"):
        load_model(ModelConfig(model_name_or_path=str(tmp_path / "b"), rope_scaling="yarn"), FP32, length_tokens=900)


def test_positions_of_a_model_from_scratch_are_stretched(tmp_path: Path) -> None:
    config = ModelConfig(model_name_or_path=str(write_tiny(tmp_path)), train_from_scratch=True, rope_scaling="linear")
    made = initialise_model(config, FP32, 0, length_tokens=300)
    torch.testing.assert_close(made.model.rotary_emb.inv_freq, torch.tensor(linear(3.0, 300)), rtol=1e-5, atol=0)
    assert made.config.max_position_embeddings == 384


def test_from_scratch_needs_no_weights_and_follows_the_seed(tmp_path: Path) -> None:
    """Oracle: transformers' own initialisation under the same seed. The run's random numbers are not touched."""
    write_tiny(tmp_path, seed=5)
    (tmp_path / "model.safetensors").unlink()
    config = ModelConfig(model_name_or_path=str(tmp_path), train_from_scratch=True)
    before = torch.get_rng_state()
    made, same, other = (initialise_model(config, FP32, seed).state_dict() for seed in (5, 5, 6))
    assert torch.equal(before, torch.get_rng_state())
    expected = tiny_model("llama", seed=5).state_dict()
    assert all(torch.equal(made[name], expected[name]) and torch.equal(made[name], same[name]) for name in expected)
    assert not torch.equal(made["lm_head.weight"], other["lm_head.weight"])
