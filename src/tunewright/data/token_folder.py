"""Whether `tokenized_path` is a folder of ours. Standard library only, so that it can be asked before anything is opened."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tunewright.errors import InputError

MANIFEST: Final = "manifest.json"
_OF_DATASETS: Final = ("dataset_dict.json", "dataset_info.json", "state.json")


def holds_tokens(path: Path) -> bool:
    """Whether prepared sets are there. Raises `InputError` for something else than a folder that holds them, or nothing."""
    if (path / MANIFEST).is_file():
        return True
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return False
    is_hub_set = path.is_dir() and any((path / name).exists() for name in _OF_DATASETS)
    mend = (f"the package `datasets` saved it: give its .arrow files as dataset instead, such as {path}/train/*.arrow" if is_hub_set
            else "name a new folder, or one that tunewright wrote")
    raise InputError("tokenized_path: holds no tokens of tunewright", where=str(path), mend=mend)
