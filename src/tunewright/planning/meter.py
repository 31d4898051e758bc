"""Memory and time of operations that run without numbers.

Inside a `Meter`, tensors have shapes and no contents, and every operation of the model, its backward pass and
its kernels passes by here. What an operation allocates counts as live until nothing refers to it any more, which is exactly when torch
frees it; the largest sum that was ever live is the peak. Its time is that of a roofline (Williams et al. 2009): the longer of its
arithmetic at the machine's rate and its reads and writes at the machine's bandwidth.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import torch
from torch.utils._python_dispatch import TorchDispatchMode

if TYPE_CHECKING:
    from torch import Tensor

    from tunewright.planning.machine import Machine


class Kind(Enum):
    """What memory is for."""

    WEIGHTS = "weights"
    ADAPTERS = "adapters"
    GRADIENTS = "gradients"
    OPTIMIZER = "optimizer state"
    BATCH = "batch"
    ACTIVATIONS = "activations"
    LOSS = "logits and loss"
    WORKSPACE = "backward workspace"


@dataclass(frozen=True, slots=True)
class Work:
    """Seconds of a step: those that grow with the square of a row's length (attention), and all others. `flops`: of both."""

    attention_s: float
    other_s: float
    flops: float

    @property
    def seconds(self) -> float:
        """All of it."""
        return self.attention_s + self.other_s

    def figures(self) -> tuple[float, float, float]:
        """The fields in their order."""
        return self.attention_s, self.other_s, self.flops


class Meter(TorchDispatchMode):
    """Counts while it is entered. `kind` is what the next allocations are for; whoever runs the step moves it on."""

    def __init__(self, machine: Machine, formats: Collection[torch.dtype]) -> None:
        """`formats`: the number formats of matrix products. Their rates are asked for here, because nothing can be measured inside."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.machine = machine
        self._rates = {one: machine.rates(one) for one in (torch.float32, *formats)}
        self.kind = Kind.ACTIVATIONS
        self.live: Counter[Kind] = Counter()
        self.total = 0
        self.moments: dict[str, Mapping[Kind, int]] = {}
        self._moment, self._highest = "", 0
        self._kinds: dict[int, tuple[Kind, int]] = {}
        self._attention_s = self._other_s = self._flops = 0.0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """torch would load its compiler to tell it to keep out of here."""
        return False

    def hold(self, tensor: Tensor, kind: Kind, size: int | None = None) -> None:
        """Count a tensor that is there already, or count it anew as something else. `size`: its bytes, where they are not those that
        its shape says."""
        storage = tensor.untyped_storage()
        known = self._kinds.get(storage._cdata)
        if known is None:
            self._allocate(storage, kind, storage.nbytes() if size is None else size)
            return
        self.live[known[0]] -= known[1]
        self.live[kind] += known[1]
        self._kinds[storage._cdata] = (kind, known[1])

    def charge(self, kind: Kind, size: int) -> None:
        """Count bytes that stay for good."""
        self._add(kind, size)

    def enter(self, moment: str) -> None:
        """From here on, until the next call, the most that is live is `moments[moment]`, by kind."""
        self._moment, self._highest = moment, sum(self.moments.get(moment, {}).values())
        self._add(self.kind, 0)

    @property
    def work(self) -> Work:
        """The time until now."""
        return Work(self._attention_s, self._other_s, self._flops)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is _ITEM and args[0].dtype == torch.bool:
            return False  # a mask is taken to hide something
        found = func(*args, **kwargs)
        if _is_view(func):
            return found
        made = [one for one in (found if isinstance(found, tuple | list) else (found,)) if isinstance(one, torch.Tensor)]
        for tensor in made:
            storage = tensor.untyped_storage()
            if storage._cdata not in self._kinds:
                self._allocate(storage, self.kind, storage.nbytes())
        if func is _LOGSUMEXP:  # the differences from the maximum, inside torch's kernel
            self._add(self.kind, args[0].nbytes)
            self._add(self.kind, -args[0].nbytes)
        self._spend(func, args, kwargs, found, made)
        return found

    def _allocate(self, storage: Any, kind: Kind, size: int) -> None:
        key = storage._cdata
        self._kinds[key] = (kind, size)
        weakref.finalize(storage, self._free, key)
        self._add(kind, size)

    def _add(self, kind: Kind, size: int) -> None:
        self.live[kind] += size
        self.total += size
        if self.total > self._highest:
            self._highest = self.total
            self.moments[self._moment] = dict(self.live)

    def _free(self, key: int) -> None:
        kind, size = self._kinds.pop(key)
        self.live[kind] -= size
        self.total -= size

    def _spend(self, func: Any, args: Any, kwargs: Any, found: Any, made: list[Tensor]) -> None:
        read = [one for one in _flat(args) if isinstance(one, torch.Tensor)]
        flops = _flops(func, args, kwargs, found)
        self._flops += flops
        moved = sum(one.numel() * one.element_size() for one in (*read, *made))
        dtype = made[0].dtype if made else torch.float32
        arithmetic = flops / self._rates.get(dtype, self._rates[torch.float32])
        seconds = self.machine.overhead_s + max(arithmetic, moved / self.machine.bandwidth)
        if _is_attention(func):
            self._attention_s += seconds
        else:
            self._other_s += seconds


_ITEM: Final = torch.ops.aten._local_scalar_dense.default
_LOGSUMEXP: Final = torch.ops.aten.logsumexp.default


def _flat(args: Any) -> list[Any]:
    """The arguments, with those of lists."""
    return [inner for one in args for inner in (one if isinstance(one, tuple | list) else (one,))]


def _flops(func: Any, args: Any, kwargs: Any, found: Any) -> float:
    """Operations of matrix products and of attention; elementwise ones are bound by memory and count none."""
    if _is_attention(func):
        return _attention_flops(func, args, kwargs)
    count = _products().get(func)
    return 0.0 if count is None else 2.0 * found.numel() * args[count].shape[-1]


@cache
def _products() -> Mapping[Any, int]:
    """Matrix products, and which argument is the left factor, whose last axis is summed over."""
    aten = torch.ops.aten
    return {aten.mm.default: 0, aten.mm.out: 0, aten.bmm.default: 0, aten.bmm.out: 0, aten.addmm.default: 1, aten.addmm_.default: 1,
            aten.addmm.out: 1, aten.baddbmm.default: 1, aten.baddbmm_.default: 1}


def _attention_flops(func: Any, args: Any, kwargs: Any) -> float:
    """4 H L M D forward and 2.5 times that backward, half of it where nothing behind a position is seen."""
    is_backward = "backward" in func.__name__
    query, key = args[1:3] if is_backward else args[:2]
    whole: float = 4.0 * query.shape[0] * query.shape[1] * query.shape[2] * key.shape[2] * query.shape[3]
    is_causal = any(one is True for one in (*args, *kwargs.values()))
    return whole * (2.5 if is_backward else 1.0) * (0.5 if is_causal else 1.0)


@cache
def _is_attention(func: Any) -> bool:
    return "scaled_dot_product" in str(func)


@cache
def _is_view(func: Any) -> bool:
    """Whether what comes out is the memory that goes in, unchanged."""
    if func.namespace != "aten":
        return False
    returns = func._schema.returns
    return bool(returns) and all(one.alias_info is not None and not one.alias_info.is_write for one in returns)
