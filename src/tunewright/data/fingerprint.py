"""What the tokens of a data set depend on, as texts and digests for the token cache."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunewright import __version__
from tunewright.data.cache import Fingerprint, file_digest
from tunewright.data.control_tokens import ADDED_TOKENS
from tunewright.data.formats.layout import Layout
from tunewright.data.sources import Settled

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_WITHOUT_EFFECT_ON_TOKENS = {
    "audit.py", "cache.py", "collate.py", "collate_feedback.py", "collate_pairs.py", "collate_prompts.py", "data_sets.py", "fingerprint.py",
    "kept_sets.py", "marks.py", "mixing.py", "packed_set.py", "packing.py", "pipeline.py", "prepared.py", "probe.py", "sampling.py",
    "sequences.py", "single_answers.py", "spread.py", "token_folder.py", "tokenized_path.py", "workers.py",
}
_LIBRARIES = ("jinja2", "tokenizers", "transformers")


def fingerprint(settled: Settled, tokenizer_digest: str, settings: Mapping[str, Any]) -> Fingerprint:
    """Everything that decides the tokens of one data set: content of its files, layout, tokenizer, settings, code."""
    source = settled.source
    return Fingerprint(source.name, {
        "data files": digest([[file.kind, file_digest(file.path)] for file in source.files]),
        "columns and tags": digest(layout_facts(settled.layout)),
        "num_samples": str(source.num_samples),
        "tokenizer": tokenizer_digest,
        "code": code_digest(),
        "libraries": ", ".join(f"{name} {metadata.version(name)}" for name in _LIBRARIES),
        **{name: value if isinstance(value, str) else json.dumps(value) for name, value in settings.items()},
    })


def layout_facts(layout: Layout) -> list[Any]:
    """What of a layout decides how rows are understood, the same in every process."""
    return [layout.formatting, sorted(layout.columns.items()), sorted(layout.tags.items()), layout.kind, sorted(layout.quirks)]


def digest(value: Any) -> str:
    """sha256 of a text, or of a JSON value with its keys sorted."""
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """sha256 over the tokenizer itself, not its name: the Rust state without what calls leave in it, and special tokens."""
    settings = [type(tokenizer).__name__, {name: str(value) for name, value in tokenizer.special_tokens_map.items()}]
    if ADDED_TOKENS in tokenizer.init_kwargs:
        settings.append(tokenizer.init_kwargs[ADDED_TOKENS])
    if not tokenizer.is_fast:
        return digest([settings, tokenizer.get_vocab(), str(tokenizer.init_kwargs)])
    from tokenizers import Tokenizer

    backend = tokenizer.backend_tokenizer
    if backend.truncation is not None or backend.padding is not None:
        backend = Tokenizer.from_str(backend.to_str())
        backend.no_truncation()
        backend.no_padding()
    return digest([settings, digest(backend.to_str())])


def code_digest() -> str:
    """sha256 over the sources of this package that turn files into tokens, and the version of tunewright."""
    return digest([__version__, *(file_digest(path) for path in _sources())])


def _sources() -> Sequence[Path]:
    return sorted(path for path in Path(__file__).parent.rglob("*.py")
                  if path.name not in _WITHOUT_EFFECT_ON_TOKENS and path.parent.name not in ("doctor", "streaming"))
