"""LoRA through peft: new adapters, continued adapters, several adapters, saved and restored exactly."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from tunewright.adapters.directory import WEIGHTS_FILE, AdapterFacts, check_fits, read_adapter, write_merged
from tunewright.adapters.lineage import Lineage, lineage_of, remember
from tunewright.adapters.pissa import ADAPTER, decompose, load_initial, save_initial, take_out
from tunewright.adapters.positions import write_positions
from tunewright.adapters.targets import matching, resolve_targets, shortest
from tunewright.adapters.vocabulary import are_tied, make_room, vocabulary_modules
from tunewright.config.tuning import LoraConfig
from tunewright.errors import NumericError, refuse, require
from tunewright.models.families import embeddings, head, is_packed, is_quantised, is_tied, linear_layers, shape_of

if TYPE_CHECKING:
    from peft import LoraConfig as PeftLoraConfig
    from peft import PeftModel
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)


def new_adapter(model: PreTrainedModel, lora: LoraConfig, seed: int) -> PeftModel:
    """A fresh adapter on `model`; its first weights are a function of the seed alone.

    Factors are float32 over lower-precision weights, else in the weights' own precision.
    """
    from peft import get_peft_model

    config = peft_config(model, lora)
    with _own_randomness(seed), _quiet():
        adapted = cast("PeftModel", get_peft_model(model, config))
        initial = decompose(adapted, lora) if lora.pissa_init else {}
    _demand_directions(adapted)
    if lora.lora_bias != "none" and not any(one.requires_grad for name, one in adapted.named_parameters() if name.endswith("bias")):
        log.warning("lora_bias: %s trains nothing, because there are no such biases in this model", lora.lora_bias)
    if lora.pissa_init:
        if not lora.pissa_convert:
            log.warning("this PiSSA adapter will load in tunewright only; set pissa_convert: true to save one for plain peft too")
        remember(adapted, Lineage(initial=initial))
    return adapted


def peft_config(model: PreTrainedModel, lora: LoraConfig) -> PeftLoraConfig:
    """peft's configuration for a new adapter. Raises `InputError` on targets or combinations that cannot work."""
    from peft import LoraConfig as PeftLoraConfig

    _check_combination(model, lora)
    targets = resolve_targets(model, lora)
    top = head(model)
    takes_head = any(name.rpartition(".")[2] in targets.modules or name in targets.modules
                     for name, module in model.named_modules() if module is top)
    require(not (lora.pissa_init and takes_head and is_tied(model)),
            "lora_target: pissa_init would take the head apart, and with it the embedding, which has the same weight",
            mend="leave the head out, or remove pissa_init")
    require(bool(targets.modules or targets.parameters), "lora_target matches nothing in this model",
            mend="use finetuning_type: full")
    everything = [name for name, _ in model.named_modules()]
    extra = {name for entry in lora.additional_target for name in matching(entry, everything, "additional_target")}
    # Both matrices of a tied pair: one of them would otherwise be trained beside a copy of itself.
    tied = are_tied(model) and set(vocabulary_modules(model)) <= extra
    packed = sorted(name for name in extra if any(is_packed(weight) for weight in model.get_submodule(name).parameters()))
    require(not packed, f"additional_target: {packed[0] if packed else ''} is quantised, and quantised weights cannot train",
            mend="put it into lora_target, or remove quantization_bit")
    transposed = _is_transposed(model)
    require(transposed or not lora.lora_fan_in_fan_out, "lora_fan_in_fan_out: no layer of this model keeps its weights as [in, out]",
            mend="leave it out: such layers are recognised where there are any")
    alpha = 2 * lora.lora_rank if lora.lora_alpha is None else lora.lora_alpha
    return PeftLoraConfig(
        r=lora.lora_rank, lora_alpha=int(alpha) if float(alpha).is_integer() else alpha, lora_dropout=lora.lora_dropout,
        target_modules=targets.modules, target_parameters=targets.parameters or None, bias=lora.lora_bias,
        modules_to_save=shortest(extra, everything, separator="") or None, use_rslora=lora.use_rslora, use_dora=lora.use_dora,
        fan_in_fan_out=transposed, ensure_weight_tying=tied, task_type="CAUSAL_LM")


def load_adapter(model: PreTrainedModel, directory: Path, *, trainable: bool) -> PeftModel:
    """The saved adapter on `model`, factors bit-identical to those saved; a PiSSA adapter with the exact base it had.

    Raises `InputError` if the directory is no LoRA adapter or was made for another model.
    """
    facts = read_adapter(directory)
    check_fits(facts, model)
    make_room(model, facts)
    adapted = _attach(model, facts)
    initial = load_initial(directory) if facts.is_pissa else {}
    if initial:
        take_out(adapted, initial)
        adapted.peft_config[ADAPTER].init_lora_weights = facts.fields["init_lora_weights"]
    _read_weights(adapted, directory)
    adapted.requires_grad_(False)
    adapted.peft_config[ADAPTER].inference_mode = not trainable
    if trainable:
        adapted.set_adapter(ADAPTER)
        _train_biases(adapted)
    else:
        adapted.eval()
    remember(adapted, Lineage(merged=facts.merged, initial=initial))
    return adapted


def merge_adapters(model: PreTrainedModel, directories: Sequence[Path]) -> PreTrainedModel:
    """`model` with the adapters merged into its weights one after the other. Raises `InputError` if those are quantised."""
    require(not directories or not is_quantised(model), "adapters cannot be merged into quantised weights",
            mend="merge them first with `tunewright export`")
    for directory in directories:
        adapted = load_adapter(model, directory, trainable=False)
        model = unload_merged(adapted)
        log.info("merged adapter %s", directory)
    return model


def unload_merged(adapted: PeftModel) -> PreTrainedModel:
    """The base model with the adapter added to its weights. Raises `NumericError` on a weight that is not finite."""
    _untie_adapted(adapted)
    try:
        with _quiet():
            return cast("PreTrainedModel", adapted.merge_and_unload(safe_merge=True))
    except ValueError as error:
        raise NumericError(f"the adapter cannot be merged: {' '.join(str(error).split())}",
                           mend="its weights are damaged: use an earlier checkpoint") from error


def _untie_adapted(adapted: PeftModel) -> None:
    """Give the output head a weight of its own where it shares the embedding's and an adapter changes one of them: merged into the
    shared weight it would change both."""
    from peft.tuners.lora import LoraLayer
    from torch import nn

    base = cast("PreTrainedModel", adapted.base_model.model)
    below, top = embeddings(base), head(base)
    if top is None or not any(isinstance(one, LoraLayer) for one in (below, top)):
        return
    bottom, last = (cast(Any, one.get_base_layer() if isinstance(one, LoraLayer) else one) for one in (below, top))
    if last.weight is bottom.weight:
        last.weight = nn.Parameter(bottom.weight.detach().clone(), requires_grad=bottom.weight.requires_grad)
        base.config.tie_word_embeddings = base.config.get_text_config().tie_word_embeddings = False


def save_adapter(adapted: PeftModel, directory: Path) -> None:
    """Write adapter_config.json and adapter_model.safetensors as peft does, and what `load_adapter` needs besides."""
    from copy import deepcopy

    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    tensors = get_peft_model_state_dict(adapted, adapter_name=ADAPTER, save_embedding_layers=False)
    unshared = {name: tensor.detach().to("cpu").contiguous().clone() for name, tensor in tensors.items()}
    save_file(unshared, directory / WEIGHTS_FILE, metadata={"format": "pt"})
    config = deepcopy(adapted.peft_config[ADAPTER])
    config.inference_mode = True
    # peft keeps sets, whose order changes from process to process; the same run shall write the same file.
    config.target_modules = sorted(config.target_modules)
    config.target_parameters = sorted(config.target_parameters) if config.target_parameters else None
    if config.ensure_weight_tying:  # peft takes the head out when it ties it, and does not find it again by the name of every embedding
        config.modules_to_save = sorted({*config.modules_to_save, *vocabulary_modules(adapted.base_model.model)})
    config.base_model_name_or_path = adapted.base_model.model.name_or_path or config.base_model_name_or_path
    config.save_pretrained(str(directory))
    lineage = lineage_of(adapted)
    write_merged(directory, lineage.merged)
    write_positions(directory, lineage.positions)
    if lineage.initial:
        save_initial(lineage.initial, directory)


def _attach(model: PreTrainedModel, facts: AdapterFacts) -> PeftModel:
    from peft import LoraConfig as PeftLoraConfig
    from peft import get_peft_model

    fields = dict(facts.fields)
    if facts.is_pissa:
        fields["init_lora_weights"] = True
    fields["inference_mode"] = False
    fields["base_model_name_or_path"] = None
    try:
        with _own_randomness(0), _quiet():
            return cast("PeftModel", get_peft_model(model, PeftLoraConfig(**fields)))
    except (ValueError, TypeError) as error:
        refuse(f"the adapter cannot be put on this model: {' '.join(str(error).split())[:300]}", where=str(facts.directory),
               mend=f"give the model it was trained on ({facts.base or 'unnamed'})")


def _read_weights(adapted: PeftModel, directory: Path) -> None:
    from peft import set_peft_model_state_dict
    from safetensors.torch import load_file

    where = str(directory / WEIGHTS_FILE)
    tensors = load_file(directory / WEIGHTS_FILE)
    try:
        result = set_peft_model_state_dict(adapted, tensors, adapter_name=ADAPTER)
    except RuntimeError as error:
        detail = " ".join(str(error).split())[:300]
        refuse(f"the adapter was made for another model: {detail}", where=where, mend="give the model it was trained on")
    require(not result.unexpected_keys, f"tensors without a place in this model: {', '.join(result.unexpected_keys[:3])}",
            where=where, mend="give the model it was trained on")
    lacking = [name for name in result.missing_keys if ".lora_" in name or ".modules_to_save." in name]
    require(not lacking, f"tensors missing from the adapter: {', '.join(lacking[:3])}", where=where, mend="fetch it again")


def _train_biases(adapted: PeftModel) -> None:
    """peft's rule for `bias`, which it applies only to new adapters."""
    from peft.tuners.lora import LoraLayer

    rule = adapted.peft_config[ADAPTER].bias
    for name, parameter in adapted.named_parameters():
        if rule == "all" and name.endswith("bias") and ".lora_" not in name:
            parameter.requires_grad_(True)
    for module in adapted.modules():
        base_bias = getattr(module.get_base_layer(), "bias", None) if isinstance(module, LoraLayer) else None
        if rule == "lora_only" and base_bias is not None:
            base_bias.requires_grad_(True)


def _check_combination(model: PreTrainedModel, lora: LoraConfig) -> None:
    import torch

    require(not (lora.pissa_convert and lora.use_dora), "pissa_convert cannot express a DoRA adapter as an ordinary LoRA adapter",
            mend="leave out use_dora or pissa_convert")
    require(not lora.pissa_convert or lora.pissa_init, "pissa_convert without pissa_init converts nothing", mend="set pissa_init: true")
    require(not lora.pissa_init or model.dtype in (torch.float32, torch.float16, torch.bfloat16),
            f"pissa_init needs float32, float16 or bfloat16 weights, not {model.dtype}", mend="load the model in float32")
    require(not lora.pissa_init or not is_quantised(model), "pissa_init takes weights apart, and those of the base are quantised",
            mend="use the unquantised model, or remove pissa_init")
    sizes = [size for module in linear_layers(model).values() for weight in module.parameters() for size in shape_of(weight)]
    widest = max(sizes, default=0)
    require(lora.lora_rank <= widest, f"lora_rank is {lora.lora_rank}, more than the widest linear layer of the model ({widest})",
            mend="use a rank well below it, for instance 8 to 64")


def _demand_directions(adapted: PeftModel) -> None:
    """Raise `InputError` if DoRA is to learn the direction of weights that have none: it would divide zero by zero."""
    for name, parameter in adapted.named_parameters():
        if ".lora_magnitude_vector." in name:
            zeros = int((parameter == 0).sum())
            module = name.removeprefix("base_model.model.").partition(".lora_magnitude_vector.")[0]
            require(zeros == 0, f"use_dora: {zeros} of the {parameter.numel()} outputs of {module} have weights of zero, which have no "
                    "direction to learn", mend="leave this module out of lora_target, or remove use_dora")


def _is_transposed(model: PreTrainedModel) -> bool:
    """Whether the linear layers keep their weights as [in, out] (GPT-2's Conv1D)."""
    from transformers.pytorch_utils import Conv1D

    return any(isinstance(module, Conv1D) for module in linear_layers(model).values())


@contextmanager
def _own_randomness(seed: int) -> Iterator[None]:
    """Random numbers from `seed` inside, the caller's stream untouched outside."""
    import torch

    with torch.random.fork_rng(devices=range(torch.cuda.device_count()) if torch.cuda.is_available() else []):
        torch.manual_seed(seed)
        yield


@contextmanager
def _quiet() -> Iterator[None]:
    """Without peft's warnings about things that this module handles (a renamed base, Conv1D, untied heads), and its own use
    of a name that transformers is giving up."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*base_model_name_or_path.*")
        warnings.filterwarnings("ignore", message=".*fan_in_fan_out.*")
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*")
        warnings.filterwarnings("ignore", message=".*no longer tied after merging.*")
        warnings.filterwarnings("ignore", message=".*ensure_weight_tying.*")
        yield
