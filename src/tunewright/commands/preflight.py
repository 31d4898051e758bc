"""Everything that can be known of a run from files, before a model is opened. Imports neither torch nor transformers."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from tunewright.config.rules.rule import Broken, Case, Purpose
from tunewright.config.rules.vocabulary import adds_tokens
from tunewright.config.run import RunConfig
from tunewright.config.table import replace as with_fields
from tunewright.config.table import table
from tunewright.dialects.read import Reading, examine, in_order
from tunewright.errors import ConfigError, InputError, Problem


@dataclass(frozen=True, slots=True)
class Inspection:
    """One look at files. `fields`: the settings it reads besides; it is left out where one of them is wrong itself."""

    look: Callable[[RunConfig], Iterable[Problem]]
    fields: tuple[str, ...]


def read_ready(words: Sequence[str], purpose: Purpose) -> Reading:
    """The resolved configuration, once it and all files that it names have been looked at.

    Raises ConfigError with the problems of both, each pointing at the setting or at the file.
    """
    examined = examine(words, purpose=purpose)
    problems = in_order([*examined.problems, *preflight(examined.reading, purpose, skip=examined.bad)])
    if problems:
        raise ConfigError(problems)
    return examined.reading.resolve()


def preflight(reading: Reading, purpose: Purpose, *, skip: Collection[str] = ()) -> list[Problem]:
    """Every problem of the files that the run names; what would read a field of `skip` is left out."""
    inspections = [one for one in _INSPECTIONS[purpose] if not set(skip) & set(one.fields)]
    found = [problem for inspection in inspections for problem in inspection.look(reading.config)]
    return list(dict.fromkeys(_located(problem, reading) for problem in found))


def model_files(run: RunConfig) -> list[Problem]:
    """A local model directory: config.json, sizes, weights, tokenizer, paths that leave it."""
    from tunewright.models.directory import check_config, check_directory, check_path_fields
    from tunewright.models.unopened import check_family, check_tokenizer, require_gguf, require_tokenizer_files

    directory = local_model(run)
    if directory is None:
        return []
    if run.model.gguf_file:
        return _caught("gguf_file", partial(require_gguf, directory, run.model.gguf_file))
    files = check_config if run.model.train_from_scratch else check_directory
    checks = [files, check_path_fields] if run.model.trust_remote_code else [files, check_path_fields, check_family, check_tokenizer]
    if run.tokenizer.tokenizer_name_or_path is not None:  # whether it fits is seen when it is opened
        checks = [check for check in checks if check is not check_tokenizer]
    if run.tokenizer.resize_vocab or adds_tokens(run):  # the model is made to fit
        checks = [require_tokenizer_files if check is check_tokenizer else check for check in checks]
    return _first(_caught("model_name_or_path", partial(check, directory)) for check in checks)


def quantised_base(purpose: Purpose, run: RunConfig) -> list[Problem]:
    """A base model in few bits: the package that it needs is there, and where its files have few bits already, the run wants nothing
    that such weights rule out."""
    from tunewright.models.directory import check_config
    from tunewright.models.quantised import quantised
    from tunewright.quantization.bitsandbytes import require_package

    bits, directory = run.quantization.quantization_bit, _weighed(run)
    found = None if directory is None else quantised(check_config(directory))
    if found is None:
        is_asked = bits is not None and purpose != "export"
        return _caught("quantization_bit", partial(require_package, "quantization_bit")) if is_asked else []
    said, other = f"those of {run.model.model_name_or_path} are quantised ({found})", "use the unquantised model"
    if purpose == "export":
        return [Problem(f"model_name_or_path: weights in floating point are needed, but {said}", mend=other)]
    if bits is not None:
        return [Problem(f"quantization_bit: {bits} bits, but the weights have them already: {said}", mend=f"remove it, or {other}")]
    broken = [Problem(f"{field}: {what}", mend=f"remove it, or {other}") for field, what in _as_if_quantised(run, found.bits, purpose)]
    return broken or _caught("model_name_or_path", partial(require_package, "model_name_or_path"))


def _as_if_quantised(run: RunConfig, bits: int, purpose: Purpose) -> Iterable[tuple[str, str]]:
    """The settings that cannot stand with weights of so many bits, and why."""
    from tunewright.config.rules import quantization

    case = Case(with_fields(run, {"quantization_bit": bits}), frozenset(), purpose)
    for rule in quantization.RULES:
        broken = rule.test(case) if purpose in rule.purposes else None
        several = [Broken("", broken)] if isinstance(broken, str) else broken or []
        yield from ((one.field or next(field for field in rule.fields if field != "quantization_bit"), one.what) for one in several)


def local_model(run: RunConfig) -> Path | None:
    """The model's directory if it is a local one and no adapter."""
    name = run.model.model_name_or_path or ""
    directory = Path(os.path.expanduser(name))
    is_model = name not in ("", "demo") and os.path.isdir(directory) and not (
        (directory / "adapter_config.json").is_file() and not (directory / "config.json").is_file())
    return directory if is_model else None


def local_tokenizer(run: RunConfig) -> Path | None:
    """The directory of the tokenizer, the model's own or the one that is named, if it is a local one."""
    named = run.tokenizer.tokenizer_name_or_path
    if named is None:
        return local_model(run)
    directory = Path(os.path.expanduser(named))
    return directory if os.path.isdir(directory) else None


def chat_template(run: RunConfig) -> list[Problem]:
    """The template: there, small, text, jinja."""
    from tunewright.data.template_unopened import check_template
    from tunewright.models.unopened import own_template

    if run.run.stage == "pt" or run.template.template_type == "completion":
        return []
    directory, template = local_tokenizer(run), run.template.template
    in_gguf = run.model.gguf_file is not None and run.tokenizer.tokenizer_name_or_path is None
    if template == "auto" and (directory is None or in_gguf or not _has_tokenizer(directory)):
        return []
    return _caught("template", lambda: check_template(template, own_template(directory) if directory is not None else None))


def answering_template(run: RunConfig) -> list[Problem]:
    """The same for commands that answer, where an adapter brings the template of its training."""
    return [] if run.model.adapter_name_or_path and run.template.template == "auto" else chat_template(run)


def adapter_files(run: RunConfig) -> list[Problem]:
    """Local adapter directories: what they say, their weights, and whether they fit the model's."""
    from tunewright.adapters.directory import read_adapter
    from tunewright.adapters.unopened import check_fits_files
    from tunewright.models.unopened import tensor_shapes

    places = [Path(os.path.expanduser(name)) / (run.model.adapter_folder or "") for name in run.model.adapter_name_or_path]
    places = [place for place in places if os.path.isfile(place / "adapter_config.json")]
    problems = [problem for place in places for problem in _caught("adapter_name_or_path", partial(read_adapter, place))]
    directory = _weighed(run)
    if problems or directory is None:
        return problems
    shapes, name = tensor_shapes(directory), f"the model {run.model.model_name_or_path}"
    return [problem for place in places for problem in _caught(
        "adapter_name_or_path", lambda place=place: check_fits_files(read_adapter(place), shapes, name))]  # type: ignore[misc]


def tuned_modules(run: RunConfig) -> list[Problem]:
    """The modules and layers that lora_target and its like name are in the model."""
    from tunewright.adapters.unopened import names_that_match_nothing, too_many_layers
    from tunewright.models.directory import read_config_json
    from tunewright.models.unopened import tensor_shapes

    directory = _weighed(run)
    if directory is None or run.tuning.finetuning_type == "full":
        return []
    layers = read_config_json(directory).get("num_hidden_layers")
    return [*names_that_match_nothing(run, tensor_shapes(directory)), *too_many_layers(run, layers)]


def room(run: RunConfig) -> list[Problem]:
    """Two checkpoints fit on the disk of output_dir, or one beside those that are there: the old one goes when the new one is complete."""
    from tunewright.adapters.footprint import checkpoint_bytes
    from tunewright.models.unopened import tensor_shapes

    directory = _weighed(run)
    if directory is None or not run.run.output_dir:
        return []
    at = Path(os.path.expanduser(run.run.output_dir)).absolute()
    there = next(place for place in (at, *at.parents) if os.path.exists(place))
    count, words = (1, "one checkpoint more needs") if os.path.isdir(at) and any(at.glob("checkpoint-*")) else (2, "two checkpoints need")
    need, disk = count * checkpoint_bytes(run, tensor_shapes(directory)), shutil.disk_usage(there)
    if need <= disk.free or disk.total == 0:  # some network file systems say 0 for everything
        return []
    return [Problem(f"output_dir: {words} about {in_words(need)}, {run.run.output_dir} has {in_words(disk.free)} left",
                    mend="free some space, or name another directory")]


def schedule_arguments(run: RunConfig) -> list[Problem]:
    """lr_scheduler_kwargs fits the schedule."""
    from tunewright.engine.schedules import check_schedule

    return _caught("lr_scheduler_kwargs", lambda: check_schedule(run.schedule, run.optimizer.learning_rate))


def optimizer_arguments(run: RunConfig) -> list[Problem]:
    """optim_args fits the optimizer."""
    from tunewright.engine.optimizers.arguments import check_arguments

    return _caught("optim_args", lambda: check_arguments(run.optimizer.optim, run.optimizer.optim_args))


def hub_access(run: RunConfig) -> list[Problem]:
    """Uploads that the run asks for are possible at all: a network and a token."""
    from tunewright.engine.hub import demand_access

    wanted = {"push_to_hub": run.hub.push_to_hub, "export_hub_model_id": run.export.export_hub_model_id}
    return [problem for field, is_wanted in wanted.items() if is_wanted for problem in _caught(field, partial(demand_access, field))]


def graph_packages(run: RunConfig) -> list[Problem]:
    """What writes ONNX graphs is installed, where one is asked for."""
    from tunewright.export.onnx import demand_packages

    return _caught("export_onnx", demand_packages) if run.export.export_onnx else []


def kernel_packages(run: RunConfig) -> list[Problem]:
    """The compiler and the packages that the run's kernels need."""
    from tunewright.kernels.hardware import demand_packages
    from tunewright.kernels.liger import asked_by

    return _caught(asked_by(run.kernels) or "torch_compile", partial(demand_packages, run.kernels))


def token_descriptions(run: RunConfig) -> list[Problem]:
    """The file of new special tokens."""
    from tunewright.models.new_tokens import read_descriptions

    path = run.tokenizer.new_special_tokens_config
    return [] if path is None else _caught("new_special_tokens_config", partial(read_descriptions, path))


def data_files(run: RunConfig) -> list[Problem]:
    """The data sets: registry, files, columns, rows."""
    from tunewright.data.probe import probe

    try:
        return [] if _has_tokens(run) else probe(run)
    except InputError as error:
        return [Problem(error.message, error.where, error.mend)]


def predicted_files(run: RunConfig) -> list[Problem]:
    """The data sets as prediction reads them."""
    from tunewright.data.single_answers import read_for_prediction

    try:
        return data_files(read_for_prediction(run))
    except InputError as error:
        return [Problem(error.message, error.where, error.mend)]


def data_lines(run: RunConfig) -> list[str]:
    """How the rows of the data sets, in which no problem was found, are understood."""
    from tunewright.data.probe import interpretations

    return [] if _has_tokens(run) else interpretations(run)


def _has_tokens(run: RunConfig) -> bool:
    from tunewright.data.token_folder import holds_tokens

    folder = run.data.tokenized_path
    return folder is not None and holds_tokens(Path(os.path.expanduser(folder)))


_OF_MODELS = ("model_name_or_path", "gguf_file", "trust_remote_code", "tokenizer_name_or_path")
_MODEL = Inspection(model_files, (*_OF_MODELS, "resize_vocab", "add_tokens", "add_special_tokens", "new_special_tokens_config"))
_TOKENS = Inspection(token_descriptions, ("new_special_tokens_config",))
_TEMPLATE = Inspection(chat_template, (*_OF_MODELS, "template", "template_type", "stage"))
_ANSWERING = Inspection(answering_template, (*_OF_MODELS, "template", "template_type", "stage"))
_ADAPTERS = Inspection(adapter_files, (*_OF_MODELS, "adapter_name_or_path", "adapter_folder"))
_GRAPH = Inspection(graph_packages, ("export_onnx",))
_HUB = Inspection(hub_access, ("push_to_hub", "export_hub_model_id"))
_DATA = Inspection(data_files, ("dataset", "eval_dataset", "dataset_dir", "stage", "max_samples", "max_dropped_fraction", "val_size",
                                "prompt_column", "query_column", "response_column", "history_column", "data_manager_type", "split",
                                "tokenized_path"))
_PREDICTED = Inspection(predicted_files, _DATA.fields)
_FEW_BITS: Mapping[Purpose, Inspection] = {
    purpose: Inspection(partial(quantised_base, purpose), (
        *_OF_MODELS, "quantization_bit", "finetuning_type", "pissa_init", "create_new_adapter", "merge_lora", "adapter_name_or_path"))
    for purpose in ("train", "eval", "predict", "chat", "export")}
_INSPECTIONS: Mapping[Purpose, tuple[Inspection, ...]] = {
    "train": (
        Inspection(schedule_arguments, ("lr_scheduler_type", "lr_scheduler_kwargs", "learning_rate", "warmup_steps", "warmup_ratio")),
        Inspection(optimizer_arguments, ("optim", "optim_args")),
        Inspection(kernel_packages, ("torch_compile", "torch_compile_backend", "torch_compile_mode", "enable_liger_kernel",
                                     "use_fused_rotary_pos_emb")),
        _MODEL, _TOKENS, _FEW_BITS["train"], _TEMPLATE, _ADAPTERS,
        Inspection(tuned_modules, (*_OF_MODELS, "finetuning_type", "adapter_name_or_path", "create_new_adapter")),
        Inspection(room, (*_OF_MODELS, "finetuning_type", "lora_target", "lora_rank", "output_dir", "optim", "pure_bf16")),
        _DATA, _HUB, _GRAPH,
    ),
    "eval": (_MODEL, _TOKENS, _FEW_BITS["eval"], _ANSWERING, _ADAPTERS, _DATA),
    "predict": (_MODEL, _TOKENS, _FEW_BITS["predict"], _ANSWERING, _ADAPTERS, _PREDICTED),
    "chat": (_MODEL, _TOKENS, _FEW_BITS["chat"], _ANSWERING, _ADAPTERS),
    "export": (_MODEL, _TOKENS, _FEW_BITS["export"], _ADAPTERS, _HUB, _GRAPH),
    "preview": (_TOKENS, _TEMPLATE, _DATA),
}


def _weighed(run: RunConfig) -> Path | None:
    """The directory of a local model whose weights files are sound."""
    from tunewright.models.directory import check_directory

    directory = local_model(run)
    is_sound = directory is not None and not run.model.gguf_file and not _caught("", partial(check_directory, directory))
    return directory if is_sound else None


def _has_tokenizer(directory: Path) -> bool:
    from tunewright.models.unopened import TOKENIZER_FILES

    return any((directory / name).is_file() for name in TOKENIZER_FILES)


def _first(several: Iterable[list[Problem]]) -> list[Problem]:
    """The first that is not empty: a damaged file is reported once."""
    return next((problems for problems in several if problems), [])


def _caught(field: str, inspect: Callable[[], object]) -> list[Problem]:
    """What the inspection refuses; it is said of `field` unless it names a file or another parameter itself."""
    try:
        inspect()
    except InputError as error:
        is_placed = error.where is not None or error.message.partition(": ")[0] in table()
        return [Problem(error.message if is_placed else f"{field}: {error.message}", error.where, error.mend)]
    return []


def _located(problem: Problem, reading: Reading) -> Problem:
    """The problem with the place of the setting it begins with, and its name as the user wrote it."""
    field, _, rest = problem.message.partition(": ")
    if problem.where is not None or field not in table():
        return problem
    origin = reading.origins[field]
    return replace(problem, where=origin.where, message=f"{origin.key}: {rest}") if origin.is_given else problem


def in_words(size: float) -> str:
    """Bytes in GB, or in MB where they are few."""
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"
