"""Export and merging. Standard library only."""

from __future__ import annotations

from tunewright.config.refused.declaration import inert, refused

REFUSED = (
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
            because=".bin files are pickles, which can run any code when they are opened", mend="leave it out: safetensors are written",
            llamafactory=inert("export_legacy_format", False)),
)
