"""The model of a run without its numbers: built, adapted, quantised and hastened as the run will do it, on tensors that are shapes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from tunewright.planning.depth import Depth, shorten
from tunewright.planning.numberless import OnMeta
from tunewright.planning.quantised_linear import quantise, stored_bytes
from tunewright.runtime import LOGGER_NAME

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

    from tunewright.config.run import RunConfig
    from tunewright.config.tuning import LoraConfig
    from tunewright.kernels.plan import KernelPlan


@dataclass(frozen=True, slots=True)
class ShapeModel:
    """`model` runs inside `mode` only. `kernels`: which attention it has, and whether rows are laid end to end. `depth`: how many layers it
    stands for, where some were left out."""

    model: nn.Module
    mode: OnMeta
    kernels: KernelPlan
    depth: Depth | None

    def bytes_of(self, weight: Tensor) -> int:
        """What a weight takes as it is kept: quantised ones are less than their shapes say."""
        return stored_bytes(weight)


def shape_model(run: RunConfig) -> ShapeModel:
    """The model of the run. `gradient_checkpointing` is not switched on yet.

    Raises what `make_trainable` raises for a model that the run does not fit, and torch's errors for a model whose code asks for numbers.
    """
    from transformers import AutoModelForCausalLM

    from tunewright.kernels.plan import apply

    run = _without_packages(run)
    config = _config(run)
    is_made = run.model.train_from_scratch or run.lora.pissa_init
    stored = None if is_made else config.dtype  # what the model is made in takes its place
    dtype = torch.bfloat16 if run.precision.pure_bf16 else torch.float32
    mode = OnMeta()
    with torch.device("meta"), _quietly():
        base = AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=run.model.trust_remote_code)
        bits = run.quantization.quantization_bit or _bits_in_files(config)
        if bits is not None:
            quantise(base, bits, double=run.quantization.double_quantization, blocked=(base.get_output_embeddings(),))
        with mode:
            kernels = apply(run, base)
        depth = shorten(base, run)
        model = _trainable(base, run)
        _at_once(run, model)
    _hasten(run, cast("PreTrainedModel", model), mode, stored)
    model.train()
    return ShapeModel(model, mode, kernels, depth)


def _without_packages(run: RunConfig) -> RunConfig:
    """The run with attention that needs no package: FlashAttention keeps for the backward pass what ours keeps."""
    return replace(run, model=replace(run.model, flash_attn="auto")) if run.model.flash_attn == "fa2" else run


def _config(run: RunConfig) -> PretrainedConfig:
    from transformers import AutoConfig

    from tunewright.models.directory import find_model
    from tunewright.models.load import build_config, stretched

    directory = find_model(run.model)
    if run.model.gguf_file or run.model.trust_remote_code:
        found: PretrainedConfig = AutoConfig.from_pretrained(
            directory, gguf_file=run.model.gguf_file, trust_remote_code=run.model.trust_remote_code, local_files_only=True)
        return found
    return stretched(build_config(directory), run.model, run.data.cutoff_len)


def _bits_in_files(config: PretrainedConfig) -> int | None:
    """How many bits weights have that come quantised."""
    settings = getattr(config, "quantization_config", None)
    if settings is None:
        return None
    said = settings if isinstance(settings, dict) else settings.to_dict()
    return 4 if said.get("load_in_4bit") else 8


def _trainable(base: PreTrainedModel, run: RunConfig) -> nn.Module:
    """What trains, by the run's own code; where that would read numbers, with others of the same shape."""
    from tunewright.adapters.trainable import make_trainable

    lora = _continued(replace(run.lora, pissa_init=False), run)
    model = replace(run.model, adapter_name_or_path=())
    tuning = replace(run.tuning, print_param_status=False)
    if tuning.finetuning_type == "none":
        base.requires_grad_(False)
        return cast("nn.Module", base)
    return make_trainable(base, replace(run, lora=lora, model=model, tuning=tuning))


def _at_once(run: RunConfig, model: nn.Module) -> None:
    """BAdam trains one decoder layer at a time; the first keeps the most activations."""
    from tunewright.models.families import decoder_layers

    if run.optimizer.use_badam and run.optimizer.badam_mode == "layer":
        trained = [weight for weight in decoder_layers(model).modules[0].parameters() if weight.requires_grad]
        model.requires_grad_(False)
        for weight in trained:
            weight.requires_grad_(True)


def _continued(lora: LoraConfig, run: RunConfig) -> LoraConfig:
    """With rank and targets of the adapter that the run goes on with."""
    from tunewright.adapters.directory import adapter_directories, read_adapter

    directories = adapter_directories(run.model)
    if not directories or lora.create_new_adapter:
        return lora
    fields = read_adapter(directories[-1]).fields
    targets = fields["target_modules"]
    return replace(lora, lora_rank=fields["r"], lora_target=(targets,) if isinstance(targets, str) else tuple(targets or ("all",)))


def _hasten(run: RunConfig, model: PreTrainedModel, mode: OnMeta, stored: torch.dtype | None) -> None:
    """The fast paths that `kernels.plan.hasten` takes, taken at their word: there are no numbers to prove them on. `stored`: the number
    format that the model's configuration gives its weights."""
    from tunewright.kernels import frozen_weights, lora_groups, output_head, rotary, swap
    from tunewright.kernels.plan import keeps_frozen_narrow, mixed_format

    narrow = mixed_format(run)
    if narrow is not None and narrow == stored and keeps_frozen_narrow(run, model):
        frozen_weights.narrow_unproven(model, narrow)
    slow = {*run.kernels.slow_paths, *(["norm"] if run.kernels.use_fused_rmsnorm is False else [])}
    if "loss" not in slow:
        output_head.adopt_unproven(model, run.kernels.chunk_loss_size)
    if run.kernels.compiles:  # what a compiler fuses is not known; the model's own operations are the upper bound
        return
    if "lora" not in slow and run.tuning.finetuning_type == "lora":
        with mode:
            lora_groups.switch_over_unproven(model)
    if "mlp" not in slow:
        swap.swap_mlps_unproven(model)
    if "norm" not in slow:
        swap.swap_norms_unproven(model)
    if "rotary" not in slow:
        rotary.switch_over_unproven(model)


@contextmanager
def _quietly() -> Iterator[None]:
    """Inside, nothing is logged: the run itself will say it."""
    import logging

    log = logging.getLogger(LOGGER_NAME)
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(level)
