"""The hub of the self-test, with huggingface_hub pointed at it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tunewright.selftest.hub import Hub, listening

CANARY = "hf_" + "Canary" * 5 + "2"


@contextmanager
def reachable(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub, huggingface_hub pointed at it with a token, and no pauses between attempts."""
    import huggingface_hub
    from huggingface_hub import constants

    with listening() as found:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", found.endpoint)
        monkeypatch.setenv("HF_TOKEN", CANARY)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setattr("tunewright.engine.hub.WAITS_S", (0.0, 0.0))
        huggingface_hub.close_session()
        yield found
        huggingface_hub.close_session()
