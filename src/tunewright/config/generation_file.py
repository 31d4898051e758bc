"""A JSON file with generation settings in transformers' names, as models bring one along. Standard library only."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tunewright.config.coerce import BadValueError, coerce
from tunewright.config.table import nearest, table
from tunewright.errors import refuse, require

FIELDS: Final = (
    "do_sample", "temperature", "top_p", "top_k", "num_beams", "max_new_tokens", "max_length", "repetition_penalty", "length_penalty",
    "use_cache")
"""Settings that are parameters of ours."""

FURTHER: Final = (
    "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff", "min_length", "min_new_tokens", "early_stopping", "no_repeat_ngram_size",
    "bad_words_ids", "sequence_bias", "suppress_tokens", "begin_suppress_tokens", "renormalize_logits", "remove_invalid_values",
    "exponential_decay_length_penalty", "forced_eos_token_id", "guidance_scale")
"""Settings that are handed on to transformers as they are."""

_OF_THE_MODEL: Final = ("_from_model_config", "transformers_version", "bos_token_id", "pad_token_id", "decoder_start_token_id")
"""What a file says of its model and not of how to generate: prompts come with their first token, and padding is masked."""


@dataclass(frozen=True, slots=True)
class GenerationFile:
    """`fields`: parameters of ours by name. `further`: settings for transformers. `stop_ids`: token ids that end an answer too."""

    fields: Mapping[str, Any]
    further: Mapping[str, Any]
    stop_ids: tuple[int, ...]


def read_generation_file(name: str) -> GenerationFile:
    """The settings of the file; null means that it says nothing. Raises `InputError` naming the file and the key."""
    require("://" not in name, f"generation_config: {name} is an address; settings are not fetched from the network",
            mend="download the file and name it here")
    try:
        content = json.loads(Path(os.path.expanduser(name)).read_text(encoding="utf-8"))
    except OSError as error:
        refuse(f"generation_config: {name} cannot be read: {error.strerror}", mend="name a JSON file")
    except (ValueError, RecursionError) as error:
        line = error.lineno if isinstance(error, json.JSONDecodeError) else 1
        refuse(f"generation_config is not JSON: {getattr(error, 'msg', 'it is nested too deeply, or not UTF-8')}",
               where=f"{name}:{line}", mend="correct the file")
    if not isinstance(content, dict):
        refuse("generation_config: an object from names to values wanted", where=name, mend="write {\"temperature\": 0.7} or the like")
    given = {key: value for key, value in content.items() if value is not None and key not in _OF_THE_MODEL}
    known = (*FIELDS, *FURTHER, "eos_token_id")
    for key in given:
        if key not in known:
            close = nearest(key, known, 1)
            refuse(f"generation_config: {key} is not a setting that is honoured", where=name,
                   mend=f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}")
    fields = {key: _coerced(key, value, name) for key, value in given.items() if key in FIELDS}
    return GenerationFile(fields, {key: given[key] for key in FURTHER if key in given}, _stop_ids(given.get("eos_token_id"), name))


def _coerced(key: str, value: Any, where: str) -> Any:
    try:
        return coerce(table()[key], value)
    except BadValueError as error:
        refuse(f"generation_config: {key}: {error.what}", where=where, mend=error.mend)


def _stop_ids(value: Any, where: str) -> tuple[int, ...]:
    several = [] if value is None else value if isinstance(value, list) else [value]
    require(all(isinstance(one, int) and not isinstance(one, bool) for one in several),
            "generation_config: eos_token_id: an integer or a list of integers wanted", where=where, mend="correct the file")
    return tuple(several)
