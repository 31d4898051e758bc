"""The value head of a run: found beside what the run starts from, or new; and what of the model trains under it."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from tunewright.adapters.directory import adapter_directories
from tunewright.models.directory import find_model
from tunewright.models.heads import VALUE_HEAD_FILE, ValueHead, causal_lm, load_value_head, new_value_head, read_value_head

if TYPE_CHECKING:
    from torch import nn

    from tunewright.config.model import ModelConfig
    from tunewright.config.run import RunConfig

log = logging.getLogger(__name__)


def give_value_head(model: nn.Module, run: RunConfig, checkpoint: Path | None = None) -> ValueHead:
    """Attach the head of the checkpoint, else of the adapter or the model that the run starts from, else a new one drawn from the seed.

    Raises `InputError` for a checkpoint without one, and for a head of another width.
    """
    if checkpoint is not None:
        return load_value_head(model, checkpoint)
    start = head_directory(run.model)
    if read_value_head(start) is None:
        return new_value_head(model, run.run.seed)
    log.info("value head: continued from %s", start)
    return load_value_head(model, start)


def head_directory(model: ModelConfig) -> Path:
    """Where the head of a model is, if it has one: with its last adapter, or with its own weights."""
    adapters = adapter_directories(model)
    return adapters[-1] if adapters else find_model(model)


def copy_value_head(model: ModelConfig, directory: Path) -> None:
    """The head of a model, if it has one, into the directory that the model is written to."""
    start = head_directory(model)
    if read_value_head(start) is not None:
        shutil.copyfile(start / VALUE_HEAD_FILE, directory / VALUE_HEAD_FILE)


def make_reward_model(model: nn.Module, run: RunConfig, checkpoint: Path | None = None) -> None:
    """Give a trainable model its value head, and leave untrained what no difference of two rewards depends on: the head's bias, and the
    output projection unless it is the embedding.

    Their gradients would be rounding errors, of which Adam makes steps as large as any, or none at all, for which ranks would wait.
    """
    give_value_head(model, run, checkpoint).summary.bias.requires_grad_(False)
    base = causal_lm(model)
    top, below = base.get_output_embeddings(), base.get_input_embeddings()
    shared = {id(weight) for weight in below.parameters()}
    idle = [weight for weight in (top.parameters() if top is not None else ()) if weight.requires_grad and id(weight) not in shared]
    for weight in idle:
        weight.requires_grad_(False)
    if idle:
        log.info("the output projection does not train: a reward does not pass through it")
