"""Rules on inference, export, templates and tokenizers."""

from __future__ import annotations

import datetime
import os
from pathlib import Path

from tunewright.config.generation_file import FIELDS, GenerationFile, read_generation_file
from tunewright.config.literals import show
from tunewright.config.rules.rule import Broken, Case, Purpose, Rule
from tunewright.config.table import values
from tunewright.errors import InputError


def unusable_generation_file(case: Case) -> list[Broken]:
    found = _generation_file(case)
    if not isinstance(found, InputError):
        return []
    what = found.message.removeprefix("generation_config: ")
    return [Broken("generation_config", f"{found.where}: {what}" if found.where else what, found.mend)]


def generation_file_contradicts(case: Case) -> list[Broken]:
    found = _generation_file(case)
    if found is None or isinstance(found, InputError):
        return []
    run, file = values(case.run), case.run.generation.generation_config
    return [Broken(field, f"is {show(run[field])}, but {file} (generation_config) says {show(value)}")
            for field, value in found.fields.items() if field in case.given and run[field] != value]


def _generation_file(case: Case) -> GenerationFile | InputError | None:
    name = case.run.generation.generation_config
    if name is None:
        return None
    try:
        return read_generation_file(name)
    except InputError as error:
        return error


def template_date(case: Case) -> str | None:
    written = case.run.template.template_date
    try:
        datetime.date.fromisoformat(written or "2024-07-26")
    except ValueError:
        return f"{written!r} is not a date"
    return None


def completion_with_template(case: Case) -> str | None:
    template = case.run.template
    wanted = template.template_type == "completion" and template.template != "auto"
    return f"completion renders the texts alone, but template is {template.template}" if wanted else None


def merged_model_is_there(case: Case) -> list[Broken]:
    """A run must not come to its end and only then find that its merged model has no place."""
    run = case.run
    merges = run.export.merge_lora_and_save and run.tuning.finetuning_type == "lora" and run.run.do_train
    target = merged_directory(run.export.export_dir, run.run.output_dir) if merges else None
    set_aside = run.run.overwrite_output_dir and not run.export.export_dir
    if target is None or set_aside or not target.is_dir() or not any(target.iterdir()):
        return []
    field = "export_dir" if run.export.export_dir else "merge_lora_and_save"
    return [Broken(field, f"the merged model would go to {target}, which is not empty")]


def merged_directory(export_dir: str | None, output_dir: str | None) -> Path | None:
    """Where merge_lora_and_save writes."""
    if export_dir:
        return Path(os.path.expanduser(export_dir))
    return Path(os.path.expanduser(output_dir)) / "merged" if output_dir else None


def tokenizer_not_found(case: Case) -> str | None:
    name = case.run.tokenizer.tokenizer_name_or_path
    if name is None or os.path.isdir(os.path.expanduser(name)):
        return None
    is_path = name.startswith(("/", ".", "~")) or name.count("/") > 1 or name.endswith("/") or os.path.exists(name)
    return f"no such directory: {name}" if is_path else None


_ANSWERS: tuple[Purpose, ...] = ("train", "eval", "predict", "chat")

RULES = (
    Rule("unusable-generation-file", ("generation_config",), unusable_generation_file, purposes=_ANSWERS),
    Rule("generation-file-contradicts", ("generation_config", *FIELDS), generation_file_contradicts, "keep one of them",
         purposes=_ANSWERS),
    Rule("template-date", ("template_date",), template_date, "write it as 2024-07-26"),
    Rule("completion-with-template", ("template_type", "template"), completion_with_template,
         "remove template, or set template_type: chat"),
    Rule("merged-model-is-there", ("merge_lora_and_save", "export_dir", "output_dir"), merged_model_is_there,
         "name a new directory with export_dir; nothing is overwritten", purposes=("train",)),
    Rule("tokenizer-not-found", ("tokenizer_name_or_path",), tokenizer_not_found, "give an existing directory or a hub id",
         purposes=("train", "eval", "predict", "chat", "export", "preview")),
)
