"""Where the rows of a data set lie if not in local files, and names that say so. Standard library only."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal

HUB: Final = "hub"
MODELSCOPE: Final = "modelscope"
CLOUD: Final = "cloud"

_HUB_ID: Final = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_SAMPLE: Final = re.compile(r"(?P<name>.+?)(?:#(?P<count>[0-9]+))?", re.DOTALL)
Kind = Literal["hub", "modelscope", "cloud"]

_PREFIXES: Final[tuple[tuple[str, Kind], ...]] = (("hf::", HUB), ("ms::", MODELSCOPE))


@dataclass(frozen=True, slots=True)
class Place:
    """A repository of a hub, of which `subset`, `split` and `folder` name a part, or a path in the cloud (`s3://bucket/rows.jsonl`)."""

    kind: Kind
    name: str
    subset: str | None = None
    split: str = "train"
    folder: str | None = None
    revision: str | None = None

    def __str__(self) -> str:
        return self.name + (f":{self.subset}" if self.subset else "")


def without_count(spec: str) -> tuple[str, int | None]:
    """`name#500` as the name and the number of rows to draw, ms-swift's way; None where there is no number, or it is 0."""
    found = _SAMPLE.fullmatch(spec)
    if found is None or not found["count"] or not int(found["count"]):
        return spec, None
    return found["name"], int(found["count"])


def is_cloud(spec: str) -> bool:
    """Whether the name is a path in the cloud."""
    return "://" in spec and not spec.startswith("hf://")


def hub_place(spec: str, *, any_name: bool = False) -> Place | None:
    """The repository that `spec` may name: `owner/name`, `owner/name:subset`, with `HF::` or `MS::` before it, or `hf://datasets/owner/name`.

    `any_name`: a name without an owner is one too.
    """
    kind: Kind = HUB
    name = spec.removeprefix("hf://datasets/")
    for prefix, hub in _PREFIXES:
        if name.lower().startswith(prefix):
            kind, name, any_name = hub, name[len(prefix):], True
    name, _, subset = name.partition(":")
    if not _HUB_ID.fullmatch(name) and not (any_name and re.fullmatch(r"[A-Za-z0-9][\w.-]*", name)):
        return None
    return Place(kind, name, subset or None)
