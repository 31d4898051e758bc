"""The vocabulary of the SFT configuration in JSON (document 002)."""

from __future__ import annotations

from typing import Final

from tunewright.dialects.dialect import Dialect

SFT_JSON: Final = Dialect("sft_json")
