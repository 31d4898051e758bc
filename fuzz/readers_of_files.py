"""Readers of what programs write: models, weights, checkpoints, token files and caches."""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fuzz.readers_of_rows import _each
from fuzz.target import Target, folder, words_in, written

if TYPE_CHECKING:
    from tunewright.config.run import RunConfig

_MODEL = words_in(
    "model_type llama qwen2 hidden_size num_hidden_layers vocab_size rope_scaling rope_type text_config quantization_config quant_method "
    "bitsandbytes gptq load_in_4bit load_in_8bit bnb_4bit_quant_type llm_int8_skip_modules auto_map trust_remote_code weight_map "
    "chat_template added_tokens vocab model tokenizer_file peft_type LORA r lora_alpha target_modules init_lora_weights modules_to_save "
    "rank_pattern base_model_name_or_path _attn_implementation model.safetensors ../model.safetensors")
_STATE = words_in(
    "format run_id step world_size settings files name size sha256 digest global_step epoch offset log_history metric_sums best_metric "
    "version subject components rows origin_files vocabulary tokenizer stage packing sets audits ../ train_state.json notes.jsonl")


def model_files(content: bytes) -> None:
    """A JSON file in the place of each that a model or an adapter has."""
    from tunewright.adapters.directory import read_adapter
    from tunewright.models.directory import check_config, check_path_fields, check_weights
    from tunewright.models.unopened import check_tokenizer, own_template, tensor_shapes

    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors.index.json"):
        directory = written(f"model/{name}", content).parent
    adapter = written("adapter/adapter_config.json", content).parent
    written("adapter/adapter_model.safetensors", _SAFETENSORS)
    _each(partial(check_config, directory), partial(check_path_fields, directory), partial(check_weights, directory),
          partial(check_tokenizer, directory), partial(own_template, directory), partial(tensor_shapes, directory),
          partial(read_adapter, adapter))


def safetensors_header(content: bytes) -> None:
    """The header of a weights file, and the shapes of its weights; the length in front of the header is put right in half of them."""
    from tunewright.models.directory import read_tensor_header
    from tunewright.models.quantised import shapes_in

    if content[:1] == b"{":
        content = struct.pack("<Q", len(content)) + content + b"\0" * 64
    path = written("model.safetensors", content)
    shapes_in(path, read_tensor_header(path))


def gguf_header(content: bytes) -> None:
    """The header of a GGUF file."""
    from tunewright.models.gguf_header import read_gguf_header

    read_gguf_header(written("model.gguf", content))


def megatron_index(content: bytes) -> None:
    """The index of a token file, and all that it says of the tokens."""
    from tunewright.data.megatron.reader import open_tokens

    written("tokens.bin", bytes(range(64)))
    found = open_tokens(written("tokens.idx", content).with_suffix(""))
    for number in range(found.num_documents):
        found.document(number)
    found.digest()
    assert found.unnamed_tokens >= 0


def checkpoint(content: bytes) -> None:
    """The manifest of a checkpoint as it is and with the digest put right, in a run that goes on; the state and the record of a run."""
    from tunewright.engine.resume import begin
    from tunewright.engine.snapshot import read_state
    from tunewright.runtime import Ranks

    root = folder() / "run"
    manifests = dict.fromkeys((content, _digested(content)))
    pairs = (*((one, _RECORD) for one in manifests), (_MANIFEST, content))
    _each(*(partial(_resumed, root, manifest, record) for manifest, record in pairs),
          lambda: read_state(written("state/train_state.json", content).parent),
          lambda: begin(_run(root), Ranks(), lambda _: None))


def _resumed(root: Path, manifest: bytes, record: bytes) -> None:
    """What a run finds where a checkpoint has this manifest and the run this record."""
    from tunewright.engine.resume import begin
    from tunewright.runtime import Ranks

    shutil.rmtree(root, ignore_errors=True)
    written("run/checkpoint-6/a.json", b"{}")
    written("run/checkpoint-6/manifest.json", manifest)
    written("run/.staging-9/manifest.json", manifest)
    written("run/run.json", record)
    begin(_run(root), Ranks(), lambda _: None)


@cache
def _run(root: Path) -> RunConfig:
    from tunewright.dialects.read import read_config

    return read_config([f"output_dir={root}", "resume_from_checkpoint=auto"]).config


def caches(content: bytes) -> None:
    """The manifests of kept tokens, and their notes and arrays."""
    from tunewright.data.cache import Fingerprint, TokenCache
    from tunewright.data.shards import read_shard
    from tunewright.data.tokenized_path import Made, load
    from tunewright.errors import InputError

    def build(_: Path) -> Any:
        raise InputError("tokenised anew")

    same, other = Fingerprint("a", {"code": "1"}), Fingerprint("a", {"code": "2"})
    for place in (f"cache/{same.digest}", "kept"):
        for name, file in _entry_files().items():
            if not (folder() / place / name).exists():
                written(f"{place}/{name}", file)
        written(f"{place}/manifest.json", content)
    cache_ = TokenCache(folder() / "cache", False, lambda _: None)
    made = Made(9, "t", "sft", False, {"cutoff_len": 8})
    _each(partial(cache_.get, same, ["rows.jsonl"], build), partial(cache_.get, other, ["rows.jsonl"], build),
          partial(load, folder() / "kept", made, lambda _: None), partial(read_shard, written("0.shard", content)))


def _digested(content: bytes) -> bytes:
    """A manifest with the digest that belongs to it, if it is one at all."""
    try:
        manifest = json.loads(content)
        manifest.pop("digest", None)
        digest = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
        return json.dumps({**manifest, "digest": digest}).encode()
    except (ValueError, AttributeError, TypeError, RecursionError):
        return content


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


def _tensors() -> bytes:
    header = _json({"__metadata__": {"format": "pt"}, "base_model.model.q.lora_A.weight": {
        "dtype": "F32", "shape": [2, 4], "data_offsets": [0, 32]},
        "base_model.model.q.lora_B.weight": {"dtype": "F32", "shape": [4, 2], "data_offsets": [32, 64]}})
    return struct.pack("<Q", len(header)) + header + b"\0" * 64


_SAFETENSORS: Final = _tensors()


def _packed_tensors() -> bytes:
    state = _json({"shape": [4, 2], "quant_type": "nf4"})
    header = _json({"q.weight": {"dtype": "U8", "shape": [4, 1], "data_offsets": [0, 4]},
                    "q.weight.absmax": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]},
                    "q.weight.quant_state.bitsandbytes__nf4": {"dtype": "U8", "shape": [len(state)], "data_offsets": [8, 8 + len(state)]}})
    return struct.pack("<Q", len(header)) + header + b"\0" * 8 + state


def small_gguf(path: Path) -> bytes:
    """A file with every kind of entry, written to `path` by the package of llama.cpp."""
    import gguf
    import numpy as np

    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(128)
    writer.add_bool("a.flag", True)
    writer.add_float32("a.rate", 0.5)
    writer.add_custom_alignment(32)
    writer.add_token_list(["<s>", "a", "中"])
    writer.add_token_types([1, 2, 3])
    writer.add_tensor("token_embd.weight", np.zeros((3, 8), np.float32))
    writer.add_tensor("output.weight", np.zeros((2, 34), np.uint8), raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.read_bytes()


def _index(modes: bool) -> bytes:
    head = struct.pack("<9sQBQQ", b"MMIDIDX\0\0", 1, 8, 3, 4)
    return head + struct.pack("<3i3q4q", 4, 0, 28, 0, 8, 8, 0, 1, 2, 3) + (bytes(3) if modes else b"")


def _models() -> list[bytes]:
    return [_json(one) for one in (
        {"model_type": "llama", "hidden_size": 32, "num_hidden_layers": 2, "vocab_size": 96, "rope_scaling": {"rope_type": "linear"},
         "auto_map": {"AutoModel": "x.Y"}, "text_config": {"vocab_size": 4}},
        {"model_type": "llama", "quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4",
                                                        "llm_int8_skip_modules": ["lm_head"], "llm_int8_threshold": 6.0}},
        {"metadata": {}, "weight_map": {"a": "model.safetensors"}},
        {"model": {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": [["a", "b"]]}, "added_tokens": [{"id": 2, "content": "c"}]},
        {"chat_template": [{"name": "default", "template": "{{ a }}"}], "tokenizer_file": "tokenizer.json"},
        {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q"], "base_model_name_or_path": "a", "rank_pattern": {}})]


def _checkpoints() -> list[bytes]:
    from tunewright.engine.state import TrainState

    return [_MANIFEST, TrainState(log_history=[{"loss": 1.0}], metric_sums={"a": [1.0, 2.0]}).to_json().encode(),
            _RECORD]


_MANIFEST: Final = _digested(_json({
    "format": 1, "run_id": "a", "step": 6, "world_size": 1, "settings": {"seed": 1},
    "files": [{"name": "a.json", "size": 2, "sha256": hashlib.sha256(b"{}").hexdigest()}]}))
_RECORD: Final = _json({"run_id": "a", "config": {}})


@cache
def _entry_files() -> dict[str, bytes]:
    """The arrays of one row of three tokens, and one note, as the cache writes them."""
    import io

    import numpy as np

    def array(values: Any, kind: Any) -> bytes:
        stream = io.BytesIO()
        np.save(stream, np.array(values, kind), allow_pickle=False)
        return stream.getvalue()

    note = _json({"file": "rows.jsonl", "line": 2, "row": 2, "action": "dropped", "reason": "too long", "detail": "", "tokens_lost": 3})
    return {"input_ids.npy": array([1, 2, 3], np.int32), "labels.npy": array([1, 2, 3], np.int32), "offsets.npy": array([0, 3], np.int64),
            "origins.npy": array([[0, 0, 1]], np.int64), "notes.jsonl": note + b"\n", "bounds.npy": array([0, 1], np.int64)}


def _cached() -> list[bytes]:
    files = {name: {"size": len(file), "sha256": hashlib.sha256(file).hexdigest()} for name, file in _entry_files().items()}
    return [_json({"version": 1, "subject": "a", "components": {"code": "1"}, "rows": 2, "origin_files": ["rows.jsonl"], "files": files}),
            _json({"version": 1, "vocabulary": 9, "tokenizer": "t", "stage": "sft", "packing": False, "settings": {"cutoff_len": 8},
                   "sets": {"train": "."}, "origin_files": {"train": ["rows.jsonl"]}, "files": files,
                   "audits": [{"name": "a", "rows": 2, "notes": "notes.jsonl"}]})]


TARGETS = (
    Target("model_files", "JSON files of models and adapters", model_files, _models, _MODEL),
    Target("safetensors_header", "headers of safetensors", safetensors_header,
           lambda: [_SAFETENSORS, _SAFETENSORS[8:-64], _packed_tensors()], words_in("dtype shape data_offsets __metadata__ F32 .SCB")),
    Target("gguf_header", "headers of GGUF", gguf_header, lambda: [small_gguf(folder() / "seed.gguf")],
           words_in("GGUF general.architecture general.alignment llama")),
    Target("megatron_index", "Megatron's index", megatron_index, lambda: [_index(False), _index(True)]),
    Target("checkpoint", "manifest, state and record of a run", checkpoint, _checkpoints, _STATE),
    Target("caches", "manifests of kept tokens", caches, _cached, _STATE),
)
