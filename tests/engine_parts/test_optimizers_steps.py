"""Steps of the optimizers beside AdamW and Adafactor, worked from their papers: by hand on a few numbers, or restated naively in NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tunewright.config.optimization import OptimizerConfig
from tunewright.config.optimizer_names import BITSANDBYTES
from tunewright.config.tuning import LoraConfig
from tunewright.engine.optimizers.arguments import check_arguments
from tunewright.engine.optimizers.build import OPTIMIZERS, build_optimizer
from tunewright.engine.optimizers.lamb import trust_ratio
from tunewright.errors import InputError

RATE, DECAY, STEPS = 0.01, 0.1, 4
Naive = Callable[[np.ndarray, list[np.ndarray]], np.ndarray]


def gradients(shape: tuple[int, ...]) -> list[np.ndarray]:
    chance = np.random.default_rng(3)
    return [chance.normal(size=shape) for _ in range(STEPS)]


def trained(optim: str, shape: tuple[int, int], **settings: Any) -> tuple[np.ndarray, np.ndarray]:
    """A matrix before and after STEPS steps on `gradients`."""
    torch.manual_seed(0)
    layer = nn.Linear(shape[1], shape[0], bias=False)
    before = layer.weight.detach().double().numpy().copy()
    config = OptimizerConfig(optim=optim, learning_rate=RATE, weight_decay=DECAY, **settings)
    optimizer = build_optimizer(layer, config, LoraConfig())
    for gradient in gradients(shape):
        layer.weight.grad = torch.from_numpy(gradient).float()
        optimizer.step()
    return before, layer.weight.detach().double().numpy()


def adamw(w: np.ndarray, gs: list[np.ndarray], beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8) -> np.ndarray:
    """Loshchilov & Hutter 2017, algorithm 2."""
    m, v = np.zeros_like(w), np.zeros_like(w)
    for t, g in enumerate(gs, start=1):
        m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g * g
        w = w - RATE * DECAY * w - RATE * (m / (1 - beta1**t)) / (np.sqrt(v / (1 - beta2**t)) + eps)
    return w


def lion(w: np.ndarray, gs: list[np.ndarray], beta1: float = 0.9, beta2: float = 0.999) -> np.ndarray:
    """Chen et al. 2023, algorithm 2."""
    m = np.zeros_like(w)
    for g in gs:
        w = w - RATE * (np.sign(beta1 * m + (1 - beta1) * g) + DECAY * w)
        m = beta2 * m + (1 - beta2) * g
    return w


def ademamix(w: np.ndarray, gs: list[np.ndarray]) -> np.ndarray:
    """Pagliardini et al. 2024, equation AdEMAMix, with beta3 = 0.99 and alpha = 2 and no schedulers."""
    m1, m2, v = np.zeros_like(w), np.zeros_like(w), np.zeros_like(w)
    for t, g in enumerate(gs, start=1):
        m1, m2, v = 0.9 * m1 + 0.1 * g, 0.99 * m2 + 0.01 * g, 0.999 * v + 0.001 * g * g
        w = w - RATE * ((m1 / (1 - 0.9**t) + 2 * m2) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8) + DECAY * w)
    return w


def lamb(w: np.ndarray, gs: list[np.ndarray]) -> np.ndarray:
    """You et al. 2020, algorithm 2, phi the identity."""
    m, v = np.zeros_like(w), np.zeros_like(w)
    for t, g in enumerate(gs, start=1):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        r = (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8) + DECAY * w
        w = w - RATE * np.linalg.norm(w) / np.linalg.norm(r) * r
    return w


def sgd(w: np.ndarray, gs: list[np.ndarray]) -> np.ndarray:
    """Gradient descent with heavy-ball momentum 0.5; decay added to the gradient."""
    b = None
    for g in gs:
        g = g + DECAY * w
        b = g if b is None else 0.5 * b + g
        w = w - RATE * b
    return w


def adagrad(w: np.ndarray, gs: list[np.ndarray]) -> np.ndarray:
    """Duchi et al. 2011, with epsilon 0.25 and a rate that falls as 1 / (1 + 0.5 (t - 1))."""
    s = np.zeros_like(w)
    for t, g in enumerate(gs, start=1):
        g = g + DECAY * w
        s = s + g * g
        w = w - RATE / (1 + (t - 1) * 0.5) * g / (np.sqrt(s) + 0.25)
    return w


def rmsprop(w: np.ndarray, gs: list[np.ndarray]) -> np.ndarray:
    """Hinton 2012, with smoothing 0.5 and epsilon 0.25; decay added to the gradient."""
    v = np.zeros_like(w)
    for g in gs:
        g = g + DECAY * w
        v = 0.5 * v + 0.5 * g * g
        w = w - RATE * g / (np.sqrt(v) + 0.25)
    return w


NAIVE: list[tuple[str, dict[str, Any], Naive]] = [
    ("sgd", {"optim_args": {"momentum": 0.5}}, sgd),
    ("adagrad", {"optim_args": {"lr_decay": 0.5, "eps": 0.25}}, adagrad),
    ("rmsprop", {"optim_args": {"alpha": 0.5, "eps": 0.25}}, rmsprop),
    ("lamb", {}, lamb),
    ("paged_adamw_32bit", {}, adamw),
    ("paged_adamw_32bit", {"adam_beta1": 0.5, "adam_beta2": 0.8, "adam_epsilon": 0.1}, lambda w, gs: adamw(w, gs, 0.5, 0.8, 0.1)),
    ("lion_32bit", {}, lion),
    ("paged_lion_32bit", {"adam_beta1": 0.5, "adam_beta2": 0.8}, lambda w, gs: lion(w, gs, 0.5, 0.8)),
    ("ademamix", {"optim_args": {"beta3": 0.99, "alpha": 2.0}}, ademamix),
    ("rmsprop_bnb_32bit", {"optim_args": {"alpha": 0.5, "eps": 0.25}}, rmsprop),
]


@pytest.mark.parametrize(("optim", "settings", "naive"), NAIVE, ids=[f"{name}-{number}" for number, (name, _, _) in enumerate(NAIVE)])
def test_steps_follow_the_paper(optim: str, settings: dict[str, Any], naive: Naive) -> None:
    """Oracle: the naive restatement in float64. Float32 rounds to 1e-7 of weights near 0.5 in each of four steps."""
    before, after = trained(optim, (5, 4), **settings)
    np.testing.assert_allclose(after, naive(before, gradients((5, 4))), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("optim", "naive"), [("adamw_8bit", adamw), ("adamw_bnb_8bit", adamw), ("paged_adamw_8bit", adamw),
                                              ("lion_8bit", lion), ("paged_lion_8bit", lion)])
def test_eight_bits_are_near_to_thirty_two(optim: str, naive: Naive) -> None:
    """Oracle: the exact step. Eight bits misplace a step now and then (Lion: its sign), never most of the way: the distance to the exact
    weights is under a tenth of the way, Adam's, or a fifth, Lion's."""
    before, after = trained(optim, (72, 64))
    exact = naive(before, gradients((72, 64)))
    share = np.linalg.norm(after - exact) / np.linalg.norm(exact - before)
    assert 0 < share < (0.2 if "lion" in optim else 0.1)


def test_the_border_of_eight_bits_can_be_moved() -> None:
    """With min_8bit_size above its 4,608 numbers the matrix is trained exactly."""
    before, after = trained("adamw_8bit", (72, 64), optim_args={"min_8bit_size": 5000})
    np.testing.assert_allclose(after, adamw(before, gradients((72, 64))), rtol=0, atol=1e-6)


@pytest.mark.parametrize("optim", OPTIMIZERS.names())
def test_biases_are_never_decayed_and_lora_plus_holds(optim: str) -> None:
    """On a gradient of zero nothing but decay moves a weight, and it moves the matrix alone. The groups have LoRA+'s own rates."""
    layer = nn.Linear(3, 2)
    config = OptimizerConfig(optim=optim, learning_rate=RATE, weight_decay=DECAY)
    optimizer = build_optimizer(layer, config, LoraConfig())
    before = [weight.detach().clone() for weight in layer.parameters()]
    for weight in layer.parameters():
        weight.grad = torch.zeros_like(weight)
    optimizer.step()
    assert not torch.equal(layer.weight, before[0]) and torch.equal(layer.bias, before[1])
    factors = nn.ModuleDict({"lora_A": nn.Linear(3, 2, bias=False), "lora_B": nn.Linear(2, 3, bias=False)})
    rates = [group["lr"] for group in build_optimizer(factors, config, LoraConfig(loraplus_lr_ratio=16.0)).param_groups]
    assert rates == [RATE, 16 * RATE]


def test_trust_ratio_of_nothing_is_one() -> None:
    """|w| / |r| by hand: (3, 4) and (0, 10) give a half; where one of them is zero the step is Adam's."""
    weight, zero = torch.tensor([3.0, 4.0]), torch.zeros(2)
    assert float(trust_ratio(weight, torch.tensor([0.0, 10.0]))) == 0.5
    assert float(trust_ratio(zero, weight)) == float(trust_ratio(weight, zero)) == 1.0


def test_trust_ratio_can_be_bounded() -> None:
    """A bound of zero's neighbourhood stops LAMB; none leaves it alone."""
    before, bounded = trained("lamb", (5, 4), optim_args={"max_trust_ratio": 1e-6})
    np.testing.assert_allclose(bounded, before, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("optim", "given", "message"), [
    ("sgd", {"nesterov": True}, "optim_args: nesterov needs momentum and no dampening; add momentum=0.9, without dampening"),
    ("sgd", {"momentum": 1.0}, "optim_args: momentum is 1.0; use a number from 0 to below 1"),
    ("sgd", {"eps": 1.0}, "optim_args: `eps` is no argument of sgd; it takes momentum, dampening, nesterov"),
    ("paged_adamw_32bit", {"amsgrad": True}, "optim_args: `amsgrad` is no argument of paged_adamw_32bit; it takes none"),
    ("lion_8bit", {"min_8bit_size": 0}, "optim_args: min_8bit_size is 0; use an integer >= 1"),
    ("ademamix", {"betas": 1}, "optim_args: `betas` has a parameter of its own; use adam_beta1 and adam_beta2"),
])
def test_wrong_arguments_name_the_key(optim: str, given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        check_arguments(optim, given)
    assert caught.value.line() == message


@pytest.mark.parametrize("optim", BITSANDBYTES)
def test_without_the_package_the_name_and_the_mend_are_told(optim: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process border: the package is hidden from the finder of modules."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError) as caught:
        check_arguments(optim, None)
    assert caught.value.line() == (f"optim: {optim} needs the package `bitsandbytes`, which is not installed; "
                                   'run: pip install "tunewright[quant]", or choose adamw_torch')
