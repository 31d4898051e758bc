"""`tunewright predict`: answers of a model, an adapter or a run's output directory to the prompts of an evaluation set."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tunewright.config.run import RunConfig
    from tunewright.data.pipeline import Prepared
    from tunewright.engine.metrics import Metrics
    from tunewright.inference.opening import Opened
    from tunewright.runtime import Ranks


def run(argv: Sequence[str]) -> int:
    """Generate the answers, write them and their scores into output_dir, print the scores. Returns the exit code.

    A bare directory among the words is the model, an adapter or the output_dir of a run; without one, the model that the
    configuration names answers.
    """
    from tunewright.commands.eval import over_ranks

    return over_ranks(argv, "predict", _predict_and_report)


def _predict_and_report(config: RunConfig, ranks: Ranks) -> None:
    from tunewright.commands.eval import open_and_prepare
    from tunewright.data.single_answers import read_for_prediction

    opened, prepared = open_and_prepare(config, ranks, read_for_prediction(config))
    predict_opened(opened, prepared, config, ranks)


def predict_opened(opened: Opened, prepared: Prepared, config: RunConfig, ranks: Ranks) -> Metrics:
    """What an opened model makes of the evaluation rows, written into output_dir; the figures, the same on every rank.

    A reward model gives each answer its reward; the others answer the prompts, and their answers are compared with those of the rows.
    """
    return (_rewards if config.run.stage == "rm" else _answers)(opened, prepared, config, ranks)


def _rewards(opened: Opened, prepared: Prepared, config: RunConfig, ranks: Ranks) -> Metrics:
    from tunewright.commands.eval import evaluation_plan, report_metrics
    from tunewright.engine.score import Scored, score, write_scores
    from tunewright.stages.stage import ExampleKind

    plan = evaluation_plan(opened.model, opened.tokenizer, ExampleKind.PREFERENCE, config, ranks)
    scored = Scored.together([score(opened.model, examples, plan) for examples in prepared.evaluation.values()])
    metrics = scored.metrics("predict")
    if ranks.is_main:
        sys.stderr.write(f"rewards: {write_scores(Path(config.run.output_dir or '').expanduser(), scored.rows)}\n")
    report_metrics(metrics, config, "predict", ranks)
    return metrics


def _answers(opened: Opened, prepared: Prepared, config: RunConfig, ranks: Ranks) -> Metrics:
    from tunewright.commands.eval import report_metrics
    from tunewright.engine.number_formats import evaluation_dtype, weights_in
    from tunewright.engine.predict import predict, write_predictions
    from tunewright.engine.text_metrics import TextScorer
    from tunewright.kernels.frozen_weights import widened
    from tunewright.runtime import seed_everything

    scorer = TextScorer()
    seed_everything(config.run.seed, ranks)
    rows = [row for name in prepared.evaluation for row in prepared.prompts(name)]
    with widened(opened.model), weights_in([opened.model], evaluation_dtype(config.precision)):
        predicted = predict(opened, rows, config.generation, config.batching.per_device_eval_batch_size, ranks)
    metrics = predicted.metrics("predict", scorer)
    if ranks.is_main:
        file = write_predictions(Path(config.run.output_dir or "").expanduser(), predicted.rows)
        sys.stderr.write(f"answers: {file}\n")
    report_metrics(metrics, config, "predict", ranks)
    return metrics
