"""The answers of ppo and grpo, written down: `rollouts.jsonl` in the output directory, and a few of them in the log."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tunewright.durable import SMALL, storage_errors
from tunewright.runtime import LOGGER_NAME

if TYPE_CHECKING:
    from tunewright.rl.episodes import Episode
    from tunewright.stages.stage import StepContext

FILE_NAME: Final = "rollouts.jsonl"
_SHOWN: Final = 2
_LONGEST: Final = 160


@dataclass(slots=True)
class SampleLog:
    """Writes the answers of every `every`-th step, the first one among them; 0 writes none. `names`: of the scorers.

    A step is in the file once: what a killed run wrote of steps that are now taken again is taken out.
    """

    path: Path
    every: int
    names: tuple[str, ...]
    is_begun: bool = field(default=False, init=False)

    def __call__(self, context: StepContext, episodes: Sequence[Episode]) -> None:
        """Gather the answers of all ranks and write them, in the order of the samples. Raises StorageError."""
        if not self.every or context.step % self.every:
            return
        parts = context.ranks.gather_objects([self._line(context.step + 1, episode) for episode in episodes])
        if not context.ranks.is_main:
            return
        lines = sorted((line for part in parts for line in part), key=lambda line: (line["sample"], line["number"]))
        with storage_errors(self.path.parent, SMALL):
            self._begin(context.step + 1)
            with self.path.open("a", encoding="utf-8") as file:
                file.write("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
        for line in lines[:_SHOWN]:
            logging.getLogger(LOGGER_NAME).info("%s", _told(line))

    def _line(self, step: int, episode: Episode) -> dict[str, Any]:
        return {"step": step, "sample": episode.sample_id, "number": episode.number, "prompt": episode.texts[0],
                "answer": episode.texts[1], "reward": episode.reward, "tokens": len(episode.answer), "ended": episode.ended,
                "scores": dict(zip(self.names, episode.scores, strict=True))}

    def _begin(self, step: int) -> None:
        """Leave of what an earlier part of the run wrote the steps before this one."""
        if not self.is_begun and self.path.is_file():
            found = self.path.read_bytes().splitlines(keepends=True)  # bytes: a text may hold U+2028, or end amid a character
            kept = self.path.with_name(f".{FILE_NAME}")
            kept.write_bytes(b"".join(line for line in found if line.endswith(b"\n") and json.loads(line)["step"] < step))
            os.replace(kept, self.path)
        self.is_begun = True


def _told(line: dict[str, Any]) -> str:
    prompt, answer = (_short(line[name]) for name in ("prompt", "answer"))
    return f"step {line['step']}: {prompt} -> {answer} (reward {line['reward']:.4g}{'' if line['ended'] else ', no end'})"


def _short(text: str) -> str:
    """The end of a prompt, or the whole of a short text, on one line."""
    flat = json.dumps(text, ensure_ascii=False)
    return flat if len(flat) <= _LONGEST else f'"...{flat[-_LONGEST:]}'
