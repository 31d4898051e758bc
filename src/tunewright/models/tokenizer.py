"""Opens tokenizers. Tokens that the run asks for are added; the model then gets rows for them (`surgery.vocabulary`)."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tunewright.config.model import ModelConfig, TokenizerConfig
from tunewright.errors import refuse, require
from tunewright.models.directory import HUB_ID, check_path_fields, download, find_model, read_json_object
from tunewright.models.new_tokens import add_new_tokens
from tunewright.models.unopened import TOKENIZER_FILES, require_gguf

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)

_FILES: Final = ["tokenizer*", "vocab*", "merges.txt", "*.model", "special_tokens_map.json", "added_tokens.json", "tekken.json", "*.jinja",
                 "config.json"]
"""What a tokenizer's repository is asked for; config.json tells the family."""


def load_tokenizer(model: ModelConfig, tokenizer: TokenizerConfig) -> PreTrainedTokenizerBase:
    """The tokenizer of the model's directory or the one that `tokenizer_name_or_path` names.

    It has a padding token (see `set_padding_token`) and the tokens that the run adds (see `new_tokens.add_new_tokens`).

    Raises `InputError` if the directory has no tokenizer files or they name files outside it.
    """
    from transformers import AutoTokenizer

    directory = tokenizer_directory(model, tokenizer)
    if tokenizer.tokenizer_name_or_path is not None:
        # Code that was read and allowed is the model's.
        model = replace(model, gguf_file=None, trust_remote_code=False)
    require(model.gguf_file is not None or any((directory / name).is_file() for name in TOKENIZER_FILES),
            f"model directory {directory} has no tokenizer files", mend=f"one of {', '.join(TOKENIZER_FILES)} is needed")
    check_path_fields(directory)
    if model.gguf_file is not None:
        require_gguf(directory, model.gguf_file)
    source = {"gguf_file": model.gguf_file} if model.gguf_file else {}
    try:
        loaded = AutoTokenizer.from_pretrained(
            directory, split_special_tokens=tokenizer.split_special_tokens,
            trust_remote_code=model.trust_remote_code, local_files_only=True, **source)
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        reason = " ".join(str(error).split())[:300]
        refuse(f"the tokenizer files cannot be read: {reason}", where=str(directory), mend="fetch the model again")
    _check_names(loaded, directory)
    set_padding_token(loaded, directory)
    add_new_tokens(loaded, tokenizer)
    return loaded


def _check_names(tokenizer: PreTrainedTokenizerBase, directory: Path) -> None:
    """Raise `InputError` if tokenizer_config.json has keys that name parts of the tokenizer object: to save it would write those parts."""
    from tokenizers import AddedToken

    file = directory / "tokenizer_config.json"
    said = read_json_object(file) if file.is_file() else {}
    values = str | int | float | list | tuple | dict | AddedToken | None
    parts = sorted(key for key in said if not isinstance(getattr(tokenizer, key, None), values))
    require(not parts, f"{', '.join(parts)}: no setting, but a part of every tokenizer", where=str(file),
            mend="the file is damaged or hostile: fetch the model again")


def tokenizer_directory(model: ModelConfig, tokenizer: TokenizerConfig) -> Path:
    """The local directory of the tokenizer's files. Raises `InputError` if there is none."""
    name = tokenizer.tokenizer_name_or_path
    if name is None:
        return find_model(model)
    path = Path(name).expanduser()
    if path.is_dir():
        return path.resolve()
    require(HUB_ID.fullmatch(name) is not None and not path.exists(), f"tokenizer_name_or_path: no such directory: {name}",
            mend="give an existing directory or a hub id such as `org/name`")
    return download("tokenizer_name_or_path", name, replace(model, model_revision="main"), _FILES)


def set_padding_token(tokenizer: PreTrainedTokenizerBase, directory: Path) -> None:
    """Choose a padding token where the tokenizer names none, among its own tokens, and report it.

    The unknown token if it is not also the end token, else the end token. Padding is masked by position, never by id, so
    the choice changes no loss; the end token stays trainable where it is content.
    """
    if tokenizer.pad_token_id is not None:
        return
    unknown, end = tokenizer.unk_token_id, tokenizer.eos_token_id
    if unknown is not None and unknown != end:
        tokenizer.pad_token = tokenizer.unk_token
    elif end is not None:
        tokenizer.pad_token = tokenizer.eos_token
    else:
        refuse("the tokenizer has no padding, unknown or end token", where=str(directory),
               mend="name pad_token in tokenizer_config.json")
    log.info("padding token: %s (the tokenizer names none)", tokenizer.pad_token)
