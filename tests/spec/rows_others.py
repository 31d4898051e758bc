"""The sentences of the smaller documents, and what becomes of each."""

from __future__ import annotations

from typing import Final

from tests.spec.rows import Breaks, Elsewhere, Fact, Means, Notes, Refused, Row, Within, unread

TRAINS: Final = {"model_name_or_path": "demo", "dataset": "d", "output_dir": "out"}

CLI_REFERENCE: Final[dict[tuple[str, str], Row]] = {
    ("use_exllama", "INT4 quantized model"): Refused(),
    ("template_file", "a format that is not predefined (template=custom by context)"): Fact(
        "a file is the template, whatever `template` says"),
    ("num_train_epochs", "overridden by max_steps when it is a positive integer"):
        unread("num_train_epochs", 2, "max_steps wins", {"max_steps": 5}),
    ("max_steps", "a positive value overrides num_train_epochs"):
        Notes("max_steps wins", {"max_steps": 5, "num_train_epochs": 2}, {"max_steps": -1, "num_train_epochs": 2}, "num_train_epochs"),
    ("eval_steps", "evaluation_strategy=steps"):
        unread("eval_steps", 5, "eval_strategy is not steps", None, {"evaluation_strategy": "steps"}),
    ("warmup_steps", "warmup_ratio takes precedence over it"):
        Notes("wins over steps in cli_reference", {"warmup_steps": 5}, {"warmup_steps": 5, "warmup_ratio": 0}),
    ("warmup_ratio", "takes precedence over warmup_steps"):
        Notes("warmup_ratio 0.1", {"warmup_ratio": 0.1, "warmup_steps": 5}, {"warmup_ratio": 0, "warmup_steps": 5}, "warmup_steps"),
    ("warmup_ratio", "0 to 1"): Within((-0.1, 1.1, "much"), (0, 0.5)),
    ("bf16", "if the hardware supports it"): Fact("every device that torch trains on computes bfloat16, the CPU included"),
    ("fp16", "if the hardware supports it"): Breaks("fp16-on-cpu", {"fp16": True, "no_cuda": True}, {"fp16": True}),
    ("greater_is_better", "should be false when the metric is loss"):
        Breaks("greater-loss", {"greater_is_better": True}, {"greater_is_better": True, "metric_for_best_model": "accuracy"}),
    ("export_dir", "can be used together with merge_lora_and_save"): Fact("it says what may be given, not what must be"),
    ("tf32", "needs NVIDIA Ampere"): Breaks("accelerator-only", {"tf32": True, "no_cuda": True}, {"tf32": True}),
    ("torch_compile", "a PyTorch 2.0 feature"): Fact("no older torch is taken: the package asks for 2.13"),
}

CSV: Final = Elsewhere("tests/data/test_csv_table.py::test_conversion_keeps_every_cell")

SFT_JSON: Final[dict[tuple[str, str], Row]] = {
    ("train_file_path", "CSV files lie in its csv sub-folder"): CSV,
    ("train_file_name", "columns are category,human,assistant"): CSV,
    ("train_file_name", "must be placed in the csv folder under train_file_path"): CSV,
    ("template_name", "usually the model_type value in the model's config.json"): Fact("what usually holds demands nothing of a file"),
    ("save_steps", "save_strategy=steps"): unread("save_steps", 7, "save_strategy is not steps", {"save_strategy": "epoch"}),
    ("optim", "adamw_hf is recommended for full-parameter tuning"): Fact("a recommendation demands nothing of a file"),
    ("warmup_steps", "lr_scheduler_type with warmup"):
        unread("warmup_steps", 7, "the schedule `constant` has no warm-up", {"lr_scheduler_type": "constant"}),
    ("fp16", "recommended on V100; bf16 recommended on A100"): Fact("a recommendation demands nothing of a file"),
}

KEPT: Final = Elsewhere("tests/data/test_tokenized_path.py::test_what_was_saved_is_used_as_it_is")
_DESCRIBED: Final = {"init_special_tokens": "desc_init", "new_special_tokens_config": "tokens.yaml"}

MINDSPEED_FSDP2: Final[dict[tuple[str, str], Row]] = {
    ("model_name_or_path", "required; raises an error when not given"):
        Breaks("no-model", {"output_dir": "out"}, {"model_name_or_path": "demo"}, absent=True),
    ("model_id", "new model types must be registered in class ModelRegistry of mindspeed_llm/fsdp2/models/model_registry.py"): Refused(),
    ("tokenizer_name_or_path", "must be given when it differs from model_name_or_path"):
        Means({"model_name_or_path": "demo"}, {"tokenizer_name_or_path": None}),
    ("add_special_tokens", "new_special_tokens_config takes precedence over it"): unread(
        "add_special_tokens", "<a>", "new_special_tokens_config wins", _DESCRIBED),
    ("new_special_tokens_config", "format {'<token>': 'description text'}"): Elsewhere(
        "tests/models/test_vocabulary.py::test_a_good_file_in_both_forms"),
    ("new_special_tokens_config", "takes precedence over add_special_tokens"): Elsewhere(
        "tests/models/test_vocabulary.py::test_the_file_wins_over_the_list"),
    ("init_special_tokens", "desc_init requires new_special_tokens_config"): Breaks(
        "description-without-file", {"init_special_tokens": "desc_init"}, _DESCRIBED),
    ("quant_format", "quant_recipe"): Refused(),
    ("quant_block_size", "quant_recipe"): Refused(),
    ("quant_apply_modules", "quant_recipe"): Refused(),
    ("quant_ignored_modules", "quant_recipe"): Refused(),
    ("converters", "quant_recipe"): Refused(),
    ("dataset", "fine-tuning accepts inline configuration or registration in dataset_info.json"):
        Means({"dataset": {"file_name": "a.json"}}, {"dataset": ({"file_name": "a.json"},)}),
    ("dataset", "pre-training takes the raw dataset path"): Means({"stage": "pt", "dataset": "a.json"}, {"dataset": ("a.json",)}),
    ("eval_dataset", "mutually exclusive with val_size"):
        Breaks("two-evaluation-sets", {**TRAINS, "eval_dataset": "e", "val_size": 0.1}, {**TRAINS, "eval_dataset": "e"}),
    ("train_on_prompt", "cannot be True together with mask_history"):
        Breaks("prompt-with-masked-history", {"train_on_prompt": True, "mask_history": True}, {"train_on_prompt": True}),
    ("mask_history", "cannot be True together with train_on_prompt"):
        Breaks("prompt-with-masked-history", {"mask_history": True, "train_on_prompt": True}, {"mask_history": True}),
    ("streaming", "mutually exclusive with max_samples"): Fact("the first rows of each set can be streamed as all of them can"),
    ("streaming", "val_size must be an integer when streaming"):
        Breaks("stream-cannot", {**TRAINS, "dataset": "d", "streaming": True, "max_steps": 5, "val_size": 0.1},
               {**TRAINS, "dataset": "d", "streaming": True, "max_steps": 5, "val_size": 7}),
    ("buffer_size", "streaming"): unread("buffer_size", 64, "streaming is off", TRAINS, {**TRAINS, "streaming": True, "max_steps": 5}),
    ("interleave_probs", "mix_strategy=interleave_under or interleave_over"):
        Breaks("probabilities-without-turns", {"interleave_probs": "0.5,0.5", "dataset": "d,e"},
               {"interleave_probs": "0.5,0.5", "dataset": "d,e", "mix_strategy": "interleave_over"}),
    ("max_samples", "mutually exclusive with streaming"): Fact("the first rows of each set can be streamed as all of them can"),
    ("val_size", "requires dataset to be set"): Breaks("val-size-without-dataset", {"val_size": 0.1}, {"val_size": 0.1, "dataset": "d"}),
    ("val_size", "mutually exclusive with eval_dataset"):
        Breaks("two-evaluation-sets", {**TRAINS, "val_size": 0.1, "eval_dataset": "e"}, {**TRAINS, "val_size": 0.1}),
    ("val_size", "an integer, or a float in 0-1"): Within((-1, 1.5, "half"), (0, 0.5, 10)),
    ("neat_packing", "sets packing=True automatically"): Means({"neat_packing": True}, {"packing": True, "neat_packing": True}),
    ("tokenized_path", "saves when the path does not exist"): KEPT,
    ("tokenized_path", "loads when the path exists"): KEPT,
    ("data_shared_file_system", "distributed training"): Refused(),
    ("ep_size", "a mixture-of-experts model"): Refused(),
    ("ep_fsdp_size", "expert parallelism"): Refused(),
    ("fsdp_modules", "must not be an empty list"): Refused(),
    ("ep_modules", "a mixture-of-experts model"): Refused(),
    ("recompute_modules", "recompute=True"):
        Breaks("recomputing-nothing", {"recompute_modules": "model.layers.{0-1}"},
               {"recompute_modules": "model.layers.{0-1}", "recompute": True}),
    ("output_dir", "required; raises an error when not given"):
        Breaks("no-output", {"model_name_or_path": "demo"}, {"output_dir": "out"}, absent=True),
    ("min_lr", "lr_scheduler_type=cosine"): unread("min_lr", 2e-6, "lr_scheduler_type is not cosine", {"lr_scheduler_type": "linear"}),
    ("num_train_epochs", "overridden when max_steps>0"): unread("num_train_epochs", 2, "max_steps wins", {"max_steps": 5}),
    ("max_steps", "overrides num_train_epochs when >0"):
        Notes("max_steps wins", {"max_steps": 5, "num_train_epochs": 2}, {"num_train_epochs": 2}, "num_train_epochs"),
    ("profile_step_start", "profile"): unread("profile_step_start", 1, "profile is off", None, {"profile": True}),
    ("profile_step_start", ">=0"): Within((-1, 0.5, "one"), (0, 7), {"profile": True}),
    ("profile_step_end", "profile"): unread("profile_step_end", 9, "profile is off", None, {"profile": True}),
    ("profile_ranks", "profile"): unread("profile_ranks", [1], "profile is off", None, {"profile": True}),
    ("profile_level", "profile"): Refused(),
    ("profile_export_type", "profile"): Refused(),
    ("profile_data_simplification", "profile"): Refused(),
    ("profile_with_cpu", "profile"): unread("profile_with_cpu", False, "profile is off", None, {"profile": True}),
    ("profile_with_stack", "profile"): unread("profile_with_stack", True, "profile is off", None, {"profile": True}),
    ("profile_with_memory", "profile"): unread("profile_with_memory", True, "profile is off", None, {"profile": True}),
    ("profile_record_shapes", "profile"): unread("profile_record_shapes", True, "profile is off", None, {"profile": True}),
    ("profile_save_path", "profile"): unread("profile_save_path", "p", "profile is off", None, {"profile": True}),
}
