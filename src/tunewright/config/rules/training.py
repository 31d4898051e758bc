"""Rules on optimisation, precision, evaluation and checkpoints."""

from __future__ import annotations

from tunewright.config.data import evaluation_sets
from tunewright.config.literals import show
from tunewright.config.rules.rule import ONLINE, Broken, Case, Rule, has_eval_data
from tunewright.config.spelling import did_you_mean, nearest

_METRICS = {
    "eval_loss": None, "eval_accuracy": "compute_accuracy", "eval_rouge-1": "predict_with_generate",
    "eval_rouge-2": "predict_with_generate", "eval_rouge-l": "predict_with_generate", "eval_bleu-4": "predict_with_generate",
}
"""Metrics of an evaluation, and the switch that makes each be computed."""

_OF_STAGE = {
    "dpo": ("rewards/chosen", "rewards/rejected", "rewards/accuracies", "rewards/margins", "logps/chosen", "logps/rejected"),
    "kto": ("rewards/chosen", "rewards/rejected", "logps/chosen", "logps/rejected", "kl"),
    "rm": ("rewards/chosen", "rewards/rejected", "rewards/accuracies", "rewards/margins"),
    **{stage: ("reward", "completion_length", "missing_eos") for stage in ONLINE},
}
"""Further metrics of an evaluation in these stages, beside the loss."""


def two_half_formats(case: Case) -> str | None:
    precision = case.run.precision
    if precision.fp16 and (precision.bf16 or precision.pure_bf16):
        return f"fp16 and {'bf16' if precision.bf16 else 'pure_bf16'} are both on"
    return None


def fp16_on_cpu(case: Case) -> str | None:
    wanted = case.run.precision.fp16 and case.run.run.use_cpu
    return "half precision with loss scaling needs an accelerator, but use_cpu is on" if wanted else None


def step_count_not_whole(case: Case) -> list[Broken]:
    run = case.run
    counts = {"save_steps": run.checkpoints.save_steps, "eval_steps": run.evaluation.eval_steps,
              "logging_steps": run.logging.logging_steps}
    return [Broken(field, f"{show(count)} is neither a number of steps nor a fraction of the run")
            for field, count in counts.items() if count is not None and count > 1 and count != int(count)]


def warmup_longer_than_run(case: Case) -> str | None:
    steps, limit = case.run.schedule.warmup_steps, case.run.batching.max_steps
    return f"{steps} steps of warm-up, but the run has max_steps {limit}" if 0 < limit < steps else None


def warmup_is_the_whole_run(case: Case) -> str | None:
    return "1 leaves no step at the full rate" if case.run.schedule.warmup_ratio == 1 else None


def max_steps_is_zero(case: Case) -> str | None:
    return "0 steps train nothing" if case.run.batching.max_steps == 0 else None


def huge_learning_rate(case: Case) -> str | None:
    rate = case.run.optimizer.learning_rate
    return f"{show(rate)} is far above any rate that trains" if rate > 1 else None


def evaluation_without_data(case: Case) -> str | None:
    strategy = case.run.evaluation.eval_strategy
    return f"'{strategy}' needs evaluation data" if strategy != "no" and not has_eval_data(case.run) else None


def eval_on_start_without_data(case: Case) -> str | None:
    return "needs evaluation data" if case.run.evaluation.eval_on_start and not has_eval_data(case.run) else None


def best_model_without_evaluation(case: Case) -> str | None:
    wanted = case.run.checkpoints.load_best_model_at_end and case.run.evaluation.eval_strategy == "no"
    return "needs evaluations to find the best, but eval_strategy is no" if wanted else None


def early_stopping_without_evaluation(case: Case) -> str | None:
    wanted = case.run.checkpoints.early_stopping_patience is not None and case.run.evaluation.eval_strategy == "no"
    return "early stopping needs evaluations, but eval_strategy is no" if wanted else None


def early_stopping_without_best(case: Case) -> str | None:
    checkpoints = case.run.checkpoints
    wanted = checkpoints.early_stopping_patience is not None and not checkpoints.load_best_model_at_end
    if case.run.evaluation.eval_strategy == "no":
        return None
    return "early stopping leaves weights that are past the best, but load_best_model_at_end is off" if wanted else None


def unknown_metric(case: Case) -> list[Broken]:
    metric = case.run.checkpoints.metric_for_best_model
    if metric is None:
        return []
    name = metric if metric.startswith("eval_") else f"eval_{metric}"
    further = [f"eval_{one}" for one in _OF_STAGE.get(case.run.run.stage, ())]
    if name in further:
        return []
    if name not in _METRICS:
        sets = evaluation_sets(case.run.data)
        known = [*(further or _METRICS), *(f"eval_{one}_{what}" for one in sets if len(sets) > 1 for what in ("loss", "accuracy"))]
        mend = did_you_mean(nearest(name, known)) or f"choose one of {', '.join(known)}"
        return [] if name in known else [Broken("metric_for_best_model", f"'{metric}' is no metric of an evaluation", mend)]
    switch = _METRICS[name]
    is_on = switch is None or {"compute_accuracy": case.run.evaluation.compute_accuracy,
                               "predict_with_generate": case.run.evaluation.predict_with_generate}[switch]
    what = f"'{metric}' is not computed, because {switch} is off"
    return [] if is_on else [Broken("metric_for_best_model", what, f"set {switch}: true")]


def greater_loss(case: Case) -> str | None:
    checkpoints = case.run.checkpoints
    is_loss = (checkpoints.metric_for_best_model or "loss").endswith("loss")
    return "a greater loss is not better" if checkpoints.greater_is_better and is_loss else None


_WITHOUT_GENERATION = {
    "pt": "documents have no answers to generate", "rm": "a reward model scores answers, and generates none",
    "dpo": "answers that are given are compared, and none is generated", "kto": "answers that are given are judged, and none is generated",
    **{stage: "prompts have no answers to compare with" for stage in ONLINE},
}


def generation_in_pretraining(case: Case) -> list[Broken]:
    why = _WITHOUT_GENERATION.get(case.run.run.stage)
    if why is None:
        return []
    is_scored = case.run.run.stage == "rm"  # its predictions are rewards
    wanted = {"predict_with_generate": case.run.evaluation.predict_with_generate, "do_predict": case.run.run.do_predict and not is_scored}
    found = [Broken(field, f"{why}, but stage is {case.run.run.stage}", f"turn {field} off") for field, is_on in wanted.items() if is_on]
    asked = [Broken("stage", why, "set stage: sft")] if case.purpose == "predict" and not is_scored else []
    return found or asked


def accuracy_with_generation(case: Case) -> str | None:
    evaluation = case.run.evaluation
    return "token accuracy is not computed from generated answers" if (
        evaluation.compute_accuracy and evaluation.predict_with_generate) else None


def generation_without_data(case: Case) -> str | None:
    wanted = case.run.evaluation.predict_with_generate and not has_eval_data(case.run)
    return "needs evaluation data" if wanted else None


RULES = (
    Rule("two-half-formats", ("fp16", "bf16", "pure_bf16"), two_half_formats, "keep one of them"),
    Rule("fp16-on-cpu", ("fp16", "use_cpu"), fp16_on_cpu, "use bf16, or none of both"),
    Rule("step-count-not-whole", ("save_steps", "eval_steps", "logging_steps"), step_count_not_whole,
         "write a whole number, or a fraction below 1"),
    Rule("warmup-longer-than-run", ("warmup_steps", "max_steps"), warmup_longer_than_run, "warm up for fewer steps"),
    Rule("warmup-is-the-whole-run", ("warmup_ratio",), warmup_is_the_whole_run, "write a part of the run below 1"),
    Rule("max-steps-is-zero", ("max_steps",), max_steps_is_zero, "write -1 for no limit, or an integer >= 1"),
    Rule("huge-learning-rate", ("learning_rate",), huge_learning_rate, "1e-5 to 1e-3 is usual", is_error=False),
    Rule("evaluation-without-data", ("eval_strategy", "eval_dataset", "val_size"), evaluation_without_data,
         "set eval_dataset or val_size", purposes=("train",)),
    Rule("eval-on-start-without-data", ("eval_on_start", "eval_dataset", "val_size"), eval_on_start_without_data,
         "set eval_dataset or val_size", purposes=("train",)),
    Rule("best-model-without-evaluation", ("load_best_model_at_end", "eval_strategy"), best_model_without_evaluation,
         "set eval_strategy to steps or epoch"),
    Rule("early-stopping-without-evaluation", ("early_stopping_patience", "eval_strategy"), early_stopping_without_evaluation,
         "set eval_strategy to steps or epoch"),
    Rule("early-stopping-without-best", ("early_stopping_patience", "load_best_model_at_end"), early_stopping_without_best,
         "set load_best_model_at_end: true"),
    Rule("unknown-metric", ("metric_for_best_model", "compute_accuracy", "predict_with_generate"), unknown_metric),
    Rule("greater-loss", ("greater_is_better", "metric_for_best_model"), greater_loss, "remove greater_is_better"),
    Rule("generation-in-pretraining", ("predict_with_generate", "do_predict", "stage"), generation_in_pretraining),
    Rule("accuracy-with-generation", ("compute_accuracy", "predict_with_generate"), accuracy_with_generation, "keep one of them"),
    Rule("generation-without-data", ("predict_with_generate", "eval_dataset", "val_size"), generation_without_data,
         "set eval_dataset or val_size", purposes=("train", "predict")),
)
