"""The path of the training file in vocabularies that name its folder and the file apart."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Final

from tunewright.dialects.read import Reading
from tunewright.dialects.report import Line, Translation

_APART: Final = {"sft_json": ("train_file_path", "train_file_name")}
_TABLES: Final = "csv"
"""The sub-folder in which document 002 keeps its tables."""


def parted(translation: Translation, reading: Reading) -> Translation:
    """The translation with folder and file apart, where there is one file, found from where we stand, and no other is named.

    A table is parted only if it lies where the program looks for it: in the sub-folder `csv` of the folder.
    """
    data = reading.config.data
    if translation.dialect not in _APART or len(data.dataset) != 1 or data.eval_dataset or "dataset_dir" in reading.given:
        return translation
    path = Path(data.dataset[0]) if isinstance(data.dataset[0], str) else None
    if path is None or path.parent == Path() or not os.path.isfile(path) or os.path.exists(path.name):
        return translation
    folder = path.parent
    if path.suffix.lower() == ".csv":
        if folder.name != _TABLES:
            return translation
        folder = folder.parent
    folder_key, file_key = _APART[translation.dialect]
    settings = {folder_key: str(folder), **translation.settings, file_key: path.name}
    line = Line("dataset", "value mapped", file_key, f"dataset {path} -> {folder_key} {folder} and {file_key} {path.name}")
    others = [one for one in translation.report if one.field not in ("dataset", "dataset_dir")]
    return replace(translation, settings={**settings, folder_key: str(folder)}, report=(line, *others))
