"""Which model is opened, and how."""

from __future__ import annotations

from dataclasses import dataclass

from tunewright.config.param import Alias, param


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Model weights, adapters, attention implementation."""

    model_name_or_path: str | None = param(
        None, "Model: a directory, a hub id, or `demo` for the bundled demo model.", llamafactory="model_name_or_path",
        cli_reference="model_name_or_path", sft_json=Alias("model_name_or_path", default="modles/Qwen"),
        qlora_script=Alias("model_name", default="./chatglm3-6b-base"), mindspeed_fsdp2="model_name_or_path")
    gguf_file: str | None = param(
        None, "Name of a GGUF file inside the model directory to read the weights from.", example="model.Q8_0.gguf")
    adapter_name_or_path: tuple[str, ...] = param(
        (), "Adapters to load: all but the last are merged into the model, the last is continued (or merged too, with create_new_adapter).",
        llamafactory=Alias("adapter_name_or_path", convert="comma_list"),

        cli_reference=(Alias("adapter_name_or_path", convert="comma_list"), Alias("lora_weight_path", convert="comma_list")))
    adapter_folder: str | None = param(
        None, "Sub-folder of adapter_name_or_path that holds the adapter.", llamafactory="adapter_folder",
        cli_reference="adapter_folder")
    model_revision: str = param("main", "Branch, tag or commit of a hub model.", llamafactory="model_revision",
        cli_reference="model_revision", mindspeed_fsdp2="model_revision")
    cache_dir: str | None = param(
        None, "Directory for downloaded models.", llamafactory="cache_dir", recorded=False,
        cli_reference="cache_dir", mindspeed_fsdp2="cache_dir")
    shift_attn: bool = param(
        False, "Shifted sparse attention while training (S2-Attn, LongLoRA, Chen et al. 2023): rows attend in four groups.",
        llamafactory="shift_attn", cli_reference="shift_attn")
    train_from_scratch: bool = param(
        False, "Start from random weights, a function of the seed; of the model only its configuration and tokenizer are used.",
        llamafactory="train_from_scratch", cli_reference="train_from_scratch", mindspeed_fsdp2="train_from_scratch")
    rope_scaling: str | None = param(
        None, "How rotary positions are stretched where cutoff_len is beyond the context of the model, by the smallest whole factor.",
        choices=("linear", "dynamic", "yarn", "llama3"), llamafactory="rope_scaling", cli_reference="rope_scaling")
    trust_remote_code: bool = param(
        False, "Run Python code that the model's repository brings, of a hub model only at the commit that model_revision names. Leave it "
        "off unless you have read that code.",
        llamafactory=Alias("trust_remote_code", today=True),
        cli_reference="trust_remote_code", qlora_script=Alias("trust_remote_code", default=True),
        mindspeed_fsdp2="trust_remote_code")
    flash_attn: str = param(
        "auto", "Attention implementation.", choices=("auto", "disabled", "sdpa", "fa2"), llamafactory="flash_attn",
        cli_reference=("flash_attn", Alias("attn_implementation", default="disabled", convert="attention_name")),
        mindspeed_fsdp2=Alias("use_flash_attn", default="disabled", convert="attention_switch"))


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    """Which tokenizer implementation is used, and how."""

    tokenizer_name_or_path: str | None = param(
        None, "Directory or hub id of the tokenizer, where it is not the model's own.", mindspeed_fsdp2="tokenizer_name_or_path",
        example="org/tokenizer")
    split_special_tokens: bool = param(
        False, "Split the text of special tokens that rows contain, in pre-training documents; conversations always do.",
        llamafactory="split_special_tokens",
        cli_reference="split_special_tokens", mindspeed_fsdp2="split_special_tokens")
    add_tokens: tuple[str, ...] = param(
        (), "Ordinary tokens to add to the tokenizer. The embedding grows, to a multiple of 64 rows, where it has too few.",
        example="<step>,</step>", llamafactory=Alias("add_tokens", convert="comma_list", today=True),
        cli_reference=Alias("add_tokens", convert="comma_list"), mindspeed_fsdp2=Alias("add_tokens", convert="comma_list"))
    add_special_tokens: tuple[str, ...] = param(
        (), "The same for special tokens, which answers are shown without.", example="<QUESTION>,<ANSWER>",
        llamafactory=(Alias("new_special_tokens", convert="comma_list"), Alias("add_special_tokens", convert="comma_list", today=True)),
        cli_reference=Alias("add_special_tokens", convert="comma_list"),
        mindspeed_fsdp2=Alias("add_special_tokens", convert="comma_list"))
    new_special_tokens_config: str | None = param(
        None, "YAML or JSON file of special tokens to add, each with a description of what it means; it wins over add_special_tokens.",
        example="tokens.yaml", llamafactory=Alias("new_special_tokens_config", today=True),
        mindspeed_fsdp2="new_special_tokens_config")
    init_special_tokens: str = param(
        "noise_init", "First embeddings of new special tokens: the mean of all with noise, the mean of the tokens of the description, or "
        "that with noise. Other new tokens always begin as the mean of all with noise.",
        choices=("noise_init", "desc_init", "desc_init_w_noise"),
        llamafactory=Alias("init_special_tokens", today=True), mindspeed_fsdp2="init_special_tokens")
    resize_vocab: bool = param(
        False, "Enlarge embedding and output head, to a multiple of 64 rows, where the tokenizer has more tokens than they have rows. "
        "Tokens that the run adds get their rows in any case.", llamafactory="resize_vocab", cli_reference="resize_vocab",
        mindspeed_fsdp2="resize_vocab")
