"""Scenarios of the kill server that only tests have."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from tunewright.selftest.scenarios import train


def write_token_files(prefix: str, documents: list[list[int]]) -> int:
    """Write documents as Megatron's files, and read them back."""
    from pathlib import Path

    import numpy as np

    from tunewright.data.megatron.reader import open_tokens
    from tunewright.data.megatron.writer import IndexedWriter

    with IndexedWriter(Path(prefix), np.dtype("uint16")) as writer:
        for document in documents:
            writer.add(document)
    found = open_tokens(Path(prefix))
    return int([found.document(number).tolist() for number in range(found.num_documents)] != documents)


def train_at_home(settings: Mapping[str, Any], home: str) -> int:
    """Train with `home` as the user's home directory and working directory."""
    os.environ["HOME"] = home
    os.chdir(home)
    return train(settings)
