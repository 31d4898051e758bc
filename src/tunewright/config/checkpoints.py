"""What is saved and when."""

from __future__ import annotations

from dataclasses import dataclass

from tunewright.config.param import NOT_BUILT, Alias, param


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """Checkpoints, best model, early stopping."""

    save_strategy: str = param(
        "steps", "When a checkpoint is saved.", choices=("no", "steps", "epoch"), llamafactory="save_strategy", recorded=False,
        refused_values={"best": "save_strategy no with load_best_model_at_end saves at every better evaluation, and only then"},
        sft_json="save_strategy", qlora_script=Alias("save_strategy", default="epoch"))
    save_steps: float = param(
        500, "Steps between two checkpoints, or a fraction of the run below 1.", unit="steps", above=0,
        llamafactory="save_steps",
        recorded=False,
        cli_reference=Alias("save_steps", convert="whole_steps"), sft_json=Alias("save_steps", default=100.0, convert="whole_steps"),
        mindspeed_fsdp2=Alias("save_steps", convert="whole_steps"))
    save_total_limit: int | None = param(
        None, "Checkpoints kept, besides the best; the oldest goes first. At least 2 are always kept.", minimum=1,
        llamafactory="save_total_limit", recorded=False,
        cli_reference=Alias("save_total_limit", default=3), sft_json=Alias("save_total_limit", default=1),
        qlora_script=Alias("save_total_limit", default=3), mindspeed_fsdp2=Alias("save_total_limit", default=3))
    save_only_model: bool = param(
        False, "Leave out what a resume needs; such a checkpoint cannot be continued.", llamafactory="save_only_model",
        recorded=False,
        mindspeed_fsdp2="save_only_model")
    save_epochs: int | None = param(
        None, "Epochs between two checkpoints, in addition to save_steps; absent means none for the epochs.", unit="epochs", minimum=1,
        recorded=False,
        mindspeed_fsdp2=Alias("save_epochs", default=1))
    save_hf_weights: bool = param(
        True, "Write the final weights into output_dir in Hugging Face's format; otherwise only checkpoints have them.", recorded=False,
        mindspeed_fsdp2="save_hf_weights")
    load_best_model_at_end: bool = param(
        False, "Finish with the weights of the best evaluation.", llamafactory="load_best_model_at_end",
        cli_reference="load_best_model_at_end")
    metric_for_best_model: str | None = param(
        None, "Metric that decides which evaluation is best; absent means the loss.", llamafactory="metric_for_best_model",
        example="eval_loss",
        cli_reference=Alias("metric_for_best_model", default="loss"))
    greater_is_better: bool | None = param(
        None, "Whether a larger metric is better; absent means yes unless its name ends in `loss`.",
        llamafactory="greater_is_better",
        cli_reference=Alias("greater_is_better", default=False))
    early_stopping_patience: int | None = param(
        None, "Evaluations without improvement after which the run stops; absent means never.", minimum=1,
        llamafactory=Alias("early_stopping_steps", today=True), cli_reference=Alias("early_stopping_patience", default=3))
    early_stopping_threshold: float = param(
        0.0, "Smallest change of the metric that counts as an improvement.", minimum=0,
        cli_reference="early_stopping_threshold")


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """Evaluation during and after training."""

    eval_strategy: str = param(
        "no", "When the evaluation set is evaluated during training.", choices=("no", "steps", "epoch"),
        llamafactory=("eval_strategy", Alias("evaluation_strategy", convert="null_is_absent", deprecated=True)),
        cli_reference="evaluation_strategy", qlora_script=Alias("evaluation_strategy", default="epoch"))
    eval_steps: float | None = param(
        None, "Steps between two evaluations, or a fraction of the run below 1; absent means logging_steps.",
        unit="steps", above=0,
        llamafactory="eval_steps",
        cli_reference=Alias("eval_steps", default=500.0, convert="whole_steps_not_null"))
    eval_delay: float = param(
        0.0, "Epochs or steps, by eval_strategy, before the first evaluation.", minimum=0, llamafactory="eval_delay")
    eval_on_start: bool = param(False, "Evaluate before the first step.", llamafactory="eval_on_start")
    compute_accuracy: bool = param(
        False, "Report the share of trained tokens predicted right.", llamafactory="compute_accuracy")
    predict_with_generate: bool = param(
        False, "Evaluate by generating answers: ROUGE and BLEU.", llamafactory="predict_with_generate")


@dataclass(frozen=True, kw_only=True)
class LoggingConfig:
    """What is written down during the run."""

    logging_strategy: str = param(
        "steps", "When metrics are logged.", choices=("no", "steps", "epoch"), llamafactory="logging_strategy")
    logging_steps: float = param(
        10, "Steps between two log entries, or a fraction of the run below 1.", unit="steps", above=0,
        llamafactory=Alias("logging_steps", default=500),
        cli_reference=Alias("logging_steps", convert="whole_steps"),
        sft_json=Alias("logging_steps", default=100.0, convert="whole_steps"),
        qlora_script=Alias("logging_steps", default=1.0, convert="whole_steps"),
        mindspeed_fsdp2=Alias("logging_steps", default=1.0, convert="whole_steps"))
    log_level: str = param(
        "passive", "Least severe messages of ours that the main process tells; `detail` is `debug` with file and line, `passive` is "
        "`info`.", choices=("detail", "debug", "info", "warning", "error", "critical", "passive"), llamafactory="log_level",
        recorded=False)
    log_level_replica: str = param(
        "warning", "The same for the other processes; `passive` is `warning`.",
        choices=("detail", "debug", "info", "warning", "error", "critical", "passive"), llamafactory="log_level_replica",
        recorded=False)
    log_on_each_node: bool = param(
        False, "With several nodes, let the first process of each tell what the main process tells.",
        llamafactory=(Alias("log_on_each_node", default=True), Alias("no_log_on_each_node", default=True, convert="negate")),
        recorded=False)
    include_tokens_per_second: bool = param(
        False, "Log training throughput with every entry, over all ranks; the results have it in any case.",
        llamafactory="include_tokens_per_second", recorded=False)
    include_num_input_tokens_seen: bool = param(
        False, "Log with every entry how many tokens were run so far, padding not counted.",
        llamafactory="include_num_input_tokens_seen", recorded=False)
    logging_first_step: bool = param(False, "Also log after the first step.", llamafactory="logging_first_step")
    logging_dir: str | None = param(
        None, "Directory for TensorBoard; absent means `runs` in output_dir.", llamafactory="logging_dir", recorded=False,
        cli_reference=Alias("logging_dir", default="runs"))
    report_to: tuple[str, ...] = param(
        (), "Trackers beside the JSONL log that every run writes.", choices=("tensorboard", "console", "none"),
        llamafactory=Alias("report_to", convert="trackers"), recorded=False,
        refused_values=dict.fromkeys(("wandb", "mlflow", "comet", "comet_ml", "swanlab", "trackio"), NOT_BUILT),
        cli_reference=Alias("report_to", convert="trackers"),
        sft_json=Alias("report_to", default=("tensorboard",), convert="trackers"))
    run_name: str | None = param(None, "Name of the run for trackers.", llamafactory="run_name", recorded=False,
        cli_reference="run_name")
    plot_loss: bool = param(True, "Draw the loss curve.", llamafactory=Alias("plot_loss", default=False), recorded=False,
        cli_reference=Alias("plot_loss", default=False))
    disable_tqdm: bool = param(
        False, "No progress display.", llamafactory=Alias("disable_tqdm", convert="null_is_false"), recorded=False,
        cli_reference="disable_tqdm", sft_json="disable_tqdm")
