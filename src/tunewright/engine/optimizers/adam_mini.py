"""Adam-mini (Zhang et al. 2024, arXiv 2406.16793, algorithms 1 and 3): one second moment for each block of a weight.

Blocks are what the paper finds dense in the Hessian of a transformer: the heads of query and key; the rows (output neurons, tokens)
of every other matrix; a vector as a whole. The second moment of a block follows the mean of its squared gradients, so it takes one
number per block instead of one per weight. Fused query-key-value matrices, whose heads have no agreed order, go by rows, which is
finer and so nearer to Adam.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from tunewright.engine.optimizers.adam import EachByItself, apply, fresh, moved_direction

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer

    from tunewright.config.optimization import OptimizerConfig
    from tunewright.engine.optimizers.groups import Group

_BY_HEAD: Final = re.compile(r"(^|\.)([qk]_proj|w[qk]|query|key|[qk]_lin)\.weight$")


class AdamMini(EachByItself):
    """AdamW with a second moment per block. State in float32: step, exp_avg [blocks, numbers of a block], exp_avg_sq [blocks, 1]."""

    def __init__(self, groups: list[Group], config: OptimizerConfig, heads: Mapping[Tensor, int]) -> None:
        """`heads`: the number of heads of each matrix that is split by heads."""
        super().__init__(groups, config)
        self.heads = heads

    def update(self, weight: Tensor, gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        """One step of algorithm 1, line by line of blocks."""
        blocks = in_blocks(gradient.float(), self.heads.get(weight))
        square = blocks.square().mean(dim=1, keepdim=True)
        if not state:
            state.update(fresh(blocks, square))
        direction = moved_direction(state, blocks, square, self.adam)
        apply(weight, direction.view_as(weight), group["lr"], group["weight_decay"])


def in_blocks(gradient: Tensor, heads: int | None) -> Tensor:
    """The gradient [...] as [blocks, numbers of a block]: `heads` runs of rows, else rows; a vector is one block."""
    count = heads or (gradient.numel() // gradient.shape[-1] if gradient.dim() > 1 else 1)
    return gradient.reshape(count, -1)


def head_counts(model: nn.Module) -> dict[Tensor, int]:
    """How many heads each query and key matrix of the model has, by the model's own configuration."""
    config = model.config.get_text_config()  # type: ignore[operator, union-attr]
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return {weight: weight.shape[0] // size for name, weight in model.named_parameters()
            if _BY_HEAD.search(name) and weight.dim() == 2 and weight.shape[0] % size == 0}


def build(model: nn.Module, groups: list[Group], config: OptimizerConfig, seed: int) -> Optimizer:
    """`AdamMini` over the groups; nothing in it is random."""
    return AdamMini(groups, config, head_counts(model))
