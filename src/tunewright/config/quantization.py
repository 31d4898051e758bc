"""Base models with few bits to a weight."""

from __future__ import annotations

from dataclasses import dataclass

from tunewright.config.param import Alias, param

_SEPARATE = "it describes a checkpoint that is quantised already, not a way to load one"
_NO_LOADER = "nothing can load it"


@dataclass(frozen=True, kw_only=True)
class QuantizationConfig:
    """Weights of the base model kept in 4 or 8 bits; only adapters train over them (QLoRA, Dettmers et al. 2023)."""

    quantization_bit: int | None = param(
        None, "Bits to which the base model is quantised while it is loaded; absent means not at all.", choices=(4, 8),
        llamafactory="quantization_bit", cli_reference="quantization_bit", qlora_script=Alias("bits", default=4))
    quantization_method: str = param(
        "bitsandbytes", "Library that quantises.", choices=("bitsandbytes",),
        refused_values={"hqq": "not built yet", "eetq": "there is no package of it for this Python", "gptq": _SEPARATE, "awq": _SEPARATE,
                        "cpm": _NO_LOADER, "mlc": _NO_LOADER},
        llamafactory=Alias("quantization_method", convert="quantizer_name"),
        cli_reference=Alias("quantization_method", convert="quantizer_short"))
    quantization_type: str = param(
        "nf4", "Code of 4-bit weights: normal quantiles, or floating point.", choices=("nf4", "fp4"),
        llamafactory="quantization_type", qlora_script="quant_type")
    double_quantization: bool = param(
        True, "Quantise the constants of 4-bit weights too, which saves about 0.4 bits a weight.",
        llamafactory=("double_quantization", Alias("no_double_quantization", convert="negate")), qlora_script="double_quant")
    compute_dtype: str | None = param(
        None, "Number format of products with quantised weights; absent means that of mixed precision, or float32 without it.",
        choices=("float32", "bfloat16", "float16"),
        qlora_script=Alias("compute_dtype", default="float16", convert="torch_dtype"))
    quantization_device_map: str | None = param(
        None, "Spread a quantised model over all devices, in inference only.", choices=("auto",), recorded=False,
        llamafactory="quantization_device_map")
