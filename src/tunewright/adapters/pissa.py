"""PiSSA (Meng et al. 2024, arXiv:2404.02948): the adapter starts as the principal part of W, the base keeps the rest.

W = W_res + s B0 A0, with the rank-r truncated SVD in s B0 A0 and s the LoRA scale. What trains is (A, B) from (A0, B0) on;
what is frozen is W_res. Loading such an adapter again needs exactly that W_res: it is recomputed from the stored A0, B0,
never from a second decomposition, because the fast one is random.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from tunewright.adapters.directory import CONFIG_FILE, CONVERTED_FOLDER, INITIAL_FOLDER, WEIGHTS_FILE
from tunewright.adapters.lineage import lineage_of
from tunewright.config.tuning import LoraConfig
from tunewright.errors import require
from tunewright.models.directory import read_tensor_header
from tunewright.models.heads import save_value_head

if TYPE_CHECKING:
    import torch
    from peft import LoraConfig as PeftLoraConfig
    from peft import PeftModel
    from peft.tuners.lora import LoraLayer
    from torch import Tensor

ADAPTER = "default"


def init_word(lora: LoraConfig) -> str | bool:
    """peft's word for the initialisation: `pissa` is the exact decomposition, `pissa_niter_N` the fast one."""
    if not lora.pissa_init:
        return True
    return "pissa" if lora.pissa_iter == -1 else f"pissa_niter_{lora.pissa_iter}"


def decompose(model: PeftModel, lora: LoraConfig) -> dict[str, Tensor]:
    """Give every factor its part of the weight it adapts, by peft's own decomposition; returns the factors, copied to the CPU.

    `model` is freshly adapted. While it attaches an adapter itself, peft takes a product of exact factors out of the weight and then
    rounds the factors to the weight's format: over bfloat16 the sum is then no longer the weight, nor W_res known from the factors.
    """
    import torch

    word = init_word(lora)
    with torch.no_grad():
        for _, layer in lora_layers(model):
            layer.pissa_init(ADAPTER, word)
            for factor in (layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight):
                factor.data = factor.data.contiguous()
    cast("PeftLoraConfig", model.peft_config[ADAPTER]).init_lora_weights = cast(Any, word)
    return initial_factors(model)


def initial_factors(model: PeftModel) -> dict[str, Tensor]:
    """The factors as they are now, copied to the CPU: `<module>.lora_A` [r, in] and `<module>.lora_B` [out, r]."""
    return {
        f"{name}.lora_{letter}": factors[ADAPTER].weight.detach().to("cpu", copy=True)
        for name, layer in lora_layers(model)
        for letter, factors in (("A", layer.lora_A), ("B", layer.lora_B))
    }


def take_out(model: PeftModel, initial: Mapping[str, Tensor]) -> None:
    """Subtract s B0 A0 from every adapted weight, with the operations and rounding of peft's own initialisation."""
    import torch

    with torch.no_grad():
        for name, layer in lora_layers(model):
            weight = layer.get_base_layer().weight
            a0, b0 = (initial[f"{name}.lora_{letter}"].to(weight.device) for letter in "AB")
            rest = _flipped(weight.data.to(torch.float32), layer) - layer.scaling[ADAPTER] * b0 @ a0
            weight.data = _flipped(rest.to(weight.dtype), layer)


def converted(model: PeftModel) -> tuple[dict[str, Tensor], PeftLoraConfig]:
    """The trained PiSSA adapter as an ordinary LoRA adapter of the original model, of twice the rank.

    W_res + s B A = W + s (B A - B0 A0) = W + s [B | -B0] [A ; A0]. alpha grows with the rank so that s stays.
    """
    import torch
    from peft import get_peft_model_state_dict

    initial = lineage_of(model).initial
    tensors = get_peft_model_state_dict(model, adapter_name=ADAPTER, save_embedding_layers=False)
    result: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        module, _, factor = name.removeprefix("base_model.model.").partition(".lora_")
        if factor == "A.weight":
            tensor = torch.cat([tensor.cpu(), initial[f"{module}.lora_A"].to(tensor.dtype)], dim=0)
        elif factor == "B.weight":
            tensor = torch.cat([tensor.cpu(), -initial[f"{module}.lora_B"].to(tensor.dtype)], dim=1)
        elif factor in ("embedding_A", "embedding_B"):
            # An embedding has an ordinary adapter, which must be as wide as the others: zeros add nothing.
            tensor = torch.cat([tensor, torch.zeros_like(tensor)], dim=0 if factor.endswith("A") else 1)
        result[name] = tensor.cpu().contiguous()
    config = deepcopy(cast("PeftLoraConfig", model.peft_config[ADAPTER]))
    config.init_lora_weights = True
    config.lora_alpha *= 2**0.5 if config.use_rslora else 2
    config.r *= 2
    config.inference_mode = True
    return result, config


def save_converted(model: PeftModel, directory: Path) -> Path:
    """Write `converted(model)` as `<directory>/pissa_converted`, which plain peft loads on the original model."""
    from safetensors.torch import save_file

    tensors, config = converted(model)
    folder = directory / CONVERTED_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    config.save_pretrained(folder)
    save_value_head(model, folder)
    return folder


def save_initial(initial: Mapping[str, Tensor], directory: Path) -> None:
    """Write the initial factors as `<directory>/pissa_initial/adapter_model.safetensors`."""
    from safetensors.torch import save_file

    folder = directory / INITIAL_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    save_file(dict(initial), folder / WEIGHTS_FILE, metadata={"format": "pt"})


def load_initial(directory: Path) -> dict[str, Tensor]:
    """Read what `save_initial` wrote. Raises `InputError` if it is absent: without it W_res cannot be known exactly."""
    from safetensors.torch import load_file

    file = directory / INITIAL_FOLDER / WEIGHTS_FILE
    require(file.is_file(), f"the PiSSA adapter {directory} lacks {INITIAL_FOLDER}/{WEIGHTS_FILE}, without which its base is unknown",
            where=str(directory / CONFIG_FILE), mend=f"use its converted form ({CONVERTED_FOLDER}) or convert it with peft")
    read_tensor_header(file)
    return load_file(file)


def lora_layers(model: PeftModel) -> Iterator[tuple[str, LoraLayer]]:
    """Adapted modules with their names in the base model."""
    from peft.tuners.lora import LoraLayer

    for name, module in model.base_model.model.named_modules():
        if isinstance(module, LoraLayer) and ADAPTER in module.lora_A:
            yield name, module


def _flipped(weight: torch.Tensor, layer: LoraLayer) -> torch.Tensor:
    return weight.T if getattr(layer, "fan_in_fan_out", False) else weight
