"""The models of a run besides its policy: which they are, and how they are opened."""

from __future__ import annotations

import gc
import logging
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import torch
from peft import PeftModel

from tunewright.adapters.directory import BASE_FILE, CONFIG_FILE, WEIGHTS_FILE, adapter_directories, split_adapter
from tunewright.adapters.positions import with_positions
from tunewright.adapters.switched_off import AdapterSwitchedOff
from tunewright.data.fingerprint import digest, tokenizer_digest
from tunewright.data.row_encoder import cache_folder
from tunewright.data.streaming.stream import Stream
from tunewright.durable import sha256
from tunewright.engine import assemble
from tunewright.engine.reference_table import Asked, Rows, Table, remember
from tunewright.engine.reward_role import open_reward
from tunewright.errors import InputError
from tunewright.inference.opening import device, fit_base, open_weights
from tunewright.kernels import output_head
from tunewright.kernels.plan import KernelPlan, apply, hasten, share_prefixes
from tunewright.models.directory import find_model
from tunewright.models.families import is_quantised
from tunewright.models.load import check_vocabulary
from tunewright.models.new_tokens import new_tokens
from tunewright.models.scratch import initialise_model
from tunewright.runtime import LOGGER_NAME
from tunewright.stages.stage import ExampleKind, Role

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from tunewright.config.model import ModelConfig
    from tunewright.config.optimization import PrecisionConfig
    from tunewright.config.run import RunConfig
    from tunewright.engine.training import Parts
    from tunewright.stages.stage import Models, Stage


def open_others(parts: Parts) -> Models:
    """The models that the stage needs besides the policy, ready to be asked."""
    others: dict[Role, nn.Module] = {}
    if Role.REFERENCE in parts.stage.roles:
        others[Role.REFERENCE] = _reference(parts)
    if Role.REWARD in parts.stage.roles:
        reward = open_reward(parts.run, parts.model, parts.tokenizer)
        assert reward is not None, "a stage asks for a reward model only where one is named"
        others[Role.REWARD] = reward
    return others


def evaluation_others(run: RunConfig, stage: Stage, policy: nn.Module, tokenizer: PreTrainedTokenizerBase) -> Models:
    """The same for an evaluation of a model that is not being trained."""
    if stage.examples is ExampleKind.PROMPT:  # what answers are worth says the reward alone
        reward = open_reward(run, policy, tokenizer)
        return {} if reward is None else {Role.REWARD: reward}
    return {Role.REFERENCE: evaluation_reference(run, policy, tokenizer)} if Role.REFERENCE in stage.roles else {}


def evaluation_reference(run: RunConfig, policy: nn.Module, tokenizer: PreTrainedTokenizerBase) -> nn.Module:
    """The reference that an evaluation asks: `ref_model`, else the policy without its adapter.

    Raises InputError if the policy is a model without an adapter: what it was trained from is not known.
    """
    if run.alignment.ref_model is not None:
        return cast("nn.Module", open_reference(run, tokenizer)[0])
    if isinstance(policy, PeftModel):
        return AdapterSwitchedOff(policy)
    raise InputError("there is nothing to compare the model with: it has no adapter, and ref_model is absent",
                     mend="set ref_model to the model that it was trained from")


def open_reference(run: RunConfig, tokenizer: PreTrainedTokenizerBase) -> tuple[PreTrainedModel, KernelPlan]:
    """`ref_model`, or the weights that the run began with, frozen, in evaluation mode on this process's device."""
    source, alignment = reference_model(run), run.alignment
    bits = alignment.ref_model_quantization_bit if alignment.ref_model is not None else None
    asked = replace(run, model=source, quantization=replace(run.quantization, quantization_bit=bits),
                    inference=replace(run.inference, infer_dtype="auto", merge_lora=bits is None, auto_merge_weights=False))
    if source.train_from_scratch:
        positions, length_tokens = with_positions(source, run.data.cutoff_len)
        model = initialise_model(positions, run.precision, run.run.seed, length_tokens)
        fit_base(model, tokenizer, run, ())
        model.to(device(run))
    else:
        split = split_adapter(source)
        model = open_weights(asked, split, adapter_directories(split), tokenizer)
    check_vocabulary(tokenizer, model)
    model.requires_grad_(False)
    kernels = apply(run, model)
    if kernels.flat:
        kernels = share_prefixes(run, kernels, model)
    if is_quantised(model):  # fast paths are tried on weights in floating point
        output_head.adopt(model, run.kernels.chunk_loss_size)
    else:
        hasten(run, model)
    return model.eval(), kernels


def reference_model(run: RunConfig) -> ModelConfig:
    """Where the weights of a reference with a model of its own come from."""
    named = run.alignment.ref_model
    if named is None:
        return run.model
    same = named == run.model.model_name_or_path
    return replace(run.model, model_name_or_path=named, adapter_name_or_path=run.alignment.ref_model_adapters, adapter_folder=None,
                   gguf_file=None, train_from_scratch=False, model_revision=run.model.model_revision if same else "main")


def reference_facts(run: RunConfig, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """What decides the reference's numbers: the content of its files, and how they are read and computed with."""
    source, alignment = reference_model(run), run.alignment
    if alignment.ref_model is None and run.tuning.finetuning_type == "lora":
        given = adapter_directories(run.model)
        adapters = given if run.lora.create_new_adapter else given[:-1]
        source = replace(source, adapter_name_or_path=())
        bits = run.quantization.quantization_bit
    else:
        source = split_adapter(source)
        adapters = adapter_directories(source)
        bits = alignment.ref_model_quantization_bit if alignment.ref_model is not None else None
    directory = find_model(source)
    names = [source.gguf_file] if source.gguf_file else ["config.json", *([] if source.train_from_scratch else ["*.safetensors"])]
    files = sorted(path for name in names for path in directory.glob(name))
    parts = [path / name for path in adapters for name in (CONFIG_FILE, WEIGHTS_FILE, BASE_FILE) if (path / name).is_file()]
    return {"files": [[path.name, sha256(path)] for path in (*files, *parts)], "tokenizer": tokenizer_digest(tokenizer),
            "new rows": [run.run.seed, run.tokenizer.init_special_tokens, dict(new_tokens(tokenizer).descriptions)],
            "bits": [bits, run.quantization.quantization_type, run.quantization.double_quantization,
                     run.quantization.compute_dtype] if bits else None,
            "positions": [source.rope_scaling, run.data.cutoff_len if source.rope_scaling else None],
            "precision": [run.precision.pure_bf16, run.precision.bf16, run.precision.fp16]}


def _reference(parts: Parts) -> nn.Module:
    run, train = parts.run, parts.prepared.train
    known = not isinstance(train, Stream) and parts.stage.examples in (ExampleKind.PREFERENCE, ExampleKind.FEEDBACK)
    if known and run.alignment.precompute_ref_log_probs is not False:
        return _remembered(parts)
    if run.alignment.ref_model is None and isinstance(parts.model, PeftModel):
        return AdapterSwitchedOff(parts.model)
    model, kernels = open_reference(run, parts.tokenizer)
    if (parts.kernels.flat and not kernels.flat) or (parts.kernels.shares_prefixes and not kernels.shares_prefixes):
        raise InputError("the reference model cannot read the batches of the policy, which are laid end to end",
                         mend="set precompute_ref_log_probs: true, or padding_free: false")
    return cast("nn.Module", model)


def _remembered(parts: Parts) -> nn.Module:
    """The reference's answers to every row of the run; the model itself is gone when this returns."""
    run, store, kind = parts.run, parts.start.store, parts.stage.examples
    assert not isinstance(parts.prepared.train, Stream)
    evaluates = run.evaluation.eval_strategy != "no" or run.evaluation.eval_on_start or run.run.do_eval
    sets = parts.prepared.evaluation if evaluates else {}
    facts = [digest(reference_facts(run, parts.tokenizer)) if store.ranks.is_main else ""]
    reference = str(store.ranks.gather_objects(facts)[0][0])
    batching, kept = run.batching, {name: one.digest() for name, one in sets.items()}
    rows_digest = digest([parts.examples.digest(), kept, kind.value, run.data.cutoff_len, run.run.seed, run.run.data_seed, [
        batching.num_train_epochs, batching.max_steps, batching.per_device_train_batch_size * batching.gradient_accumulation_steps
        * store.ranks.world_size, batching.group_by_length, batching.sortish_sampler, batching.disable_shuffling,
        batching.dataloader_drop_last]])
    cache = None if run.data.data_cache_dir == "none" else cache_folder(run.data)
    pad_token_id = parts.tokenizer.pad_token_id or 0
    rows = Rows(_in_all(run, store.ranks.world_size), kind, parts.prepared.train, sets, rows_digest)
    keys_only = assemble.answer_collation(run, kind, KernelPlan("", True, ()), pad_token_id)

    def opened() -> Asked:
        model, kernels = _asked_model(parts)
        return Asked(model, assemble.answer_collation(run, kind, kernels, pad_token_id), lambda: _autocast(run.precision, device(run)))

    answers = remember(Table(store.root, cache, reference, rows_digest), rows, opened, keys_only, store.ranks,
                       logging.getLogger(LOGGER_NAME).info)
    gc.collect()
    if torch.accelerator.is_available():
        torch.accelerator.empty_cache()
    return answers


def _in_all(run: RunConfig, ranks: int) -> RunConfig:
    """The run as one process would do it: as many rows in a step as all ranks have together."""
    return replace(run, batching=replace(run.batching, per_device_train_batch_size=run.batching.per_device_train_batch_size * ranks))


def _asked_model(parts: Parts) -> tuple[nn.Module, KernelPlan]:
    """The cheapest model that is the reference: the policy without its adapter; before the first step the policy; else one of its own."""
    if parts.run.alignment.ref_model is None:
        policy = cast("Any", parts.model)
        if isinstance(parts.model, PeftModel):
            return AdapterSwitchedOff(_placed(policy, parts.run)), parts.kernels
        if parts.start.checkpoint is None:
            return _placed(policy, parts.run), parts.kernels
    return open_reference(parts.run, parts.tokenizer)


def _placed(model: Any, run: RunConfig) -> Any:
    """The model on this process's device; quantised weights are there already."""
    return model if getattr(model, "is_quantized", False) else model.to(device(run))


def _autocast(precision: PrecisionConfig, where: torch.device) -> AbstractContextManager[object]:
    """Mixed precision as the run asks for it."""
    if precision.bf16:
        return torch.autocast(where.type, torch.bfloat16)
    return torch.autocast(where.type, torch.float16) if precision.fp16 else nullcontext()
