"""What differs between the directories of two runs that should have come to the same end, number by number; times do not count."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from torch import Tensor

UNLIKE: Final = frozenset({".tunewright.lock", "run.json", "README.md"})
"""Files of two runs that are never the same: who held the lock, the run's id, the card with its times."""
TIMED: Final = ("runtime", "per_second", "elapsed_s", "elapsed_time", "remaining_time", "throughput", "peak_memory_gb", "run_id", "digest",
                "files")
"""Ends of the names under which JSON files hold times, the run's id, and sizes and hashes of files that hold such."""
_LONGEST: Final = 60


def checkpoints(output_dir: Path) -> dict[int, Path]:
    """Step -> checkpoint, in order."""
    found = {int(path.name.rpartition("-")[2]): path for path in output_dir.glob("checkpoint-*") if path.name.rpartition("-")[2].isdigit()}
    return dict(sorted(found.items()))


def differences(one: Path, other: Path) -> list[str]:
    """A line for each thing that is not in output directory `other` as it is in `one`: of the last checkpoints every file, and of what lies
    beside them weights, logs and figures. Empty where the runs are the same, bit for bit."""
    first, second = checkpoints(one), checkpoints(other)
    last, its = max(first, default=0), max(second, default=0)
    if last != its:
        return [f"the last checkpoint is of step {its} instead of {last}"]
    found = directory_differences(first[last], second[last]) if first else []
    return [*(f"checkpoint-{last}/{line}" for line in found), *directory_differences(one, other)]


def first_difference(one: Path, other: Path) -> str:
    """Where two runs part: the first line about the earliest step of which the checkpoints of both are there and differ, else about their
    ends; empty where there is none."""
    first, second = checkpoints(one), checkpoints(other)
    for step in first:
        if step in second and (found := directory_differences(first[step], second[step])):
            return f"step {step}: {headed(found)}"
    return headed(found) if (found := differences(one, other)) else ""


def directory_differences(one: Path, other: Path) -> list[str]:
    """The same of the files that lie in two directories, without those in folders below."""
    names = {path.name for folder in (one, other) for path in folder.iterdir() if path.is_file()}
    return [line for name in sorted(names) if name not in UNLIKE and not name.endswith(".png")
            for line in file_differences(one / name, other / name)]


def file_differences(one: Path, other: Path) -> Iterator[str]:
    """The same of two files, which have one name."""
    name = one.name
    if not (one.is_file() and other.is_file()):
        yield f"{name}: {'there' if other.is_file() else 'missing'}"
    elif one.read_bytes() == other.read_bytes():
        return
    elif name.endswith(".safetensors"):
        yield from (f"{name}: {line}" for line in _in_tensors(one, other))
    elif name.endswith((".json", ".jsonl")):
        found = list(_in_values("", *(_timeless(_values(path)) for path in (one, other))))
        more = f" and {len(found) - 1} more" if len(found) > 1 else ""
        yield from (f"{name}: {line}{more}" for line in found[:1])
    else:
        yield f"{name}: other bytes"


def headed(lines: list[str]) -> str:
    """Weights tell more than logs: the first line about tensors, if there is one, and how many there are besides."""
    told = next((line for line in lines if ".safetensors: " in line), lines[0])
    return f"{told}; {len(lines)} differences" if len(lines) > 1 else told


def _in_tensors(one: Path, other: Path) -> Iterator[str]:
    """A line for each tensor: how many of its numbers differ, and by how much."""
    from safetensors.torch import load_file

    first, second = load_file(one), load_file(other)
    found = [(name, tensor_difference(first[name], second[name]) if name in first and name in second
              else "there" if name in second else "missing") for name in sorted({*first, *second})]
    yield from (f"{name}: {what}" for name, what in found if what)
    if not any(what for _, what in found):
        yield "the same tensors with another header"


def tensor_difference(one: Tensor, other: Tensor) -> str:
    """How many numbers differ in their bits, and the largest difference; empty for none."""
    if one.dtype != other.dtype or one.shape != other.shape:
        return f"{_kind(other)} instead of {_kind(one)}"
    apart = int((_bytes(one) != _bytes(other)).any(dim=1).sum())
    if not apart:
        return ""
    largest = float((one.double() - other.double()).abs().max())
    return f"{apart} of {one.numel()} numbers differ, by up to {largest:.3g}"


def _kind(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"


def _bytes(tensor: Tensor) -> Tensor:
    """[numbers, bytes of each]."""
    import torch

    return tensor.contiguous().flatten().view(torch.uint8).reshape(tensor.numel(), tensor.element_size())


def _values(path: Path) -> Any:
    """What a JSON file holds; of JSON lines a list."""
    text = path.read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()] if path.suffix == ".jsonl" else json.loads(text)


def _timeless(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _timeless(one) for name, one in value.items() if not name.endswith(TIMED)}
    return [_timeless(one) for one in value] if isinstance(value, list) else value


def _in_values(place: str, one: Any, other: Any) -> Iterator[str]:
    """A line for each value that differs, with its place."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        pairs = [(name, one.get(name), other.get(name)) for name in sorted({*one, *other})]
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        pairs = [(str(number), *both) for number, both in enumerate(zip(one, other, strict=True))]
    else:
        if one != other and not (one != one and other != other):  # two that are no numbers are the same
            yield f"{place or 'the whole'}: {_shown(other)} instead of {_shown(one)}"
        return
    for name, first, second in pairs:
        yield from _in_values(f"{place}.{name}" if place else name, first, second)


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST - 3]}..."
