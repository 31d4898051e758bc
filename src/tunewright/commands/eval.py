"""`tunewright eval`: loss and accuracy of a model, an adapter or a run's output directory on an evaluation set."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from tunewright.config.checkpoints import LoggingConfig
    from tunewright.config.optimization import PrecisionConfig
    from tunewright.config.run import RunConfig
    from tunewright.data.pipeline import Prepared
    from tunewright.engine.evaluate import EvaluationPlan
    from tunewright.engine.metrics import Metrics
    from tunewright.inference.opening import Opened
    from tunewright.runtime import LogLevels, Ranks
    from tunewright.stages.stage import ExampleKind, Models


def run(argv: Sequence[str]) -> int:
    """Evaluate, print the figures and write them into output_dir. Returns the exit code.

    A bare directory among the words is the model, an adapter or the output_dir of a run; without one, the model that the
    configuration names is evaluated.
    """
    return over_ranks(argv, "eval", _evaluate_and_report)


def over_ranks(argv: Sequence[str], verb: str, work: Callable[[RunConfig, Ranks], None]) -> int:
    """Read the configuration and do `work` on each of the processes it asks for."""
    from tunewright.commands.chat import directories_as_models
    from tunewright.commands.preflight import read_ready

    reading = read_ready(directories_as_models(argv), "predict" if verb == "predict" else "eval")
    # Torch comes only now: what is wrong with the words is told without it.
    from tunewright.engine.number_formats import prepare_device
    from tunewright.models.load import quiet_transformers
    from tunewright.runtime import Ranks, configure_logging, in_ranked_world, launch_ranks, process_group, wanted_processes

    config = reading.config
    processes = wanted_processes(config.run.num_processes, use_cpu=config.run.use_cpu)
    if processes > 1 and not in_ranked_world():
        return launch_ranks([sys.executable, "-m", "tunewright", verb, *argv], processes)
    ranks = Ranks.from_environment()
    log = configure_logging(ranks, levels_of(config.logging))
    for note in reading.notes:
        log.info("note: %s", note)
    quiet_transformers()
    prepare_device(config.precision, use_cpu=config.run.use_cpu)
    with process_group(ranks, timeout_s=config.parallel.ddp_timeout, backend=config.parallel.ddp_backend):
        work(config, ranks)
    return 0


def levels_of(logging: LoggingConfig) -> LogLevels:
    """What each process tells, as the run says."""
    from tunewright.runtime import LogLevels

    return LogLevels(logging.log_level, logging.log_level_replica, logging.log_on_each_node)


def _evaluate_and_report(config: RunConfig, ranks: Ranks) -> None:
    if config.run.stage == "pt":
        model, tokenizer, prepared = open_documents(config, ranks)
    else:
        opened, prepared = open_and_prepare(config, ranks)
        model, tokenizer = opened.model, opened.tokenizer
    report_metrics(evaluate_model(model, tokenizer, prepared, config, ranks), config, "eval", ranks)


def open_and_prepare(config: RunConfig, ranks: Ranks, rows: RunConfig | None = None) -> tuple[Opened, Prepared]:
    """The model that the configuration points at, with its tokenizer and template, and the evaluation sets, read as `rows` says if that
    is given."""
    from tunewright.adapters.directory import split_adapter
    from tunewright.adapters.value_head import head_directory
    from tunewright.data.pipeline import build
    from tunewright.inference.opening import open_model
    from tunewright.models.heads import load_value_head

    say = _teller(config, ranks)
    opened = open_model(config)
    if config.run.stage == "rm":
        load_value_head(opened.model, head_directory(split_adapter(config.model)))
    return opened, build(_untrained(rows or config), opened.tokenizer, opened.renderer, report=say)


def open_documents(config: RunConfig, ranks: Ranks) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, Prepared]:
    """The same for documents, which need no template."""
    from tunewright.data.pipeline import build
    from tunewright.inference.opening import open_without_template

    say = _teller(config, ranks)
    model, tokenizer = open_without_template(config)
    return model, tokenizer, build(_untrained(config), tokenizer, None, report=say)


def _teller(config: RunConfig, ranks: Ranks) -> Callable[[str], None]:
    """Where lines about the data go; first of all a note for a user who may expect the run's adapter to be in use."""
    import logging

    from tunewright.runtime import LOGGER_NAME

    say = logging.getLogger(LOGGER_NAME).info
    if note := _overlooked_adapter(config):
        say("%s", note)
    return say if ranks.is_main else _silent


def _untrained(config: RunConfig) -> RunConfig:
    return replace(config, run=replace(config.run, do_train=False))


def evaluate_model(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prepared: Prepared, config: RunConfig, ranks: Ranks,
    others: Models | None = None,
) -> Metrics:
    """Metrics of a model on the evaluation sets, as in training; the same on every rank. `others`: the models that the stage needs
    besides it, if they are open."""
    from tunewright.config.rules.rule import ONLINE
    from tunewright.data.quirks import chosen
    from tunewright.data.templates import load_renderer
    from tunewright.engine.evaluate import evaluate_sets
    from tunewright.engine.online import Around, for_evaluation, numbered
    from tunewright.engine.roles import evaluation_others
    from tunewright.stages.load import load_stage
    from tunewright.stages.stage import Role

    stage = load_stage(config)
    beside = evaluation_others(config, stage, model, tokenizer) if others is None else others
    if config.run.stage in ONLINE:
        renderer = load_renderer(config.template, tokenizer, chosen(config.data.data_compat))
        stage = for_evaluation(stage, Around(config, tokenizer, renderer, prepared), beside)
    sets = numbered(stage.examples, prepared.evaluation)
    return evaluate_sets(stage, {**beside, Role.POLICY: model}, sets, evaluation_plan(model, tokenizer, stage.examples, config, ranks))


def evaluation_plan(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, kind: ExampleKind, config: RunConfig, ranks: Ranks,
) -> EvaluationPlan:
    """How an opened model, which takes its fast paths from here on, is run through a set."""
    from tunewright.engine.assemble import evaluation_collation, is_pinned, loading, share
    from tunewright.engine.evaluate import EvaluationPlan
    from tunewright.engine.number_formats import evaluation_dtype
    from tunewright.kernels.plan import apply, hasten_to_evaluate, share_beginnings

    batching, device = config.batching, model.device
    plan = apply(replace(config, data=replace(config.data, packing=False)), model)  # evaluation sets are never packed
    hasten_to_evaluate(config, model)
    if kind.guesses_tokens:
        plan = share_beginnings(config, plan, model)
    collate = evaluation_collation(config, kind, plan, int(tokenizer.pad_token_id))
    return EvaluationPlan(
        share(batching.per_device_eval_batch_size, 1, ranks), loading(batching, collate, pinned=is_pinned(config)), device, ranks,
        accuracy=config.evaluation.compute_accuracy, autocast=lambda: _autocast(config.precision, device),
        dtype=evaluation_dtype(config.precision), seed=config.run.seed)


def report_metrics(metrics: Metrics, config: RunConfig, split: str, ranks: Ranks) -> None:
    """Print the figures as JSON, and write them to `<split>_results.json` if there is an output_dir."""
    from tunewright.engine.results import write_results

    if not ranks.is_main:
        return
    if config.run.output_dir:
        write_results(Path(config.run.output_dir).expanduser(), split, metrics)
    sys.stdout.write(json.dumps(metrics, indent=2, sort_keys=True) + "\n")


def _autocast(precision: PrecisionConfig, device: torch.device) -> AbstractContextManager[object]:
    """Mixed precision as the run asks for it."""
    import torch

    if precision.bf16:
        return torch.autocast(device.type, torch.bfloat16)
    return torch.autocast(device.type, torch.float16) if precision.fp16 else nullcontext()


def _overlooked_adapter(config: RunConfig) -> str | None:
    """A note for a user who names the run's configuration and may expect its adapter to be in use."""
    trained = Path(config.run.output_dir or "").expanduser()
    if config.model.adapter_name_or_path or not config.run.output_dir or not (trained / "adapter_config.json").is_file():
        return None
    if Path(config.model.model_name_or_path or "").expanduser().resolve() == trained.resolve():
        return None
    return (f"note: this is {config.model.model_name_or_path} itself, without the adapter that {config.run.output_dir} holds; "
            f"add {config.run.output_dir} to the command to use it")


def _silent(_line: str) -> None:
    """What other ranks report of the data: the main rank says it."""
