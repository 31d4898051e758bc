"""Makes a model trainable as the run says, new or resumed, and saves what was trained."""

from __future__ import annotations

import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from tunewright.adapters.directory import adapter_directories, is_adapter
from tunewright.adapters.expanded import within_expanded_blocks
from tunewright.adapters.freeze import freeze
from tunewright.adapters.lineage import Lineage, lineage_of, remember
from tunewright.adapters.lora import load_adapter, merge_adapters, new_adapter, save_adapter
from tunewright.adapters.positions import POSITIONS_FILE, applied, with_positions
from tunewright.adapters.vocabulary import refuse_new_tokens, vocabulary_modules, with_vocabulary
from tunewright.config.model import ModelConfig
from tunewright.config.run import RunConfig
from tunewright.errors import require
from tunewright.models.families import is_quantised
from tunewright.models.heads import reload_value_head, save_value_head, without_value_head
from tunewright.models.load import check_vocabulary, reload_weights
from tunewright.models.surgery.vocabulary import fit_vocabulary

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

log = logging.getLogger(__name__)

SHARD_SIZE = "5GB"


def make_trainable(
    model: PreTrainedModel, run: RunConfig, *, checkpoint: Path | None = None, tokenizer: PreTrainedTokenizerBase | None = None,
) -> nn.Module:
    """`model` with `requires_grad` on exactly what trains: itself (full, freeze) or wrapped in an adapter (LoRA).

    With `checkpoint`, every trained tensor, and for PiSSA every frozen one, is bit-identical to that of the interrupted
    run; without, the start is a function of `run.run.seed`. With `tokenizer`, the model has a row for each of its tokens: new ones
    train with LoRA too. The model comes back in training mode.
    """
    build = _lora if run.tuning.finetuning_type == "lora" else _own_weights
    trained = build(model, run, checkpoint, tokenizer)
    if tokenizer is not None:
        check_vocabulary(tokenizer, cast("PreTrainedModel", trained))
    if run.tuning.print_param_status:
        for name, parameter in trained.named_parameters():
            log.info("%s %s %s %s", name, tuple(parameter.shape), parameter.dtype, "trains" if parameter.requires_grad else "frozen")
    return trained.train()


def resume_source(run: RunConfig, checkpoint: Path | None) -> ModelConfig:
    """The model to open for a run: its base, or the checkpoint itself where the model's own weights train.

    Spares `make_trainable` a second reading of the weights.
    """
    if checkpoint is None or run.tuning.finetuning_type == "lora":
        return run.model
    # A checkpoint has its weights, its dtype and its stretched positions already.
    return replace(run.model, model_name_or_path=str(checkpoint), gguf_file=None, train_from_scratch=False, rope_scaling=None)


def demand_mergeable(base: PreTrainedModel, run: RunConfig) -> None:
    """Raise `InputError` before training if the merge at its end would find no weights in floating point.

    A base that this run quantises itself has its floats in the files still.
    """
    require(not (run.export.merge_lora_and_save and is_quantised(base) and run.quantization.quantization_bit is None),
            "merge_lora_and_save: the base is quantised in its files, and an adapter can be merged into floats only",
            mend="use the unquantised model with quantization_bit, or remove merge_lora_and_save")


def enable_gradient_checkpointing(model: nn.Module, reentrant: bool) -> None:
    """Recompute the activations of every decoder layer in the backward pass.

    With frozen embeddings nothing that enters the first layer needs a gradient, and the reentrant form would then train
    nothing at all: the embedding's output is made to need one.
    """
    base = cast("PreTrainedModel", model)
    base.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": reentrant})
    base.config.use_cache = False
    base.enable_input_require_grads()


def save_trained(
    model: nn.Module, directory: Path, tokenizer: PreTrainedTokenizerBase, *, chat_template: str | None = None
) -> None:
    """Write what was trained, for peft or transformers to load: an adapter, or the whole model with its configuration, and its value head.

    The tokenizer goes alongside; `chat_template` is the jinja text used in training, absent for the tokenizer's own.
    Nothing is pickled. `directory` may exist; files of the same names are replaced.
    """
    from peft import PeftModel

    directory.mkdir(parents=True, exist_ok=True)
    with without_value_head(model):
        if isinstance(model, PeftModel):
            save_adapter(model, directory)
        else:
            save_model(cast("PreTrainedModel", model), directory, SHARD_SIZE)
    save_value_head(model, directory)
    save_tokenizer(tokenizer, directory, chat_template)
    open_up(directory)


def open_up(directory: Path) -> None:
    """Give weights files the mode of the other files; safetensors writes them for the owner's eyes only."""
    for weights in directory.rglob("*.safetensors"):
        shutil.copymode(directory / "tokenizer_config.json", weights)


def load_trained(model: nn.Module, directory: Path) -> None:
    """Put the trained weights that `save_trained` wrote back into the same model, bit by bit."""
    from peft import PeftModel, set_peft_model_state_dict
    from peft.utils import load_peft_weights

    with without_value_head(model):
        if isinstance(model, PeftModel):
            set_peft_model_state_dict(model, load_peft_weights(str(directory), device="cpu"))
        else:
            reload_weights(cast("PreTrainedModel", model), directory)
    reload_value_head(model, directory)


def save_model(model: PreTrainedModel, directory: Path, shard_size: str) -> None:
    """Write config.json, generation_config.json and sharded safetensors."""
    use_cache = model.config.use_cache
    model.config.use_cache = True  # off only while it trains with gradient checkpointing
    _mend_generation(model)
    model.save_pretrained(directory, max_shard_size=shard_size)
    model.config.use_cache = use_cache


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, directory: Path, chat_template: str | None) -> None:
    """Write the tokenizer, with `chat_template` as its template unless that is absent."""
    tokenizer.save_pretrained(directory)
    if chat_template is not None:
        (directory / "chat_template.jinja").write_text(chat_template, encoding="utf-8")


def _lora(
    model: PreTrainedModel, run: RunConfig, checkpoint: Path | None, tokenizer: PreTrainedTokenizerBase | None,
) -> PeftModel:
    """Merge what is to be merged, then a new adapter, the continued one, or the checkpoint's."""
    given = adapter_directories(run.model)
    below = given if run.lora.create_new_adapter or not given else given[:-1]
    model = merge_adapters(model, below)
    if checkpoint is not None:
        require(is_adapter(checkpoint), f"the checkpoint {checkpoint} holds no adapter",
                mend="resume with the finetuning_type it was made with")
        if tokenizer is not None and below == given:  # without its adapter the policy has the rows that the run began with
            fit_vocabulary(model, tokenizer, run.tokenizer, run.run.seed)
        adapted = load_adapter(model, checkpoint, trainable=True)
    elif given and not run.lora.create_new_adapter:
        if tokenizer is not None:
            refuse_new_tokens(tokenizer, "the modules of a continued adapter are fixed", "set create_new_adapter: true")
        adapted = load_adapter(model, given[-1], trainable=True)
        config = adapted.peft_config["default"]
        log.info("continuing adapter %s: its rank %s, alpha %s and targets stay", given[-1], config.r, config.lora_alpha)
    else:
        has_new_rows = tokenizer is not None and fit_vocabulary(model, tokenizer, run.tokenizer, run.run.seed)
        lora = within_expanded_blocks(model, run.lora, run.freeze.freeze_trainable_layers) if run.freeze.use_llama_pro else run.lora
        adapted = new_adapter(model, with_vocabulary(model, lora) if has_new_rows else lora, run.run.seed)
    merged = tuple(str(path.resolve()) for path in below)
    positions = applied(model.config, *with_positions(run.model, run.data.cutoff_len))
    if positions is not None and checkpoint is None:
        log.warning("positions are stretched by %s: %s tells tunewright so, plain peft must be told to stretch them", positions.method,
                    POSITIONS_FILE)
    remember(adapted, Lineage(merged=merged, initial=lineage_of(adapted).initial, positions=positions))
    return adapted


def _own_weights(
    model: PreTrainedModel, run: RunConfig, checkpoint: Path | None, tokenizer: PreTrainedTokenizerBase | None,
) -> PreTrainedModel:
    kind = run.tuning.finetuning_type
    require(not run.model.adapter_name_or_path, f"adapter_name_or_path is given, but finetuning_type is {kind}",
            mend="use finetuning_type: lora, or export the merged model first")
    require(not is_quantised(model), f"quantised weights cannot train, but finetuning_type is {kind}", mend="set finetuning_type: lora")
    if checkpoint is not None and model.name_or_path != str(checkpoint.resolve()):
        require((checkpoint / "config.json").is_file(), f"the checkpoint {checkpoint} holds no model",
                mend="resume with the finetuning_type it was made with")
        reload_weights(model, checkpoint)
    # A checkpoint has its rows already.
    has_new_rows = checkpoint is None and tokenizer is not None and fit_vocabulary(model, tokenizer, run.tokenizer, run.run.seed)
    if kind == "freeze":
        freeze(model, run.freeze)
        still = [name for name in vocabulary_modules(model) if not model.get_submodule(name).weight.requires_grad]
        if has_new_rows and still:
            log.warning("the rows of new tokens in %s do not train: name it in freeze_extra_modules if they should", " and ".join(still))
    else:
        model.requires_grad_(True)
    return model


def _mend_generation(model: PreTrainedModel) -> None:
    """Drop sampling settings of a generation configuration that does not sample: such a one cannot be saved."""
    generation = model.generation_config
    if generation is not None and not generation.do_sample:
        generation.temperature = generation.top_p = generation.top_k = None
