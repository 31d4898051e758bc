"""Which weights train."""

from __future__ import annotations

from dataclasses import dataclass

from tunewright.config.param import NOT_BUILT, Alias, Implied, param


@dataclass(frozen=True, kw_only=True)
class TuningConfig:
    """Full, freeze or LoRA."""

    finetuning_type: str = param(
        "lora", "Which weights train: all, some of the model's own, a low-rank adapter, or none (to evaluate, predict or export only).",
        choices=("lora", "freeze", "full", "none"), refused_values={"oft": NOT_BUILT},
        llamafactory=Alias("finetuning_type", choices=("lora", "freeze", "full")),
        cli_reference=Alias("finetuning_type", default="none"),
        sft_json=Alias("train_mode", convert="train_mode", choices=("lora", "full")),
        qlora_script=Alias("training_recipe", choices=("lora", "full")), mindspeed_fsdp2=Implied("full"))
    print_param_status: bool = param(
        False, "Print every parameter with its shape and whether it trains.", llamafactory="print_param_status", recorded=False)


@dataclass(frozen=True, kw_only=True)
class FreezeConfig:
    """Partial tuning of the model's own weights."""

    freeze_trainable_layers: int = param(
        2, "Layers that train: the last N, or with a negative number the first N.", unit="layers",
        llamafactory="freeze_trainable_layers")
    freeze_trainable_modules: tuple[str, ...] = param(
        ("all",), "Modules inside those layers that train; `all` for every one.",
        llamafactory=Alias("freeze_trainable_modules", convert="comma_list"), example="mlp,self_attn")
    freeze_extra_modules: tuple[str, ...] = param(
        (), "Modules outside the layers that train as well.",
        llamafactory=Alias("freeze_extra_modules", convert="comma_list"), example="embed_tokens,lm_head")
    use_llama_pro: bool = param(
        False, "Train the blocks by which a model was expanded (LLaMA Pro): freeze_trainable_layers of them, at even distances.",
        llamafactory="use_llama_pro")


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """Low-rank adapters (Hu et al. 2021) and their variants."""

    lora_rank: int = param(8, "Rank of the two factors.", minimum=1, maximum=65536, llamafactory="lora_rank",
        cli_reference="lora_rank", sft_json=Alias("lora_rank", default=64), qlora_script=Alias("lora_r", default=64))
    lora_alpha: float | None = param(
        None, "Scale: the update is multiplied by alpha / rank. Absent means twice the rank.", above=0,
        llamafactory="lora_alpha",
        cli_reference=Alias("lora_alpha", default=32.0, convert="not_null"),
        sft_json=Alias("lora_alpha", default=16.0, convert="not_null"),
        qlora_script=Alias("lora_alpha", default=16.0, convert="not_null"))
    lora_dropout: float = param(
        0.0, "Dropout on the adapter's input.", minimum=0, below=1, llamafactory="lora_dropout",
        cli_reference=Alias("lora_dropout", default=0.05), sft_json=Alias("lora_dropout", default=0.05),
        qlora_script=Alias("lora_dropout", default=0.05))
    lora_target: tuple[str, ...] = param(
        ("all",), "Modules that get an adapter: names, regular expressions, or `all` for every linear layer but the head.",
        llamafactory=Alias("lora_target", convert="comma_list"), example="q_proj,v_proj",
        cli_reference=Alias("lora_target", default=(), convert="comma_list"))
    lora_bias: str = param("none", "Biases that train beside the adapter.", choices=("none", "all", "lora_only"),
        cli_reference="lora_bias")
    additional_target: tuple[str, ...] = param(
        (), "Modules trained in full and saved with the adapter.",
        llamafactory=Alias("additional_target", convert="comma_list"), example="embed_tokens,lm_head")
    use_rslora: bool = param(
        False, "Scale by alpha / sqrt(rank) (rsLoRA, Kalajdzievski 2023).", llamafactory="use_rslora")
    use_dora: bool = param(
        False, "Learn magnitude and direction apart (DoRA, Liu et al. 2024).", llamafactory="use_dora")
    pissa_init: bool = param(
        False, "Start from the principal singular vectors of the weights (PiSSA, Meng et al. 2024).", llamafactory="pissa_init")
    pissa_iter: int = param(
        16, "Iterations of the fast singular value decomposition; -1 computes it exactly.", minimum=-1, maximum=1000,
        llamafactory="pissa_iter")
    pissa_convert: bool = param(
        False, "Also save the trained PiSSA adapter as an ordinary LoRA adapter of the original model.",
        llamafactory="pissa_convert")
    loraplus_lr_ratio: float | None = param(
        None, "Learning rate of B divided by that of A (LoRA+, Hayou et al. 2024).", above=0,
        llamafactory="loraplus_lr_ratio", example="16")
    loraplus_lr_embedding: float = param(
        1e-6, "Learning rate of embedding adapters under LoRA+.", above=0, llamafactory="loraplus_lr_embedding")
    lora_fan_in_fan_out: bool = param(
        False, "Say that the adapted layers keep their weights as [in, out], as GPT-2's do. Such layers are recognised in any case; saying "
        "it of a model without any stops the run.", cli_reference="lora_fan_in_fan_out")
    plot_lora_matrix: bool = param(
        False, "After training, draw what the adapter adds to each target's weights, as heat maps.", cli_reference="plot_lora_matrix",
        recorded=False)
    create_new_adapter: bool = param(
        False, "Merge the given adapters and start a new one, instead of continuing the last.",
        llamafactory="create_new_adapter")
