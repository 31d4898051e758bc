"""What `dataset_dir` stands for: a folder with a registry, the registry itself, or LLaMA-Factory's words for hubs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tunewright.data.dataset_info import FILE_NAME, read_registry

ONLINE: Final = "ONLINE"
REMOTE: Final = "REMOTE:"


@dataclass(frozen=True, slots=True)
class Registry:
    """Names and their descriptions; `folder` is where files are looked for and `shown` what errors call the registry.

    `is_online`: every name is a data set of a hub. `repository`: the hub's data set that the registry, and files it names, come from.
    """

    entries: Mapping[str, Any]
    folder: Path
    shown: str
    is_online: bool = False
    repository: str | None = None


def open_registry(dataset_dir: Path | str | Mapping[str, Any], key: str = "dataset") -> Registry:
    """A folder, a mapping from names to descriptions, `ONLINE` (names are those of a hub), or `REMOTE:owner/name` (its registry)."""
    if isinstance(dataset_dir, Mapping):
        return Registry(dataset_dir, Path(), "dataset_dir")
    if str(dataset_dir) == ONLINE:
        return Registry({}, Path(), ONLINE, is_online=True)
    if str(dataset_dir).startswith(REMOTE):
        from tunewright.data.remote import fetch_file

        repository = str(dataset_dir).removeprefix(REMOTE)
        path = fetch_file(repository, FILE_NAME, key)
        return Registry(read_registry(path), Path(), f"{repository}/{FILE_NAME}", repository=repository)
    path = Path(dataset_dir) / FILE_NAME
    return Registry(read_registry(path), Path(dataset_dir), str(path))
