"""The value head: one number for each token, from the last hidden states of a causal language model.

The one of trl's AutoModelForCausalLMWithValueHead, a linear layer named `summary`, without its dropout: a reward is not drawn at
random. In files it is `value_head.safetensors` beside the adapter or the weights, as LLaMA-Factory writes it. In memory it hangs on the
causal language model as `v_head`, so that what goes over a model's parameters (optimizer, checkpoints, ranks, reports) finds it.

Axes: D width of the hidden states.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

import torch
from torch import Tensor, nn

from tunewright.errors import refuse, require

if TYPE_CHECKING:
    from transformers import PreTrainedModel

VALUE_HEAD_FILE: Final = "value_head.safetensors"
PICKLED_FILE: Final = "value_head.bin"
_SLOT: Final = "v_head"
_KEYS: Final = {"summary.weight": "v_head.summary.weight", "summary.bias": "v_head.summary.bias"}
"""Name in the module -> name in the file."""


class ValueHead(nn.Module):
    """hidden [..., D] -> value [...], computed in the head's own number format, whatever that of the model."""

    def __init__(self, width: int, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.summary = nn.Linear(width, 1, dtype=dtype)

    def forward(self, hidden: Tensor) -> Tensor:
        """The value of each hidden state; mixed precision does not narrow it."""
        with torch.autocast(hidden.device.type, enabled=False):
            values: Tensor = self.summary(hidden.to(self.summary.weight.dtype))
        return values.squeeze(-1)


def causal_lm(policy: nn.Module) -> PreTrainedModel:
    """The causal language model inside what ranks and adapters wrap around it."""
    while not hasattr(policy, "get_output_embeddings") and isinstance(getattr(policy, "module", None), nn.Module):
        policy = cast(nn.Module, policy.module)
    inner = policy.get_base_model() if hasattr(policy, "get_base_model") else policy  # type: ignore[operator]
    return cast("PreTrainedModel", inner)


def value_head_of(policy: nn.Module) -> ValueHead | None:
    """The value head of a model, however wrapped, if it has one."""
    found = getattr(causal_lm(policy), _SLOT, None)
    return found if isinstance(found, ValueHead) else None


def new_value_head(model: nn.Module, seed: int) -> ValueHead:
    """Attach a fresh head: weights uniform within 1 / sqrt(D) as torch's linear layers begin (and trl's), a function of `seed` alone;
    bias zero.

    Float32, or the model's own format where that is wider; on the device of the model's output projection.
    """
    width, place = _width_and_place(causal_lm(model))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = ValueHead(width)
    nn.init.zeros_(head.summary.bias)
    return _attach(model, _placed(head, place))


def load_value_head(model: nn.Module, directory: Path) -> ValueHead:
    """Attach the head that `directory` holds, bit for bit. Raises `InputError` if it holds none, or one of another width."""
    return _attach(model, detached_value_head(model, directory))


def detached_value_head(model: nn.Module, directory: Path) -> ValueHead:
    """The head that `directory` holds, in the place and number format that fit `model`, which does not get it. Raises as
    `load_value_head`."""
    tensors = read_value_head(directory)
    if tensors is None:
        refuse(f"{directory} has no {VALUE_HEAD_FILE}: it is not a reward model", mend="train one with stage: rm")
    width, place = _width_and_place(causal_lm(model))
    weight = tensors["summary.weight"]
    require(weight.shape[1] == width, f"the value head takes {weight.shape[1]} numbers of each token, the model has {width}",
            where=str(directory / VALUE_HEAD_FILE), mend="give the model it was trained on")
    head = ValueHead(width)
    head.load_state_dict(dict(tensors))
    return _placed(head, place)


def reload_value_head(model: nn.Module, directory: Path) -> None:
    """Put the saved numbers back into the head that `model` has; nothing for a model without one."""
    head = value_head_of(model)
    if head is None:
        return
    tensors = read_value_head(directory)
    require(tensors is not None, f"{directory} has no {VALUE_HEAD_FILE}", mend="use another checkpoint")
    head.load_state_dict(dict(tensors or {}))


def read_value_head(directory: Path) -> Mapping[str, Tensor] | None:
    """`summary.weight` [1, D] and `summary.bias` [1] of the head that a directory holds; None without one.

    Raises `InputError` for a pickled one, which is never loaded, and for a file with other tensors.
    """
    from safetensors.torch import load_file

    file = directory / VALUE_HEAD_FILE
    if not file.is_file():
        require(not (directory / PICKLED_FILE).is_file(), f"{directory / PICKLED_FILE} is pickled, and such files are never loaded",
                mend=f"write its two tensors, {' and '.join(_KEYS.values())}, to {VALUE_HEAD_FILE} with safetensors")
        return None
    tensors = load_file(file)
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    weight = shapes.get(_KEYS["summary.weight"], ())
    is_head = shapes.keys() == set(_KEYS.values()) and len(weight) == 2 and weight[0] == 1 and shapes[_KEYS["summary.bias"]] == (1,)
    require(is_head, f"not a value head: {', '.join(f'{name} {list(shape)}' for name, shape in sorted(shapes.items())) or 'no tensors'}",
            where=str(file), mend=f"it must hold {_KEYS['summary.weight']} [1, width] and {_KEYS['summary.bias']} [1] alone")
    return {name: tensors[key] for name, key in _KEYS.items()}


def save_value_head(model: nn.Module, directory: Path) -> None:
    """Write the head of `model` for us and for LLaMA-Factory; nothing for a model without one."""
    from safetensors.torch import save_file

    head = value_head_of(model)
    if head is not None:
        state = head.state_dict()
        save_file({key: state[name].to("cpu").contiguous() for name, key in _KEYS.items()}, directory / VALUE_HEAD_FILE,
                  metadata={"format": "pt"})


@contextmanager
def without_value_head(model: nn.Module) -> Iterator[None]:
    """Inside, `model` is the plain causal language model: for what writes its weights, or reads them back."""
    base = causal_lm(model)
    head = base._modules.pop(_SLOT, None)
    try:
        yield
    finally:
        if head is not None:
            base.add_module(_SLOT, head)


def _attach(model: nn.Module, head: ValueHead) -> ValueHead:
    causal_lm(model).add_module(_SLOT, head)
    return head.train(model.training)


def _placed(head: ValueHead, place: Tensor) -> ValueHead:
    wide = torch.promote_types(torch.float32, place.dtype if place.is_floating_point() else torch.float32)
    return head.to(place.device, wide)


def _width_and_place(model: PreTrainedModel) -> tuple[int, Tensor]:
    """D, and a tensor whose device and number format are those of the last hidden states."""
    top = model.get_output_embeddings()
    weight = getattr(top, "weight", None)
    if isinstance(weight, Tensor) and weight.dim() == 2:
        return int(weight.shape[1]), weight
    return int(model.config.get_text_config().hidden_size), next(model.parameters())
