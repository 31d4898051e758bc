"""Foreign text made safe to show: on a terminal and in a page. Standard library only."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

_ACTING: Final = re.compile("[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")
"""Characters that would move a cursor, hide text or reorder it, or cannot be written."""


def visible(text: str, shown: Mapping[str, str] = MappingProxyType({})) -> str:
    """The text with such characters written out, or as `shown` has them: one line, unless that keeps line breaks."""
    return _ACTING.sub(lambda found: shown.get(found.group(), f"\\u{ord(found.group()):04x}"), text)


def escaped(text: object) -> str:
    """The same for a page."""
    return html.escape(visible(str(text)), quote=True)
