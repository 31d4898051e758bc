"""`tunewright train`: the composition root of a run."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase

    from tunewright.config.run import RunConfig
    from tunewright.data.pipeline import Prepared
    from tunewright.data.templates import Renderer
    from tunewright.engine.hub import Uploads
    from tunewright.engine.metrics import Metrics
    from tunewright.engine.resume import Start
    from tunewright.engine.signals import StopRequest
    from tunewright.engine.training import Parts
    from tunewright.runtime import Ranks
    from tunewright.stages.stage import Models

Say = Callable[[str], None]


class Rows(NamedTuple):
    """What is known before a model is opened: the rows of the run as tokens, and what made them."""

    tokenizer: PreTrainedTokenizerBase
    renderer: Renderer | None
    prepared: Prepared


class Surroundings(NamedTuple):
    """What a run listens to, where it tells what happens, and where its files go besides."""

    stop: StopRequest
    say: Say
    uploads: Uploads | None


class Trained(NamedTuple):
    """What is evaluated at the end: a model with its tokenizer and template, the rows, and the models besides it; None: not opened."""

    model: nn.Module
    tokenizer: PreTrainedTokenizerBase
    renderer: Renderer | None
    prepared: Prepared
    others: Models | None = None


def run(argv: Sequence[str]) -> int:
    """Train as the files and overrides of `argv` say. Returns the exit code."""
    from tunewright.commands.preflight import read_ready
    from tunewright.runtime import in_ranked_world, launch_ranks, wanted_processes

    reading = read_ready(argv, "train")
    processes = wanted_processes(reading.config.run.num_processes, use_cpu=reading.config.run.use_cpu)
    if processes > 1 and not in_ranked_world():
        return launch_ranks([sys.executable, "-m", "tunewright", "train", *argv], processes)
    train(reading.config, reading.notes)
    return 0


def train(run: RunConfig, notes: Sequence[str] = ()) -> Metrics:
    """Train as `run` says (resolved: derived values filled in), from the start or from its newest intact checkpoint; then evaluate
    and predict if it asks for that. Returns all figures.

    Raises a TunewrightError for whatever ends the run early: Preempted after a signal, with a checkpoint committed.
    """
    from tunewright.commands.eval import levels_of
    from tunewright.engine.hub import uploading
    from tunewright.engine.number_formats import prepare_device
    from tunewright.engine.run_lock import locked
    from tunewright.engine.signals import stop_on_signals
    from tunewright.errors import Preempted
    from tunewright.kernels.hardware import demand_device
    from tunewright.models.load import quiet_transformers
    from tunewright.runtime import Ranks, configure_logging, demand_determinism, process_group

    ranks = Ranks.from_environment()
    say = configure_logging(ranks, levels_of(run.logging)).info
    quiet_transformers()
    prepare_device(run.precision, use_cpu=run.run.use_cpu)
    if run.run.do_train:
        demand_device(run.kernels, use_cpu=run.run.use_cpu)
    if run.run.full_determinism:
        demand_determinism()
    output_dir = Path(str(run.run.output_dir)).expanduser()
    with stop_on_signals() as stop, process_group(ranks, timeout_s=run.parallel.ddp_timeout, backend=run.parallel.ddp_backend):
        for note in notes:
            say(f"note: {note}")
        if not run.run.do_train:
            stop.end_at_once("before it was done")
            return _afterwards(run, _opened(run, ranks), ranks)
        stop.end_at_once("before training began; nothing was lost")
        rows = _read_rows(run, say)
        with locked(output_dir) if ranks.is_main else nullcontext(), uploading(run, ranks) as uploads:
            try:
                return _train(run, rows, ranks, Surroundings(stop, say, uploads))
            except Preempted as stopped:
                if run.run.overwrite_output_dir:  # the same command would begin anew
                    stopped = Preempted(stopped.message, mend="run it again with overwrite_output_dir=false to go on")
                raise stopped


def _train(run: RunConfig, rows: Rows, ranks: Ranks, around: Surroundings) -> Metrics:
    from tunewright.adapters.coverage import coverage
    from tunewright.durable import SMALL, storage_errors
    from tunewright.engine.cards import card_facts, write_card
    from tunewright.engine.online import with_rollouts
    from tunewright.engine.resume import begin, demand_same_settings
    from tunewright.engine.roles import open_others
    from tunewright.engine.run_settings import settings_of_run
    from tunewright.engine.training import execute, prepare
    from tunewright.planning.decide import decide

    stop, say, uploads = around
    start = begin(run, ranks, say)
    train, settings = rows.prepared.train, None
    if train is not None:
        run, estimate = decide(run, train, ranks, None if start.checkpoint is None else start.checkpoint.settings)
        for line in estimate:
            say(line)
    if train is not None and start.checkpoint is not None:  # before anything is opened or written
        settings = settings_of_run(run, train, ranks)
        demand_same_settings(start.checkpoint, settings, run.run.allow_change)
    if ranks.is_main:
        with storage_errors(start.store.root, SMALL):
            rows.prepared.audit.write(start.store.root / "data_audit.jsonl")
    parts = replace(_open(run, rows, start), uploads=uploads, known_settings=settings)
    for line in (*parts.kernels.reasons, *coverage(parts.model).lines()):
        say(line)
    parts = with_rollouts(replace(parts, others=open_others(parts)))
    metrics = execute(prepare(parts, stop))
    if run.run.do_eval or run.run.do_predict or run.export.merge_lora_and_save or run.hub.push_to_hub:
        stop.end_at_once(f"after training; the trained model is in {start.store.root}")
    metrics |= _afterwards(run, Trained(parts.model, parts.tokenizer, parts.renderer, parts.prepared, parts.others), ranks)
    if ranks.is_main:
        with storage_errors(start.store.root, SMALL):
            write_card(start.store.root, card_facts(run, metrics))
        if uploads is not None:
            uploads.finish(start.store.root)
        if run.export.merge_lora_and_save and run.tuning.finetuning_type == "lora":
            _merge(run, start.store.root, say)
    say(f"done: {start.store.root}")
    return metrics


def _merge(run: RunConfig, trained: Path, say: Say) -> None:
    """The adapter that was trained, merged into its base, as `tunewright export` does it."""
    from tunewright.config.rules.inference import merged_directory
    from tunewright.export.merge import export

    model = replace(run.model, model_name_or_path=str(trained), adapter_name_or_path=(), adapter_folder=None)
    target = str(merged_directory(run.export.export_dir, str(trained)))
    for line in export(replace(run, model=model, export=replace(run.export, export_dir=target))).lines():
        say(line)


def _read_rows(run: RunConfig, say: Say) -> Rows:
    """Tokenizer, template and data: before the output directory is touched, so that bad rows leave it as it was."""
    from tunewright.adapters.vocabulary import own_tokenizer
    from tunewright.config.rules.rule import ONLINE
    from tunewright.data.pipeline import build
    from tunewright.data.quirks import chosen
    from tunewright.data.templates import load_renderer
    from tunewright.engine.online import demand_rewards
    from tunewright.models.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(own_tokenizer(run.model, run.tokenizer), run.tokenizer)
    renderer = None if run.run.stage == "pt" else load_renderer(run.template, tokenizer, chosen(run.data.data_compat))
    prepared = build(run, tokenizer, renderer, report=say)
    if run.run.stage in ONLINE:
        demand_rewards(run, prepared)
    return Rows(tokenizer, renderer, prepared)


def _open(run: RunConfig, rows: Rows, start: Start) -> Parts:
    """The model and what of it trains, beside its rows."""
    from tunewright.adapters.positions import with_positions
    from tunewright.adapters.trainable import (
        demand_mergeable,
        enable_gradient_checkpointing,
        make_trainable,
        resume_source,
        save_trained,
    )
    from tunewright.adapters.value_head import give_value_head, make_reward_model
    from tunewright.engine.training import Parts
    from tunewright.kernels.heap import keep_freed, trim_before_embedding
    from tunewright.kernels.plan import apply, hasten, offload, share_beginnings, share_prefixes
    from tunewright.kernels.recompute import LAYERS
    from tunewright.kernels.variants import choose_variants, computes_on_gpu
    from tunewright.models.load import load_model
    from tunewright.models.scratch import initialise_model
    from tunewright.planning.recomputation import recompute_as_asked
    from tunewright.quantization.quantizer import quantizer
    from tunewright.stages.load import load_stage
    from tunewright.stages.stage import ExampleKind

    tokenizer, renderer = rows.tokenizer, rows.renderer
    checkpoint = start.checkpoint.path if start.checkpoint else None
    source, length_tokens = with_positions(resume_source(run, checkpoint), run.data.cutoff_len)
    if source.train_from_scratch:
        base = initialise_model(source, run.precision, run.run.seed, length_tokens)
    else:
        base = load_model(source, run.precision, length_tokens=length_tokens,
                          quantizer=quantizer(run.quantization, run.precision, use_cpu=run.run.use_cpu))
    demand_mergeable(base, run)
    kernels = apply(run, base)
    kernels = kernels.told(choose_variants(run.kernels, base, on_gpu=computes_on_gpu(use_cpu=run.run.use_cpu)))
    stage = load_stage(run)
    if stage.examples is ExampleKind.PREFERENCE or stage.name == "grpo":
        kernels = share_prefixes(run, kernels, base)
    model = make_trainable(base, run, checkpoint=checkpoint, tokenizer=tokenizer)
    if run.run.stage == "rm":
        make_reward_model(model, run, checkpoint)
    elif run.run.stage == "ppo":
        give_value_head(model, run, checkpoint)
    recomputes_layers = run.precision.gradient_checkpointing and run.precision.recompute_modules == LAYERS
    if recomputes_layers:
        enable_gradient_checkpointing(model, run.precision.use_reentrant_gc)
        if run.kernels.use_unsloth_gc:
            kernels = kernels.told(offload(run, model))
    kernels = kernels.told((*hasten(run, model), *keep_freed(model), *trim_before_embedding(model)))
    if stage.examples.guesses_tokens:
        kernels = share_beginnings(run, kernels, model)
    if run.precision.gradient_checkpointing and not recomputes_layers:
        kernels = kernels.told((recompute_as_asked(model, run.precision),))
    template = None if renderer is None else renderer.source
    return Parts(run, stage, model, tokenizer, renderer, rows.prepared, kernels, start,
                 save=lambda trained, directory: save_trained(trained, directory, tokenizer, chat_template=template))


def _opened(run: RunConfig, ranks: Ranks) -> Trained:
    """Without training: the model and adapters that the configuration names, as `eval` and `predict` open them."""
    from tunewright.commands.eval import open_and_prepare, open_documents

    if run.run.stage == "pt":
        model, tokenizer, prepared = open_documents(run, ranks)
        return Trained(model, tokenizer, None, prepared)
    opened, prepared = open_and_prepare(run, ranks)
    return Trained(opened.model, opened.tokenizer, opened.renderer, prepared)


def _afterwards(run: RunConfig, trained: Trained, ranks: Ranks) -> Metrics:
    """Evaluation and prediction, as the run asks for them."""
    from tunewright.commands.eval import evaluate_model, report_metrics
    from tunewright.commands.predict import predict_opened
    from tunewright.engine.training import as_opened

    metrics: Metrics = {}
    if run.run.do_eval:
        found = evaluate_model(trained.model, trained.tokenizer, trained.prepared, run, ranks, trained.others)
        report_metrics(found, run, "eval", ranks)
        metrics |= found
    if run.run.do_predict:
        opened = as_opened(trained.model, trained.tokenizer, trained.renderer)
        metrics |= predict_opened(opened, trained.prepared, run, ranks)
    return metrics
