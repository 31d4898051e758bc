"""The step of Adam (Kingma & Ba 2015, algorithm 1), shared by the optimizers that feed it something else than the whole gradient."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch.optim import Optimizer

if TYPE_CHECKING:
    from torch import Tensor

    from tunewright.config.optimization import OptimizerConfig
    from tunewright.engine.optimizers.groups import Group


class Adam(NamedTuple):
    """Decay of the first and second moment, and what is added to the denominator."""

    beta1: float
    beta2: float
    epsilon: float


def adam_direction(state: dict[str, Any], gradient: Tensor, adam: Adam) -> Tensor:
    """m^ / (sqrt(v^) + epsilon), with m^ = m / (1 - beta1^t) and v^ = v / (1 - beta2^t): what a unit of learning rate subtracts.

    `state` holds step, exp_avg (m) and exp_avg_sq (v), all shapes as `gradient`, and is moved on by one step.
    """
    return moved_direction(state, gradient, gradient.square(), adam)


def moved_direction(state: dict[str, Any], gradient: Tensor, square: Tensor, adam: Adam) -> Tensor:
    """The same where `square` stands for the square of the gradient; exp_avg_sq has its shape, which broadcasts to the gradient's."""
    state["step"] += 1
    first = state["exp_avg"].lerp_(gradient, 1 - adam.beta1)
    second = state["exp_avg_sq"].lerp_(square, 1 - adam.beta2)
    denominator = (second / (1 - adam.beta2 ** state["step"])).sqrt_().add_(adam.epsilon)
    direction: Tensor = first / (1 - adam.beta1 ** state["step"]) / denominator
    return direction


def fresh(like: Tensor, second: Tensor | None = None) -> dict[str, Any]:
    """The state before the first step: moments of zero in float32, the second of the shape of `second` if that is given."""
    return {"step": 0, "exp_avg": torch.zeros_like(like, dtype=torch.float32),
            "exp_avg_sq": torch.zeros_like(like if second is None else second, dtype=torch.float32)}


def apply(weight: Tensor, direction: Tensor, rate: float, decay: float) -> None:
    """w (1 - rate decay) - rate direction: the decoupled update of AdamW (Loshchilov & Hutter 2017, algorithm 2), in place."""
    weight.mul_(1 - rate * decay)
    weight.add_(direction.to(weight.dtype), alpha=-rate)


class EachByItself(Optimizer):
    """An optimizer of Adam's kind that updates each weight by itself; `update` says how."""

    def __init__(self, groups: list[Group], config: OptimizerConfig) -> None:
        super().__init__(groups, {"lr": config.learning_rate, "weight_decay": config.weight_decay})
        self.adam = Adam(config.adam_beta1, config.adam_beta2, config.adam_epsilon)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update of every weight that has a gradient."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self.update(weight, weight.grad, self.state[weight], group)

    @abstractmethod
    def update(self, weight: Tensor, gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        """Change `weight` in place and move `state`, empty before the first step, on by one step."""
