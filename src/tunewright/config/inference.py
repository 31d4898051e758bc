"""How models are opened to answer, how answers are generated, and what is exported."""

from __future__ import annotations

from dataclasses import dataclass

from tunewright.config.param import NOT_BUILT, Alias, param


@dataclass(frozen=True, kw_only=True)
class InferenceConfig:
    """How a model is opened to evaluate, predict and chat."""

    infer_backend: str = param(
        "huggingface", "Engine that generates answers.", choices=("huggingface",), recorded=False,
        refused_values={
            "vllm": NOT_BUILT, "llama-cpp": NOT_BUILT, "sglang": "SGLang is not supported; serve the exported model with it",
            "ktransformers": "KTransformers is not supported",
            "ctransformers": "it is no longer maintained and cannot read the GGUF files of today",
            "mlc": "it runs models that its own compiler has made, not model directories"},
        llamafactory="infer_backend", cli_reference=Alias("infer_backend", convert="backend_name"))
    infer_dtype: str = param(
        "auto", "Number format of the weights while they answer; auto means float32, or bfloat16 with pure_bf16. `export` with "
        "export_dtype auto writes this format.", choices=("auto", "float16", "bfloat16", "float32"), llamafactory="infer_dtype",
        recorded=False)
    merge_lora: bool = param(
        False, "Merge the adapters into the model before it answers, instead of applying the last one beside it; `export` always merges.",
        cli_reference="merge_lora", recorded=False)
    auto_merge_weights: bool = param(
        False, "Merge the adapters into the model before it answers where there are several.", cli_reference="auto_merge_weights",
        recorded=False)


@dataclass(frozen=True, kw_only=True)
class GenerationConfig:
    """How answers are generated in prediction and chat."""

    do_sample: bool = param(True, "Sample instead of taking the likeliest token.",
        llamafactory=("do_sample", Alias("no_do_sample", convert="negate")), recorded=False)
    temperature: float = param(0.95, "Divides the logits; lower is more certain.", above=0, maximum=100,
        llamafactory="temperature", recorded=False)
    top_p: float = param(0.7, "Sample from the smallest set of tokens with this probability.", above=0, maximum=1,
        llamafactory="top_p", recorded=False)
    top_k: int = param(50, "Sample from this many of the likeliest tokens; 0 for all.", minimum=0, llamafactory="top_k",
        recorded=False)
    num_beams: int = param(1, "Beams of beam search.", minimum=1, maximum=1024,
        llamafactory=("num_beams", Alias("generation_num_beams", convert="null_is_absent"),
                      Alias("eval_num_beams", convert="null_is_absent")), recorded=False,
        mindspeed_fsdp2=Alias("eval_num_beams", convert="null_is_absent"))
    max_new_tokens: int = param(1024, "Longest answer.", unit="tokens", minimum=1, maximum=2**20,
        llamafactory="max_new_tokens", recorded=False)
    max_length: int | None = param(
        None, "Longest prompt and answer together; absent leaves max_new_tokens in charge.", unit="tokens", minimum=1,
        llamafactory=(Alias("generation_max_length", convert="null_is_absent"), "max_length"),
        recorded=False)
    repetition_penalty: float = param(1.0, "Above 1 makes tokens already used less likely.", above=0, maximum=100,
        llamafactory="repetition_penalty", recorded=False)
    length_penalty: float = param(
        1.0, "Exponent on the length in beam search: above 0 favours long answers, below 0 short ones.", minimum=-100,
        maximum=100,
        llamafactory="length_penalty", recorded=False)
    use_cache: bool = param(
        True, "Keep keys and values of the tokens so far; without, each new token computes all of them again.",
        llamafactory=("use_cache", Alias("no_use_cache", convert="negate"), Alias("use_kv_cache", today=True)),
        cli_reference=("use_cache", Alias("no_use_cache", convert="negate")), recorded=False)
    generation_config: str | None = param(
        None, "JSON file with generation settings in transformers' names; what it names is taken from there.",
        llamafactory="generation_config", example="generation_config.json", recorded=False)


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """The merged model."""

    export_dir: str | None = param(None, "Directory for the exported model.", llamafactory="export_dir", recorded=False,
        cli_reference="export_dir")
    export_size: int = param(
        5, "Largest weights file.", unit="GB", minimum=1, maximum=1024, llamafactory=Alias("export_size", default=1),
        recorded=False)
    export_dtype: str = param(
        "auto", "Number format of the exported weights; auto means that of the base model.",
        choices=("auto", "float32", "bfloat16", "float16"), recorded=False)
    export_device: str = param("cpu", "Where the merge is computed.", choices=("cpu", "auto"), llamafactory="export_device",
        recorded=False)
    merge_lora_and_save: bool = param(
        False, "After training, also write the adapter merged into its base, to export_dir or else to `merged` in output_dir.",
        cli_reference="merge_lora_and_save", recorded=False)
    export_onnx: bool = param(
        False, "Also write the exported model as ONNX, in float32.", cli_reference="export_onnx", recorded=False)
    export_hub_model_id: str | None = param(
        None, "Repository on the Hugging Face hub to upload the exported model to.", llamafactory="export_hub_model_id",
        example="org/model", recorded=False)
