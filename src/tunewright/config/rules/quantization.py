"""Rules on quantised base models."""

from __future__ import annotations

from tunewright.config.rules.rule import Broken, Case, Rule


def tuning_quantised_weights(case: Case) -> str | None:
    kind = case.run.tuning.finetuning_type
    wanted = case.run.quantization.quantization_bit is not None and kind in ("full", "freeze")
    return f"quantised weights cannot train, but finetuning_type is {kind}" if wanted else None


def numbers_in_quantised_weights(case: Case) -> list[Broken]:
    """What reads or writes the base's weights as numbers."""
    run = case.run
    if run.quantization.quantization_bit is None:
        return []
    wanted = {"pissa_init": run.lora.pissa_init, "create_new_adapter": run.lora.create_new_adapter and bool(run.model.adapter_name_or_path),
              "merge_lora": run.inference.merge_lora, "train_from_scratch": run.model.train_from_scratch,
              "gguf_file": run.model.gguf_file is not None, "resize_vocab": run.tokenizer.resize_vocab,
              "add_tokens": bool(run.tokenizer.add_tokens), "add_special_tokens": bool(run.tokenizer.add_special_tokens),
              "new_special_tokens_config": run.tokenizer.new_special_tokens_config is not None}
    what = f"needs weights in floating point, but those of the base have {run.quantization.quantization_bit} bits"
    return [Broken(field, what) for field, is_on in wanted.items() if is_on]


def several_adapters_on_quantised_weights(case: Case) -> str | None:
    adapters = case.run.model.adapter_name_or_path
    wanted = case.run.quantization.quantization_bit is not None and len(adapters) > 1
    return f"{len(adapters)} adapters would be merged into quantised weights" if wanted else None


def device_map_of_bytes(case: Case) -> str | None:
    wanted = case.run.quantization.quantization_device_map is not None and case.run.quantization.quantization_bit == 8
    return "spreads a model in 4 bits, but quantization_bit is 8" if wanted else None


def device_map_in_training(case: Case) -> str | None:
    wanted = case.run.quantization.quantization_device_map is not None and case.run.run.do_train
    return "spreads the model for inference, but do_train is on" if wanted else None


def full_half_evaluation_of_quantised(case: Case) -> str | None:
    evaluation = case.run.precision
    wanted = case.run.quantization.quantization_bit is not None and (evaluation.bf16_full_eval or evaluation.fp16_full_eval)
    return "casts the weights, which quantised ones do not bear" if wanted else None


def merged_unquantised(case: Case) -> str | None:
    bits = case.run.quantization.quantization_bit if "quantization_bit" in case.given else None
    return None if bits is None else f"{bits} bits are not for this: the adapter is merged into the unquantised base, in float32"


RULES = (
    Rule("tuning-quantised-weights", ("quantization_bit", "finetuning_type"), tuning_quantised_weights,
         "set finetuning_type: lora, or remove quantization_bit", purposes=("train",)),
    Rule("numbers-in-quantised-weights", ("quantization_bit", "pissa_init", "create_new_adapter", "adapter_name_or_path", "merge_lora",
                                          "train_from_scratch", "gguf_file", "resize_vocab", "add_tokens", "add_special_tokens",
                                          "new_special_tokens_config"),
         numbers_in_quantised_weights, "remove it, or remove quantization_bit", purposes=("train", "eval", "predict", "chat")),
    Rule("several-adapters-on-quantised-weights", ("adapter_name_or_path", "quantization_bit"), several_adapters_on_quantised_weights,
         "merge them first with `tunewright export`", purposes=("train", "eval", "predict", "chat")),
    Rule("device-map-of-bytes", ("quantization_device_map", "quantization_bit"), device_map_of_bytes,
         "remove it, or set quantization_bit: 4"),
    Rule("device-map-in-training", ("quantization_device_map", "do_train"), device_map_in_training, "remove it", purposes=("train",)),
    Rule("half-evaluation-of-quantised-weights", ("bf16_full_eval", "fp16_full_eval", "quantization_bit"),
         full_half_evaluation_of_quantised, "remove it", purposes=("train", "eval")),
    Rule("merged-unquantised", ("quantization_bit",), merged_unquantised, purposes=("export",), is_error=False),
)
