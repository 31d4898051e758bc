"""Rules on data, and on what each purpose needs."""

from __future__ import annotations

from typing import Any

from tunewright.config.data import PLACES, named_sets
from tunewright.config.literals import show
from tunewright.config.proportions import read_proportions
from tunewright.config.quirks import REFUSED
from tunewright.config.rules.rule import OF_ANSWERS, Broken, Case, Rule, has_eval_data, splits_off_validation


def val_size_not_whole(case: Case) -> str | None:
    size = case.run.data.val_size
    return f"{show(size)} is neither a fraction below 1 nor a whole number of rows" if size > 1 and size != int(size) else None


def two_evaluation_sets(case: Case) -> str | None:
    data = case.run.data
    return "rows are held back, but eval_dataset is given too" if data.val_size > 0 and data.eval_dataset else None


def val_size_without_dataset(case: Case) -> str | None:
    data = case.run.data
    return "holds rows of dataset back, but there is no dataset" if data.val_size > 0 and not data.dataset else None


def held_back_in_vain(case: Case) -> str | None:
    run = case.run
    looks = run.evaluation.eval_strategy != "no" or run.evaluation.eval_on_start or run.run.do_eval or run.run.do_predict
    wanted = run.data.val_size > 0 and "val_size" in case.given and run.run.do_train and not looks
    return "rows are held back from training, but nothing is evaluated or predicted" if wanted else None


def prompt_with_masked_history(case: Case) -> str | None:
    data = case.run.data
    return "trains on prompts, but mask_history trains on the last answer only" if (
        data.train_on_prompt and data.mask_history) else None


def conversation_masks_in_pretraining(case: Case) -> list[Broken]:
    data = case.run.data
    if case.run.run.stage != "pt":
        return []
    masks = {"train_on_prompt": data.train_on_prompt, "mask_history": data.mask_history}
    return [Broken(field, "documents have neither prompts nor answers, but stage is pt") for field, on in masks.items() if on]


def packed_answers(case: Case) -> str | None:
    stage = case.run.run.stage
    return f"puts rows into sequences of cutoff_len, but stage is {stage}" if case.run.data.packing and stage in OF_ANSWERS else None


def split_answers(case: Case) -> str | None:
    stage = case.run.run.stage
    wanted = case.run.data.cutoff_policy == "split" and stage in OF_ANSWERS
    return f"makes several rows of a long one, but stage is {stage}, in which a row is one unit" if wanted else None


def split_not_proportions(case: Case) -> str | None:
    try:
        read_proportions(case.run.data.split)
    except ValueError as error:
        return str(error)
    return None


def nothing_split_off_for_training(case: Case) -> str | None:
    data = case.run.data
    if data.data_manager_type != "mg" or not case.run.run.do_train or split_not_proportions(case):
        return None
    return None if read_proportions(data.split).training else f"{data.split} leaves no documents to train on"


def token_files_in_another_stage(case: Case) -> str | None:
    stage = case.run.run.stage
    return f"Megatron's files hold documents, but stage is {stage}" if case.run.data.data_manager_type == "mg" and stage != "pt" else None


def rows_held_out_of_token_files(case: Case) -> str | None:
    data = case.run.data
    return "holds back rows, but data_manager_type is mg" if data.data_manager_type == "mg" and data.val_size else None


def two_validation_parts(case: Case) -> str | None:
    both = splits_off_validation(case.run) and case.run.data.eval_dataset
    return f"{case.run.data.split} splits documents off for validation, but eval_dataset is given too" if both else None


def token_files_not_packed(case: Case) -> str | None:
    data = case.run.data
    is_plain = data.data_manager_type != "mg" or data.packing is not False or not data.neat_packing
    return None if is_plain else "false, but documents of Megatron's files are always laid end to end"


def quirks_refused(case: Case) -> list[Broken]:
    return [Broken("data_compat", f"{name}: refused: {REFUSED[name]}") for name in case.run.data.data_compat if name in REFUSED]


def strict_with_quirks(case: Case) -> str | None:
    words = case.run.data.data_compat
    return "strict mends every quirk, but others are named beside it" if "strict" in words and len(set(words)) > 1 else None


def prediction_from_tokens(case: Case) -> str | None:
    run = case.run
    wanted = case.purpose == "predict" or run.run.do_predict or run.evaluation.predict_with_generate
    return "keeps tokens, not the answers that predictions are compared with" if wanted and run.data.tokenized_path is not None else None


def mapping_without_file(case: Case) -> list[Broken]:
    from collections.abc import Mapping

    named = [one for _, one in named_sets(case.run.data.eval_dataset)]
    sets: dict[str, list[Any]] = {"dataset": list(case.run.data.dataset), "eval_dataset": named}
    return [Broken(field, f"the data set {show(one)} names no file") for field, several in sets.items() for one in several
            if not isinstance(one, str | Mapping) or (isinstance(one, Mapping) and not any(one.get(name) for name in PLACES))]


def no_model(case: Case) -> str | None:
    return None if case.run.model.model_name_or_path else "not given"


def no_dataset(case: Case) -> str | None:
    data = case.run.data
    return "not given, but do_train needs it" if case.run.run.do_train and not data.dataset and data.tokenized_path is None else None


def nothing_to_preview(case: Case) -> str | None:
    data = case.run.data
    return None if data.dataset or data.eval_dataset or data.tokenized_path is not None else "not given"


def no_output(case: Case) -> str | None:
    return None if case.run.run.output_dir else "not given"


def no_export(case: Case) -> str | None:
    return None if case.run.export.export_dir else "not given"


def nothing_to_do(case: Case) -> str | None:
    control = case.run.run
    return None if control.do_train or control.do_eval or control.do_predict else "nothing to do: do_train, do_eval and do_predict are off"


def extra_work_without_data(case: Case) -> list[Broken]:
    control = case.run.run
    return [Broken(field, "needs evaluation data") for field, on in
            (("do_eval", control.do_eval), ("do_predict", control.do_predict)) if on and not has_eval_data(case.run)]


def nothing_to_evaluate(case: Case) -> str | None:
    data = case.run.data
    return None if has_eval_data(case.run) or data.dataset or data.tokenized_path is not None else "not given"


RULES = (
    Rule("val-size-not-whole", ("val_size",), val_size_not_whole, "write 0.1 for a tenth, or 100 for a hundred rows"),
    Rule("two-evaluation-sets", ("val_size", "eval_dataset"), two_evaluation_sets, "keep one of them"),
    Rule("val-size-without-dataset", ("val_size", "dataset"), val_size_without_dataset, "set dataset", purposes=("train",)),
    Rule("held-back-in-vain", ("val_size", "eval_strategy", "eval_on_start", "do_eval", "do_predict"), held_back_in_vain,
         "set eval_strategy or do_eval, or remove it", purposes=("train",), is_error=False),
    Rule("prompt-with-masked-history", ("train_on_prompt", "mask_history"), prompt_with_masked_history, "keep one of them"),
    Rule("conversation-masks-in-pretraining", ("train_on_prompt", "mask_history", "stage"), conversation_masks_in_pretraining,
         "remove it, or set stage: sft"),
    Rule("packed-answers", ("packing", "stage"), packed_answers, "remove it: rows lie end to end without padding anyhow"),
    Rule("split-answers", ("cutoff_policy", "stage"), split_answers, "write proportional, cut_right, cut_left or drop"),
    Rule("split-not-proportions", ("split",), split_not_proportions, "write proportions, such as 949,50,1"),
    Rule("nothing-split-off-for-training", ("split", "data_manager_type", "do_train"), nothing_split_off_for_training,
         "make its first number larger", purposes=("train",)),
    Rule("token-files-in-another-stage", ("data_manager_type", "stage"), token_files_in_another_stage, "set stage: pt",
         purposes=("train", "eval", "predict", "preview")),
    Rule("rows-held-out-of-token-files", ("val_size", "data_manager_type"), rows_held_out_of_token_files, "write split: 90,10,0 instead"),
    Rule("two-validation-parts", ("split", "eval_dataset", "data_manager_type"), two_validation_parts, "keep one of them"),
    Rule("token-files-not-packed", ("packing", "neat_packing", "data_manager_type"), token_files_not_packed,
         "remove it, or set neat_packing: false as well if documents may see each other"),
    Rule("quirks-refused", ("data_compat",), quirks_refused, "take it out"),
    Rule("strict-with-quirks", ("data_compat",), strict_with_quirks, "take strict out"),
    Rule("prediction-from-tokens", ("tokenized_path", "do_predict", "predict_with_generate"), prediction_from_tokens,
         "take it out; the cache in data_cache_dir keeps tokens too", purposes=("train", "predict")),
    Rule("mapping-without-file", ("dataset", "eval_dataset"), mapping_without_file, "add file_name"),
    Rule("no-model", ("model_name_or_path",), no_model, "give a directory, a hub id or demo",
         purposes=("train", "eval", "predict", "chat", "export", "preview")),
    Rule("no-dataset", ("dataset", "do_train"), no_dataset, "give a file, a folder or a name in dataset_info.json",
         purposes=("train",)),
    Rule("nothing-to-preview", ("dataset", "eval_dataset"), nothing_to_preview, "give a file, a folder or a name in dataset_info.json",
         purposes=("preview",)),
    Rule("no-output", ("output_dir",), no_output, "give the directory for checkpoints and results", purposes=("train", "predict")),
    Rule("no-export", ("export_dir",), no_export, "give the directory for the exported model", purposes=("export",)),
    Rule("nothing-to-do", ("do_train", "do_eval", "do_predict"), nothing_to_do, "set do_train: true", purposes=("train",)),
    Rule("extra-work-without-data", ("do_eval", "do_predict", "eval_dataset", "val_size"), extra_work_without_data,
         "set eval_dataset or val_size", purposes=("train",)),
    Rule("nothing-to-evaluate", ("eval_dataset", "dataset"), nothing_to_evaluate, "give the rows to evaluate on",
         purposes=("eval", "predict")),
)
