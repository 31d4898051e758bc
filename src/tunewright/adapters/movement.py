"""The no-op detector: after the first steps, which trainable tensors had no gradient or did not change."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn

_FACTOR = re.compile(r"\.lora_(embedding_)?([AB])\.")
_OTHER = {"A": "B", "B": "A"}


class Movement:
    """Watches the trainable tensors of a model from its construction on.

    Call `observe` after each backward pass of an optimizer step, with the gradients still there and before the update;
    `stuck` after the last of the steps. In a LoRA pair the factor whose partner is zero has a zero gradient by
    construction (B = 0 at the start), and a step with a learning rate of zero moves nothing: neither is held against a
    tensor. A tensor that never had a fair chance is not reported.
    """

    def __init__(self, model: nn.Module) -> None:
        self._tensors = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        self._before = {name: _fingerprint(parameter) for name, parameter in self._tensors.items()}
        self._chances = dict.fromkeys(self._tensors, 0)
        self._without: dict[str, int] = dict.fromkeys(self._tensors, 0)
        self._zero: dict[str, int] = dict.fromkeys(self._tensors, 0)

    @property
    def names(self) -> tuple[str, ...]:
        """The trainable tensors."""
        return tuple(self._tensors)

    def observe(self, learning_rate: float) -> None:
        """Take note of the gradients that the coming update will use."""
        if learning_rate <= 0:
            return
        for name, parameter in self._tensors.items():
            if self._partner_is_zero(name):
                continue
            self._chances[name] += 1
            if parameter.grad is None:
                self._without[name] += 1
            elif not bool(parameter.grad.any()):
                self._zero[name] += 1

    def stuck(self) -> list[str]:
        """`<name>: <why>` for each tensor that had a chance and got no gradient, only zeros, or did not change."""
        lines = []
        for name, chances in self._chances.items():
            if chances == 0:
                continue
            if self._without[name] == chances:
                lines.append(f"{name}: no gradient")
            elif self._without[name] + self._zero[name] == chances:
                lines.append(f"{name}: gradient zero")
            elif _fingerprint(self._tensors[name]) == self._before[name]:
                lines.append(f"{name}: did not change")
        return lines

    def _partner_is_zero(self, name: str) -> bool:
        factor = _FACTOR.search(name)
        if factor is None:
            return False
        letter = factor.group(2)
        position = factor.start(2)
        partner = self._tensors.get(f"{name[:position]}{_OTHER[letter]}{name[position + 1:]}")
        return partner is not None and not bool(partner.detach().any())


def _fingerprint(tensor: Tensor) -> tuple[int, float]:
    """Changes, but for a freak, whenever a bit does; one pass on the tensor's device."""
    import torch

    detached = tensor.detach()
    return int(torch.hash_tensor(detached).view(torch.int64)), float(detached.sum(dtype=torch.float64))
