"""transformers' `generate` as the Trainer's prediction calls it: rows in the order of the file, batches padded on the left.

usage: plain_generation.py JOB.json  ->  one line RESULT {...}
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from stopwatch import peak_mb, read_job, versions


def main() -> None:
    """Answer, and tell what it took."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    job = read_job()
    tokenizer = AutoTokenizer.from_pretrained(job["model"], padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(job["model"], dtype=torch.float32).eval()
    rows = [json.loads(line) for line in Path(job["rows"]).read_text(encoding="utf-8").splitlines()]
    before, answers = time.process_time(), []
    for first in range(0, len(rows), job["batch"]):
        answers += _answers(model, tokenizer, rows[first : first + job["batch"]], job["new_tokens"])
    print("RESULT " + json.dumps({"cpu": time.process_time() - before, "answers": answers, "peak_mb": peak_mb(), "versions": versions()}),
          flush=True)


def _answers(model: Any, tokenizer: Any, rows: list[dict[str, str]], new_tokens: int) -> list[str]:
    chats = [[{"role": "user", "content": row["instruction"]}] for row in rows]
    batch = tokenizer.apply_chat_template(chats, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True)
    found = model.generate(**batch, do_sample=False, max_new_tokens=new_tokens, pad_token_id=tokenizer.pad_token_id)
    answers: list[str] = tokenizer.batch_decode(found[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
    return answers


if __name__ == "__main__":
    main()
