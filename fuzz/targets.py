"""Every reader that is given hostile bytes, by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from fuzz import readers_of_files, readers_of_rows, readers_of_settings
from fuzz.target import Target

TARGETS: Final[Mapping[str, Target]] = {
    one.name: one for one in (*readers_of_settings.TARGETS, *readers_of_rows.TARGETS, *readers_of_files.TARGETS)}
