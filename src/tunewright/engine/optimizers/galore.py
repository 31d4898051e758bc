"""GaLore (Zhao et al. 2024, arXiv 2403.03507, algorithm 2): Adam on the gradient of a matrix, projected to low rank.

Every `interval` steps the projection is taken anew from the singular vectors of the gradient G; in between it stands:

    R = P^T G (left), G Q (right) or P^T G Q (full);  N = Adam(R);  W <- W (1 - rate decay) - rate scale P N (or N Q^T, P N Q^T)

where P holds the first `rank` left and Q the first right singular vectors. The moments live in the small space and stay when the
projection changes, as in the paper. All other weights go through plain AdamW. State is kept in float32.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from tunewright.adapters.targets import matching
from tunewright.engine.optimizers.adam import EachByItself, adam_direction, apply, fresh
from tunewright.errors import require
from tunewright.models.families import linear_layers

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer

    from tunewright.config.optimization import OptimizerConfig
    from tunewright.engine.optimizers.groups import Group


class Projection(NamedTuple):
    """Rank of the projection, steps for which it stands, factor of an update, and the side(s) it is taken from."""

    rank: int
    interval: int
    scale: float
    kind: str


class Galore(EachByItself):
    """AdamW; in groups with `projected` on the projected gradient. State of those also holds `left` and `right`, where used."""

    def __init__(self, groups: list[Group], config: OptimizerConfig) -> None:
        super().__init__(groups, config)
        self.projection = Projection(config.galore_rank, config.galore_update_interval, config.galore_scale, config.galore_proj_type)

    def update(self, weight: Tensor, gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        """One step of algorithm 2, or of AdamW."""
        direction = self._projected(state, gradient.float()) if group["projected"] else self._plain(state, gradient.float())
        apply(weight, direction, group["lr"], group["weight_decay"])

    def _plain(self, state: dict[str, Any], gradient: Tensor) -> Tensor:
        if not state:
            state.update(fresh(gradient))
        return adam_direction(state, gradient, self.adam)

    def _projected(self, state: dict[str, Any], gradient: Tensor) -> Tensor:
        renewed = state.get("step", 0) % self.projection.interval == 0
        if renewed:
            left, right = bases(gradient, self.projection.rank, self.projection.kind)
            state.update({name: basis for name, basis in (("left", left), ("right", right)) if basis is not None})
        left, right = state.get("left"), state.get("right")
        small = project(gradient, left, right)
        if renewed and self.projection.kind == "full":
            # P^T G Q is then diagonal, and Adam would take whole steps on what rounding leaves beside the diagonal.
            small = small.diagonal().diag()
        if "step" not in state:
            state.update(fresh(small))
        return project_back(adam_direction(state, small, self.adam), left, right).mul_(self.projection.scale)


def bases(gradient: Tensor, rank: int, kind: str) -> tuple[Tensor | None, Tensor | None]:
    """gradient [m, n] -> the first `rank` left singular vectors [m, r] and right ones [n, r], those that `kind` asks for.

    `std` takes the side that leaves the smaller result: left if m < n, right otherwise (as the authors' code for m = n);
    `reverse_std` the other. A rank above min(m, n) is min(m, n).
    """
    tall = gradient.shape[0] >= gradient.shape[1]
    side = {"std": "right" if tall else "left", "reverse_std": "left" if tall else "right"}.get(kind, kind)
    left, _, right = torch.linalg.svd(gradient, full_matrices=False)
    return (left[:, :rank].contiguous() if side in ("left", "full") else None,
            right[:rank].T.contiguous() if side in ("right", "full") else None)


def project(gradient: Tensor, left: Tensor | None, right: Tensor | None) -> Tensor:
    """left^T G right, with a basis that is absent left out."""
    small = gradient if left is None else left.T @ gradient
    return small if right is None else small @ right


def project_back(small: Tensor, left: Tensor | None, right: Tensor | None) -> Tensor:
    """left N right^T, with a basis that is absent left out."""
    large = small if left is None else left @ small
    return large if right is None else large @ right.T


def build(model: nn.Module, groups: list[Group], config: OptimizerConfig, seed: int) -> Optimizer:
    """`Galore` over the groups, each split into what is projected and what is not; nothing in it is random."""
    chosen = {id(weight) for weight in targets(model, config.galore_target)}
    split = [{**group, "projected": projected, "params": [one for one in group["params"] if (id(one) in chosen) == projected]}
             for group in groups for projected in (True, False)]
    filled = [group for group in split if group["params"]]
    require(any(group["projected"] for group in filled), "galore_target: none of the layers it names trains", mend="name others, or all")
    return Galore(filled, config)


def targets(model: nn.Module, names: tuple[str, ...]) -> list[nn.Parameter]:
    """The weight matrices of the linear layers that `galore_target` names. Raises InputError for a name that matches none."""
    layers = linear_layers(model)
    chosen: set[str] = set()
    for name in names:
        chosen |= set(layers) if name in ("all", "all-linear") else matching(name, layers, "galore_target")
    return [weight for name in sorted(chosen) for weight in layers[name].parameters() if weight.dim() == 2]
