"""What is saved and when."""

from __future__ import annotations

from dataclasses import dataclass

from tunewright.config.param import NOT_BUILT, Alias, param


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """Checkpoints, best model, early stopping."""

    save_strategy: str = param(
        "steps", "When a checkpoint is saved.", choices=("no", "steps", "epoch"), llamafactory="save_strategy", recorded=False,
        sft_json="save_strategy", qlora_script=Alias("save_strategy", default="epoch"))
    save_steps: float = param(
        500, "Steps between two checkpoints, or a fraction of the run below 1.", unit="steps", above=0,
        llamafactory="save_steps",
        recorded=False,
        cli_reference="save_steps", sft_json=Alias("save_steps", default=100.0), mindspeed_fsdp2="save_steps")
    save_total_limit: int | None = param(
        None, "Checkpoints kept, besides the best; the oldest goes first. At least 2 are always kept.", minimum=1,
        llamafactory="save_total_limit", recorded=False,
        cli_reference=Alias("save_total_limit", default=3), sft_json=Alias("save_total_limit", default=1),
        qlora_script=Alias("save_total_limit", default=3), mindspeed_fsdp2=Alias("save_total_limit", default=3))
    save_only_model: bool = param(
        False, "Leave out what a resume needs; such a checkpoint cannot be continued.", llamafactory="save_only_model",
        recorded=False,
        mindspeed_fsdp2="save_only_model")
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
        cli_reference=Alias("early_stopping_patience", default=3))
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
        cli_reference=Alias("eval_steps", default=500.0))
    eval_delay: float = param(
        0.0, "Epochs or steps, by eval_strategy, before the first evaluation.", minimum=0, llamafactory="eval_delay")
    eval_on_start: bool = param(False, "Evaluate before the first step.", llamafactory="eval_on_start")
    compute_accuracy: bool = param(
        False, "Report the share of trained tokens predicted right.", llamafactory="compute_accuracy")
    predict_with_generate: bool = param(
        False, "Evaluate by generating answers: ROUGE and BLEU.", llamafactory="predict_with_generate")


@dataclass(frozen=True, kw_only=True)
class GenerationConfig:
    """How answers are generated in prediction and chat."""

    do_sample: bool = param(True, "Sample instead of taking the likeliest token.",
        llamafactory=("do_sample", Alias("no_do_sample", convert="negate")), recorded=False)
    temperature: float = param(0.95, "Divides the logits; lower is more certain.", above=0, maximum=100,
        llamafactory="temperature", recorded=False)
    top_p: float = param(0.7, "Sample from the smallest set of tokens with this probability.", above=0, maximum=1,
        llamafactory="top_p", recorded=False)
    top_k: int = param(50, "Sample from this many of the likeliest tokens; 0 for all.", minimum=0, llamafactory="top_k",
        recorded=False)
    num_beams: int = param(1, "Beams of beam search.", minimum=1, maximum=1024,
        llamafactory=("num_beams", Alias("generation_num_beams", convert="null_is_absent"),
                      Alias("eval_num_beams", convert="null_is_absent")), recorded=False,
        mindspeed_fsdp2=Alias("eval_num_beams", convert="null_is_absent"))
    max_new_tokens: int = param(1024, "Longest answer.", unit="tokens", minimum=1, maximum=2**20,
        llamafactory="max_new_tokens", recorded=False)
    max_length: int | None = param(
        None, "Longest prompt and answer together; absent leaves max_new_tokens in charge.", unit="tokens", minimum=1,
        llamafactory=(Alias("generation_max_length", convert="null_is_absent"), "max_length"),
        recorded=False)
    repetition_penalty: float = param(1.0, "Above 1 makes tokens already used less likely.", above=0, maximum=100,
        llamafactory="repetition_penalty", recorded=False)
    length_penalty: float = param(
        1.0, "Exponent on the length in beam search: above 0 favours long answers, below 0 short ones.", minimum=-100,
        maximum=100,
        llamafactory="length_penalty", recorded=False)


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """The merged model."""

    export_dir: str | None = param(None, "Directory for the exported model.", llamafactory="export_dir", recorded=False,
        cli_reference="export_dir")
    export_size: int = param(
        5, "Largest weights file.", unit="GB", minimum=1, maximum=1024, llamafactory=Alias("export_size", default=1),
        recorded=False)
    export_dtype: str = param(
        "auto", "Number format of the exported weights; auto means that of the base model.",
        choices=("auto", "float32", "bfloat16", "float16"), recorded=False)
    export_device: str = param("cpu", "Where the merge is computed.", choices=("cpu", "auto"), llamafactory="export_device",
        recorded=False)


@dataclass(frozen=True, kw_only=True)
class LoggingConfig:
    """What is written down during the run."""

    logging_strategy: str = param(
        "steps", "When metrics are logged.", choices=("no", "steps", "epoch"), llamafactory="logging_strategy")
    logging_steps: float = param(
        10, "Steps between two log entries, or a fraction of the run below 1.", unit="steps", above=0,
        llamafactory=Alias("logging_steps", default=500),
        cli_reference="logging_steps", sft_json=Alias("logging_steps", default=100.0),
        qlora_script=Alias("logging_steps", default=1.0), mindspeed_fsdp2=Alias("logging_steps", default=1.0))
    logging_first_step: bool = param(False, "Also log after the first step.", llamafactory="logging_first_step")
    logging_dir: str | None = param(
        None, "Directory for TensorBoard; absent means `runs` in output_dir.", llamafactory="logging_dir", recorded=False,
        cli_reference=Alias("logging_dir", default="runs"))
    report_to: tuple[str, ...] = param(
        (), "Trackers beside the JSONL log that every run writes.", choices=("tensorboard", "none"),
        llamafactory=Alias("report_to", convert="trackers"), recorded=False,
        refused_values={"wandb": NOT_BUILT, "mlflow": NOT_BUILT, "comet": NOT_BUILT},
        cli_reference=Alias("report_to", convert="trackers"),
        sft_json=Alias("report_to", default=("tensorboard",), convert="trackers"))
    run_name: str | None = param(None, "Name of the run for trackers.", llamafactory="run_name", recorded=False,
        cli_reference="run_name")
    plot_loss: bool = param(True, "Draw the loss curve.", llamafactory=Alias("plot_loss", default=False), recorded=False,
        cli_reference=Alias("plot_loss", default=False))
    disable_tqdm: bool = param(
        False, "No progress display.", llamafactory=Alias("disable_tqdm", convert="null_is_false"), recorded=False,
        cli_reference="disable_tqdm", sft_json="disable_tqdm")
