"""Ways to damage one file of the workspace."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

Spoil = Callable[[Path], object]


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
