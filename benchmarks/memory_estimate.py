"""How good the planner's memory estimate is: estimated against measured peak, each configuration in a process of its own, forked from one
that has loaded the libraries.

    python -P benchmarks/memory_estimate.py [--only NAME ...] [--small] [--output benchmarks/results/memory_estimate.jsonl]

Measured is the highest resident memory while a few steps are trained, less what the process had just before the model was opened: by then
it has trained another, tiny model with the same settings, so that every library is loaded. `settled` has the C library give freed blocks
back to the system at once (MALLOC_MMAP_THRESHOLD_, MALLOC_TRIM_THRESHOLD_ and one arena), which is what live bytes are to be compared with;
`default` leaves it as it is. Models are random and made on the spot; --small takes those of some tens of megabytes only. `make docs` puts
the results into docs/planning.md. Linux only.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

MODELS: Final[dict[str, dict[str, Any]]] = {
    "llama-14m": {"kind": "LlamaConfig", "vocab_size": 8192, "hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 12,
                  "num_attention_heads": 8, "num_key_value_heads": 4, "tie_word_embeddings": True},
    "qwen3-20m": {"kind": "Qwen3Config", "vocab_size": 16384, "hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 12,
                  "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64, "tie_word_embeddings": False},
    "llama-135m": {"kind": "LlamaConfig", "vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
                   "num_attention_heads": 9, "num_key_value_heads": 3, "tie_word_embeddings": True},
}
MODELS["llama-135m, bf16"] = MODELS["llama-135m"] | {"dtype": "bfloat16"}
LORA: Final[dict[str, Any]] = {"finetuning_type": "lora"}
FULL: Final[dict[str, Any]] = {"finetuning_type": "full"}
ON: Final[dict[str, Any]] = {"gradient_checkpointing": True}
PADDED: Final[dict[str, Any]] = {"padding_free": False}
FLAT: Final[dict[str, Any]] = {"padding_free": True}
PACKED: Final[dict[str, Any]] = {"packing": True, "per_device_train_batch_size": 2}
CASES: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "lora, padded": ("llama-14m", LORA | PADDED),
    "lora, end to end": ("llama-14m", LORA | FLAT),
    "lora, packed": ("llama-14m", LORA | PACKED),
    "lora, end to end, recomputed": ("qwen3-20m", LORA | FLAT | ON),
    "lora, end to end, no fast paths": ("qwen3-20m", LORA | FLAT | {"slow_paths": ("loss", "lora", "mlp", "norm")}),
    "lora on 4 bits, end to end": ("qwen3-20m", LORA | FLAT | {"quantization_bit": 4}),
    "full, padded": ("qwen3-20m", FULL | PADDED),
    "full, end to end": ("llama-14m", FULL | FLAT),
    "full, packed": ("llama-14m", FULL | PACKED),
    "full, packed, recomputed": ("qwen3-20m", FULL | PACKED | ON),
    "full, end to end, accumulated": ("qwen3-20m", FULL | FLAT | {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 3}),
    "full, end to end, adafactor": ("llama-14m", FULL | FLAT | {"optim": "adafactor"}),
    "freeze, padded": ("qwen3-20m", {"finetuning_type": "freeze"} | PADDED),
    "135m lora, end to end": ("llama-135m", LORA | FLAT),
    "135m lora, end to end, mixed precision": ("llama-135m, bf16", LORA | FLAT | {"bf16": True}),
    "135m lora, padded, recomputed": ("llama-135m", LORA | PADDED | ON),
    "135m full, end to end, recomputed": ("llama-135m", FULL | FLAT | ON),
    "135m full, packed": ("llama-135m", FULL | PACKED),
}
ALLOCATORS: Final[dict[str, dict[str, str]]] = {
    "settled": {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1",
                "MALLOC_MMAP_MAX_": "1000000"},
    "default": {}}


_ROWS: Final = 6
"""Rows of a step."""

_FOUND: Final = "found: "
"""Before what a process prints for the one that started it."""


def write_model(directory: Path, shape: dict[str, Any]) -> Path:
    """A random model with a tokenizer of as many words, unless it is there."""
    import torch
    import transformers
    from tokenizers import Tokenizer, models

    if (directory / "config.json").is_file():
        return directory
    settings = {name: value for name, value in shape.items() if name != "kind"}
    config = getattr(transformers, shape["kind"])
    torch.manual_seed(0)
    made = transformers.AutoModelForCausalLM.from_config(config(**settings, pad_token_id=0, bos_token_id=1, eos_token_id=2))
    made.save_pretrained(directory)
    names = ("<pad>", "<s>", "</s>", *(f"w{number}" for number in range(3, shape["vocab_size"])))
    words = {word: number for number, word in enumerate(names)}
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="w3")), pad_token="<pad>", bos_token="<s>",
        eos_token="</s>").save_pretrained(directory)
    return directory


def write_rows(file: Path, number: int, longest: int, vocabulary: int) -> Path:
    """Rows of tokens of ragged length, two thirds of each with a label. Those of one step are those of the next: in the first an optimizer
    has no state."""
    with file.open("w", encoding="utf-8") as stream:
        for row in range(number):
            chance = random.Random(row % _ROWS)
            ids = [chance.randrange(3, vocabulary) for _ in range(chance.randint(longest // 4, longest))]
            labels = [-100] * (len(ids) // 3) + ids[len(ids) // 3:]
            stream.write(json.dumps({"input_ids": ids, "labels": labels}) + "\n")
    return file


def configuration(model: Path, rows: Path, output: Path, settings: dict[str, Any]) -> Any:
    """A run of two steps that leaves nothing."""
    from tunewright.config.derive import derived
    from tunewright.config.table import build

    fixed = {"model_name_or_path": str(model), "dataset": (str(rows),), "output_dir": str(output), "stage": "pt", "packing": False,
             "data_cache_dir": "none", "max_steps": 2, "per_device_train_batch_size": _ROWS,
             "disable_shuffling": True, "cutoff_len": 512, "save_strategy": "no",
             "save_hf_weights": False, "logging_strategy": "no", "disable_tqdm": True, "use_cpu": True, "plot_loss": False,
             "overwrite_output_dir": True, "report_to": ()}
    return derived(build(fixed | settings))[0]


def measure(model: str, settings: dict[str, Any], folder: Path) -> dict[str, Any]:
    """In this process: estimate, warm up, settle, train, and compare."""
    from tunewright.commands.train import train
    from tunewright.planning.machine import OBJECTS_BYTES

    shape = MODELS[model]
    rows = write_rows(folder / f"rows-{model}.jsonl", 4 * _ROWS, 500, shape["vocab_size"])
    real = configuration(write_model(folder / model, shape), rows, folder / "real", settings)
    train(tiny_run(model, settings, folder))
    outlook = estimate(real)
    settle()
    before = resident()
    Path("/proc/self/clear_refs").write_text("5")
    train(real)
    peak = status("VmHWM") - before
    estimated = outlook.bytes - (outlook.machine.taken - OBJECTS_BYTES)
    return {"estimated": estimated, "measured": peak, "ratio": estimated / peak, "seconds_per_step": outlook.seconds_per_step,
            "components": {name: size for name, size in outlook.components().items() if name != "framework"}}


def tiny_run(model: str, settings: dict[str, Any], folder: Path) -> Any:
    """The same on a model and rows so small that only the libraries count."""
    tiny = MODELS[model] | {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 1,
                            "num_key_value_heads": 1, "vocab_size": 256}
    few = write_rows(folder / "few.jsonl", 4 * _ROWS, 40, 256)
    return configuration(write_model(folder / f"tiny-{model}", tiny), few, folder / "warm", settings)


def estimate(run: Any) -> Any:
    """The planner's outlook on the run's own rows."""
    from tunewright.data.pipeline import build
    from tunewright.models.tokenizer import load_tokenizer
    from tunewright.planning.estimate import Planner
    from tunewright.planning.machine import this_cpu
    from tunewright.planning.rows import rows_of

    prepared = build(run, load_tokenizer(run.model, run.tokenizer), None, report=lambda line: None)
    return Planner(run, this_cpu()).outlook(rows_of(prepared.train, run), recomputes=run.precision.gradient_checkpointing)


def settle() -> None:
    """Give what was freed back to the system."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)


def resident() -> int:
    """Bytes in RAM now."""
    return status("VmRSS")


def status(name: str) -> int:
    """A size from /proc/self/status, in bytes."""
    lines = (line.split() for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines())
    return next(int(words[1]) * 1024 for words in lines if words[0] == f"{name}:")


def in_own_processes(names: list[str], allocator: str, folder: Path) -> Iterator[dict[str, Any]]:
    """Each case, measured by a process of its own. The allocator is chosen where a program begins, hence one program for all of them."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"} | ALLOCATORS[allocator]
    command = [sys.executable, "-P", __file__, "--worker", "--folder", str(folder), "--only", *names]
    with (folder / "worker.log").open("w+", encoding="utf-8") as log:
        worker = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=log, text=True)
        assert worker.stdout is not None
        for line in worker.stdout:
            if line.startswith(_FOUND):
                found = json.loads(line.removeprefix(_FOUND))
                yield {"case": found["case"], "model": CASES[found["case"]][0], "allocator": allocator, **found}
        if worker.wait():
            log.seek(0)
            raise RuntimeError(log.read()[-2000:])


def fork_each(names: list[str], folder: Path) -> int:
    """In a process that has loaded the libraries: print what a child finds for each case. Returns 1 when one failed.

    A child begins with the pages of its parent in its count, trains its own tiny model, and counts what comes on top.
    """
    from accelerate.state import AcceleratorState

    from tunewright.commands.train import train

    model, settings = CASES[names[0]]
    train(tiny_run(model, settings, folder))
    for name in names:
        sys.stdout.flush()
        child = os.fork()
        if not child:
            with leaving():
                AcceleratorState._reset_state(reset_partial_state=True)  # it has the parent's number format
                print(_FOUND + json.dumps({"case": name, **measure(*CASES[name], folder)}), flush=True)
        if os.waitpid(child, 0)[1]:
            return 1
    return 0


@contextmanager
def leaving() -> Iterator[None]:
    """End this process after the block, without what the parent has to do at its end."""
    try:
        yield
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)


def summary(found: list[dict[str, Any]]) -> str:
    """Minimum, median and maximum of the ratio."""
    ratios = [one["ratio"] for one in found]
    return f"estimated / measured over {len(ratios)}: min {min(ratios):.2f}, median {statistics.median(ratios):.2f}, max {max(ratios):.2f}"


def section(results: Path) -> str:
    """The newest of each configuration as docs/planning.md has them."""
    found = {(line["case"], line["allocator"]): line for line in map(json.loads, results.read_text(encoding="utf-8").splitlines())}
    settled = [line for (_, allocator), line in found.items() if allocator == "settled"]
    rows = [f"| {one['case']} | {one['model']} | {one['estimated'] / 1e6:.0f} | {one['measured'] / 1e6:.0f} | {one['ratio']:.2f} |"
            for one in settled]
    return "\n".join([f"{summary(settled)}.", "", "| configuration | model | estimated, MB | measured, MB | ratio |",
                      "|---|---|---|---|---|", *rows, ""])


def main() -> int:
    """Measure the chosen cases and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", nargs="*", default=list(CASES), choices=list(CASES))
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--allocator", choices=list(ALLOCATORS), nargs="*", default=["settled"])
    parser.add_argument("--output", type=Path)
    parser.add_argument("--worker", action="store_true", help="measure in this program, as it was started")
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    if given.worker:
        return fork_each(given.only, given.folder)
    names = [name for name in given.only if not given.small or not CASES[name][0].startswith("llama-135m")]
    with tempfile.TemporaryDirectory(prefix="memory-estimate-") as temporary:
        folder = given.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for allocator in given.allocator:
            found = []
            for one in in_own_processes(names, allocator, folder):
                found.append(one)
                print(f"{one['case']:<36} {one['model']:<12} {one['estimated'] / 1e6:8.0f} MB estimated "
                      f"{one['measured'] / 1e6:8.0f} MB measured {one['ratio']:5.2f}", flush=True)
                if given.output:
                    with given.output.open("a", encoding="utf-8") as stream:
                        stream.write(json.dumps(one) + "\n")
            print(f"allocator {allocator}: {summary(found)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
