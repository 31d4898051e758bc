"""An output directory that holds a run which may not be resumed, mixed or overwritten. The answers are written by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tunewright.selftest.bad_case import NATIVE, case, put

SETTINGS: Final = {**NATIVE, "max_steps": "2", "save_steps": "1", "lora_rank": "2", "per_device_train_batch_size": "2"}
"""Of the run that lies there."""


def _flip(folder: Path) -> None:
    """One bit of the newest checkpoint's weights."""
    path = folder / "out" / "checkpoint-2" / "adapter_model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


CASES: Final = (
    case("other rate", "out/checkpoint-2: ... other settings (learning_rate: 0.0001 -> 0.5); put them back, allow_change=learning_rate",
         learning_rate="0.5"),
    case("other seed", "out/checkpoint-2: ... seed: 42 -> 7", seed="7"),
    case("other rank", "out/checkpoint-2: ... lora_rank: 2 -> 4", lora_rank="4"),
    case("other optimizer", "out/checkpoint-2: ... optim: \"adamw_torch_fused\" -> \"adamw_torch\"", optim="adamw_torch"),
    case("another run", "output_dir out holds the checkpoints of another run; ... auto goes on with it; overwrite_output_dir=true",
         resume_from_checkpoint="none"),
    case("bit of a named checkpoint", "out/checkpoint-2: resume_from_checkpoint: ... adapter_model.safetensors ... there are: ",
         resume_from_checkpoint="out/checkpoint-2", spoil=_flip),
    case("record of the run", "out/run.json: is not the record of a run; move the file away", spoil=put("out/run.json", "{")),
    case("missing checkpoint",
         "c.yaml:10: resume_from_checkpoint: path not found: out/checkpoint-9; out has checkpoint-1, checkpoint-2; give",
         resume_from_checkpoint="out/checkpoint-9"),
)
