"""tunewright's `stage: dpo`, through the function behind `tunewright train`, on pairs that are tokens already. `options` are settings.

The tokens are laid into a folder of prepared sets (`tokenized_path`), which the run uses as they are.

usage: own_dpo_step.py JOB.json  ->  one line RESULT {...}
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from own_training import settings, trained
from stopwatch import Stopwatch, read_job


def main() -> None:
    """Train, and tell what it took."""
    job, watch = read_job(), Stopwatch()
    stage = {"stage": "dpo", "pref_loss": "sigmoid", "pref_beta": job["beta"], "tokenized_path": _prepared(job)}
    watch.tell(job, trained({**settings(job), **stage}, watch))


def _prepared(job: dict[str, Any]) -> Path:
    """The folder with the pairs of the job: two rows each, prompt + chosen and prompt + rejected, with labels on the answers."""
    import numpy as np
    from transformers import AutoTokenizer

    from tunewright.data.audit import Audit
    from tunewright.data.examples import ExampleSet, StoreBuilder, Tokens
    from tunewright.data.fingerprint import tokenizer_digest
    from tunewright.data.records import Origin
    from tunewright.data.tokenized_path import Made, Stored, save

    builder = StoreBuilder([job["rows"]])
    for number, line in enumerate(Path(job["rows"]).read_text(encoding="utf-8").splitlines()):
        pair = json.loads(line)
        for answer in (pair["chosen_ids"], pair["rejected_ids"]):
            labels = [-100] * len(pair["prompt_ids"]) + answer
            builder.add(Tokens(np.array(pair["prompt_ids"] + answer, np.int32), np.array(labels, np.int32)),
                        Origin(job["rows"], number, number + 1))
    tokenizer = AutoTokenizer.from_pretrained(job["model"])
    folder = Path(job["output"]).parent / "tokens"
    save(folder, Stored(ExampleSet.of([builder.build()], rows_each=2), {}, Audit(())),
         Made(len(tokenizer), tokenizer_digest(tokenizer), "dpo", False, {}))
    return folder


if __name__ == "__main__":
    main()
