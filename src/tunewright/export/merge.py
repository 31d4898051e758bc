"""Base and adapters to one model directory, checked against the live adapter and put in place in one move.

The merge is computed in float32. What is compared is what people will use: the files, opened again by plain transformers
in the number format they were written in, against the adapter at work on the base.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from tunewright.adapters.directory import adapter_directories, split_adapter
from tunewright.adapters.lora import unload_merged
from tunewright.adapters.positions import with_positions
from tunewright.adapters.trainable import open_up, save_model, save_tokenizer
from tunewright.adapters.value_head import copy_value_head
from tunewright.config.model import ModelConfig
from tunewright.config.run import RunConfig
from tunewright.data.templates import Renderer, load_renderer, source_name
from tunewright.durable import sync_directory, sync_file
from tunewright.engine.hub import Repository, demand_access, upload_directory
from tunewright.errors import NumericError, refuse, require
from tunewright.export.onnx import ONNX_FILE, onnx_logits, require_same, write_onnx
from tunewright.export.probe import Difference, compare, probe_ids, probe_logits
from tunewright.inference.opening import fit_base, open_tokenizer, with_adapters
from tunewright.models.directory import find_model, read_tensor_header
from tunewright.models.families import vocabulary_rows
from tunewright.models.load import check_vocabulary, load_model

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

FORMATS = {"F64": "float64", "F32": "float32", "BF16": "bfloat16", "F16": "float16"}


@dataclass(frozen=True, slots=True)
class Exported:
    """Where the model is, its number format, what was merged, and how far it is from the live adapter."""

    directory: Path
    dtype: str
    adapters: tuple[Path, ...]
    difference: Difference

    def lines(self) -> list[str]:
        """What to tell the user."""
        merged = f"{len(self.adapters)} adapter(s) merged" if self.adapters else "no adapter to merge"
        against = "the live adapter" if self.adapters else "the model that was read"
        return [f"exported {self.directory} ({self.dtype}, {merged})",
                f"against {against} on probe prompts: {self.difference.describe()}"]


def export(run: RunConfig) -> Exported:
    """Merge the adapters of `run.model` into their base and write the result to `export_dir`.

    Raises `InputError` if the target is not empty, and `NumericError` if the result is too far from the live adapter; then,
    and when interrupted, nothing is left behind at the target.
    """
    import torch

    target = require_empty(run.export.export_dir)
    repository = open_repository(run)
    source = split_adapter(run.model)
    adapters = adapter_directories(source)
    tokenizer = open_tokenizer(run, source, adapters)
    renderer = chat_renderer(run, tokenizer)
    source, length_tokens = with_positions(source, run.data.cutoff_len)
    model = load_model(source, run.precision, dtype=torch.float32, length_tokens=length_tokens)
    model.to(merge_device(run.export.export_device))
    fit_base(model, tokenizer, run, adapters)
    dtype = export_dtype(asked_dtype(run), find_model(source), source)
    live = with_adapters(model, adapters).eval()
    check_vocabulary(tokenizer, live)
    prompts = probe_ids(tokenizer, vocabulary_rows(live))
    expected = probe_logits(live, prompts)
    merged = unload_merged(cast(Any, live)) if adapters else live
    set_stop_ids(merged, tokenizer, renderer)
    with staged(target) as staging:
        if run.export.export_onnx:
            write_onnx(merged.to("cpu"), staging / ONNX_FILE)
        save_model(merged.to("cpu", dtype), staging, f"{run.export.export_size}GB")
        copy_value_head(source, staging)
        save_tokenizer(tokenizer, staging, renderer.source if renderer else None)
        open_up(staging)
        del merged, live, model
        difference = compare(expected, probe_logits(reopened(staging), prompts))
        require_close(difference, dtype)
        if run.export.export_onnx:
            require_same(compare(expected, onnx_logits(staging / ONNX_FILE, prompts)))
    if repository is not None:
        upload_directory(target, repository)
    return Exported(target, str(dtype).removeprefix("torch."), adapters, difference)


def open_repository(run: RunConfig) -> Repository | None:
    """The repository to upload to, made before the work begins; None where nothing is to be uploaded."""
    name = run.export.export_hub_model_id
    if name is None:
        return None
    demand_access("export_hub_model_id")
    repository = Repository(name, run.hub.hub_private_repo)
    repository.open()
    return repository


def asked_dtype(run: RunConfig) -> str:
    """The number format that the run asks for; `auto` if it leaves that to the base."""
    return run.inference.infer_dtype if run.export.export_dtype == "auto" else run.export.export_dtype


def merge_device(asked: str) -> torch.device:
    """Where the merge is computed: the CPU, or with `auto` the first accelerator if there is one."""
    import torch

    found = torch.accelerator.current_accelerator(check_available=True) if asked == "auto" else None
    return found or torch.device("cpu")


def require_empty(export_dir: str | None) -> Path:
    """The target, which must not hold anything yet."""
    if not export_dir:
        refuse("no target is given", mend="set export_dir (or --out) to a new directory")
    target = Path(export_dir).expanduser().absolute()
    require(not target.exists() or target.is_dir(), f"export_dir: {target} is a file", mend="name a new directory")
    require(not target.exists() or not any(target.iterdir()), f"export_dir: {target} is not empty",
            mend="name a new directory; nothing is overwritten")
    return target


def chat_renderer(run: RunConfig, tokenizer: PreTrainedTokenizerBase) -> Renderer | None:
    """The template to put alongside; None for a model without one, which is exported as it is."""
    if source_name(run.template) == "auto" and not tokenizer.chat_template:
        return None
    return load_renderer(run.template, tokenizer)


def export_dtype(asked: str, base: Path, source: ModelConfig) -> torch.dtype:
    """The asked number format; `auto` is the one most of the base's numbers are stored in, float32 for a GGUF base."""
    import torch

    if asked != "auto":
        return cast("torch.dtype", getattr(torch, asked))
    if source.gguf_file:
        return torch.float32
    sizes: dict[str, int] = {}
    for file in base.glob("*.safetensors"):
        for entry in read_tensor_header(file).values():
            start, end = entry["data_offsets"]
            sizes[entry["dtype"]] = sizes.get(entry["dtype"], 0) + end - start
    most = max(sizes, key=lambda name: sizes[name], default="F32")
    require(most in FORMATS, f"the base stores its weights as {most}", where=str(base), mend="set export_dtype")
    return cast("torch.dtype", getattr(torch, FORMATS[most]))


def set_stop_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, renderer: Renderer | None) -> None:
    """Make plain `generate` stop where our chat does: at the end token and at the terminator of a turn."""
    if model.generation_config is None:
        return
    own = model.generation_config.eos_token_id
    known = own if isinstance(own, list) else [own]
    stops = list(renderer.stop_token_ids(tokenizer)) if renderer else []
    ids = list(dict.fromkeys(token for token in [*known, *stops] if token is not None))
    if ids:
        model.generation_config.eos_token_id = ids[0] if len(ids) == 1 else ids


@contextmanager
def staged(target: Path) -> Iterator[Path]:
    """A hidden directory beside `target` that becomes `target` at the end, synced to disk; removed if anything fails."""
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = target.with_name(f".{target.name}.exporting-{os.getpid()}")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir()
    try:
        yield staging
        for path in (*staging.iterdir(), staging):
            sync_file(path)
        staging.rename(target)
        sync_directory(target.parent)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def reopened(directory: Path) -> PreTrainedModel:
    """The exported files as a user opens them: plain transformers, nothing of ours."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(
        directory, local_files_only=True, trust_remote_code=False, use_safetensors=True, dtype="auto")
    return cast("PreTrainedModel", model.eval())


def require_close(difference: Difference, dtype: torch.dtype) -> None:
    """Raise `NumericError` if the divergence is more than the rounding of `dtype` explains."""
    import torch

    allowed = {torch.float32: 1e-6, torch.float16: 2e-3, torch.bfloat16: 5e-2}.get(dtype, 1e-6)
    if not difference.divergence <= allowed:
        raise NumericError(
            f"the exported model is not the trained one: {difference.describe()}, more than {allowed:g} nats for {dtype}",
            mend="set export_dtype: float32; if it fails there too, the base is not the one the adapter was trained on")
