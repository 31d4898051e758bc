"""tunewright, through the function behind `tunewright predict`; what is timed is the making of answers.

usage: own_generation.py JOB.json  ->  one line RESULT {...}
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from stopwatch import peak_mb, read_job, versions


def main() -> None:
    """Answer, and tell what it took."""
    from tunewright.commands import predict as command
    from tunewright.engine import predict as engine

    job, spent = read_job(), []
    answer = engine.predict

    def timed(*given: Any) -> Any:
        before = time.process_time()
        found = answer(*given)
        spent.append(time.process_time() - before)
        return found

    engine.predict = timed  # the command takes it from there when it runs
    settings = {
        "model_name_or_path": job["model"], "eval_dataset": job["rows"], "output_dir": job["output"], "data_cache_dir": "none",
        "use_cpu": "true", "do_sample": "false", "max_new_tokens": job["new_tokens"], "per_device_eval_batch_size": job["batch"]}
    if code := command.run([f"{name}={value}" for name, value in settings.items()]):
        raise SystemExit(code)
    lines = (Path(job["output"]) / engine.PREDICTIONS_NAME).read_text(encoding="utf-8").splitlines()
    print("RESULT " + json.dumps({"cpu": sum(spent), "answers": [json.loads(line)["predict"] for line in lines], "peak_mb": peak_mb(),
                                  "versions": versions()}), flush=True)


if __name__ == "__main__":
    main()
