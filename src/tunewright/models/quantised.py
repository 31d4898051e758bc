"""Checkpoints whose weights are quantised already: what config.json and the headers of their files say. Standard library only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tunewright.errors import refuse, require

BITSANDBYTES: Final = "bitsandbytes"
"""The one kind of quantised checkpoint that is opened."""

_PACKAGES: Final[Mapping[str, str]] = {
    "gptq": "gptqmodel", "awq": "gptqmodel", "hqq": "hqq", "eetq": "kernels", "aqlm": "aqlm", "vptq": "vptq", "quanto": "optimum-quanto",
    "torchao": "torchao", "compressed-tensors": "compressed-tensors", "auto-round": "auto-round", "spqr": "spqr_quant",
}
"""Method -> the package that reads such weights elsewhere."""

_FLOATS: Final = ("float32", "bfloat16", "float16")
_SETTINGS: Final[Mapping[str, tuple[Any, ...]]] = {
    "load_in_4bit": (True, False), "load_in_8bit": (True, False), "bnb_4bit_quant_type": ("nf4", "fp4"),
    "bnb_4bit_use_double_quant": (True, False), "bnb_4bit_compute_dtype": _FLOATS, "bnb_4bit_quant_storage": ("uint8", *_FLOATS),
}
"""What is read of a foreign file's settings besides the list of float modules and the threshold, with the values each may have."""
_STATE: Final = ".quant_state.bitsandbytes__"
_LARGEST_STATE: Final = 4096


@dataclass(frozen=True, slots=True)
class Quantised:
    """The method and the number of bits of a checkpoint's weights."""

    method: str
    bits: int

    def __str__(self) -> str:
        return f"{self.method}, {self.bits} bits"


def quantised(config: Mapping[str, Any]) -> Quantised | None:
    """What a checked `config.json` says of its weights; None for floats."""
    said = config.get("quantization_config")
    return None if said is None else Quantised(said["quant_method"], 4 if said["load_in_4bit"] else 8)


def with_known_quantisation(config: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """`config` with nothing in `quantization_config` but what bitsandbytes' weights need; without the key where it is null.

    Raises `InputError` for another method, naming its package, and for values that no writer writes.
    """
    said = config.get("quantization_config")
    if said is None:
        return {key: value for key, value in config.items() if key != "quantization_config"}
    method = said.get("quant_method", "an unnamed method") if isinstance(said, Mapping) else "an unnamed method"
    if not isinstance(method, str):
        method = "an unnamed method"
    if method != BITSANDBYTES:
        package = f"; they need the package {_PACKAGES[method]}, which is not used here" if method in _PACKAGES else ""
        refuse(f"the weights are quantised ({method}), and only those of bitsandbytes can be opened{package}", where=str(file),
               mend="use the unquantised model, with quantization_bit where memory is short")
    return {**config, "quantization_config": _settings(said, file)}


def shape_in_state(file: Path, header: Mapping[str, Mapping[str, Any]], name: str) -> tuple[str, tuple[int, ...]]:
    """The weight that the tensor `name`, a state of bitsandbytes, belongs to, and the shape it has as numbers."""
    first, last = header[name]["data_offsets"]
    require(last - first <= _LARGEST_STATE, f"weights file damaged: {file}: {name} has {last - first} bytes", mend="fetch the file again")
    with file.open("rb") as stream:
        start = 8 + int.from_bytes(stream.read(8), "little") + first
        stream.seek(start)
        try:
            shape = json.loads(stream.read(last - first))["shape"]
        except (ValueError, KeyError, TypeError):
            shape = None
    is_shape = isinstance(shape, list) and all(isinstance(size, int) and size > 0 for size in shape)
    require(is_shape, f"weights file damaged: {file}: {name} holds no shape", mend="fetch the file again")
    return name.partition(_STATE)[0], tuple(shape or ())


def shapes_in(file: Path, header: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every weight of a file, of packed ones that of the numbers; without the tensors that only say how to unpack."""
    packed = dict(shape_in_state(file, header, name) for name in header if _STATE in name)
    helpers = tuple(f"{name}." for name in packed)
    rows = {f"{name.removesuffix('.SCB')}.{one}" for name in header if name.endswith(".SCB") for one in ("SCB", "weight_format")}
    plain = {name: tuple(entry["shape"]) for name, entry in header.items() if name not in rows and not name.startswith(helpers or ("\0",))}
    return {**plain, **packed}


def _settings(said: Mapping[str, Any], file: Path) -> dict[str, Any]:
    kept = {key: said[key] for key in _SETTINGS if said.get(key) is not None}
    for key, value in kept.items():
        allowed = value in _SETTINGS[key] and isinstance(value, bool) == isinstance(_SETTINGS[key][0], bool)
        require(allowed, f"{key} is {value!r}", where=str(file), mend="the file is damaged or hostile: fetch the model again")
    four, eight = kept.get("load_in_4bit", False), kept.get("load_in_8bit", False)
    require(four != eight, "quantization_config wants neither 4 bits nor 8, or both", where=str(file), mend="fetch the model again")
    skipped, threshold = said.get("llm_int8_skip_modules"), said.get("llm_int8_threshold", 6.0)
    require(skipped is None or (isinstance(skipped, list) and all(isinstance(name, str) for name in skipped)),
            "llm_int8_skip_modules is no list of names", where=str(file), mend="fetch the model again")
    require(isinstance(threshold, int | float), f"llm_int8_threshold is {threshold!r}", where=str(file), mend="fetch the model again")
    return {**kept, "load_in_4bit": four, "load_in_8bit": eight, "llm_int8_skip_modules": skipped, "llm_int8_threshold": float(threshold),
            "quant_method": BITSANDBYTES}
