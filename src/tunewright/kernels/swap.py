"""Modules given a faster forward, after it has been shown to do what their own does.

Candidates are found by structure, not by the names of model families. Each kind of module (class, shapes, number format) is tried once, on
random input: output and gradient of the input must be those of the module's own forward. Only the instance's `forward` changes: names of
parameters, hooks and what a checkpoint holds stay.
"""

from __future__ import annotations

import copy
import inspect
import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from tunewright.kernels.elementwise import epsilon, gated_mlp, offset_norm, plain_norm
from tunewright.kernels.probe import TOLERANCE
from tunewright.kernels.taken import REPLACED, Taken, counted
from tunewright.kernels.verdicts import Ask, prove_anew

Forward = Callable[[nn.Module, Tensor], Tensor]
Disproof = Callable[[nn.Module, Forward], str | None]
"""Why a module must not have a forward, or None."""


def swap_mlps(model: nn.Module, ask: Ask = prove_anew) -> Taken:
    """Give every gated MLP with SiLU the forward with one activation."""
    return _swap(model, _MLPS, partial(_asked, ask))


def swap_norms(model: nn.Module, ask: Ask = prove_anew) -> Taken:
    """Give every RMSNorm torch's own."""
    return _swap(model, _NORMS, partial(_asked, ask))


def swap_mlps_unproven(model: nn.Module) -> Taken:
    """`swap_mlps` for a model that has shapes and no numbers to try it on, as the planner makes one."""
    return _swap(model, _MLPS, _believed)


def swap_norms_unproven(model: nn.Module) -> Taken:
    """`swap_norms` for such a model."""
    return _swap(model, _NORMS._replace(offers=(plain_norm,)), _believed)


def _believed(module: nn.Module, offer: Forward) -> None:
    return None


def swap_back(model: nn.Module) -> None:
    """Give all of them their own forward again."""
    for module in model.modules():
        if isinstance(module.__dict__.get("forward"), partial) and module.__dict__["forward"].func in _OURS:
            del module.__dict__["forward"]


_OURS: Final = (gated_mlp, plain_norm, offset_norm)


def _swap(model: nn.Module, path: _Path, disproof: Disproof) -> Taken:
    chosen: dict[str, Forward | str] = {}
    return counted(_given(module, path, disproof, chosen) for module in model.modules() if path.looks_like_one(module))


def _given(module: nn.Module, path: _Path, disproof: Disproof, chosen: dict[str, Forward | str]) -> str | None:
    """Give a module the forward that is chosen for its kind; or why it keeps its own."""
    if "forward" in module.__dict__:
        return REPLACED
    if not path.fits(module):
        return path.other
    kind = _kind(module)
    if kind not in chosen:
        chosen[kind] = _choice(module, path.offers, disproof)
    found = chosen[kind]
    if isinstance(found, str):
        return found
    module.forward = partial(found, module)
    return None


def _choice(module: nn.Module, offers: Sequence[Forward], disproof: Disproof) -> Forward | str:
    """The first forward that nothing speaks against, or what speaks against the last."""
    reason = ""
    for offer in offers:
        against = disproof(module, offer)
        if against is None:
            return offer
        reason = against
    return reason


def _kind(module: nn.Module) -> str:
    weights = ", ".join(f"{tuple(weight.shape)} {weight.dtype} {weight.device}" for weight in module.parameters())
    return f"{type(module).__module__}.{type(module).__qualname__} with {weights}"


def _asked(ask: Ask, module: nn.Module, offer: Forward) -> str | None:
    return ask(f"{offer.__name__} for {_kind(module)}", partial(_disproof, module, offer))


def _disproof(module: nn.Module, offer: Forward) -> str | None:
    trial = _with_other_weight(module) if _is_rms_norm(module) else module
    return None if _does_the_same(trial, offer) else "it computes something else"


def _with_other_weight(norm: nn.Module) -> nn.Module:
    """A copy whose weight is neither all 0 nor all 1, where w and 1 + w could not be told apart from a factor."""
    trial = copy.deepcopy(norm)
    with torch.no_grad():
        for weight in trial.parameters():
            weight.copy_(torch.linspace(0.25, 2, weight.numel()))
    return trial


def _does_the_same(module: nn.Module, offer: Forward) -> bool:
    weight = next(module.parameters())
    kind = weight.dtype if weight.is_floating_point() else torch.float32
    generator = torch.Generator().manual_seed(0)
    width = weight.shape[-1] if _is_rms_norm(module) else int(module.gate_proj.in_features)  # type: ignore[union-attr, arg-type]
    hidden = torch.randn(1, 3, width, generator=generator, dtype=torch.float64).to(weight.device, kind)
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        own, ours = (_output_and_slope(forward, hidden) for forward in (partial(type(module).forward, module), partial(offer, module)))
    return all(one.dtype == two.dtype and float((one - two).abs().max()) <= TOLERANCE.get(kind, 1e-5) * float(one.abs().max())
               for one, two in zip(own, ours, strict=True))


def _output_and_slope(forward: Callable[[Tensor], Tensor], hidden: Tensor) -> tuple[Tensor, Tensor]:
    at = hidden.clone().requires_grad_()
    output = forward(at)
    weights = torch.cos(torch.arange(output.numel(), device=output.device)).view_as(output).to(output.dtype)
    (slope,) = torch.autograd.grad(output, at, weights)
    return output.detach(), slope


def _has_projections(module: nn.Module) -> bool:
    return {"gate_proj", "up_proj", "down_proj"} <= {name for name, _ in module.named_children()}


def _is_gated_by_silu(module: nn.Module) -> bool:
    sample = torch.linspace(-3, 3, 7)
    try:
        return hasattr(module, "act_fn") and torch.equal(cast("nn.Module", module.act_fn)(sample), silu(sample))
    except (TypeError, RuntimeError):
        return False


def _is_named_so(module: nn.Module) -> bool:
    return re.search("rms_?norm", type(module).__name__, re.IGNORECASE) is not None


def _is_rms_norm(module: nn.Module) -> bool:
    weights = dict(module.named_parameters())
    return (_is_named_so(module) and list(weights) == ["weight"]
            and weights["weight"].dim() == 1 and epsilon(module) > 0 and _takes_one_tensor(module))


def _takes_one_tensor(module: nn.Module) -> bool:
    """Gated norms take two."""
    own = inspect.signature(type(module).forward).parameters.values()
    return sum(one.default is inspect.Parameter.empty and one.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD for one in own) == 2


class _Path(NamedTuple):
    """`looks_like_one`: which modules a path is meant for; `fits`: which of them it is tried on; `other`: what the rest are."""

    looks_like_one: Callable[[nn.Module], bool]
    fits: Callable[[nn.Module], bool]
    other: str
    offers: tuple[Forward, ...]


_MLPS: Final = _Path(_has_projections, _is_gated_by_silu, "no SiLU between gate and up", (gated_mlp,))
_NORMS: Final = _Path(_is_named_so, _is_rms_norm, "not of one weight, one epsilon and one input", (plain_norm, offset_norm))
