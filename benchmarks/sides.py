"""Who takes part in `training.py`: tools, and the ways in which each of them is run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))
from tunewright.config.kernels import FAST_PATHS


class Side(NamedTuple):
    """A driver, the peer whose environment it runs in (None: ours), and settings besides those that all have in common.

    `compared`: steps whose losses must be those of the others; a side that begins with an adapter of its own has but the first (None: all).
    """

    driver: str
    peer: str | None
    options: dict[str, str | bool]
    compared: int | None = None


_ALL: Final = ",".join(FAST_PATHS)
OWN: Final = "tunewright"
YARDSTICK: Final = "trainer"
PEERS: Final[dict[str, Side]] = {
    YARDSTICK: Side("plain_trainer", None, {}),
    "trl": Side("trl_sft", "trl", {}),
    "trl-no-checkpointing": Side("trl_sft", "trl", {"gradient_checkpointing": False}),
    "llamafactory": Side("llama_factory", "llamafactory", {}),
    "llamafactory-no-checkpointing": Side("llama_factory", "llamafactory", {"disable_gradient_checkpointing": True}),
    "ms-swift": Side("ms_swift", "ms-swift", {}),
    "ms-swift-no-checkpointing": Side("ms_swift", "ms-swift", {"gradient_checkpointing": False}),
    "litgpt": Side("lit_gpt", "litgpt", {}, compared=1),
}
ABLATION: Final[dict[str, Side]] = {
    **{f"{OWN}-without-{name}": Side("own_training", None, {"slow_paths": name}) for name in FAST_PATHS},
    f"{OWN}-padded": Side("own_training", None, {"padding_free": "false"}),
    f"{OWN}-slow-paths": Side("own_training", None, {"slow_paths": _ALL}),
    f"{OWN}-padded-slow-paths": Side("own_training", None, {"padding_free": "false", "slow_paths": _ALL}),
}
"""What each part pays: the run without it."""
SIDES: Final[dict[str, Side]] = {OWN: Side("own_training", None, {}), **PEERS, **ABLATION}
GROUPS: Final = {
    "peers": (OWN, YARDSTICK, "trl", "llamafactory", "llamafactory-no-checkpointing"), "all-peers": (OWN, *PEERS),
    "ablation": (OWN, *ABLATION), "own": (OWN, YARDSTICK)}
"""Short names of several sides."""


def sides_of(words: str) -> tuple[str, ...]:
    """Names of sides, or of groups of them, separated by commas, each once."""
    found = [name for word in words.split(",") for name in GROUPS.get(word, (word,))]
    if unknown := [name for name in found if name not in SIDES]:
        raise SystemExit(f"error: no side is called {', '.join(unknown)}; there are {', '.join((*GROUPS, *SIDES))}")
    return tuple(dict.fromkeys(found))
