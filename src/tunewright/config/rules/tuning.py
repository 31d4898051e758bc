"""Rules on full, freeze and LoRA tuning."""

from __future__ import annotations

import re

from tunewright.config.derive import packs
from tunewright.config.rules.rule import Broken, Case, Rule


def nothing_trains(case: Case) -> str | None:
    wanted = case.run.tuning.finetuning_type == "none" and case.run.run.do_train
    return "is none: nothing would train" if wanted else None


def no_layers(case: Case) -> str | None:
    wanted = case.run.tuning.finetuning_type == "freeze" and case.run.freeze.freeze_trainable_layers == 0
    return "0 layers train nothing" if wanted and not case.run.freeze.freeze_extra_modules else None


def broken_pattern(case: Case) -> list[Broken]:
    lora = case.run.lora
    found = []
    for field, patterns in (("lora_target", lora.lora_target), ("additional_target", lora.additional_target)):
        for pattern in patterns:
            try:
                re.compile(pattern)
            except re.error as error:
                found.append(Broken(field, f"'{pattern}' is not a valid pattern: {error.msg} at position {error.pos}"))
            except RecursionError:
                found.append(Broken(field, f"'{pattern[:40]}...' is not a valid pattern: its brackets lie too deep in each other"))
    return found


def no_target(case: Case) -> str | None:
    wanted = case.run.tuning.finetuning_type == "lora" and not case.run.lora.lora_target
    return "no module gets an adapter" if wanted else None


def adapter_variant_without_lora(case: Case) -> list[Broken]:
    lora, kind = case.run.lora, case.run.tuning.finetuning_type
    if kind == "lora":
        return []
    variants = {"use_rslora": lora.use_rslora, "use_dora": lora.use_dora, "pissa_init": lora.pissa_init,
                "create_new_adapter": lora.create_new_adapter, "loraplus_lr_ratio": lora.loraplus_lr_ratio}
    return [Broken(field, f"is for LoRA, but finetuning_type is {kind}") for field, value in variants.items() if value]


def adapter_without_lora(case: Case) -> str | None:
    kind = case.run.tuning.finetuning_type
    return f"adapters are for LoRA, but finetuning_type is {kind}" if case.run.model.adapter_name_or_path and kind != "lora" else None


def conversion_without_pissa(case: Case) -> str | None:
    return "converts a PiSSA adapter, but pissa_init is off" if case.run.lora.pissa_convert and not case.run.lora.pissa_init else None


def pissa_iterations(case: Case) -> str | None:
    return "0 iterations find nothing" if case.run.lora.pissa_iter == 0 else None


def pissa_on_an_adapter(case: Case) -> str | None:
    lora, adapters = case.run.lora, case.run.model.adapter_name_or_path
    wanted = lora.pissa_init and adapters and not lora.create_new_adapter
    return "starts a new adapter, but the given one is continued" if wanted else None


def pissa_with_dora(case: Case) -> str | None:
    lora = case.run.lora
    return "a DoRA adapter cannot be converted back from PiSSA" if lora.pissa_convert and lora.use_dora else None


def small_loraplus_ratio(case: Case) -> str | None:
    ratio = case.run.lora.loraplus_lr_ratio
    return f"{ratio:g} slows B down; LoRA+ means ratios above 1" if ratio is not None and ratio < 1 else None


def expanded_blocks_in_full(case: Case) -> str | None:
    wanted = case.run.freeze.use_llama_pro and case.run.tuning.finetuning_type not in ("freeze", "lora")
    return f"trains some blocks only, but finetuning_type is {case.run.tuning.finetuning_type}" if wanted else None


def expanded_blocks_from_the_front(case: Case) -> str | None:
    freeze = case.run.freeze
    wanted = freeze.use_llama_pro and freeze.freeze_trainable_layers < 1
    return f"{freeze.freeze_trainable_layers} is no number of blocks that a model was expanded by" if wanted else None


def expanded_blocks_of_an_adapter(case: Case) -> str | None:
    wanted = case.run.freeze.use_llama_pro and case.run.model.adapter_name_or_path and not case.run.lora.create_new_adapter
    return "the continued adapter has its modules already" if wanted else None


def scratch_with_adapter(case: Case) -> str | None:
    wanted = case.run.model.train_from_scratch and case.run.tuning.finetuning_type == "lora"
    return "an adapter is saved without the random weights that it was trained on" if wanted else None


def scratch_with_weights(case: Case) -> str | None:
    model = case.run.model
    return "reads weights from a GGUF file, but train_from_scratch wants none" if model.train_from_scratch and model.gguf_file else None


def remote_positions(case: Case) -> str | None:
    model = case.run.model
    return "the model's own code decides on its positions" if model.rope_scaling and model.trust_remote_code else None


def shifted_rows_end_to_end(case: Case) -> str | None:
    is_flat = packs(case.run) or case.run.batching.padding_free is True
    return "attends in groups of one row, but rows are laid end to end" if case.run.model.shift_attn and is_flat else None


def two_attentions(case: Case) -> str | None:
    model = case.run.model
    return f"{model.flash_attn} is asked for, but shift_attn is an attention of its own" if (
        model.shift_attn and model.flash_attn != "auto") else None


RULES = (
    Rule("shifted-rows-end-to-end", ("shift_attn", "packing", "padding_free", "stage"), shifted_rows_end_to_end,
         "set packing: false and remove padding_free, or remove shift_attn"),
    Rule("two-attentions", ("flash_attn", "shift_attn"), two_attentions, "keep one of them"),
    Rule("expanded-blocks-in-full", ("use_llama_pro", "finetuning_type"), expanded_blocks_in_full, "set finetuning_type: freeze or lora"),
    Rule("expanded-blocks-from-the-front", ("freeze_trainable_layers", "use_llama_pro"), expanded_blocks_from_the_front,
         "write an integer >= 1"),
    Rule("expanded-blocks-of-an-adapter", ("use_llama_pro", "adapter_name_or_path", "create_new_adapter"), expanded_blocks_of_an_adapter,
         "set create_new_adapter: true, or remove use_llama_pro", purposes=("train",)),
    Rule("scratch-with-adapter", ("train_from_scratch", "finetuning_type"), scratch_with_adapter, "set finetuning_type: full",
         purposes=("train",)),
    Rule("scratch-with-weights", ("gguf_file", "train_from_scratch"), scratch_with_weights, "keep one of them"),
    Rule("remote-positions", ("rope_scaling", "trust_remote_code"), remote_positions, "keep one of them"),
    Rule("nothing-trains", ("finetuning_type", "do_train"), nothing_trains, "write lora, freeze or full", purposes=("train",)),
    Rule("no-layers", ("freeze_trainable_layers", "finetuning_type", "freeze_extra_modules"), no_layers,
         "write 2 for the last two layers, -2 for the first two"),
    Rule("broken-pattern", ("lora_target", "additional_target"), broken_pattern, "write module names, or a valid regular expression"),
    Rule("no-target", ("lora_target", "finetuning_type"), no_target, "write all, or module names"),
    Rule("adapter-variant-without-lora", ("use_rslora", "use_dora", "pissa_init", "create_new_adapter", "loraplus_lr_ratio",
                                          "finetuning_type"), adapter_variant_without_lora, "remove it, or set finetuning_type: lora"),
    Rule("adapter-without-lora", ("adapter_name_or_path", "finetuning_type"), adapter_without_lora,
         "merge the adapter first with `tunewright export`, or set finetuning_type: lora", purposes=("train",)),
    Rule("conversion-without-pissa", ("pissa_convert", "pissa_init"), conversion_without_pissa, "set pissa_init: true"),
    Rule("pissa-iterations", ("pissa_iter",), pissa_iterations, "write -1 for the exact decomposition, or an integer >= 1"),
    Rule("pissa-on-an-adapter", ("pissa_init", "adapter_name_or_path", "create_new_adapter"), pissa_on_an_adapter,
         "set create_new_adapter: true", purposes=("train",)),
    Rule("pissa-with-dora", ("pissa_convert", "use_dora"), pissa_with_dora, "keep one of them"),
    Rule("small-loraplus-ratio", ("loraplus_lr_ratio",), small_loraplus_ratio, "16 is usual", is_error=False),
)
