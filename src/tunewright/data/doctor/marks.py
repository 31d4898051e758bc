"""Foreign text made safe to show: on a terminal and in a page. Standard library only."""

from __future__ import annotations

import html
import re
from typing import Final

_ACTING: Final = re.compile("[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")
"""Characters that would move a cursor, hide text or reorder it, or cannot be written."""


def visible(text: str) -> str:
    """One line in which such characters are written out."""
    return _ACTING.sub(lambda found: f"\\u{ord(found.group()):04x}", text)


def escaped(text: object) -> str:
    """The same for a page."""
    return html.escape(visible(str(text)), quote=True)
