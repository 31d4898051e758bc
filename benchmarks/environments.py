"""Peers in environments of their own, made with pip where they are not there yet."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Final

PEERS: Final = {
    "llamafactory": ("llamafactory==0.9.5",),
    "ms-swift": ("ms-swift==4.6.0",),
    "litgpt": ("litgpt==0.5.13", "requests"),
    "trl": ("trl==1.16.0", "transformers>=5.23,<5.24", "peft>=0.21.2,<0.22"),
}
"""Tool -> what pip installs for it, besides our own version of torch: a difference in speed shall not be one between two torches."""

_MISFITS: Final = ("torchvision", "torchaudio", "torchcodec")
"""Come with LLaMA-Factory and are built for one build of torch each; text needs none of them, and a misfit breaks `transformers`."""


def python_of(tool: str, folder: Path) -> Path:
    """The python of an environment with `tool`, made in `folder` if it is not there."""
    return environment(folder / tool, (f"torch=={version('torch').partition('+')[0]}", *PEERS[tool]), _MISFITS)


def environment(folder: Path, requirements: Sequence[str], unwanted: Sequence[str] = ()) -> Path:
    """The python of an environment in `folder`, made with pip if it is not there; what is unwanted is taken out again."""
    python, ready = folder / "bin" / "python", folder / "ready"
    if not ready.exists():
        print(f"making an environment with {' '.join(requirements)} in {folder}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        pip = [str(python), "-m", "pip", "--disable-pip-version-check", "--quiet"]
        subprocess.run([*pip, "install", *requirements], check=True)
        if unwanted:
            subprocess.run([*pip, "uninstall", "--yes", *unwanted], check=True)
        ready.touch()
    return python
