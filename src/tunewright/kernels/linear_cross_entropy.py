"""Cross-entropy straight from hidden states: logits exist for one chunk of rows at a time, and only for rows that have a target.

Naive equivalent, for one row: z = softcap(scale * (W h + b)), loss = logsumexp(z) - (1 - s) z[target] - s mean(z) + w logsumexp(z)^2,
with s the label smoothing (Szegedy et al. 2016, section 7) and w the weight of the z-loss (Chowdhery et al. 2022, section 5).
softcap(x) = c tanh(x / c) (Gemma Team 2024, section 2).

The gradient of a row's loss with respect to its hidden state is known as soon as its logits are, up to the factor that the backward
pass brings. It is therefore computed in the forward pass while the chunk's logits are at hand, and nothing of the size of the
vocabulary is kept: memory does not grow with rows x vocabulary. A trained head gets its gradient in the same pass where the rows
are only added up, and from logits computed once more in the backward pass where each row has a factor of its own.

Axes: N rows with a target, D hidden width, V vocabulary, C rows of a chunk.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_CHUNK_BYTES: Final = 64 << 20
"""Of logits at a time: each chunk reads the whole head twice, which 300 rows hardly notice and 100 do."""
_HEAP_BYTES: Final = 31 << 20
"""The same on a CPU, if they hold `_ROWS`: glibc makes what is larger of fresh pages each time."""
_ROWS: Final = 128
_TRAINED_CHUNK_BYTES: Final = 16 << 20
"""The same where the head trains: memory is at its most then, with all activations and the head's gradient."""
_CACHED_BYTES: Final = 4 << 20
"""What a CPU turns from logits into a gradient at a time: five passes over it, most of them without going to memory."""
_COLUMNS: Final = 512
"""Of the vocabulary that a CPU multiplies at a time: their products stay in its cache, which MKL writes and reads twice."""
_SPACE: Final = 16
"""Of float32 between rows of logits on a CPU: a width of 49,152 alone would lay all of them on the same lines of the cache."""
_NARROW: Final = (torch.float16, torch.bfloat16)


@dataclass(frozen=True, slots=True)
class Shape:
    """What turns products into logits and logits into a loss; see the page's head. `chunk`: rows at a time, absent for what 64 MB hold, on
    a CPU 31 MB, or 16 MB where the head trains."""

    scale: float = 1.0
    softcap: float | None = None
    smoothing: float = 0.0
    z_weight: float = 0.0
    chunk: int | None = None

    def rows(self, vocabulary: int, itemsize: int, *, trained: bool = False, on_cpu: bool = False) -> int:
        """Rows of a chunk; `trained`: the head gets a gradient."""
        row = vocabulary * itemsize
        untrained = _HEAP_BYTES if on_cpu and row * _ROWS <= _HEAP_BYTES else _CHUNK_BYTES
        return self.chunk or max(16, (_TRAINED_CHUNK_BYTES if trained else untrained) // row // 16 * 16)


class Head(NamedTuple):
    """An output projection: weight [V, D], bias [V] or None."""

    weight: Tensor
    bias: Tensor | None = None


def linear_cross_entropy(hidden: Tensor, head: Head, targets: Tensor, shape: Shape | None = None) -> Tensor:
    """The loss of each row: hidden [N, D], targets [N] int64 in [0, V) -> [N] in float32 or wider. Differentiable in hidden, weight, bias.

    Without smoothing and z-loss the result is minus the log-probability of the target.
    """
    return _run(hidden, head, targets, shape or Shape(), added=False)


def linear_cross_entropy_sum(hidden: Tensor, head: Head, targets: Tensor, shape: Shape | None = None) -> Tensor:
    """The sum of `linear_cross_entropy` over the rows, a scalar; added up in float64. Zero, with a zero gradient, without rows."""
    rows = _run(hidden, head, targets, shape or Shape(), added=True)
    return rows.sum(dtype=torch.float64).to(rows.dtype) if rows.device.type != "mps" else rows.sum()


def top_ranked(hidden: Tensor, head: Head, targets: Tensor, shape: Shape | None = None) -> int:
    """For how many rows the logits rank the target first, without a gradient."""
    shape = shape or Shape()
    with torch.no_grad():
        return sum(int((_logits(part, head, shape).argmax(-1) == wanted).sum())
                   for part, wanted in _chunks(hidden, targets, shape.rows(head.weight.shape[0], 4)))


def entropies(hidden: Tensor, head: Head, shape: Shape | None = None) -> Tensor:
    """-sum of p log p of the softmax of each row's logits: hidden [N, D] -> [N] in float32 or wider, without a gradient."""
    shape = shape or Shape()
    with torch.no_grad():
        found = []
        for part in hidden.split(shape.rows(head.weight.shape[0], 8)) if hidden.shape[0] else [hidden]:
            logps = torch.log_softmax(_logits(part, head, shape), dim=-1)
            found.append(-(logps.exp() * logps).sum(dim=-1))
        return torch.cat(found)


def _run(hidden: Tensor, head: Head, targets: Tensor, shape: Shape, *, added: bool) -> Tensor:
    """Apply the kernel in the number format that autocast, if it is on, would compute the projection in."""
    kind = hidden.device.type
    if torch.is_autocast_enabled(kind):
        narrow = torch.get_autocast_dtype(kind)
        hidden, head = hidden.to(narrow), Head(head.weight.to(narrow), None if head.bias is None else head.bias.to(narrow))
    with torch.autocast(kind, enabled=False):
        found: Tensor = _LinearCrossEntropy.apply(hidden, head.weight, head.bias, targets, _Manner(shape, added))
        return found


class _Manner(NamedTuple):
    """`added`: the factors that backward brings are all the same, so the head's gradient is known in the forward pass already."""

    shape: Shape
    added: bool


class _LinearCrossEntropy(torch.autograd.Function):
    """Losses [N] of the rows."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, manner: _Manner) -> Tensor:
        wanted = list(ctx.needs_input_grad[:3])
        later = (wanted[1] or wanted[2]) and not manner.added
        rows = _Rows(hidden, Head(weight, bias), targets, manner.shape)
        losses = hidden.new_empty(hidden.shape[0], dtype=torch.float32 if hidden.dtype in _NARROW else hidden.dtype)
        grads = _Gradients.empty(rows, [one and not later for one in wanted])
        _pass(rows, losses, grads, None)
        ctx.later, ctx.shape = later, manner.shape
        if later:
            ctx.save_for_backward(hidden, weight, bias, targets)
        else:
            of_hidden, *ctx.of_head = grads.like(rows.head)
            ctx.save_for_backward(of_hidden)
        return losses

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, factors: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.later:
            hidden, weight, bias, targets = ctx.saved_tensors
            rows = _Rows(hidden, Head(weight, bias), targets, ctx.shape)
            grads = _Gradients.empty(rows, list(ctx.needs_input_grad[:3]))
            _pass(rows, None, grads, factors)
            return (*grads.like(rows.head), None, None)
        (of_hidden,), (of_weight, of_bias) = ctx.saved_tensors, ctx.of_head
        del ctx.of_head  # multiplied in place, for it is as large as the head: a second backward pass would find it gone
        one = factors[:1].sum()
        return (None if of_hidden is None else of_hidden * factors.unsqueeze(-1).to(of_hidden.dtype),
                None if of_weight is None else of_weight.mul_(one.to(of_weight.dtype)),
                None if of_bias is None else of_bias.mul_(one.to(of_bias.dtype)), None, None)


class _Rows(NamedTuple):
    """What a walk over the chunks reads: hidden [N, D], the head, targets [N]."""

    hidden: Tensor
    head: Head
    targets: Tensor
    shape: Shape


class _Gradients(NamedTuple):
    """Of hidden [N, D], weight [V, D] and bias [V]; None where it is not wanted."""

    hidden: Tensor | None
    weight: Tensor | None
    bias: Tensor | None

    @classmethod
    def empty(cls, rows: _Rows, wanted: list[bool]) -> _Gradients:
        """Room for those that are wanted; the head's, sums over all rows, in float32 or wider."""
        hidden, head = rows.hidden, rows.head
        wide = torch.float32 if head.weight.dtype in _NARROW else head.weight.dtype
        return cls(torch.empty_like(hidden) if wanted[0] else None,
                   torch.zeros_like(head.weight, dtype=wide) if wanted[1] else None,
                   torch.zeros_like(head.bias, dtype=wide) if wanted[2] and head.bias is not None else None)

    def like(self, head: Head) -> _Gradients:
        """The same in the number format of the head."""
        kind = head.weight.dtype
        return _Gradients(self.hidden, None if self.weight is None else self.weight.to(kind),
                          None if self.bias is None else self.bias.to(kind))


def _pass(rows: _Rows, losses: Tensor | None, grads: _Gradients, factors: Tensor | None) -> None:
    """One walk over the chunks: fill in `losses` and those of `grads` that are wanted, of `factors` [N] times the rows' losses."""
    hidden, head, targets, shape = rows
    vocabulary, itemsize = head.weight.shape[0], 8 if hidden.dtype == torch.float64 else 4
    on_cpu = hidden.device.type == "cpu"
    most = shape.rows(vocabulary, itemsize, trained=grads.weight is not None, on_cpu=on_cpu)
    size = max(1, -(-hidden.shape[0] // max(1, -(-hidden.shape[0] // most))))  # as many rows in each chunk
    cached = max(1, _CACHED_BYTES // (vocabulary * itemsize)) if on_cpu else size
    slopes = any(one is not None for one in grads)
    # One room for all chunks, because fresh memory costs more than it looks; products in 16 bits are soon replaced by float32.
    room = None if hidden.dtype in _NARROW else hidden.new_empty(
        min(size, hidden.shape[0]), vocabulary + (_SPACE if on_cpu else 0))[:, :vocabulary]
    for start in range(0, hidden.shape[0], size):
        place = slice(start, start + size)
        part = hidden[place]
        logits = _logits(part, head, shape, None if room is None else room[:part.shape[0]])
        found = [_turned(block, wanted, shape, slopes=slopes)
                 for block, wanted in zip(logits.split(cached), targets[place].split(cached), strict=True)]
        if losses is not None:
            torch.cat(found, out=losses[place])
        if slopes:
            if factors is not None:
                logits.mul_(factors[place].unsqueeze(-1).to(logits.dtype))
            slope = logits.to(part.dtype)
            del logits  # in 16 bits the products need no float32 beside them
            _project(slope, part, head, place, grads)


def _turned(logits: Tensor, targets: Tensor, shape: Shape, *, slopes: bool) -> Tensor:
    """The losses of rows [C]; where they are differentiated, their gradient takes the place of the logits [C, V]."""
    aimed = _aimed(logits, targets, shape)
    highest, above, shares = _softmax(logits, spoils=shape.softcap is None)
    total = highest + above
    if slopes:
        slope = _slope(shares, logits, total, targets, shape)
        if shape.softcap is not None:
            logits.copy_(slope)
    losses = above - (aimed - highest)  # total - aimed would round to the last place of the logits, which may be larger than the loss
    return losses + shape.z_weight * total.square() if shape.z_weight else losses


def _project(slope: Tensor, part: Tensor, head: Head, place: slice, grads: _Gradients) -> None:
    """From the gradient of a chunk's products, slope [C, V], to those of its hidden states and of the head."""
    if grads.hidden is not None:
        torch.mm(slope, head.weight, out=grads.hidden[place])
    if grads.weight is not None and grads.weight.dtype == slope.dtype:
        grads.weight.addmm_(slope.t(), part)
    elif grads.weight is not None:
        grads.weight.add_(slope.t() @ part)
    if grads.bias is not None:
        grads.bias.add_(slope.sum(dim=0))


def _logits(part: Tensor, head: Head, shape: Shape, room: Tensor | None = None) -> Tensor:
    """[C, D] -> [C, V] in float32 or wider. The products are formed in `room` [C, V], if there is one."""
    logits = _products(part, head, room)
    logits = logits.float() if logits.dtype in _NARROW else logits
    if shape.scale != 1.0:
        logits.mul_(shape.scale)
    return logits if shape.softcap is None else logits.div_(shape.softcap).tanh_().mul_(shape.softcap)


def _products(part: Tensor, head: Head, room: Tensor | None) -> Tensor:
    """W h + b: [C, D] -> [C, V], in `room` if there is one. A planner's tensors, which only say that they are on a CPU, are one product."""
    if room is None or not room.is_cpu or part.shape[0] > 2 * _COLUMNS:
        return _product(part, head, room)
    for start in range(0, room.shape[1], _COLUMNS):
        place = slice(start, start + _COLUMNS)
        _product(part, Head(head.weight[place], None if head.bias is None else head.bias[place]), room[:, place])
    return room


def _product(part: Tensor, head: Head, room: Tensor | None) -> Tensor:
    weight = head.weight.t()
    return torch.mm(part, weight, out=room) if head.bias is None else torch.addmm(head.bias, part, weight, out=room)


def _aimed(logits: Tensor, targets: Tensor, shape: Shape) -> Tensor:
    """What the loss takes from logsumexp: [C, V], [C] -> [C]."""
    aim = logits.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
    return (1 - shape.smoothing) * aim + shape.smoothing * logits.mean(dim=-1) if shape.smoothing else aim


def _softmax(logits: Tensor, *, spoils: bool) -> tuple[Tensor, Tensor, Tensor]:
    """The highest logit [C], how far logsumexp is above it [C], and softmax [C, V] of logits [C, V], in whose place the softmax comes if
    that `spoils` nothing."""
    highest = logits.amax(dim=-1, keepdim=True)
    shares = (logits.sub_(highest) if spoils else logits - highest).exp_()
    total = shares.sum(dim=-1, keepdim=True)
    return highest.squeeze(-1), total.log().squeeze(-1), shares.div_(total)


def _slope(shares: Tensor, logits: Tensor, total: Tensor, targets: Tensor, shape: Shape) -> Tensor:
    """Gradient of each row's loss with respect to its products W h + b, in the place of the softmax: [C, V]. `logits` are capped ones."""
    slope, capped = shares, None if shape.softcap is None else logits
    if shape.z_weight:
        slope.mul_((1 + 2 * shape.z_weight * total).unsqueeze(-1))
    if shape.smoothing:
        slope.sub_(shape.smoothing / slope.shape[-1])
    aim = targets.unsqueeze(-1)
    slope.scatter_add_(-1, aim, slope.new_full(aim.shape, shape.smoothing - 1))
    if capped is not None and shape.softcap is not None:
        slope.mul_(1 - (capped / shape.softcap).square_())
    return slope.mul_(shape.scale) if shape.scale != 1.0 else slope


def _chunks(hidden: Tensor, targets: Tensor, size: int) -> list[tuple[Tensor, Tensor]]:
    return list(zip(hidden.split(size), targets.split(size), strict=True)) if hidden.shape[0] else []
