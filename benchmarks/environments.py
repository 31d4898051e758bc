"""Peers in environments of their own, made with pip where they are not there yet."""

from __future__ import annotations

import subprocess
import sys
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
    python = folder / tool / "bin" / "python"
    ready = folder / tool / "ready"
    if not ready.exists():
        print(f"making an environment with {' '.join(PEERS[tool])} in {folder / tool}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder / tool)], check=True)
        pip = [str(python), "-m", "pip", "--disable-pip-version-check", "--quiet"]
        subprocess.run([*pip, "install", f"torch=={version('torch').partition('+')[0]}", *PEERS[tool]], check=True)
        subprocess.run([*pip, "uninstall", "--yes", *_MISFITS], check=True)
        ready.touch()
    return python
