"""What can be known of a model before it is opened: family, tokenizer, vocabulary, chat template, shapes of its weights.

Standard library only; what transformers knows is read from its source, because importing it takes seconds.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from tunewright.errors import refuse, require
from tunewright.models.directory import INDEX, read_config_json, read_json_object, read_tensor_header, shards_of
from tunewright.models.gguf_header import read_gguf_header
from tunewright.models.quantised import shapes_in

TOKENIZER_FILES: Final = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "tekken.json")
"""A directory with none of these has no tokenizer."""
_FAMILIES: Final = ("models/auto/auto_mappings.py", "models/auto/configuration_auto.py")
_ROPES: Final = "modeling_rope_utils.py"
_FURTHER_ROPES: Final = frozenset({"default", "mrope", "su"})
"""Names that transformers understands without a function of that name."""


def check_family(directory: Path) -> None:
    """Raise `InputError` if config.json names a family or a position embedding that the installed transformers does not have."""
    config, where = read_config_json(directory), str(directory / "config.json")
    kind, known = config.get("model_type"), _families()
    close = get_close_matches(str(kind), known, n=1, cutoff=0.6)
    require(not known or kind in known, f"model_type is {kind!r}, which the installed transformers does not know", where=where,
            mend=(f"did you mean {close[0]}? Otherwise " if close else "") + "use a newer transformers, or trust_remote_code if you "
            "have read the model's own code")
    for rope in _rope_types(config):
        if rope not in _FURTHER_ROPES:
            ropes = _rope_functions()
            require(not ropes or rope in ropes, f"rope_type is {rope!r}, not one of {', '.join(sorted({'default', *ropes}))}", where=where,
                    mend="the file is damaged, or made for a newer transformers")


def check_tokenizer(directory: Path) -> None:
    """Raise `InputError` if there is no tokenizer, or it can make an id that has no row in the embedding.

    Special tokens beyond the vocabulary are let pass: text never becomes one, and some text models keep those of their
    family's image models.
    """
    require_tokenizer_files(directory)
    if not (directory / "tokenizer.json").is_file():
        return
    rows = _vocabulary_size(read_config_json(directory))
    highest, token = max(_ids(read_json_object(directory / "tokenizer.json")), default=(0, ""))
    require(rows is None or highest < rows, f"vocab_size is {rows}, but the tokenizer makes ids up to {highest} ({token!r})",
            where=str(directory / "config.json"), mend="use the tokenizer that belongs to the model, or set resize_vocab: true")


def require_tokenizer_files(directory: Path) -> None:
    """Raise `InputError` if there is no tokenizer."""
    require(any((directory / name).is_file() for name in TOKENIZER_FILES), f"model directory {directory} has no tokenizer files",
            mend=f"one of {', '.join(TOKENIZER_FILES)} is needed")


def own_template(directory: Path) -> tuple[str, Path] | None:
    """The tokenizer's own chat template and the file that holds it; None if it has none."""
    file = directory / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8", errors="replace"), file
    for name in ("chat_template.json", "tokenizer_config.json"):
        if (directory / name).is_file():
            said = read_json_object(directory / name).get("chat_template")
            listed = [one for one in said if isinstance(one, Mapping)] if isinstance(said, list) else []
            several = {str(one.get("name")): one.get("template") for one in listed}
            text = several.get("default") if several else said
            if isinstance(text, str) and text:
                return text, directory / name
    return None


def tensor_shapes(directory: Path) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every weight in the weights files, from their headers; of packed ones that of the numbers."""
    names = shards_of(directory) if (directory / INDEX).is_file() else ["model.safetensors"]
    return {name: shape for file in names for name, shape in shapes_in(directory / file, read_tensor_header(directory / file)).items()}


def require_gguf(directory: Path, name: str) -> None:
    """Raise `InputError` unless the directory holds the GGUF file, whole as far as its header tells."""
    there = ", ".join(sorted(path.name for path in directory.glob("*.gguf"))) or "none"
    if not ((directory / name).is_file() and Path(name).name == name):
        refuse(f"gguf_file: no file {name} in {directory}", mend=f"there are: {there}")
    read_gguf_header(directory / name)


def _ids(said: Mapping[str, Any]) -> Iterator[tuple[int, str]]:
    """Every id of a tokenizer.json with its token, but special ones."""
    model = said.get("model")
    vocabulary = model.get("vocab") if isinstance(model, Mapping) else None
    if isinstance(vocabulary, Mapping):
        yield from ((number, token) for token, number in vocabulary.items() if isinstance(number, int))
    elif isinstance(vocabulary, list):
        yield len(vocabulary) - 1, str(vocabulary[-1:])
    added = said.get("added_tokens")
    for entry in added if isinstance(added, list) else []:
        if isinstance(entry, Mapping) and isinstance(entry.get("id"), int) and not entry.get("special"):
            yield entry["id"], str(entry.get("content"))


def _vocabulary_size(config: Mapping[str, Any]) -> int | None:
    inner = config.get("text_config")
    size = config.get("vocab_size", inner.get("vocab_size") if isinstance(inner, Mapping) else None)
    return size if isinstance(size, int) else None


def _rope_types(config: Mapping[str, Any]) -> Iterator[str]:
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _rope_types(value)
            if key == "rope_scaling" and isinstance(value.get("type"), str) and "rope_type" not in value:
                yield value["type"]
        elif key == "rope_type" and isinstance(value, str):
            yield value


@cache
def _families() -> frozenset[str]:
    """Every key of every table in the files that map a `model_type` to its class; empty if they are not there."""
    return frozenset(key for file in _FAMILIES for key in _first_constants(_source(file)))


@cache
def _rope_functions() -> frozenset[str]:
    """The keys of the table of position embeddings; empty if it is not written as expected."""
    typed = (node for node in _source(_ROPES).body if isinstance(node, ast.AnnAssign))
    return frozenset(key for table in typed if ast.unparse(table.target) == "ROPE_INIT_FUNCTIONS" for key in _first_constants(table))


def _source(file: str) -> ast.Module:
    package = find_spec("transformers")
    path = Path(next(iter(package.submodule_search_locations or ()), "")) / file if package else None
    return ast.parse(path.read_text(encoding="utf-8") if path is not None and path.is_file() else "")


def _first_constants(tree: ast.AST) -> Iterator[str]:
    """Keys of `{key: ...}` and first members of `(key, ...)`."""
    for node in ast.walk(tree):
        firsts = node.keys if isinstance(node, ast.Dict) else node.elts[:1] if isinstance(node, ast.Tuple) else []
        yield from (key.value for key in firsts if isinstance(key, ast.Constant) and isinstance(key.value, str))
