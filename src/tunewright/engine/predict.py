"""Prediction: the answers a model gives to the prompts of a set, beside the answers the set has.

Prompt and answer are rendered by the training renderer: what is asked here is what was trained on, to the token.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tunewright.data.tokenize import encode_prompt
from tunewright.engine.metrics import Metrics, exact_match, mean_of_rows, speed
from tunewright.errors import StorageError
from tunewright.inference.generate import decode, generate

if TYPE_CHECKING:
    from tunewright.config.inference import GenerationConfig
    from tunewright.data.pipeline import PromptRow
    from tunewright.engine.text_metrics import TextScorer
    from tunewright.inference.opening import Opened
    from tunewright.runtime import Ranks

PREDICTIONS_NAME: Final = "generated_predictions.jsonl"


@dataclass(frozen=True, slots=True)
class Prediction:
    """One row of generated_predictions.jsonl."""

    prompt: str
    predict: str
    label: str


@dataclass(frozen=True, slots=True)
class Predicted:
    """All predictions in the order of the rows, the seconds it took, and the batches."""

    rows: tuple[Prediction, ...]
    runtime_s: float
    steps: int

    def metrics(self, prefix: str, scorer: TextScorer | None) -> Metrics:
        """`<prefix>_exact_match` and run time; with a scorer `<prefix>_bleu-4` and `<prefix>_rouge-1/2/l` too."""
        scores = [{"exact_match": exact_match(row.predict, row.label),
                   **(scorer.score(row.predict, row.label) if scorer else {})} for row in self.rows]
        means = {f"{prefix}_{name}": value for name, value in mean_of_rows(scores).items()}
        return means | speed(prefix, self.runtime_s, len(self.rows), self.steps)


def predict(
    opened: Opened, rows: Sequence[PromptRow], generation: GenerationConfig, batch_size: int, ranks: Ranks,
) -> Predicted:
    """Generate an answer to the prompt of each row, the rows dealt out over the ranks; every rank gets all answers.

    Greedy answers do not depend on the batch size or the number of ranks. The caller's random stream is left alone.
    """
    started = time.perf_counter()
    prompts = [encode_prompt(row.messages, opened.renderer, opened.tokenizer, row.tools) for row in rows]
    numbers = range(ranks.rank, len(rows), ranks.world_size)
    answers = generate(opened.model, opened.tokenizer, [prompts[number] for number in numbers], generation,
                       opened.renderer.stop_token_ids(opened.tokenizer), batch_size)
    mine = [[number, text] for number, text in zip(numbers, decode(opened.tokenizer, answers), strict=True)]
    texts = {number: text for part in ranks.gather_objects(mine) for number, text in part}
    found = tuple(Prediction(str(opened.tokenizer.decode(list(prompt))), texts[number], row.label)
                  for number, (prompt, row) in enumerate(zip(prompts, rows, strict=True)))
    steps = math.ceil(len(rows) / (batch_size * ranks.world_size))
    return Predicted(found, time.perf_counter() - started, steps)


def write_predictions(output_dir: Path, predictions: Sequence[Prediction]) -> Path:
    """Write generated_predictions.jsonl: one object with prompt, predict and label per row. Raises StorageError."""
    path = output_dir / PREDICTIONS_NAME
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        with path.open("w", encoding="utf-8") as file:
            for row in predictions:
                line = {"prompt": row.prompt, "predict": row.predict, "label": row.label}
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
    except OSError as error:
        raise StorageError(f"cannot be written: {error.strerror or error}", where=str(path), mend="free some space") from error
    return path
