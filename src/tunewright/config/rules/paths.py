"""Rules on paths: what must exist, and what must be writable, before a model is opened."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from tunewright.config.derive import code_may_change
from tunewright.config.rules.rule import Broken, Case, Purpose, Rule
from tunewright.config.table import values

_PLACES: Final = (
    "model_name_or_path", "tokenizer_name_or_path", "adapter_name_or_path", "ref_model", "ref_model_adapters", "reward_model",
    "reward_model_adapters", "reward_funcs", "dataset", "eval_dataset", "dataset_dir", "tokenized_path", "data_cache_dir", "cache_dir",
    "template", "generation_config", "resume_from_checkpoint", "output_dir", "export_dir", "logging_dir", "profile_save_path")
"""Parameters whose texts may be paths."""
_LONGEST_NAME: Final = 255
"""Bytes of a file's name, on all file systems of today."""


def _home(place: str) -> str:
    """The path with `~` written out; what `os.path` asks of it is False, not an error, for a name that no file can have."""
    return os.path.expanduser(place)


def path_that_cannot_be(case: Case) -> list[Broken]:
    said = values(case.run)
    written = [(field, one) for field in _PLACES for one in ((said[field],) if isinstance(said[field], str) else said[field] or ())]
    return [Broken(field, *problem) for field, one in written if isinstance(one, str) and (problem := _impossible(one))]


def _impossible(place: str) -> tuple[str, str] | None:
    """Why no file can have this path, and what to do; None if one can. Addresses and lines of rows are not paths."""
    if "://" in place or "{" in place:
        return None
    if place.startswith("~") and _home(place) == place:
        return f"there is no user {place[1:].partition('/')[0]} here", "write the directory out"
    longest = max(place.split("/"), key=len)
    if len(os.fsencode(longest)) > _LONGEST_NAME:
        return f"{longest[:20]}... is longer than {_LONGEST_NAME} bytes, which no file's name is", "write a shorter one"
    return None


def output_is_a_file(case: Case) -> list[Broken]:
    places = {"output_dir": case.run.run.output_dir, "export_dir": case.run.export.export_dir, "logging_dir": case.run.logging.logging_dir}
    found = []
    for field, place in places.items():
        if place and not os.path.isdir(_home(place)) and os.path.exists(_home(place)):
            found.append(Broken(field, f"{place} is a file"))
        elif place and (blocked := _blocked_by(place)):
            found.append(Broken(field, f"{place} cannot be made: {blocked}"))
    return found


def _blocked_by(place: str) -> str | None:
    """Why a directory cannot be made there, or written to if it is there; None if nothing speaks against it."""
    at = Path(_home(place)).absolute()
    while not os.path.exists(at):
        at = at.parent
    if not at.is_dir():
        return f"{at} is a file"
    return None if os.access(at, os.W_OK | os.X_OK) else f"{at} is not writable"


def output_is_the_model(case: Case) -> list[Broken]:
    model = case.run.model.model_name_or_path
    if not model or not os.path.isdir(_home(model)):
        return []
    there = Path(_home(model)).resolve()
    places = {"output_dir": case.run.run.output_dir, "export_dir": case.run.export.export_dir}
    return [Broken(field, f"{place} is the directory of the model itself") for field, place in places.items()
            if place and Path(_home(place)).resolve() == there]


def model_not_found(case: Case) -> str | None:
    return _missing(case.run.model.model_name_or_path)


def reference_not_found(case: Case) -> str | None:
    return _missing(case.run.alignment.ref_model)


def _missing(model: str | None) -> str | None:
    """Why there is no model of that name; None for one that may be on a hub."""
    if not model or model == "demo" or os.path.isdir(_home(model)):
        return None
    if os.path.exists(_home(model)):
        return f"{model} is a file, not a model directory"
    is_path = model.startswith(("/", ".", "~", "\\")) or model.count("/") > 1 or model.endswith("/")
    return f"path not found: {model}" if is_path else None


def unpinned_code(case: Case) -> str | None:
    """Most models need no code of their own; models.load says so of one that does."""
    model = case.run.model
    return f"code that could change is not run, and model_revision is {model.model_revision}; the model is opened without it" if (
        code_may_change(case.run) and model_not_found(case) is None) else None


def adapter_not_found(case: Case) -> list[Broken]:
    return [Broken("adapter_name_or_path", reason) for adapter in case.run.model.adapter_name_or_path
            if (reason := _adapter_problem(adapter, case.run.model.adapter_folder))]


def _adapter_problem(adapter: str, folder: str | None) -> str | None:
    place = Path(_home(adapter))
    if not os.path.exists(place):
        is_path = adapter.startswith(("/", ".", "~")) or adapter.count("/") != 1
        return f"path not found: {adapter}" if is_path else None
    place = place / folder if folder else place
    if os.path.isfile(place / "adapter_config.json"):
        return None
    kept = sorted(one.parent.name for one in place.glob("*/adapter_config.json")) if place.is_dir() else []
    hint = f"; it holds {', '.join(kept[-3:])}" if kept else ""
    return f"{place} has no adapter_config.json{hint}"


def resume_not_found(case: Case) -> str | None:
    place = case.run.run.resume_from_checkpoint
    if place is None or place in ("auto", "none") or os.path.isfile(Path(_home(place)) / "manifest.json"):
        return None
    is_there = os.path.exists(_home(place))
    output = Path(_home(case.run.run.output_dir or "."))
    kept = sorted((one.name for one in output.glob("checkpoint-*")), key=lambda name: (len(name), name))
    have = f"{output} has {', '.join(kept[-3:])}" if kept else f"{output} has no checkpoint"
    return f"{place} is not a checkpoint: it has no manifest.json; {have}" if is_there else f"path not found: {place}; {have}"


def template_not_found(case: Case) -> str | None:
    template = case.run.template.template
    is_path = template.endswith((".jinja", ".jinja2", ".j2")) or "/" in template
    return f"path not found: {template}" if is_path and not os.path.isfile(_home(template)) else None


_OPENS_A_MODEL: tuple[Purpose, ...] = ("train", "eval", "predict", "chat", "export", "preview")

RULES = (
    Rule("path-that-cannot-be", _PLACES, path_that_cannot_be),
    Rule("output-is-a-file", ("output_dir", "export_dir", "logging_dir"), output_is_a_file, "name a directory that can be written",
         purposes=("train", "eval", "predict", "export")),
    Rule("output-is-the-model", ("output_dir", "export_dir", "model_name_or_path"), output_is_the_model, "name another directory",
         purposes=("train", "export")),
    Rule("model-not-found", ("model_name_or_path",), model_not_found, "give an existing directory, a hub id or demo",
         purposes=_OPENS_A_MODEL),
    Rule("reference-not-found", ("ref_model",), reference_not_found, "give an existing directory, a hub id or demo",
         purposes=("train", "eval")),
    Rule("unpinned-code", ("trust_remote_code", "model_revision", "model_name_or_path"), unpinned_code,
         "set model_revision to the 40-digit commit whose code you have read, or trust_remote_code: false", purposes=_OPENS_A_MODEL,
         is_error=False),
    Rule("adapter-not-found", ("adapter_name_or_path", "adapter_folder"), adapter_not_found, "give the directory of an adapter",
         purposes=_OPENS_A_MODEL),
    Rule("resume-not-found", ("resume_from_checkpoint", "output_dir"), resume_not_found, "give one of them, auto or none",
         purposes=("train",)),
    Rule("template-not-found", ("template",), template_not_found, "give an existing jinja file, a template's name or auto",
         purposes=_OPENS_A_MODEL),
)
