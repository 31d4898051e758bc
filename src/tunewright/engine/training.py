"""A training run from opened parts to saved results: builds the session, restores a checkpoint, commits, finishes."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from tunewright.adapters.pissa import save_converted
from tunewright.adapters.switched_off import AdapterSwitchedOff
from tunewright.adapters.updates import adapter_updates
from tunewright.data.streaming.stream import Stream
from tunewright.durable import SMALL, storage_errors, sync_directory, sync_file
from tunewright.engine import assemble, snapshot
from tunewright.engine.batches import TrainBatches
from tunewright.engine.checkpoint import Content, damage, read_checkpoint
from tunewright.engine.compiling import compile_first
from tunewright.engine.evaluate import EvaluationPlan
from tunewright.engine.health import BadSteps
from tunewright.engine.loop import Timetable, train
from tunewright.engine.memory import BatchTooLargeError
from tunewright.engine.neftune import NoisyStage
from tunewright.engine.number_formats import evaluation_dtype, read_exactly, upcast_norms, weights_in, wide_norms
from tunewright.engine.online import numbered
from tunewright.engine.optimizers.build import build_optimizer
from tunewright.engine.plots import plot_adapter, plot_curves
from tunewright.engine.progress import open_display
from tunewright.engine.reduction import arrange_reduction
from tunewright.engine.results import TrainFigures, write_results, write_trainer_state
from tunewright.engine.router_balance import BalancedStage, routers_of
from tunewright.engine.run_settings import settings_of_run
from tunewright.engine.schedules import build_schedule
from tunewright.engine.session import Known, Outlets, Session
from tunewright.engine.state import TrainState
from tunewright.engine.step import Machinery
from tunewright.engine.streams import StreamBatches
from tunewright.engine.trackers import open_trackers
from tunewright.engine.workers import lost_workers_named
from tunewright.errors import InputError, StorageError
from tunewright.inference.opening import Opened
from tunewright.kernels.frozen_weights import widened
from tunewright.kernels.liger import apply_kernels
from tunewright.models.families import vocabulary_rows
from tunewright.planning.batches import divisors_below
from tunewright.planning.estimate import resized
from tunewright.runtime import LOGGER_NAME, lost_rank_named, seed_everything
from tunewright.stages.stage import Role

if TYPE_CHECKING:
    from accelerate import Accelerator
    from peft import PeftModel
    from torch import nn
    from torch.amp.grad_scaler import GradScaler
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from tunewright.config.run import RunConfig
    from tunewright.data.examples import PreparedSet
    from tunewright.data.pipeline import Prepared
    from tunewright.data.streaming.audit import StreamAudit
    from tunewright.data.templates import Renderer
    from tunewright.engine.hub import Uploads
    from tunewright.engine.metrics import Metrics
    from tunewright.engine.resume import Start
    from tunewright.engine.signals import StopRequest
    from tunewright.kernels.plan import KernelPlan
    from tunewright.stages.stage import Models, Stage

SaveTrained = Callable[["nn.Module", Path], None]


@dataclass(frozen=True, slots=True)
class Parts:
    """What a run is put together from. `save` writes the trained weights with the tokenizer; `others`: the models besides the policy;
    `known_settings`: what `settings_of_run` gives, where somebody has asked already."""

    run: RunConfig
    stage: Stage
    model: nn.Module
    tokenizer: PreTrainedTokenizerBase
    renderer: Renderer | None
    prepared: Prepared
    kernels: KernelPlan
    start: Start
    save: SaveTrained
    uploads: Uploads | None = None
    others: Models = field(default_factory=dict)
    known_settings: Mapping[str, Any] | None = None

    @property
    def examples(self) -> PreparedSet | Stream:
        """The training set."""
        if self.prepared.train is None:
            raise InputError("there is nothing to train on", mend="name a dataset")
        return self.prepared.train

    @property
    def settings(self) -> Mapping[str, Any]:
        """What a checkpoint says of the run."""
        return self.known_settings or settings_of_run(self.run, self.examples, self.start.store.ranks)


@dataclass(frozen=True, slots=True)
class Job:
    """A run ready to go: what the loop takes, and the state it starts from."""

    parts: Parts
    session: Session
    batches: TrainBatches | StreamBatches
    timetable: Timetable
    state: TrainState


def prepare(parts: Parts, stop: StopRequest) -> Job:
    """Build optimizer, schedule, batches and session; with a checkpoint, put every one of them back as it was."""
    from tunewright.adapters.movement import Movement

    run, ranks = parts.run, parts.start.store.ranks
    settings = parts.settings
    if parts.start.checkpoint is not None:
        parts.start.store.set_aside_after(parts.start.checkpoint.step, logging.getLogger(LOGGER_NAME).info)
    widen_norms(parts)
    accelerator = assemble.accelerator_for(run, ranks)
    pad_token_id = parts.tokenizer.pad_token_id or 0
    collate = assemble.stage_collation(run, parts.stage.examples, parts.kernels, pad_token_id)
    collate_evaluation = assemble.evaluation_collation(run, parts.stage.examples, parts.kernels, pad_token_id)
    batches = assemble.training_batches(run, parts.examples, collate, ranks, flat=parts.kernels.flat)
    timetable = assemble.timetable(run, batches.steps_per_epoch)
    optimizer = build_optimizer(parts.model, run.optimizer, run.lora, run.run.seed)
    schedule = build_schedule(optimizer, run.schedule, timetable.total_steps)
    noise = assemble.noise(run, parts.model)
    stage = parts.stage if noise is None else NoisyStage(parts.stage, noise)
    routers = routers_of(parts.model, run.loss)
    stage = stage if routers is None else BalancedStage(stage, routers)
    with lost_rank_named(ranks, "preparing"):
        policy, wrapped = accelerator.prepare(parts.model, optimizer)
        arrange_reduction(policy, run.parallel.reduce_dtype)
    machinery = Machinery(stage, {**_placed(parts.others, accelerator), Role.POLICY: policy}, wrapped, schedule, accelerator, ranks,
                          run.optimizer.max_grad_norm, run.run.seed)
    say = logging.getLogger(LOGGER_NAME).info
    if fused := apply_kernels(parts.model, run.kernels):
        say(f"Liger's kernels: {', '.join(fused)}")
    if run.kernels.compiles:
        say(compile_first(machinery, parts.stage, collate_evaluation, run))
    plan = EvaluationPlan(
        assemble.share(run.batching.per_device_eval_batch_size, 1, ranks),
        replace(batches.loading, collate=collate_evaluation),
        accelerator.device, ranks, accuracy=run.evaluation.compute_accuracy, autocast=accelerator.autocast,
        dtype=evaluation_dtype(run.precision), seed=run.run.seed)
    seed_everything(run.run.seed, ranks)
    state = restore(parts, optimizer, schedule, accelerator.scaler)
    output_dir = parts.start.store.root
    answers = partial(answer_scores, parts) if run.evaluation.predict_with_generate else None
    known = Known(timetable.total_steps, batches.samples_per_epoch, vocabulary_rows(parts.model), parts.examples.origin,
                  numbered(stage.examples, parts.prepared.evaluation), plan, answers, assemble.logged_too(run.logging), stream_audit(parts))
    display = open_display(disabled=run.logging.disable_tqdm, is_main=ranks.is_main)
    outlets = Outlets(display, open_trackers(run.logging, output_dir, ranks, state.global_step), output_dir)
    session = Session(machinery, outlets, known, stop, commit=lambda state: None, movement=Movement(parts.model),
                      bad_steps=BadSteps(run.optimizer.max_nonfinite_steps, display.note))
    session.hooks = (*assemble.hooks(run, parts.model, accelerator.device, ranks), *([] if noise is None else [noise]))
    session.stop_after = run.run.stop_after
    session.first_step, session.elapsed_before_s = state.global_step, state.elapsed_s
    session.saved_step = state.global_step if parts.start.checkpoint else -1
    session.commit = lambda now: commit(parts, session, settings, now)
    return Job(parts, session, batches, timetable, state)


def _placed(others: Models, accelerator: Accelerator) -> Models:
    """The models besides the policy on its device and in its mixed precision; one that is the policy itself has both."""
    return {role: model if isinstance(model, AdapterSwitchedOff) else accelerator.prepare_model(model, evaluation_mode=True)
            for role, model in others.items()}


def stream_audit(parts: Parts) -> StreamAudit | None:
    """Where the rows of a stream are told of."""
    from tunewright.data.streaming.audit import FILE_NAME, StreamAudit

    if not isinstance(parts.examples, Stream):
        return None
    store = parts.start.store
    return StreamAudit(store.root / FILE_NAME if store.ranks.is_main else None, parts.run.data.max_dropped_fraction)


def widen_norms(parts: Parts) -> None:
    """Put normalisation layers into float32 if the run wants that; those of a checkpoint are read anew, which had lost bits."""
    if parts.run.precision.upcast_layernorm:
        names = upcast_norms(parts.model)
        if parts.start.checkpoint is not None:
            read_exactly(parts.model, names, parts.start.checkpoint.path)


def restore(parts: Parts, optimizer: Any, schedule: Any, scaler: GradScaler | None) -> TrainState:
    """Optimizer, schedule, loss scale, random numbers and position of the checkpoint; the weights are the model loader's business."""
    checkpoint = parts.start.checkpoint
    if checkpoint is None:
        return TrainState()
    if not (checkpoint.path / snapshot.STATE).is_file():
        raise InputError(f"{checkpoint.path} was saved with save_only_model and cannot be continued",
                         mend="resume_from_checkpoint=none, or continue its weights with adapter_name_or_path")
    snapshot.read_optimizer(optimizer, parts.model, checkpoint.path)
    snapshot.read_schedule(schedule, checkpoint.path)
    snapshot.read_loss_scale(scaler, checkpoint.path)
    snapshot.read_stage(parts.stage, checkpoint.path)
    rank = parts.start.store.ranks.rank
    if (checkpoint.path / f"random-{rank}.json").is_file():
        snapshot.read_random(rank, checkpoint.path)
    return snapshot.read_state(checkpoint.path)


def commit(parts: Parts, session: Session, settings: Mapping[str, Any], state: TrainState) -> None:
    """Publish a checkpoint of this step, then rotate the old ones."""
    machinery, run = session.machinery, parts.run
    optimizer = unwrapped(machinery.optimizer)

    def shared(directory: Path) -> None:
        parts.save(parts.model, directory)
        if not run.checkpoints.save_only_model:
            snapshot.write_optimizer(optimizer, parts.model, directory)
            snapshot.write_schedule(machinery.scheduler, directory)
            snapshot.write_loss_scale(machinery.accelerator.scaler, directory)
            snapshot.write_stage(parts.stage, directory)
            snapshot.write_state(state, session.known.total_steps, session.epoch(state), directory)

    def own(directory: Path) -> None:
        if not run.checkpoints.save_only_model:
            snapshot.write_random(machinery.ranks.rank, directory)

    store = parts.start.store
    published = store.publish(state.global_step, Content(shared, own, settings), estimate=_estimate(parts.model))
    if parts.uploads is not None:
        parts.uploads.saved(state.global_step, published)
    in_use = parts.uploads.in_use() if parts.uploads is not None else set()
    best = {state.best_step} if run.checkpoints.load_best_model_at_end and state.best_step is not None else set()
    store.rotate(run.checkpoints.save_total_limit, {state.global_step, *best, *in_use})


def as_opened(model: nn.Module, tokenizer: PreTrainedTokenizerBase, renderer: Renderer | None) -> Opened:
    """The model as prediction takes it. Raises InputError in pre-training, which has no template to ask with."""
    if renderer is None:
        raise InputError("prediction needs conversations, not documents", mend="set stage: sft")
    return Opened(cast("PreTrainedModel", model), tokenizer, renderer, ())


def answer_scores(parts: Parts) -> Metrics:
    """ROUGE, BLEU and exact match of generated answers to the evaluation prompts, as `eval_...`."""
    from tunewright.engine.predict import predict
    from tunewright.engine.text_metrics import TextScorer

    rows = [row for name in parts.prepared.evaluation for row in parts.prepared.prompts(name)]
    opened = as_opened(parts.model, parts.tokenizer, parts.renderer)
    with widened(parts.model), weights_in([parts.model], evaluation_dtype(parts.run.precision)):
        predicted = predict(
            opened, rows, parts.run.generation, parts.run.batching.per_device_eval_batch_size, parts.start.store.ranks)
    metrics = predicted.metrics("eval", TextScorer())
    return {name: value for name, value in metrics.items() if not name.endswith(("runtime", "_per_second"))}


def execute(job: Job) -> Metrics:
    """Train to the end and write what the run leaves; returns the figures of train_results.json. Raises as `loop.train`."""
    session, parts, ranks = job.session, job.parts, job.session.machinery.ranks
    session.stop.defer()
    try:
        with lost_rank_named(ranks, "training"), lost_workers_named():
            session.begin(job.state)
            job = _trained(job)
    except BaseException:
        session.abandon()
        raise
    session.close()
    best = parts.run.checkpoints.load_best_model_at_end and job.state.best_step not in (None, job.state.global_step)
    if best:
        load_best(job)
    with storage_errors(parts.start.store.root, SMALL):
        return finish(job)


def _trained(job: Job) -> Job:
    """Train to the end; with auto_find_batch_size in smaller micro-batches wherever memory does not suffice. Returns the job as it ended.

    A failed step has changed neither weights nor state, so the loop enters again where it was.
    """
    while True:
        try:
            train(job.session.machinery, job.batches, job.timetable, job.session, job.state)
            return job
        except BatchTooLargeError as error:
            smaller = _smaller(job)
            budget = job.parts.run.batching.micro_batch_tokens
            if smaller is None and budget is not None:
                raise error.of_budget(budget) from error
            if smaller is None:
                raise
            told = error.message
        job = smaller
        batching = job.parts.run.batching
        job.session.outlets.display.note(
            f"{told}; auto_find_batch_size: on with {batching.per_device_train_batch_size} rows in a batch and "
            f"{batching.gradient_accumulation_steps} batches in a step, which computes the same")


def _smaller(job: Job) -> Job | None:
    """The job with micro-batches of at most half as many rows, as many more of them in a step. None where the run did not ask for that,
    has one row in each, or has several ranks, of which the others would wait for the one that failed."""
    run, session, ranks = job.parts.run, job.session, job.session.machinery.ranks
    size = next(iter(divisors_below(run.batching.per_device_train_batch_size)), None)
    if size is None or not run.batching.auto_find_batch_size or ranks.world_size > 1:
        return None
    parts = replace(job.parts, run=resized(run, size), known_settings=None)
    session.machinery.optimizer.zero_grad()
    if torch.accelerator.is_available():
        torch.accelerator.empty_cache()
    settings = parts.settings
    session.commit = lambda now: commit(parts, session, settings, now)
    batches = assemble.training_batches(parts.run, parts.examples, job.batches.loading.collate, ranks, flat=parts.kernels.flat)
    return replace(job, parts=parts, batches=batches)


def load_best(job: Job) -> None:
    """Put the weights of the best evaluation back into the model. Raises StorageError if its checkpoint is damaged."""
    from tunewright.adapters.trainable import load_trained

    directory = job.parts.start.store.root / f"checkpoint-{job.state.best_step}"
    checkpoint = read_checkpoint(directory)
    problems = ["manifest.json is missing or damaged"] if checkpoint is None else damage(checkpoint)
    (damaged,) = job.session.machinery.ranks.all_reduce_sum([float(bool(problems))])
    if damaged:
        raise StorageError(f"the best checkpoint cannot be loaded: {problems[0] if problems else 'another rank finds it damaged'}",
                           where=str(directory), mend="load_best_model_at_end=false with allow_change=load_best_model_at_end keeps "
                           "the last weights")
    load_trained(job.parts.model, directory)
    if job.parts.run.precision.upcast_layernorm:
        read_exactly(job.parts.model, wide_norms(job.parts.model), directory)
    job.session.outlets.display.note(
        f"weights of step {job.state.best_step}, the best by {job.timetable.best.metric} ({job.state.best_metric:.4f})")


def finish(job: Job) -> Metrics:
    """Write the trained weights into the output directory, then results, curves and log for people and other tools."""
    session, state, root = job.session, job.state, job.parts.start.store.root
    took = session.elapsed_s if state.global_step > session.first_step else state.elapsed_s
    metrics = TrainFigures(
        loss=state.total_loss_sum / max(state.total_loss_count, 1.0), runtime_s=took, samples=state.samples_seen,
        steps=state.global_step, tokens=state.tokens_seen, epoch=session.epoch(state)).metrics()
    for hook in session.hooks:
        metrics |= hook.figures()
    if session.machinery.ranks.is_main:
        if job.parts.run.checkpoints.save_hf_weights:
            save_final(job.parts, root)
        if job.parts.run.lora.pissa_convert:
            save_converted(cast("PeftModel", job.parts.model), root)
        write_results(root, "train", metrics)
        write_trainer_state(root, snapshot.peer_state(state, job.timetable.total_steps, session.epoch(state)))
        if job.parts.run.logging.plot_loss:
            plot_curves(state.log_history, root)
        if job.parts.run.lora.plot_lora_matrix and job.parts.run.tuning.finetuning_type == "lora":
            plot_adapter(adapter_updates(cast("PeftModel", job.parts.model)), root)
    session.machinery.ranks.barrier()
    return metrics


def save_final(parts: Parts, root: Path) -> None:
    """The trained weights into `root`, file by file, each whole or absent. A kill in between is mended by running again: the last
    checkpoint is complete by then."""
    staging = root / ".staging-final"
    with storage_errors(root, _estimate(parts.model)):
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir()
        parts.save(parts.model, staging)
        for path in sorted(path for path in staging.rglob("*") if path.is_file()):
            final = root / path.relative_to(staging)
            final.parent.mkdir(exist_ok=True)
            sync_file(path)
            os.replace(path, final)
            sync_directory(final.parent)
        shutil.rmtree(staging)


def unwrapped(optimizer: Any) -> Any:
    """torch's own optimizer inside accelerate's."""
    return getattr(optimizer, "optimizer", optimizer)


def _estimate(model: nn.Module) -> int:
    """Bytes of a first checkpoint: trained weights with two moments each, and the tokenizer's files."""
    trained = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters() if parameter.requires_grad)
    frozen = 0 if hasattr(model, "peft_config") else sum(
        parameter.numel() * parameter.element_size() for parameter in model.parameters() if not parameter.requires_grad)
    return 3 * trained + frozen + 16_000_000
