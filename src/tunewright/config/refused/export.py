"""Export and merging. Standard library only."""

from __future__ import annotations

from tunewright.config.refused.declaration import inert, refused

REFUSED = (
    refused("merge_lora", "Merges LoRA weights into the base model before inference or export.",
            cli_reference=inert("merge_lora", False)),
    refused("merge_lora_and_save", "Merges LoRA into the base model and saves one standalone model.",
            cli_reference=inert("merge_lora_and_save", False)),
    refused("export_onnx", "Exports the model in ONNX format.", cli_reference=inert("export_onnx", False)),
    refused("auto_merge_weights", "Merges several adapters' weights automatically for combined multi-LoRA inference.",
            cli_reference=inert("auto_merge_weights", False)),
    refused(
        "export_quantization_bit",
        "Quantizes the exported weights to this many bits, shrinking the files; null exports full precision.",
        llamafactory=inert("export_quantization_bit", None)),
    refused("export_quantization_dataset", "Calibration data (path or dataset name) used when quantizing the exported model.",
            llamafactory=inert("export_quantization_dataset", None)),
    refused("export_quantization_nsamples", "Number of calibration samples read when quantizing the exported model.",
            llamafactory=inert("export_quantization_nsamples", 128)),
    refused("export_quantization_maxlen", "Truncates each calibration sample to this many tokens during export quantization.",
            llamafactory=inert("export_quantization_maxlen", 1024)),
    refused("export_legacy_format", "Exports weights as .bin files instead of .safetensors.",
            llamafactory=inert("export_legacy_format", False)),
    refused("export_hub_model_id", "After export, pushes the model to this Hub repository; local files are unchanged.",
            llamafactory=inert("export_hub_model_id", None)),
)
