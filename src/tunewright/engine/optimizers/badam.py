"""BAdam (Luo et al. 2024, arXiv 2404.02827, algorithm 1): Adam on one block of the model at a time.

A block gets `interval` steps of AdamW from moments of zero; then the next block has its turn. Two kinds of blocks:

* layer: the decoder layers. Only the block at work needs a gradient, so only it costs memory for gradients and moments; embeddings, the
  output head and the last norm stay as they are, as in the authors' code.
* ratio: of every weight a share of its numbers, side by side or scattered, chosen anew for each block.

Which block is at work is a function of (seed, steps taken); the count of steps is in the optimizer's state, and so in a checkpoint.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import torch

from tunewright.data.sampling import permutation
from tunewright.engine.optimizers.adam import EachByItself, adam_direction, apply, fresh
from tunewright.engine.optimizers.adamw import build_fused, build_plain
from tunewright.engine.optimizers.groups import parameters_of
from tunewright.errors import InputError, refuse, require
from tunewright.models.families import decoder_layers

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer

    from tunewright.config.optimization import OptimizerConfig
    from tunewright.engine.optimizers.groups import Group

log = logging.getLogger(__name__)

POSITION: Final = "badam"
"""The entry of the optimizer's state that counts the steps taken."""


@dataclass(frozen=True, slots=True)
class Visits:
    """The order of visits: number of blocks, the first of them (None: by the mode), the mode, steps for each (-1: for ever), and the
    seed of the mode random."""

    count: int
    start: int | None
    mode: str
    interval: int
    seed: int


def block_at(step: int, visits: Visits) -> int:
    """The block that takes step number `step`, from 0 on.

    random: every block once in an order of its own, then every block once in another; `start` comes first in the first of them.
    """
    turn = step // visits.interval if visits.interval > 0 else 0
    if visits.mode == "random":
        order = permutation(visits.count, (visits.seed, turn // visits.count)).tolist()
        if visits.start is not None and turn < visits.count:
            order = [visits.start, *(block for block in order if block != visits.start)]
        return int(order[turn % visits.count])
    start = visits.start if visits.start is not None else visits.count - 1 if visits.mode == "descending" else 0
    return (start + {"ascending": turn, "descending": -turn, "fixed": 0}[visits.mode]) % visits.count


class Block(NamedTuple):
    """A decoder layer: its number and its trainable weights by name."""

    number: int
    weights: dict[str, nn.Parameter]


class Turns:
    """Opens the block at work to gradients and closes all other weights, at the start, when a state is loaded, and between steps.

    Moments of a block that is left are dropped (algorithm 1, line 4: a visit starts from zero).
    """

    def __init__(self, blocks: Sequence[Block], outside: Sequence[nn.Parameter], visits: Visits, verbose: int) -> None:
        self.blocks, self.outside, self.visits, self.verbose = blocks, outside, visits, verbose
        self.told: int | None = None

    def attach(self, optimizer: Optimizer) -> Optimizer:
        """Hook into the optimizer's steps and loading; `optimizer.state[POSITION]` counts the steps."""
        optimizer.state[POSITION] = {"step": 0}  # type: ignore[index]
        self._open(0)
        optimizer.register_step_post_hook(self._stepped)
        optimizer.register_load_state_dict_post_hook(self._loaded)
        return optimizer

    def _stepped(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        position = optimizer.state[POSITION]  # type: ignore[index]
        before, position["step"] = block_at(position["step"], self.visits), position["step"] + 1
        if self.visits.interval > 0 and position["step"] % self.visits.interval == 0:
            for weight in self.blocks[before].weights.values():
                optimizer.state.pop(weight, None)
                weight.grad = None
            self._open(position["step"])

    def _loaded(self, optimizer: Optimizer) -> None:
        self._open(optimizer.state[POSITION]["step"])  # type: ignore[index]

    def _open(self, step: int) -> None:
        for weight in (*self.outside, *(weight for block in self.blocks for weight in block.weights.values())):
            weight.requires_grad_(False)
        block = self.blocks[block_at(step, self.visits)]
        for weight in block.weights.values():
            weight.requires_grad_(True)
        if self.verbose and step != self.told:
            self.told = step
            names = f": {', '.join(block.weights)}" if self.verbose > 1 else ""
            log.info("BAdam trains layer %d from step %d on%s", block.number, step + 1, names)


def build_layers(model: nn.Module, groups: list[Group], config: OptimizerConfig, seed: int) -> Optimizer:
    """torch's AdamW that sees one decoder layer at a time. Raises InputError for a first layer that does not train, or on several ranks."""
    if torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1:
        refuse("use_badam: ranks cannot agree on gradients of blocks that come and go", mend="use badam_mode: ratio, or one process")
    blocks, outside = _blocks(model)
    start = config.badam_start_block
    numbers = [block.number for block in blocks]
    if start is not None and start not in numbers:
        raise InputError(f"badam_start_block is {start}, but the decoder layers that train are {numbers[0]} to {numbers[-1]}",
                         mend="choose one of those")
    first = None if start is None else numbers.index(start)
    visits = Visits(len(blocks), first, config.badam_switch_mode, config.badam_switch_interval, seed)
    optimizer = (build_fused if config.optim == "adamw_torch_fused" else build_plain)(groups, config)
    if outside:
        log.info("BAdam trains decoder layers only; %d other weights stay as they are", len(outside))
    return Turns(blocks, outside, visits, config.badam_verbose).attach(optimizer)


def _blocks(model: nn.Module) -> tuple[list[Block], list[nn.Parameter]]:
    """The decoder layers with something to train, and the trainable weights outside them."""
    prefix, layers = decoder_layers(model)
    found = {number: Block(number, {}) for number in range(len(layers))}
    outside = []
    for name, weight in model.named_parameters():
        if weight.requires_grad and name.startswith(f"{prefix}."):
            found[int(name.removeprefix(f"{prefix}.").partition(".")[0])].weights[name] = weight
        elif weight.requires_grad:
            outside.append(weight)
    blocks = [block for block in found.values() if block.weights]
    require(bool(blocks), "use_badam: no decoder layer trains", mend="train some, or use badam_mode: ratio")
    return blocks, outside


class BadamRatio(EachByItself):
    """AdamW on a share of the numbers of each weight. State, in float32: steps taken in all, and of the share at work step and moments."""

    def __init__(self, groups: list[Group], config: OptimizerConfig, seed: int) -> None:
        super().__init__(groups, config)
        self.interval, self.ratio, self.seed = config.badam_switch_interval, config.badam_update_ratio, seed
        self.choose = {"adjacent": adjacent, "scatter": scattered}[config.badam_mask_mode]
        self.verbose = config.badam_verbose
        self.number = {weight: number for number, weight in enumerate(parameters_of(self))}
        self.chosen: dict[int, tuple[int, Tensor]] = {}

    def update(self, weight: Tensor, gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        """One step of AdamW on the share at work, which starts from moments of zero."""
        taken = state.get("taken", 0)
        turn = taken // self.interval if self.interval > 0 else 0
        places = self._places(self.number[weight], turn, weight)
        share = gradient.reshape(-1)[places].float()
        if not state or (self.interval > 0 and taken % self.interval == 0):
            state.update(fresh(share))
        state["taken"] = taken + 1
        flat = weight.view(-1)
        numbers = flat[places]
        apply(numbers, adam_direction(state, share, self.adam), group["lr"], group["weight_decay"])
        flat[places] = numbers

    def _places(self, number: int, turn: int, weight: Tensor) -> Tensor:
        """The share at work, drawn once per visit. A function of (seed, visit, number of the weight)."""
        known = self.chosen.get(number)
        if known is not None and known[0] == turn:
            return known[1]
        share = max(1, round(self.ratio * weight.numel()))
        places = self.choose(weight.numel(), share, (self.seed, turn, number)).to(weight.device)
        self.chosen[number] = (turn, places)
        if self.verbose and (number == 0 or self.verbose > 1):
            log.info("BAdam, visit %d: %d of %d numbers of weight %d, from %d on", turn + 1, share, weight.numel(), number, int(places[0]))
        return places


def adjacent(size: int, share: int, key: tuple[int, ...]) -> Tensor:
    """`share` places side by side among `size`, round the end: a run from a random place that depends on `key` only."""
    start = int(np.random.PCG64(np.random.SeedSequence(key)).random_raw()) % size
    return (torch.arange(share) + start) % size


def scattered(size: int, share: int, key: tuple[int, ...]) -> Tensor:
    """`share` random places among `size` that depend on `key` only, in rising order."""
    return torch.from_numpy(np.sort(permutation(size, key)[:share]))


def build_ratio(model: nn.Module, groups: list[Group], config: OptimizerConfig, seed: int) -> Optimizer:
    """`BadamRatio` over the groups."""
    return BadamRatio(groups, config, seed)
