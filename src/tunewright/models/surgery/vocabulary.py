"""Rows of embedding and output head for tokens that have none, and the numbers that new rows begin with.

Hewitt 2021 (nlp.stanford.edu/~johnhew/vocab-expansion.html): a new row near the mean of the rows changes what the model says
of the other tokens least. The noise, N(0, 1 / width), keeps new tokens apart; it is a function of the run's seed and of the
token's text alone, so it is the same on every rank, in every order of tokens, and after an interruption.

Axes: V rows, D width.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from tunewright.config.model import TokenizerConfig
from tunewright.errors import refuse, require
from tunewright.models.families import is_quantised
from tunewright.models.new_tokens import new_tokens

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

log = logging.getLogger(__name__)

MULTIPLE: Final = 64
"""Rows come in multiples of this, which matrix units like; LLaMA-Factory's number. Rows beyond the tokenizer are the plain mean."""


class Row(NamedTuple):
    """How a new row begins: at the mean of the rows `described`, or of all rows that were there, with `noise` [D] or without."""

    described: tuple[int, ...] = ()
    noise: Tensor | None = None


def fit_vocabulary(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, config: TokenizerConfig, seed: int) -> bool:
    """Give every token that the run added a row of its own, and with resize_vocab every token of the tokenizer.

    A new token whose id falls on a spare row of the embedding begins anew there too. Returns whether there are rows now that
    have seen no training. Raises `InputError` for a model that cannot grow.
    """
    fresh = new_tokens(tokenizer)
    rows = model.get_input_embeddings().num_embeddings
    vocabulary = tokenizer.get_vocab()
    needed = max(vocabulary.values()) + 1
    grows = needed > rows and (config.resize_vocab or bool(fresh.texts))
    if not grows and not fresh.texts:
        if config.resize_vocab:
            log.info("resize_vocab changes nothing: the model has %d embedding rows for %d tokens", rows, needed)
        return False
    if grows:
        resize(model, padded(needed))
        log.info("vocabulary: %d embedding rows are now %d, a multiple of %d, for %d tokens", rows, padded(needed), MULTIPLE, needed)
    else:
        require_plain(model)
        log.info("vocabulary: the new tokens take spare rows of the %d of the embedding", rows)
    texts = {vocabulary[text]: text for text in vocabulary if vocabulary[text] >= rows or text in fresh.texts}
    described = {} if config.init_special_tokens == "noise_init" else _described(tokenizer, fresh.descriptions, texts)
    noiseless = set(described) if config.init_special_tokens == "desc_init" else set()
    for which, matrix in matrices(model).items():
        begin(matrix, rows, {number: Row(described.get(text, ()), None if text in noiseless else noise(
            text, matrix.shape[1], which=which, seed=seed)) for number, text in texts.items()})
    _level_bias(model, rows)
    return True


def padded(tokens: int) -> int:
    """The least multiple of 64 that is not less."""
    return -(-tokens // MULTIPLE) * MULTIPLE


def noise(text: str, width: int, *, which: str, seed: int) -> Tensor:
    """[D] float32 of N(0, 1 / D), its own for each text, matrix (`input`, `output`) and seed."""
    import torch

    key = hashlib.sha256(f"{seed}\0{which}\0{text}".encode("utf-8", "surrogatepass")).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(key[:8], "little", signed=True))
    return torch.randn(width, generator=generator) / math.sqrt(width)


def begin(matrix_VD: Tensor, rows: int, new: Mapping[int, Row]) -> None:
    """Write the rows `new` of `matrix_VD`, of which the first `rows` were there, and all others behind those.

    Means are over the rows that were there and are not new, in float64; what is in no entry of `new` becomes the plain mean.
    """
    import torch

    with torch.no_grad():
        mean_D = mean_row(matrix_VD[:rows], [number for number in new if number < rows])
        matrix_VD[rows:] = mean_D.to(matrix_VD.dtype)
        for number, row in new.items():
            start_D = matrix_VD[list(row.described)].double().mean(0) if row.described else mean_D
            matrix_VD[number] = (start_D if row.noise is None else start_D + row.noise.to(start_D)).to(matrix_VD.dtype)


def mean_row(matrix_VD: Tensor, without: Sequence[int] = ()) -> Tensor:
    """[D] float64: the mean of the rows but those numbered `without`, summed in parts that need little memory."""
    total_D = sum(part.double().sum(0) for part in matrix_VD.split(8192)) - matrix_VD[list(without)].double().sum(0)
    return total_D / (len(matrix_VD) - len(without))


def matrices(model: PreTrainedModel) -> dict[str, Tensor]:
    """`input`, the embedding, and `output`, the head, unless it is the same matrix: [V, D] each."""
    embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    return {"input": embedding} if head is embedding else {"input": embedding, "output": head}


def resize(model: PreTrainedModel, rows: int) -> None:
    """Give embedding, head and configuration that many rows; those that were there stay, the values of new ones are the caller's.

    Tied matrices stay tied. No random number of the run is used. Raises `InputError` as `require_plain`.
    """
    import torch

    require_plain(model)
    with torch.random.fork_rng(devices=[]):
        model.resize_token_embeddings(rows, mean_resizing=False)


def require_plain(model: PreTrainedModel) -> None:
    """Raise `InputError` unless the rows of embedding and head can be written: quantised, sharded and unusual ones cannot."""
    from torch import nn
    from torch.distributed.tensor import DTensor

    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    kind, mend = model.config.model_type, "remove resize_vocab and the tokens to add"
    if is_quantised(model):
        refuse("the vocabulary cannot grow: the weights of the model are quantised", mend="use the unquantised model")
    require(isinstance(embedding, nn.Embedding) and isinstance(head, nn.Linear),
            f"the vocabulary cannot grow: the embedding or output head of this {kind} is of a kind of its own", mend=mend)
    require(not any(isinstance(one.weight, DTensor) for one in (embedding, head)),
            "the vocabulary cannot grow: the weights are spread over several devices", mend=mend)


def _described(tokenizer: PreTrainedTokenizerBase, descriptions: Mapping[str, str], new: Mapping[int, str]) -> dict[str, tuple[int, ...]]:
    """Ids of each description's tokens that have a trained row. Raises `InputError` for a description without any."""
    found = {}
    for text, description in descriptions.items():
        ids = tuple(number for number in tokenizer(description, add_special_tokens=False)["input_ids"] if number not in new)
        require(bool(ids), f"new_special_tokens_config: the description of '{text}' has only new tokens", mend="describe it in known words")
        found[text] = ids
    return found


def _level_bias(model: PreTrainedModel, rows: int) -> None:
    """New entries of the head's bias become the mean of those that were there."""
    import torch

    bias_V = model.get_output_embeddings().bias
    if bias_V is not None and len(bias_V) > rows:
        with torch.no_grad():
            bias_V[rows:] = bias_V[:rows].double().mean().to(bias_V.dtype)
