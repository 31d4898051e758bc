"""One bad input: what is wrong in a run that is ready, and what the answer must be; and ways to damage a file of it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

Spoil = Callable[[Path], object]

NATIVE: Final = {
    "model_name_or_path": "model", "dataset": "rows.jsonl", "output_dir": "out", "use_cpu": "true", "max_steps": "1",
    "data_cache_dir": "'none'"}
"""A run that is ready, one setting a line: what a case adds stands on line 7."""
LLAMAFACTORY: Final = {
    "stage": "sft", "do_train": "true", "finetuning_type": "lora", "model_name_or_path": "model", "dataset": "rows.jsonl",
    "output_dir": "out", "use_cpu": "true", "max_steps": "1"}
"""The same in the other vocabulary: what a case adds stands on line 9."""


@dataclass(frozen=True)
class Case:
    """One bad input.

    `settings` replace or follow those of a run that is ready (None takes one out); `spoil` damages files; `words` follow the
    configuration on the command line. `expected`: one entry for each line on stderr; its parts, separated by ` ... `, must stand
    in the line in that order, from its very beginning; what is between them is free.
    """

    name: str
    expected: tuple[str, ...]
    settings: Mapping[str, str | None] = field(default_factory=dict)
    words: tuple[str, ...] = ()
    spoil: Spoil | None = None
    code: int = 2


def case(name: str, *expected: str, words: str = "", spoil: Spoil | None = None, code: int = 2,
         **settings: str | None) -> Case:
    """A Case in one line."""
    return Case(name, expected, settings, tuple(words.split()), spoil, code)


def written(base: Mapping[str, str], settings: Mapping[str, str | None]) -> str:
    """A YAML file of the settings."""
    return "".join(f"{key}: {value}\n" for key, value in {**base, **settings}.items() if value is not None)


def put(name: str, content: str | bytes) -> Spoil:
    """Write a file."""

    def spoil(folder: Path) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())

    return spoil


def rows(name: str, *values: Any) -> Spoil:
    """Write JSON lines."""
    return put(name, "".join(json.dumps(value) + "\n" for value in values))


def change(name: str, **values: Any) -> Spoil:
    """Set keys of a JSON file; None takes one out."""

    def spoil(folder: Path) -> None:
        path = folder / name
        said = {**json.loads(path.read_text()), **values}
        path.write_text(json.dumps({key: value for key, value in said.items() if value is not None}))

    return spoil


def remove(*names: str) -> Spoil:
    """Delete files."""

    def spoil(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return spoil


def cut(name: str, size: int) -> Spoil:
    """Leave the first bytes of a file."""

    def spoil(folder: Path) -> None:
        path = folder / name
        path.write_bytes(path.read_bytes()[:size])

    return spoil


def sparse(name: str, numbers: int) -> Spoil:
    """A weights file with so many numbers, all of them in a hole of the file: only its size is real."""

    def spoil(here: Path) -> None:
        side = round(numbers**0.5)
        header = json.dumps({"model.embed_tokens.weight": {"dtype": "F32", "shape": [side, side], "data_offsets": [0, 4 * side * side]}})
        content = len(header).to_bytes(8, "little") + header.encode()
        (here / name).write_bytes(content)
        os.truncate(here / name, len(content) + 4 * side * side)

    return spoil


def every(*spoils: Spoil) -> Spoil:
    """One after the other."""

    def spoil(folder: Path) -> None:
        for one in spoils:
            one(folder)

    return spoil


def folder(name: str) -> Spoil:
    """Make an empty folder."""
    return lambda here: (here / name).mkdir(parents=True)


def adapter(name: str, *, rank: int = 2, hidden: int = 32, module: str = "model.layers.0.self_attn.q_proj", **fields: Any) -> Spoil:
    """Write a LoRA adapter of one module, by safetensors itself."""

    def spoil(here: Path) -> None:
        import numpy as np
        from safetensors.numpy import save_file

        (here / name).mkdir()
        config = {"peft_type": "LORA", "r": rank, "lora_alpha": 4, "target_modules": ["q_proj"], "base_model_name_or_path": "model",
            **fields}
        (here / name / "adapter_config.json").write_text(json.dumps(config))
        prefix = f"base_model.model.{module}"
        save_file({f"{prefix}.lora_A.weight": np.zeros((2, hidden), np.float32), f"{prefix}.lora_B.weight": np.zeros((hidden, 2),
            np.float32)},
                  here / name / "adapter_model.safetensors")

    return spoil
