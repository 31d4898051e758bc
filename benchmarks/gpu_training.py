"""Training on one NVIDIA GPU in bfloat16, against plain Trainer with Liger's kernels: tokens per second, share of the card's peak, memory.

    python benchmarks/gpu_training.py                                # the shapes of 1b and 8b, LoRA and full
    python benchmarks/gpu_training.py --shapes 1b --tunings lora --rounds 1
    python benchmarks/gpu_training.py --quick                        # a tiny model on a CPU: whether it runs

Models are random Llamas of the shapes of Llama 3; nothing is fetched. Rows have 192 tokens each, so that no side pads; all sides take the
same tokens in the same batches with the same optimizer, and LoRA the same first adapter. Each run is a process of its own, the sides in
turns, in the other order every second round. The share of the peak is 4 operations (LoRA) or 6 (full) for each weight but the embedding's
and each token, over the data sheet's dense bfloat16 rate. `pip install "tunewright[liger]"` first: a side that lacks its kernels fails.

Without a GPU nothing is measured: it says so, with exit code 2. Lines go to benchmarks/results/gpu.jsonl, and `python benchmarks/table.py`
makes a section of docs/benchmarks.md of them.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))
sys.path.insert(0, str(Path(__file__).parent))
from lines import Log
from parts import PRODUCTS
from processes import ran, untrained_adapter
from sft_rows import write_sft
from sides import OWN, SIDES, YARDSTICK
from training import RATE

HERE: Final = Path(__file__).parent
WARM: Final = 4
"""Steps that are not timed: kernels are chosen and compiled in them."""
_OF_ALL: Final = {"max_position_embeddings": 8192, "rope_theta": 500000.0, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
SHAPES: Final[dict[str, dict[str, Any]]] = {
    "1b": {"vocab_size": 128256, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32,
           "num_key_value_heads": 8, "tie_word_embeddings": True, **_OF_ALL},
    "8b": {"vocab_size": 128256, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
           "num_key_value_heads": 8, "tie_word_embeddings": False, **_OF_ALL},
    "tiny": {"vocab_size": 512, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
             "num_key_value_heads": 2, "tie_word_embeddings": True, **_OF_ALL}}


RUNS: Final = {
    OWN: SIDES[OWN], f"{OWN}-liger": SIDES[OWN]._replace(options={"enable_liger_kernel": "true"}),
    f"{YARDSTICK}-liger": SIDES[YARDSTICK]._replace(options={"use_liger_kernel": True}), YARDSTICK: SIDES[YARDSTICK]}
ON_CPU: Final = (OWN, YARDSTICK)
"""Sides that need no GPU."""


def main() -> int:
    """Measure, write the lines, print them. Returns the exit code: 2 without a GPU, 1 where a side failed."""
    wish = _arguments()
    card = None if wish.quick else _card()
    if card is None and not wish.quick:
        print("error: no NVIDIA GPU is at hand, so nothing is measured; --quick tries the benchmark itself on a CPU", file=sys.stderr)
        return 2
    wish.folder.mkdir(parents=True, exist_ok=True)
    log = Log(wish.output)
    log.add({"what": "machine", "card": card, "command": sys.argv[1:]})
    failed = False
    for shape in wish.shapes:
        model, weights = _random_model(wish.folder / shape, SHAPES[shape])
        for tuning in wish.tunings:
            failed |= _measured(shape, tuning, (model, weights), wish, card, log)
    return int(failed)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=None, help="default: 1b 8b, or tiny if --quick")
    parser.add_argument("--tunings", nargs="+", choices=RATE, default=list(RATE))
    parser.add_argument("--sides", nargs="+", choices=RUNS, default=None, help="default: all, or those that need no GPU if --quick")
    parser.add_argument("--rounds", type=int, default=None, help="runs of each side; default: 2, or 1 if --quick")
    parser.add_argument("--steps", type=int, default=None, help=f"of a run; the first {WARM} are not timed; default: 12, or 6 if --quick")
    parser.add_argument("--batch", type=int, default=None, help="rows of a step, 192 tokens each; default: 64, or 2 if --quick")
    parser.add_argument("--folder", type=Path, default=Path("/tmp/tunewright-gpu-benchmark"))
    parser.add_argument("--output", type=Path, default=None, help="default: benchmarks/results/gpu.jsonl, or in --folder if --quick")
    parser.add_argument("--quick", action="store_true", help="a tiny model on a CPU")
    wish = parser.parse_args()
    usual = (["tiny"], list(ON_CPU), 1, WARM + 2, 2) if wish.quick else (["1b", "8b"], list(RUNS), 2, 12, 64)
    for name, value in zip(("shapes", "sides", "rounds", "steps", "batch"), usual, strict=True):
        setattr(wish, name, getattr(wish, name) or value)
    if wish.steps <= WARM:
        parser.error(f"--steps {wish.steps}: none of them would be timed; {WARM + 1} at the least")
    wish.output = wish.output or (wish.folder / "quick.jsonl" if wish.quick else HERE / "results" / "gpu.jsonl")
    return wish


def _card() -> dict[str, Any] | None:
    """Name and peak of the first GPU, if there is one."""
    import torch

    from tunewright.planning.cards import card_of

    if not torch.cuda.is_available():
        return None
    found = torch.cuda.get_device_properties(0)
    return {"name": found.name, "tflops": card_of(found.name, found.multi_processor_count).half_tflops}


def _random_model(folder: Path, shape: dict[str, Any]) -> tuple[Path, int]:
    """A model of that shape with a small tokenizer, made once; and its weights without an embedding that is no head."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

    from tunewright.selftest.tiny import write_model

    config = LlamaConfig(**shape)
    with torch.device("meta"):
        weights = sum(one.numel() for one in AutoModelForCausalLM.from_config(config, trust_remote_code=False).parameters())
    if not folder.exists():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16, trust_remote_code=False)
        begun = folder.with_name(f"{folder.name}.part")
        AutoTokenizer.from_pretrained(write_model(folder.with_name("tokenizer")), trust_remote_code=False).save_pretrained(begun)
        model.save_pretrained(begun)
        begun.rename(folder)
    return folder, weights - (0 if config.tie_word_embeddings else config.vocab_size * config.hidden_size)


def _measured(shape: str, tuning: str, model: tuple[Path, int], wish: argparse.Namespace, card: dict[str, Any] | None, log: Log) -> bool:
    """All rounds of one shape and tuning; whether a side failed."""
    path, weights = model
    rows = wish.folder / "rows.jsonl"
    work = write_sft(rows, "uniform", path, (wish.steps, WARM, wish.batch))
    job = {"rows": str(rows), "model": str(path), "batch": wish.batch, "steps": wish.steps, "warm": WARM, "learning_rate": RATE[tuning],
           "gpu": card is not None, "adapter": str(untrained_adapter(path, wish.folder)) if tuning == "lora" else None}
    failed = False
    for number in range(wish.rounds):
        for side in wish.sides if number % 2 == 0 else reversed(wish.sides):
            chosen = RUNS[side]
            found = ran(chosen.driver, Path(sys.executable), {**job, "options": chosen.options}, 8, wish.folder)
            speed = None if "failure" in found else work.counted_tokens / found["wall"]
            share = None if speed is None or card is None else PRODUCTS[tuning] * weights * speed / (card["tflops"] * 1e12)
            log.add({"what": "side", "shape": shape, "tuning": tuning, "side": side, "round": number, "batch": wish.batch,
                     "weights": weights, "tokens_per_s": speed, "share": share, **found})
            print(f"{shape} {tuning}, round {number}, {side}: {_told(found, speed, share)}", flush=True)
            failed |= "failure" in found
    return failed


def _told(found: dict[str, Any], speed: float | None, share: float | None) -> str:
    if speed is None:
        return str(found["failure"])
    peak = "" if share is None else f", {100 * share:.0f} % of the peak, {found['gpu_mb']} MB"
    return f"{speed:.0f} tokens per s{peak}, first loss {found['losses'][0]:.4f}"


if __name__ == "__main__":
    raise SystemExit(main())
