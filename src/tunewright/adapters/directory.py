"""Adapter directories: what they say, and whether they fit. Standard library only, except where a model is given.

Adapter directories are untrusted. Only the fields listed here are read; an adapter that sets others is refused, because
some of them import modules or change the base weights.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tunewright.config.model import ModelConfig
from tunewright.errors import refuse, require
from tunewright.models.directory import HUB_ID, download, read_json_object, read_tensor_header
from tunewright.models.families import shape_of

if TYPE_CHECKING:
    from torch import nn

CONFIG_FILE: Final = "adapter_config.json"
WEIGHTS_FILE: Final = "adapter_model.safetensors"
BASE_FILE: Final = "merged_adapters.json"
"""`{"merged_adapters": [directory, ...]}`: adapters merged into the base before this one was trained."""

INITIAL_FOLDER: Final = "pissa_initial"
CONVERTED_FOLDER: Final = "pissa_converted"

READ_FIELDS: Final = frozenset({
    "r", "lora_alpha", "lora_dropout", "target_modules", "target_parameters", "exclude_modules", "bias", "use_rslora", "use_dora",
    "modules_to_save", "rank_pattern", "alpha_pattern", "init_lora_weights", "fan_in_fan_out", "lora_bias",
    "layers_to_transform", "layers_pattern", "base_model_name_or_path", "task_type", "peft_type", "revision", "inference_mode",
    "ensure_weight_tying",
})
HARMLESS_FIELDS: Final = frozenset({"auto_mapping", "peft_version", "megatron_core", "qalora_group_size", "runtime_config"})
INITS: Final = (True, False, None, "gaussian", "eva", "orthogonal")
"""Initialisations that leave the base weights alone; PiSSA, which does not, is handled by name."""


@dataclass(frozen=True, slots=True)
class AdapterFacts:
    """What an adapter directory says, checked: `fields` for peft's LoraConfig, `shapes` of the tensors by name in the file."""

    directory: Path
    base: str | None
    fields: Mapping[str, Any]
    shapes: Mapping[str, tuple[int, ...]]
    merged: tuple[str, ...]

    @property
    def is_pissa(self) -> bool:
        """Whether the adapter belongs to a base from which its first factors were taken out."""
        return str(self.fields.get("init_lora_weights")).startswith("pissa")


def is_adapter(directory: Path) -> bool:
    """Whether the directory holds an adapter."""
    return (directory / CONFIG_FILE).is_file()


def read_adapter(directory: Path) -> AdapterFacts:
    """Read and check an adapter directory. Raises `InputError` if it is not a LoRA adapter that can be loaded safely."""
    require(directory.is_dir(), f"adapter_name_or_path: path not found: {directory}", mend="give the directory of an adapter")
    require(is_adapter(directory), f"adapter_name_or_path: {directory} is not an adapter: it has no {CONFIG_FILE}",
            mend="give the directory that holds it" + _hint(directory))
    file = directory / CONFIG_FILE
    said = read_json_object(file)
    require(said.get("peft_type") == "LORA", f"peft_type is {said.get('peft_type')!r}, only LORA can be loaded", where=str(file),
            mend="merge it with peft first")
    require((directory / WEIGHTS_FILE).is_file(), f"adapter {directory} has no {WEIGHTS_FILE}",
            mend="pickled adapters are never loaded: convert it to safetensors")
    strange = sorted(key for key, value in said.items() if value and key not in READ_FIELDS | HARMLESS_FIELDS)
    require(not strange, f"the adapter uses {', '.join(strange)}, which is not supported", where=str(file),
            mend="merge it with peft first")
    init = said.get("init_lora_weights", True)
    require(init in INITS or str(init).startswith("pissa"),
            f"the adapter was made with init_lora_weights {init!r}, which changes the base weights", where=str(file),
            mend="convert it to an ordinary LoRA adapter with peft first")
    header = read_tensor_header(directory / WEIGHTS_FILE)
    shapes = {name: tuple(entry["shape"]) for name, entry in header.items()}
    merged = read_json_object(directory / BASE_FILE).get("merged_adapters", []) if (directory / BASE_FILE).is_file() else []
    fields = {key: value for key, value in said.items() if key in READ_FIELDS and key != "peft_type"}
    if isinstance(fields.get("target_modules"), str):
        # A foreign regular expression would run on every module name; the tensors say the same without running anything.
        fields["target_modules"] = sorted({name.removeprefix("base_model.model.").split(".lora_")[0]
                                           for name in shapes if ".lora_" in name})
    return AdapterFacts(directory, said.get("base_model_name_or_path"), fields, shapes, tuple(merged))


def check_fits(facts: AdapterFacts, model: nn.Module) -> None:
    """Raise `InputError` unless every tensor of the adapter has a module of its size in `model`."""
    parameters = {name: shape_of(parameter) for name, parameter in model.named_parameters()}
    check_fits_modules(facts, {name for name, _ in model.named_modules()}, parameters, type(model).__name__)


def check_fits_modules(facts: AdapterFacts, modules: Collection[str], parameters: Mapping[str, tuple[int, ...]], model: str) -> None:
    """The same for a model given by the names of its modules, the shapes of its parameters and a name for messages."""
    made_for = f"adapter {facts.directory} was made for another model ({facts.base or 'unnamed'})"
    for name, shape in facts.shapes.items():
        if ".lora_A." not in name and ".lora_B." not in name:
            continue
        module, _, factor = name.removeprefix("base_model.model.").partition(".lora_")
        if facts.fields.get("target_parameters") and ".experts" in module:
            continue
        require(module in modules, f"{made_for}: it adapts {module}, which {model} does not have",
                mend="give the model it was trained on")
        weight = parameters.get(f"{module}.weight")
        if weight is None or len(weight) != 2:
            continue
        there = shape[1] if factor.startswith("A") else shape[0]
        require(there in weight, f"{made_for}: {module} has {there} {'inputs' if factor.startswith('A') else 'outputs'} there, "
                f"{' x '.join(map(str, weight))} weights here", mend="give the model it was trained on")
    _check_rank(facts)


def split_adapter(model: ModelConfig) -> ModelConfig:
    """The same model with an adapter directory given as the model replaced by its base and itself as last adapter.

    So that `chat`, `export` and `predict` take the output directory of a run. Raises `InputError` if the directory holds
    neither a model nor an adapter, or the adapter does not name its base.
    """
    directory = Path(model.model_name_or_path or "").expanduser()
    if model.model_name_or_path in (None, "demo") or not directory.is_dir():
        return model
    if (directory / "config.json").is_file() or model.gguf_file:
        return model
    if not is_adapter(directory):
        checkpoints = sorted(directory.glob("checkpoint-*"), key=lambda path: (len(path.name), path.name))
        mend = f"its newest checkpoint is {checkpoints[-1]}" if checkpoints else "give a model, an adapter or a run's output_dir"
        refuse(f"{directory} holds neither a model (config.json) nor an adapter ({CONFIG_FILE})", mend=mend)
    base = read_adapter(directory).base
    if not base:
        refuse("base_model_name_or_path is empty", where=str(directory / CONFIG_FILE), mend="give the base with model_name_or_path")
    return replace(model, model_name_or_path=base, adapter_name_or_path=(*model.adapter_name_or_path, str(directory)),
                   adapter_folder=None)


def adapter_directories(model: ModelConfig) -> tuple[Path, ...]:
    """The adapter directories in order, `adapter_folder` applied, and before each those that it stands on."""
    given = [find_adapter(name, model) / (model.adapter_folder or "") for name in model.adapter_name_or_path]
    listed: list[Path] = []
    for directory in given:
        below = [Path(name) for name in read_adapter(directory).merged]
        listed += [path for path in (*below, directory) if path.resolve() not in {known.resolve() for known in listed}]
    return tuple(listed)


def find_adapter(name: str, model: ModelConfig) -> Path:
    """The local directory of an adapter: a directory, or the snapshot of a hub id (its main revision)."""
    path = Path(name).expanduser()
    if path.exists() or name.count("/") != 1 or HUB_ID.fullmatch(name) is None:
        return path
    return download("adapter_name_or_path", name, replace(model, model_revision="main"), ["*.json", "*.safetensors", "*.jinja", "*.txt"])


def write_merged(directory: Path, merged: tuple[str, ...]) -> None:
    """Record in an adapter directory which adapters its base contains; no file where there are none."""
    if not merged:
        (directory / BASE_FILE).unlink(missing_ok=True)
        return
    text = json.dumps({"merged_adapters": list(merged)}, indent=2)
    (directory / BASE_FILE).write_text(text + "\n", encoding="utf-8")


def _check_rank(facts: AdapterFacts) -> None:
    """Every factor has the rank that the configuration says (targets with a rank of their own aside)."""
    rank = facts.fields.get("r")
    if facts.fields.get("rank_pattern") or facts.fields.get("target_parameters"):
        return
    for name, shape in facts.shapes.items():
        if ".lora_A." in name and shape[0] != rank:
            refuse(f"{CONFIG_FILE} says rank {rank}, but {name} in {WEIGHTS_FILE} has rank {shape[0]}",
                   where=str(facts.directory), mend="the two files are not from one training: fetch both again")


def _hint(directory: Path) -> str:
    inner = sorted(path.parent.name for path in directory.glob(f"*/{CONFIG_FILE}"))
    return f", for instance with adapter_folder: {inner[0]}" if inner else ""
