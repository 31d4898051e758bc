"""`tunewright export`: merge adapters into their base and write a model that plain transformers opens."""

from __future__ import annotations

import sys
from collections.abc import Sequence

USAGE = """usage: tunewright export CONFIG|DIRECTORY [key=value ...] [--key value ...]
       tunewright export --model MODEL --adapter ADAPTER --out DIRECTORY

Merge adapters into their base, in float32, check the result against the live adapter, and write sharded safetensors with
tokenizer and chat template. DIRECTORY is an adapter or the output_dir of a run.

  --model    model_name_or_path     a model, or an adapter that names its base
  --adapter  adapter_name_or_path   one or more, separated by commas
  --out      export_dir             a new directory
  --export_size GB   --export_dtype auto|float32|bfloat16|float16   --template NAME
"""

SHORT = {"--model": "--model_name_or_path", "--adapter": "--adapter_name_or_path", "--out": "--export_dir"}


def run(argv: list[str]) -> int:
    """Export and say where the model is and how far it is from the live adapter."""
    if not argv or not {"-h", "--help"}.isdisjoint(argv):
        sys.stdout.write(USAGE)
        return 0 if argv else 2
    from tunewright.commands.chat import directories_as_models
    from tunewright.commands.preflight import read_ready

    reading = read_ready(directories_as_models(spelled_out(argv)), "export")
    config = reading.config
    from tunewright.export.merge import export
    from tunewright.models.load import quiet_transformers
    from tunewright.runtime import Ranks, configure_logging

    log = configure_logging(Ranks())
    for note in reading.notes:
        log.info(note)
    quiet_transformers()
    done = export(config)
    sys.stdout.write("\n".join(done.lines()) + "\n")
    return 0


def spelled_out(argv: Sequence[str]) -> list[str]:
    """The words with the three short options under their full names."""
    words = []
    for word in argv:
        option, sign, value = word.partition("=")
        words.append(SHORT.get(option, option) + sign + value)
    return words
