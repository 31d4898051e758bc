"""What kernel options cost and save on a CPU: CPU seconds of one thread, variants in turn (A B C A B C ...), the first round dropped.

    OMP_NUM_THREADS=1 python -m benchmarks.kernel_options [experiment ...] [--rounds N]

Decoder layers of SmolLM2-135M's shape with random weights, forward and backward, rows of ragged length laid end to end. A line of JSON per
experiment: for each variant the seconds of the first round, the median of the others, and how many times faster than the first variant
it was in a round: least, median, most.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import numpy as np
import torch
from torch import nn

from tunewright.config.kernels import KernelsConfig
from tunewright.data.collate import Batch, Example, collate_flat
from tunewright.kernels import lora_groups, output_head, packed_attention, swap
from tunewright.kernels.compilation import compile_layers
from tunewright.kernels.variants import choose_variants
from tunewright.stages.causal_lm import next_token_loss

SHAPE: Final = {"vocab_size": 1000, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 4, "num_attention_heads": 9,
                "num_key_value_heads": 3, "max_position_embeddings": 2048}
EXPERTS: Final = {"num_experts": 16, "num_experts_per_tok": 4, "moe_intermediate_size": 384, "head_dim": 64, "num_hidden_layers": 2}
DELTA: Final = {**EXPERTS, "linear_num_value_heads": 9, "linear_num_key_heads": 9, "linear_key_head_dim": 64,
                "linear_value_head_dim": 64, "shared_expert_intermediate_size": 384, "layer_types": ["linear_attention"] * 2}
LENGTHS: Final = (44, 310, 97, 190, 128, 255)
Work = Callable[[], object]


def main() -> None:
    """Run the experiments that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("experiments", nargs="*", default=list(EXPERIMENTS))
    parser.add_argument("--rounds", type=int, default=6)
    chosen = parser.parse_args()
    for name in chosen.experiments:
        print(json.dumps({"experiment": name, **compare(EXPERIMENTS[name](), chosen.rounds)}), flush=True)


def compare(variants: dict[str, Work], rounds: int) -> dict[str, Any]:
    """Median CPU seconds, and ratios to the first variant, round by round."""
    taken: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds + 1):
        for name, work in variants.items():
            began = spent()
            work()
            taken[name].append(spent() - began)
    first = next(iter(taken.values()))
    found = {}
    for name, times in taken.items():
        ratios = [base / one for base, one in zip(first[1:], times[1:], strict=True)]
        found[name] = {"cpu_s": round(statistics.median(times[1:]), 3), "first_round_s": round(times[0], 1), "faster": [
            round(figure(ratios), 2) for figure in (min, statistics.median, max)]}
    return found


def spent() -> float:
    """CPU seconds of this process and of those that it has started and that have ended: compilers."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def model(family: str = "llama", dtype: torch.dtype = torch.float32, *, adapter: bool = True, **changes: Any) -> nn.Module:
    """Random weights; LoRA of rank 8 on every linear layer unless the weights themselves train."""
    import peft
    import transformers

    transformers.logging.set_verbosity_error()
    torch.manual_seed(0)
    is_recurrent = "linear_attention" in changes.get("layer_types", ())
    packed_attention.register()
    base = transformers.AutoModelForCausalLM.from_config(
        transformers.CONFIG_MAPPING[family](**{**SHAPE, **changes}), dtype=dtype,
        attn_implementation="sdpa" if is_recurrent else packed_attention.NAME)
    if not adapter:
        return base.train()
    return peft.get_peft_model(base, peft.LoraConfig(r=8, target_modules="all-linear")).train()


def batch(lengths: tuple[int, ...] = LENGTHS) -> Batch:
    """Rows laid end to end, every token but the first of a row trained."""
    draw, rows = np.random.default_rng(0), []
    for length in lengths:
        ids = draw.integers(3, 1000, length).astype(np.int32)
        labels = ids.copy()
        labels[0] = -100
        rows.append(Example(ids, labels, np.array([0, length], dtype=np.int32), 0))
    return collate_flat(rows)


def step(policy: nn.Module, given: Batch) -> None:
    """Forward and backward."""
    policy.zero_grad()
    next_token_loss(policy, given).sum.backward()


def fast(policy: nn.Module) -> nn.Module:
    """With the fast paths that a run takes."""
    output_head.adopt(policy)  # type: ignore[arg-type]
    for switch in (lora_groups.switch_over, swap.swap_mlps, swap.swap_norms):
        switch(policy)
    return policy


def compiled(policy: nn.Module) -> nn.Module:
    """With torch_compile: true."""
    output_head.adopt(policy)  # type: ignore[arg-type]
    compile_layers(policy, KernelsConfig(torch_compile=True))
    return policy


def compilation() -> dict[str, Work]:
    """The model's own code, our fast paths, and inductor, whose first round compiles: nothing is kept from earlier runs."""
    os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"  # in this process, where it is counted
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = tempfile.mkdtemp()
    return {"own": partial(step, model(), batch()), "fast paths": partial(step, fast(model()), batch()),
            "inductor": partial(step, compiled(model()), batch())}


def formats() -> dict[str, Work]:
    """The same layers in float32 and bfloat16."""
    return {name: partial(step, model(dtype=dtype), batch()) for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16))}


def rotary() -> dict[str, Work]:
    """A step with rotary positions, and one in which they are left out: no kernel of them could save more."""
    from transformers.models.llama import modeling_llama

    rotate = modeling_llama.apply_rotary_pos_emb

    def without(policy: nn.Module, given: Batch) -> None:
        modeling_llama.apply_rotary_pos_emb = lambda query, key, *angles, **settings: (query, key)
        try:
            step(policy, given)
        finally:
            modeling_llama.apply_rotary_pos_emb = rotate

    return {"with": partial(step, fast(model()), batch()), "without": partial(without, fast(model()), batch())}


def experts() -> dict[str, Work]:
    """Experts one after the other, and in one grouped product."""
    return {name: partial(step, _variant("qwen3_moe", EXPERTS, moe_grouped_gemm=grouped), batch())
            for name, grouped in (("one by one", False), ("grouped", True))}


def chunks() -> dict[str, Work]:
    """Gated DeltaNet layers by the size of their chunks."""
    return {str(size): partial(_padded_step, _variant("qwen3_next", DELTA, gdn_chunk_size=size)) for size in (64, 16, 32, 128)}


def _variant(family: str, changes: dict[str, Any], **settings: Any) -> nn.Module:
    policy = model(family, adapter=False, **changes)
    choose_variants(KernelsConfig(**settings), policy, on_gpu=False)  # type: ignore[arg-type]
    return policy


def _padded_step(policy: nn.Module) -> None:
    ids = torch.randint(1000, (2, 512), generator=torch.Generator().manual_seed(0))
    policy.zero_grad()
    policy(input_ids=ids, labels=ids, use_cache=False).loss.backward()


EXPERIMENTS: Final = {"compilation": compilation, "formats": formats, "rotary": rotary, "experts": experts, "chunks": chunks}


if __name__ == "__main__":
    main()
