"""Everything that decides what a run computes: parameters, rows, ranks, and the weights and code it takes from elsewhere."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tunewright.adapters.directory import adapter_directories, find_adapter, split_adapter
from tunewright.config.rules.alignment import has_reference
from tunewright.config.rules.rule import ONLINE
from tunewright.data.streaming.stream import Stream
from tunewright.engine.resume import recorded_settings, weights_digest
from tunewright.engine.reward_role import reward_source
from tunewright.engine.roles import reference_model
from tunewright.inference.generate import settings_of
from tunewright.models.directory import find_model
from tunewright.rl.rewards import API

if TYPE_CHECKING:
    from tunewright.config.model import ModelConfig
    from tunewright.config.run import RunConfig
    from tunewright.data.examples import PreparedSet
    from tunewright.runtime import Ranks

REFERENCE: Final = "weights of ref_model"
REWARD: Final = "weights of reward_model"
FUNCTIONS: Final = "code of reward_funcs"


def settings_of_run(run: RunConfig, examples: PreparedSet | Stream, ranks: Ranks) -> dict[str, Any]:
    """What must be the same for a resumed run to be the same run, as JSON values; of answers that are trained, how they are made."""
    generated = settings_of(run.generation) if run.run.stage in ONLINE else {}
    return recorded_settings(run) | source_digests(run) | generated | {
        "training data": data_digest(examples), "ranks": ranks.world_size}


def data_digest(examples: PreparedSet | Stream) -> str:
    """How many sequences the training set has, and their digest: another set, or the same in another order, differs. Of a stream only the
    ends of its files are read."""
    if isinstance(examples, Stream):
        return f"a stream, {examples.digest()[:16]}"
    return f"{len(examples)} examples, {examples.digest()[:16]}"


def source_digests(run: RunConfig) -> dict[str, str]:
    """Digests of a reference and a reward model with weights of their own, as `weights_digest` takes them, and of the files in which reward
    functions stand; what those import is not read, nor is a service over HTTP. Of what the run does not use there is none."""
    given, found = run.alignment, {}
    if given.ref_model is not None and has_reference(run):
        found[REFERENCE] = _digest(reference_model(run))
    if run.run.stage not in ONLINE:
        return found
    if given.reward_model is not None and given.reward_model_type == "lora":
        found[REWARD] = weights_digest([find_adapter(given.reward_model, run.model)])
    elif given.reward_model is not None and given.reward_model_type != API:
        found[REWARD] = _digest(reward_source(run))
    if given.reward_funcs:
        found[FUNCTIONS] = _code_digest(given.reward_funcs)
    return found


def _digest(source: ModelConfig) -> str:
    """Of a model with its adapters; the model's name may be that of an adapter."""
    split = split_adapter(source)
    return weights_digest([find_model(split), *adapter_directories(split)])


def _code_digest(functions: tuple[str, ...]) -> str:
    digest = hashlib.sha256()
    for name in functions:
        digest.update(_code(name.rpartition(":")[0]))
    return digest.hexdigest()[:16]


def _code(place: str) -> bytes:
    """The file of a module, or that file; nothing for a module without one."""
    if place.endswith(".py"):
        return Path(place).expanduser().read_bytes()
    spec = importlib.util.find_spec(place)
    origin = None if spec is None else spec.origin
    return Path(origin).read_bytes() if origin is not None and Path(origin).is_file() else b""
