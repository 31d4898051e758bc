"""What will train, before the first step: so that a target that matched nothing, or experts left out, cannot go unnoticed."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tunewright.models.families import kind, shape_of

if TYPE_CHECKING:
    from torch import nn

MOST_LINES = 12


@dataclass(frozen=True, slots=True)
class Covered:
    """Modules of one kind: `name` with layer numbers folded, how many, their own weights, and how many numbers train in or on them."""

    name: str
    modules: int
    parameters: int
    trainable: int


@dataclass(frozen=True, slots=True)
class Coverage:
    """Per kind of module in the model's order. Totals count every tensor once, adapters included."""

    kinds: tuple[Covered, ...]
    trainable: int
    total: int

    @property
    def untouched(self) -> tuple[Covered, ...]:
        """Kinds with weight matrices of which nothing trains."""
        return tuple(covered for covered in self.kinds if covered.trainable == 0)

    def lines(self) -> list[str]:
        """The report, at most twelve lines: what trains, largest first, then what does not."""
        share = 100 * self.trainable / self.total if self.total else 0.0
        head = [f"{self.trainable:,} of {self.total:,} parameters train ({share:.3g} %)"]
        moving = sorted((covered for covered in self.kinds if covered.trainable), key=lambda covered: -covered.trainable)
        rows = [f"  trains  {_short(covered.name)}: {covered.modules} x, {covered.trainable:,} parameters" for covered in moving]
        room = MOST_LINES - 1 - bool(self.untouched)
        if len(rows) > room:
            rest = moving[room - 1:]
            total = sum(covered.trainable for covered in rest)
            rows = [*rows[:room - 1], f"  trains  {len(rest)} more kinds: {total:,} parameters"]
        return head + rows + self._frozen_line()

    def _frozen_line(self) -> list[str]:
        if not self.untouched:
            return []
        names = [f"{_short(covered.name)} ({covered.parameters:,})" for covered in
                 sorted(self.untouched, key=lambda covered: -covered.parameters)]
        more = f" and {len(names) - 6} more kinds" if len(names) > 6 else ""
        return [f"  frozen  {', '.join(names[:6])}{more}"]


def coverage(model: nn.Module) -> Coverage:
    """Count what trains, per kind of module; the factors of an adapter count for the module they adapt."""
    sizes: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    members: dict[str, set[str]] = defaultdict(set)
    trainable = total = 0
    for name, parameter in model.named_parameters():
        module, is_own = _owner(name)
        group = kind(module)
        members[group].add(module)
        count = math.prod(shape_of(parameter))
        sizes[group][0] += count if is_own else 0
        sizes[group][1] += count if parameter.requires_grad else 0
        trainable += count if parameter.requires_grad else 0
        total += count
    kinds = tuple(Covered(group, len(members[group]), own, moving) for group, (own, moving) in sizes.items())
    return Coverage(kinds, trainable, total)


def _owner(name: str) -> tuple[str, bool]:
    """The module of the base model that a parameter belongs to or adapts, and whether it is the module's own weight.

    peft renames as it wraps: `base_model.model.<m>.base_layer.weight`, `<m>.lora_A.default.weight`,
    `<m>.modules_to_save.default.weight`; fused expert tensors are wrapped once per tensor.
    """
    name = name.removeprefix("base_model.model.")
    is_added = ".lora_" in name or ".modules_to_save." in name
    module = name.split(".lora_")[0].split(".modules_to_save.")[0]
    module = module.replace(".original_module", "").replace(".base_layer", "")
    if not is_added:
        module, _, last = module.rpartition(".")
        if last not in ("weight", "bias"):
            return f"{module}.{last}", True
    return module, not is_added


def _short(name: str) -> str:
    return name.rpartition(".*.")[2] if ".*." in name else name
