"""Named converters between a vocabulary's form of a value and ours, each with its inverse. Standard library only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from tunewright.config.coerce import BadValueError
from tunewright.config.literals import read_literal, read_mapping, show, split_commas

ABSENT: Final = object()
"""What a converter returns for a value that means: not given."""

TRACKERS: Final = ("tensorboard",)
"""The trackers that `report_to: all` stands for."""


SWITCHES: Final = ("negate", "null_is_false", "adafactor_switch", "attention_switch")
"""Converters of names that are switches on the command line: true or false there, whatever they are here."""


@dataclass(frozen=True, slots=True)
class Converter:
    """`ours(value)` takes a vocabulary's value to our form and raises BadValueError; `theirs(value)` goes back. `words`: texts of the
    vocabulary that are not ours, to be offered for a misspelt one."""

    ours: Callable[[Any], Any]
    theirs: Callable[[Any], Any]
    words: tuple[str, ...] = ()


def _truth(raw: Any) -> bool:
    if isinstance(raw, str) and raw.strip().lower() in ("true", "false"):
        return raw.strip().lower() == "true"
    if not isinstance(raw, bool):
        raise BadValueError(f"{_quoted(raw)} is not true or false", "write true or false")
    return raw


def _is_null(raw: Any) -> bool:
    return raw is None or (isinstance(raw, str) and raw.strip().lower() in ("null", "none", "~"))


def _quoted(raw: Any) -> str:
    return f"'{raw}'" if isinstance(raw, str) else show(raw)


def _same(raw: Any) -> Any:
    return raw


def _comma_list(raw: Any) -> Any:
    return () if _is_null(raw) or raw == "" else raw


def _comma_text(value: Any) -> Any:
    if not value:
        return None
    if not all(isinstance(one, str) for one in value):
        return list(value)
    text = ",".join(value)
    return text if split_commas(text) == tuple(value) and text[0] not in "[{" else list(value)


def _negate(raw: Any) -> Any:
    return not _truth(raw)


def _mapping(raw: Any) -> Any:
    if _is_null(raw) or raw == "":
        return None
    try:
        return read_mapping(raw) or None
    except ValueError as error:
        raise BadValueError(str(error), "write a mapping, JSON, or key=value pairs with commas") from error


def _null_is(value: Any) -> Converter:
    return Converter(lambda raw: value if _is_null(raw) else raw, _same)


def _resume(absent: str) -> Callable[[Any], Any]:
    def ours(raw: Any) -> Any:
        if _is_null(raw):
            return absent if raw is None else "none"
        if raw is True or raw is False or (isinstance(raw, str) and raw.lower() in ("true", "false")):
            return "auto" if str(raw).lower() == "true" else "none"
        return raw

    return ours


def _listed(raw: Any) -> Any:
    """The items of a text: of a list, written as a literal, or separated by commas; any other value as it is."""
    if not isinstance(raw, str):
        return raw
    if raw.lstrip()[:1] != "[":
        return split_commas(raw)
    try:
        return read_literal(raw)
    except ValueError as error:
        raise BadValueError(str(error), "write names with commas") from error


def _trackers(raw: Any) -> Any:
    names = () if _is_null(raw) else _listed(raw)
    if isinstance(names, list | tuple) and list(names) in (["none"], ["all"]):
        return () if list(names) == ["none"] else TRACKERS
    return names


def _adafactor(raw: Any) -> Any:
    return "adafactor" if _truth(raw) else ABSENT


def _reentrant(raw: Any) -> Any:
    given = _mapping(raw)
    if given is None:
        return ABSENT
    if set(given) != {"use_reentrant"}:
        other = sorted(set(given) - {"use_reentrant"})
        raise BadValueError(f"the key '{other[0]}' is not built yet", "give use_reentrant only")
    return given["use_reentrant"]


_ATTENTION = {"eager": "disabled", "sdpa": "sdpa", "flash_attention_2": "fa2"}


def _attention_name(raw: Any) -> Any:
    return _ATTENTION.get(raw, raw) if isinstance(raw, str) else raw


def _attention_text(value: Any) -> Any:
    return {ours: theirs for theirs, ours in _ATTENTION.items()}.get(value, value)


def _attention_switch(raw: Any) -> Any:
    return "fa2" if _truth(raw) else "disabled"


def _sampling_strategy(raw: Any) -> Any:
    """How transformers today names the order of samples; rows in random order are not grouped, which is what saying nothing means."""
    if raw == "sequential":
        raise BadValueError("'sequential' has another name here", "write disable_shuffling: true instead")
    return {"random": ABSENT, "group_by_length": True}.get(raw, raw) if isinstance(raw, str) else raw


def _optimizer_name(raw: Any) -> Any:
    return "adamw_torch" if raw == "adamw" else raw


def _optimizer_today(raw: Any) -> Any:
    return "adamw_torch" if raw == "adamw_hf" else raw


def _backend_name(raw: Any) -> Any:
    return "huggingface" if raw == "hf" else raw


_TEMPLATE_ENDINGS = (".jinja", ".jinja2", ".j2")


def _template_path(raw: Any) -> Any:
    """A file's name in a form that cannot be taken for a template's name."""
    if _is_null(raw) or raw == "":
        return ABSENT
    return raw if not isinstance(raw, str) or raw.endswith(_TEMPLATE_ENDINGS) or "/" in raw else f"./{raw}"


def _owner(raw: Any) -> Any:
    return ABSENT if _is_null(raw) else f"{raw}/" if isinstance(raw, str) else raw


def _whole_steps(raw: Any) -> Any:
    """A number of steps in a vocabulary that has no fractions of the run."""
    try:
        number = float(raw)
    except (TypeError, ValueError):
        return raw
    if 0 < number < 1:
        raise BadValueError(f"{_quoted(raw)} is a fraction of the run, which this vocabulary does not have",
                            "write a whole number of steps")
    return raw


def _not_null(raw: Any) -> Any:
    """A value in a vocabulary in which null means nothing, although in ours it stands for a rule."""
    if _is_null(raw):
        raise BadValueError("null has no meaning in this vocabulary", "write a number, or leave it out for the default")
    return raw


def _bf16_weights(raw: Any) -> Any:
    return {"bf16": True, "fp32": False}.get(raw, raw) if isinstance(raw, str) else raw


def _rank_numbers(raw: Any) -> Any:
    """Every rank is -1 or nothing in the documents, and nothing here."""
    given = () if _is_null(raw) else _listed(raw)
    ranks = tuple(str(one) for one in (given if isinstance(given, list | tuple) else (given,)))
    return () if ranks == ("-1",) else ranks


_TEMPLATES_OF: Final[Mapping[str, str]] = {
    "qwen2_moe": "qwen2", "qwen3_moe": "qwen3", "mixtral": "mistral", "glm": "glm4", "chatglm": "chatglm3", "deepseek_v2": "deepseek",
    "gemma3": "gemma", "gemma3_text": "gemma",
}
"""`model_type` of a model's config.json -> the template of that family, where they have different names."""


def _model_type(raw: Any) -> Any:
    return _TEMPLATES_OF.get(raw.lower(), raw) if isinstance(raw, str) else raw


def _quantizer(raw: Any) -> Any:
    return "bitsandbytes" if _is_null(raw) or raw == "bnb" else raw


_DTYPES = {"fp32": "float32", "fp16": "float16", "half": "float16", "float": "float32", "bf16": "bfloat16"}


def _torch_dtype(raw: Any) -> Any:
    if not isinstance(raw, str):
        return raw
    name = raw.strip().removeprefix("torch.")
    return _DTYPES.get(name, name)


def _train_mode(raw: Any) -> Any:
    """What trains under `qlora` is LoRA; that the base model has 4 bits is another parameter (dialects.sft_json)."""
    return "lora" if isinstance(raw, str) and raw.strip().lower() == "qlora" else raw


CONVERTERS: Final[Mapping[str, Converter]] = {
    "backend_name": Converter(_backend_name, lambda value: "hf" if value == "huggingface" else value, ("hf",)),
    "template_path": Converter(_template_path, _same),
    "owner": Converter(_owner, _same),
    "comma_list": Converter(_comma_list, _comma_text),
    "comma_numbers": Converter(_comma_list, lambda value: ",".join(show(one) for one in value) or None),
    "bf16_weights": Converter(_bf16_weights, lambda value: "bf16" if value else "fp32", ("bf16", "fp32")),
    "rank_numbers": Converter(_rank_numbers, lambda value: [int(one) if one.isdecimal() else one for one in value] or [-1]),
    "negate": Converter(_negate, lambda value: not value),
    "mapping": Converter(_mapping, lambda value: dict(value) if value else None),
    "null_is_auto": Converter(_null_is("auto").ours, lambda value: None if value == "auto" else value),
    "null_is_false": _null_is(False),
    "null_is_absent": Converter(lambda raw: ABSENT if _is_null(raw) else raw, _same),
    "resume_path": Converter(_resume("auto"), lambda value: None if value == "auto" else False if value == "none" else value),
    "resume_or_none": Converter(_resume("none"), lambda value: None if value == "none" else value),
    "trackers": Converter(_trackers, lambda value: ",".join(value) if value else "none", ("all",)),
    "adafactor_switch": Converter(_adafactor, lambda value: value == "adafactor"),
    "reentrant_kwargs": Converter(_reentrant, lambda value: {"use_reentrant": value}),
    "attention_name": Converter(_attention_name, _attention_text, tuple(_ATTENTION)),
    "sampling_strategy": Converter(
        _sampling_strategy, lambda value: "group_by_length" if value else "random", ("random", "group_by_length")),
    "attention_switch": Converter(_attention_switch, lambda value: value == "fa2"),
    "optimizer_today": Converter(_optimizer_today, _same),
    "least_rate": Converter(_same, lambda value: 0.0 if value is None else value),
    "whole_steps": Converter(_whole_steps, _same),
    "whole_steps_not_null": Converter(lambda raw: _whole_steps(_not_null(raw)), _same),
    "model_type": Converter(_model_type, _same),
    "train_mode": Converter(_train_mode, _same, ("qlora",)),
    "not_null": Converter(_not_null, _same),
    "optimizer_name": Converter(_optimizer_name, lambda value: "adamw" if value == "adamw_torch" else value, ("adamw",)),
    "quantizer_name": Converter(_quantizer, _same),
    "quantizer_short": Converter(_quantizer, lambda value: "bnb" if value == "bitsandbytes" else value, ("bnb",)),
    "torch_dtype": Converter(_torch_dtype, lambda value: None if value is None else f"torch.{value}"),
}
