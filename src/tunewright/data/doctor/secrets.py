"""Texts that look like keys: reported by kind and place, never shown. Standard library only."""

from __future__ import annotations

import re
from typing import Final

from tunewright.data.doctor.row_checks import RowCheck
from tunewright.data.doctor.seen import Seen

_KINDS: Final = {
    "private_key": r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY",
    "aws_access_key": r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    "github_token": r"\bgh[pousr]_[A-Za-z0-9]{36}|\bgithub_pat_[A-Za-z0-9_]{50}",
    "hugging_face_token": r"\bhf_[A-Za-z]{30,40}\b",
    "google_api_key": r"\bAIza[0-9A-Za-z_-]{35}",
    "slack_token": r"\bxox[abeoprs]-[0-9A-Za-z-]{12}",
    "api_key": r"\bsk-(?=[A-Za-z_-]*[0-9])[A-Za-z0-9_-]{20}",
}
_SECRET: Final = re.compile("|".join(f"(?P<{kind}>{pattern})" for kind, pattern in _KINDS.items()))
_SIGNS: Final = ("PRIVATE KEY", "AKIA", "ASIA", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "hf_", "AIza", "xox", "sk-")


def secret(seen: Seen) -> str | None:
    """The kind of key that a text seems to hold, and where; nothing of the key itself."""
    if not any(sign in seen.joined for sign in _SIGNS):
        return None
    for index, text in enumerate(seen.texts):
        found = _SECRET.search(text)
        if found is not None:
            return f"{str(found.lastgroup).replace('_', ' ')} in {seen.label(index)}"
    return None


CHECKS: Final = (
    RowCheck("secret", "warning", "hold what looks like a key or a token", "take it out and have it revoked: models repeat what they saw",
             secret),
)
