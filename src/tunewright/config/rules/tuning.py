"""Rules on full, freeze and LoRA tuning."""

from __future__ import annotations

import re

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


RULES = (
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
