"""Which case shows which kind of bad input: the 68 kinds that were measured on other trainers, and where each is tried here.

A place is `FILE::NAME`: the name of a test function in the file, or of a case that its table quotes. A kind without places has the
reason why it cannot be met yet.
"""

from __future__ import annotations

from typing import Final, NamedTuple

VALUES, FILES, MISTAKES = (f"src/tunewright/selftest/bad_{what}.py" for what in ("settings", "files", "lines"))
CONFIGURATIONS, RULES = "tests/dialects/test_bad_configurations.py", "tests/store/test_resume_rules.py"
RESUMED = "src/tunewright/selftest/bad_runs.py"
RUNS, DATA, SERVICE, HUB = ("tests/badinputs/test_runs.py", "tests/badinputs/test_data_files.py", "tests/rl/test_reward_service.py",
                            "tests/engine_parts/test_hub.py")


class Row(NamedTuple):
    """One kind: what is wrong, and the cases; or the reason why there are none."""

    what: str
    places: tuple[str, ...] = ()
    why_not: str = ""


def _row(what: str, *places: tuple[str, str]) -> Row:
    return Row(what, tuple(f"{file}::{name}" for file, name in places))


ROWS: Final[tuple[Row, ...]] = (
    _row("unknown key", (VALUES, "learnig_rate"), (CONFIGURATIONS, "unknown key"),
         ("tests/badinputs/test_typos.py", "test_misspelt_names")),
    _row("key twice in YAML", (MISTAKES, "key twice"), (CONFIGURATIONS, "duplicate key")),
    _row("tab or syntax error in YAML", (MISTAKES, "tab"), (CONFIGURATIONS, "syntax")),
    _row("Python tag in YAML", (MISTAKES, "python tag"), (CONFIGURATIONS, "python tag")),
    _row("JSON configuration", ("tests/badinputs/test_values.py", "test_json"), (CONFIGURATIONS, "json syntax")),
    _row("number that YAML reads as a text", (VALUES, "1e-4x"), (CONFIGURATIONS, "number that is a text")),
    _row("negative or no learning rate", (VALUES, "-1e-4"), (VALUES, "nan")),
    _row("huge learning rate", (VALUES, "1e10"), (CONFIGURATIONS, "huge learning rate")),
    _row("values out of range", (VALUES, "weight_decay"), (VALUES, "max_grad_norm"), (VALUES, "ddp_timeout"), (VALUES, "save_steps"),
         (VALUES, "logging_steps"), (VALUES, "save_total_limit")),
    _row("negative accumulation", (VALUES, "gradient_accumulation_steps"), (CONFIGURATIONS, "accumulation negative")),
    _row("no whole accumulation", (CONFIGURATIONS, "accumulation fraction")),
    _row("batch size 0", (VALUES, "per_device_train_batch_size"), (CONFIGURATIONS, "batch size")),
    _row("warm-up longer than the run", (FILES, "warm-up longer than the run"), (CONFIGURATIONS, "warmup")),
    _row("sampling strategy that does not exist", ("tests/badinputs/test_typos.py", "test_misspelt_values"),
         ("tests/dialects/test_foreign_alignment.py", "train_sampling_strategy")),
    _row("best model without evaluations", (VALUES, "load_best_model_at_end"), (VALUES, "metric_for_best_model")),
    _row("optimizer or schedule misspelt", (VALUES, "optim"), (VALUES, "lr_scheduler_type")),
    _row("arguments of the optimizer", (VALUES, "optim_args"), (CONFIGURATIONS, "optim_args word")),
    _row("arguments of the schedule", (VALUES, "lr_scheduler_kwargs"), (CONFIGURATIONS, "scheduler arguments")),
    _row("stage misspelt", (VALUES, "stage"), (CONFIGURATIONS, "stage typo")),
    _row("unknown template", (VALUES, "template"), (MISTAKES, "unknown template")),
    _row("module that the model does not have", (VALUES, "q_porj")),
    _row("pattern that is none", (VALUES, "lora_target"), (CONFIGURATIONS, "pattern")),
    _row("rank 0", (VALUES, "lora_rank"), (CONFIGURATIONS, "rank")),
    _row("other values of LoRA", (VALUES, "lora_alpha"), (VALUES, "lora_dropout"), (VALUES, "additional_target"), (VALUES, "1000000")),
    _row("negative val_size", (VALUES, "val_size"), (FILES, "val_size takes all")),
    _row("eval_dataset and val_size", (CONFIGURATIONS, "eval_dataset and val_size")),
    _row("cutoff_len 0", (VALUES, "cutoff_len"), (MISTAKES, "all answers cut off")),
    _row("bf16 and fp16", (CONFIGURATIONS, "bf16 and fp16")),
    _row("fp16 on the CPU", (FILES, "fp16 without accelerator"), (CONFIGURATIONS, "fp16 on cpu")),
    _row("quantisation to 5 bits", (VALUES, "quantization_bit"), (CONFIGURATIONS, "quantization")),
    _row("DeepSpeed", (VALUES, "deepspeed"), (CONFIGURATIONS, "deepspeed")),
    _row("tracker misspelt", (VALUES, "report_to"), (CONFIGURATIONS, "tracker typo")),
    _row("seed out of range", (VALUES, "seed"), (CONFIGURATIONS, "seed large")),
    _row("output_dir is a file", (FILES, "output is a file"), (FILES, "output below a file")),
    _row("output_dir without room or permission", (RUNS, "test_the_disk_refuses"),
         ("tests/badinputs/test_promises.py", "test_no_room_is_told_before_training"),
         ("tests/store/test_disk_full.py", "test_space_is_checked_before_a_save")),
    _row("output_dir of a live run", (RUNS, "test_a_live_run_is_left_alone"),
         ("tests/store/test_run_lock.py", "test_two_runs_of_the_program")),
    _row("output_dir of another run", (RESUMED, "another run"), (RULES, "test_none_where_a_run_was_is_refused")),
    _row("checkpoint that is not there", (FILES, "resume missing"), (RESUMED, "missing checkpoint")),
    _row("newest checkpoint torn", ("src/tunewright/selftest/damage.py", "cut in half"),
         ("tests/store/test_corruption.py", "test_a_manifest_that_is_still_json_but_edited_is_damaged")),
    _row("checkpoint with a flipped bit", (RESUMED, "bit of a named checkpoint")),
    _row("resumed with other settings", (RESUMED, "other rate"), (RESUMED, "other seed"),
         (RULES, "test_a_changed_setting_is_refused_with_old_and_new")),
    _row("resumed with another model or optimizer", (RESUMED, "other optimizer"),
         (RULES, "test_other_data_another_model_another_tuning_and_more_ranks")),
    _row("unknown data set", (FILES, "unknown data set")),
    _row("dataset_info.json that is not valid", (FILES, "registry broken")),
    _row("data file missing", (FILES, "data missing"), (FILES, "registry file missing")),
    _row("JSON array cut off", (FILES, "array truncated")),
    _row("broken line of JSONL", (FILES, "line broken")),
    _row("output is a number", (FILES, "output integer")),
    _row("output is null", (FILES, "output null")),
    _row("all outputs empty", (FILES, "outputs empty")),
    _row("column that is absent", (FILES, "column absent")),
    _row("empty data", (FILES, "empty array"), (FILES, "empty file")),
    _row("wrong order or role", (FILES, "wrong order"), (FILES, "unknown role")),
    _row("text that is not UTF-8", (FILES, "utf-16"), (FILES, "not utf-8"), (FILES, "lone surrogate")),
    _row("NaN, keys twice, a key missing in a row", (FILES, "NaN"), (FILES, "key twice"), (FILES, "key missing in a row")),
    Row("images that are missing, corrupt or too large", why_not="no media are read yet"),
    _row("model missing", (FILES, "model missing"), (FILES, "model is a file")),
    _row("model directory empty", (FILES, "model empty"), (FILES, "model a folder too high")),
    _row("weights cut off", (FILES, "weights truncated"), (FILES, "weights missing"), (FILES, "weights a pointer")),
    _row("vocabulary smaller than the tokenizer's", (FILES, "vocabulary too small")),
    _row("hostile sizes in config.json", (FILES, "layers 10^6"), (FILES, "heads 0"), (FILES, "hidden -64"), (FILES, "unknown rope")),
    _row("adapter that does not fit", (FILES, "not an adapter"), (FILES, "adapter of another size"), (FILES, "rank differs")),
    _row("tokenizer without template, template that raises", (FILES, "no chat template"), (MISTAKES, "template raises")),
    Row("wrong requests to a server", why_not="there is no server yet"),
    Row("hostile bodies sent to a server", why_not="there is no server yet"),
    _row("reward service that fails", (SERVICE, "test_a_service_that_stays_down_ends_the_run_as_a_lost_network"),
         (SERVICE, "test_a_server_that_says_nothing"), (SERVICE, "test_a_body_without_end_is_not_read_to_it"),
         (SERVICE, "test_a_wrong_reply_ends_the_run_at_once")),
    _row("hub that denies or goes away", (HUB, "test_a_denied_repository_is_known_before_training"),
         (HUB, "test_offline_or_without_a_token_is_known_before_training"), (HUB, "test_a_hub_that_fails_does_not_end_a_run")),
    _row("out of memory at the first step", (RUNS, "test_out_of_memory_says_what_was_tried")),
)
"""By the number under which they were measured, from 1."""
