"""Finds a model's directory and checks its files before a weight is read. Standard library only.

Model directories are untrusted: `config.json` may hold keys that steer the loader (attention kernels fetched from the
network, remote code) or sizes that would build for minutes. What is refused and what is stripped is listed here.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterator, Mapping
from operator import itemgetter
from pathlib import Path
from typing import Any, Final, NoReturn, cast

from tunewright.config.model import ModelConfig
from tunewright.errors import refuse, require
from tunewright.models.quantised import with_known_quantisation

SIZE_RANGES: Final[Mapping[str, tuple[int, int]]] = {
    "num_hidden_layers": (1, 1024), "n_layer": (1, 1024), "num_layers": (1, 1024),
    "hidden_size": (1, 2**17), "n_embd": (1, 2**17), "intermediate_size": (1, 2**20), "moe_intermediate_size": (1, 2**20),
    "num_attention_heads": (1, 2**12), "n_head": (1, 2**12), "num_key_value_heads": (1, 2**12), "head_dim": (1, 2**14),
    "vocab_size": (2, 2**24), "max_position_embeddings": (1, 2**31), "n_positions": (1, 2**31),
    "num_experts": (1, 2**14), "num_local_experts": (1, 2**14), "n_routed_experts": (1, 2**14),
    "num_experts_per_tok": (1, 2**14), "sliding_window": (1, 2**31),
}
"""Sizes of a configuration and the range each must lie in; null is allowed, other types than integers are not."""

STEERING_KEYS: Final = frozenset({
    "attn_implementation", "experts_implementation", "auto_map", "trust_remote_code", "use_kernels", "custom_pipelines",
})
"""Keys of a foreign config.json that would choose code; dropped at every depth, with all `_attn_implementation*`."""

HUB_ID: Final = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
"""What may be the name of a hub repository."""
_COMMIT: Final = re.compile(r"[0-9a-f]{40}")
_DEEPEST: Final = 64
"""Levels of a JSON file that any model has a use for; what walks over it may be recursive."""
_LONGEST_HEADER: Final = 100_000_000
"""Bytes of a safetensors header; the limit of its own library."""
_MOST_AXES: Final = 32
INDEX: Final = "model.safetensors.index.json"
_WEIGHTS: Final = ["*.safetensors", "*.safetensors.index.json", "*.json", "*.jinja", "*.model", "*.txt"]


def find_model(model: ModelConfig) -> Path:
    """The local directory of the model: a directory, the demo model, or the snapshot of a hub id.

    Raises `InputError` if there is none, or if remote code of a hub model is trusted without a pinned commit.
    """
    name = model.model_name_or_path
    if not name:
        refuse("no model is given", mend="set model_name_or_path to a directory, a hub id or `demo`")
    if name == "demo":
        from tunewright.models import demo_model

        return demo_model.ensure()
    path = Path(name).expanduser()
    if path.is_dir():
        return path.resolve()
    require(not path.exists(), f"model_name_or_path: {name} is a file, not a model directory",
            mend="give the directory; a GGUF file goes into gguf_file")
    require(HUB_ID.fullmatch(name) is not None, f"model_name_or_path: path not found: {name}",
            mend="give an existing directory or a hub id such as `org/name`")
    require(not model.trust_remote_code or _COMMIT.fullmatch(model.model_revision) is not None,
            f"trust_remote_code with the hub model {name} needs a pinned commit, but model_revision is {model.model_revision}",
            mend="set model_revision to the 40-digit commit whose code you have read")
    patterns = [model.gguf_file, *_WEIGHTS[2:]] if model.gguf_file else list(_WEIGHTS)
    return download("model_name_or_path", name, model, [*patterns, "*.py"] if model.trust_remote_code else patterns)


def download(parameter: str, name: str, model: ModelConfig, patterns: list[str]) -> Path:
    """The local snapshot of a hub repository, files matching `patterns` only. Raises `InputError` if the hub has it not."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, revision=model.model_revision, cache_dir=model.cache_dir, allow_patterns=patterns))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        refuse(f"{parameter}: {name} is no directory here, and the hub did not give it ({reason})",
               mend="check the spelling, model_revision and the network")


def check_directory(directory: Path) -> dict[str, Any]:
    """The cleaned `config.json` of a model directory, once its sizes and its weights files have been checked.

    Raises `InputError` on: no config.json, broken JSON, sizes out of range, weights quantised in a way that is not read,
    pickled or missing or truncated weights files.
    """
    values = check_config(directory)
    check_weights(directory)
    return values


def check_config(directory: Path) -> dict[str, Any]:
    """The cleaned `config.json` of a model directory, once its sizes have been checked; its weights files may be absent."""
    config = read_config_json(directory)
    check_sizes(config, directory / "config.json")
    return without_steering(with_known_quantisation(config, directory / "config.json"))


def read_config_json(directory: Path) -> dict[str, Any]:
    """The object in `config.json`, unchecked. Raises `InputError` if it is absent or not a JSON object."""
    file = directory / "config.json"
    if not file.is_file():
        mend = "give the directory that holds config.json"
        inner = sorted(path.parent.name for path in directory.glob("*/config.json"))
        refuse(f"model directory {directory} has no config.json", mend=f"{mend}; did you mean {inner[0]}?" if inner else mend)
    return read_json_object(file)


def read_json_object(file: Path) -> dict[str, Any]:
    """The JSON object in `file`. Raises `InputError` naming line and column if it is something else."""
    try:
        loaded = json.loads(file.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        refuse(f"not valid JSON: {error.msg} (column {error.colno})", where=f"{file}:{error.lineno}", mend="fetch the file again")
    except UnicodeDecodeError as error:
        refuse(f"not UTF-8 text: {error.reason} at byte {error.start}", where=str(file), mend="fetch the file again")
    except ValueError:
        refuse("holds a number of thousands of digits", where=str(file), mend="the file is damaged or hostile: fetch it again")
    except RecursionError:
        _too_deep(file)
    if _is_deeper(loaded, _DEEPEST):
        _too_deep(file)
    if not isinstance(loaded, dict):
        refuse(f"holds a {type(loaded).__name__}, not an object", where=str(file), mend="fetch the file again")
    return loaded


def _too_deep(file: Path) -> NoReturn:
    refuse(f"nested deeper than {_DEEPEST} levels", where=str(file), mend="the file is damaged or hostile: fetch it again")


def _is_deeper(value: Any, levels: int) -> bool:
    """Whether lists and objects lie inside each other more than `levels` deep."""
    inside = [value] if isinstance(value, dict | list) else []
    for _ in range(levels + 1):
        inside = [one for held in inside for one in (held.values() if isinstance(held, dict) else held) if isinstance(one, dict | list)]
        if not inside:
            return False
    return True


def check_sizes(config: Mapping[str, Any], file: Path) -> None:
    """Raise `InputError` unless every known size in `config`, at any depth, is an integer within its range."""
    for key, value in _entries(config):
        if key not in SIZE_RANGES or value is None or (isinstance(value, list) and key == "num_key_value_heads"):
            continue
        low, high = SIZE_RANGES[key]
        is_size = isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
        require(is_size, f"{key} is {value!r}, not an integer from {low} to {high}", where=str(file),
                mend="the file is damaged or hostile: fetch the model again")


def without_steering(config: Mapping[str, Any]) -> dict[str, Any]:
    """`config` without the keys by which a foreign file would choose code, at every depth."""
    return {
        key: without_steering(value) if isinstance(value, Mapping) else value
        for key, value in config.items()
        if key not in STEERING_KEYS and not key.startswith("_attn_implementation")
    }


def check_weights(directory: Path) -> None:
    """Raise `InputError` unless the safetensors files are all there and as long as their headers say."""
    if (directory / INDEX).is_file():
        for name in shards_of(directory):
            read_tensor_header(directory / name)
    elif (directory / "model.safetensors").is_file():
        read_tensor_header(directory / "model.safetensors")
    else:
        pickled = sorted(path.name for path in directory.glob("*.bin"))
        gguf = sorted(path.name for path in directory.glob("*.gguf"))
        mend = "fetch the model again"
        mend = f"{pickled[0]} is a pickle, which is never loaded: convert it to safetensors" if pickled else mend
        mend = f"set gguf_file: {gguf[0]}" if gguf else mend
        refuse(f"model directory {directory} has no model.safetensors", mend=mend)


def shards_of(directory: Path) -> list[str]:
    """The names of the weights files that the index of a directory names. Raises `InputError` for one that is elsewhere."""
    index = directory / INDEX
    shards = read_json_object(index).get("weight_map", {})
    require(isinstance(shards, dict) and bool(shards) and all(isinstance(name, str) for name in shards.values()),
            "has no weight_map", where=str(index), mend="fetch the file again")
    for name in shards.values():
        require(Path(name).name == name, f"names a weights file outside the directory: {name}", where=str(index),
                mend="the file is hostile: do not use this model")
    return sorted(set(shards.values()))


def read_tensor_header(file: Path) -> dict[str, dict[str, Any]]:
    """Name -> {dtype, shape, data_offsets} of a safetensors file whose length agrees with its header.

    Raises `InputError` naming the file and the bytes it should have and has, or the tensor that is not described as the format wants:
    a shape, and a place behind that of the tensor before it.
    """
    if not file.is_file():
        refuse(f"weights file missing: {file}", mend="fetch the model again")
    have = file.stat().st_size
    with file.open("rb") as stream:
        start = stream.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if start == b"version ":
            refuse(f"{file} is a Git LFS pointer, not the weights", mend="run: git lfs pull")
        if length < 2 or 8 + length > have:
            refuse(f"weights file truncated or not safetensors: {file}: its header needs {8 + length} bytes, it has {have}",
                   mend="fetch the file again")
        require(length <= _LONGEST_HEADER, f"weights file damaged: {file}: its header has {length} bytes, more than {_LONGEST_HEADER}",
                mend="fetch the file again")
        try:
            header = json.loads(stream.read(length))
        except (ValueError, RecursionError):
            refuse(f"weights file damaged: {file}: its header is not JSON", mend="fetch the file again")
    require(isinstance(header, dict), f"weights file damaged: {file}: its header is not an object", mend="fetch the file again")
    header.pop("__metadata__", None)
    want = 8 + length + _end_of_tensors(header, file)
    require(have == want, f"weights file truncated or damaged: {file}: needs {want} bytes, has {have}",
            mend="fetch the file again")
    return cast("dict[str, dict[str, Any]]", header)


def _end_of_tensors(header: Mapping[str, Any], file: Path) -> int:
    """Where the last tensor ends, once each is known to have a shape and to begin where the one before it ends."""
    for name, entry in header.items():
        is_good = isinstance(entry, dict) and isinstance(entry.get("dtype"), str) and _are_sizes(entry.get("shape"), _MOST_AXES) and (
            _are_sizes(entry.get("data_offsets"), 2) and len(entry["data_offsets"]) == 2)
        require(is_good, f"weights file damaged: {file}: {name!r} has no dtype, shape and place", mend="fetch the file again")
    end = 0
    for name, (first, last) in sorted(((name, entry["data_offsets"]) for name, entry in header.items()), key=itemgetter(1)):
        require(first == end <= last, f"weights file damaged: {file}: {name!r} lies at bytes {first} to {last}, the tensor before it "
                f"ends at {end}", mend="fetch the file again")
        end = last
    return end


def _are_sizes(value: Any, most: int) -> bool:
    return isinstance(value, list) and len(value) <= most and all(
        isinstance(one, int) and not isinstance(one, bool) and 0 <= one < 2**63 for one in value)


def check_path_fields(directory: Path) -> None:
    """Raise `InputError` if a `*_file` field of tokenizer_config.json leaves the directory (it would be read and saved)."""
    file = directory / "tokenizer_config.json"
    if not file.is_file():
        return
    for key, value in _entries(read_json_object(file)):
        if key.endswith("_file") and isinstance(value, str) and value:
            inside = (directory / value).resolve().is_relative_to(directory.resolve())
            require(inside and not Path(value).is_absolute(), f"{key} names a file outside the model directory: {value}",
                    where=str(file), mend="the file is hostile: do not use this model")


def _entries(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        yield key, value
        if isinstance(value, Mapping):
            yield from _entries(value)
