"""Rules on data, and on what each purpose needs."""

from __future__ import annotations

from tunewright.config.literals import show
from tunewright.config.rules.rule import Broken, Case, Rule, has_eval_data


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


def mapping_without_file(case: Case) -> list[Broken]:
    from collections.abc import Mapping

    sets = {"dataset": case.run.data.dataset, "eval_dataset": case.run.data.eval_dataset}
    return [Broken(field, f"the data set {show(one)} names no file") for field, several in sets.items() for one in several
            if isinstance(one, Mapping) and not one.get("file_name")]


def no_model(case: Case) -> str | None:
    return None if case.run.model.model_name_or_path else "not given"


def no_dataset(case: Case) -> str | None:
    return "not given, but do_train needs it" if case.run.run.do_train and not case.run.data.dataset else None


def nothing_to_preview(case: Case) -> str | None:
    return None if case.run.data.dataset or case.run.data.eval_dataset else "not given"


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
    return None if has_eval_data(case.run) or case.run.data.dataset else "not given"


RULES = (
    Rule("val-size-not-whole", ("val_size",), val_size_not_whole, "write 0.1 for a tenth, or 100 for a hundred rows"),
    Rule("two-evaluation-sets", ("val_size", "eval_dataset"), two_evaluation_sets, "keep one of them"),
    Rule("val-size-without-dataset", ("val_size", "dataset"), val_size_without_dataset, "set dataset", purposes=("train",)),
    Rule("held-back-in-vain", ("val_size", "eval_strategy", "eval_on_start", "do_eval", "do_predict"), held_back_in_vain,
         "set eval_strategy or do_eval, or remove it", purposes=("train",), is_error=False),
    Rule("prompt-with-masked-history", ("train_on_prompt", "mask_history"), prompt_with_masked_history, "keep one of them"),
    Rule("conversation-masks-in-pretraining", ("train_on_prompt", "mask_history", "stage"), conversation_masks_in_pretraining,
         "remove it, or set stage: sft"),
    Rule("mapping-without-file", ("dataset", "eval_dataset"), mapping_without_file, "add file_name"),
    Rule("no-model", ("model_name_or_path",), no_model, "give a directory, a hub id or demo",
         purposes=("train", "eval", "predict", "chat", "export", "preview")),
    Rule("no-dataset", ("dataset", "do_train"), no_dataset, "give a file, a folder or a name in dataset_info.json",
         purposes=("train",)),
    Rule("nothing-to-preview", ("dataset", "eval_dataset"), nothing_to_preview, "give a file, a folder or a name in dataset_info.json",
         purposes=("preview",)),
    Rule("no-output", ("output_dir",), no_output, "give the directory for checkpoints and results", purposes=("train",)),
    Rule("no-export", ("export_dir",), no_export, "give the directory for the exported model", purposes=("export",)),
    Rule("nothing-to-do", ("do_train", "do_eval", "do_predict"), nothing_to_do, "set do_train: true", purposes=("train",)),
    Rule("extra-work-without-data", ("do_eval", "do_predict", "eval_dataset", "val_size"), extra_work_without_data,
         "set eval_dataset or val_size", purposes=("train",)),
    Rule("nothing-to-evaluate", ("eval_dataset", "dataset"), nothing_to_evaluate, "give the rows to evaluate on",
         purposes=("eval", "predict")),
)
