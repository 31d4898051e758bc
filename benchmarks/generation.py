"""Generation for evaluation: tokens of answers per CPU second, `tunewright predict` beside transformers' own `generate`, in turns.

    python benchmarks/generation.py [--prompts 24] [--new-tokens 48] [--batch 8] [--rounds 2]

Both answer the same questions of long-tailed lengths with the likeliest tokens, one thread, each run in a process of its own. Opening
the model is not counted. Answers are compared: the page tells how many are the same, letter for letter. The result is
benchmarks/results/generation.json; `python benchmarks/table.py` puts it into docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))
from processes import ran
from prose import library_words

HERE: Final = Path(__file__).parent
DEMO_MODEL: Final = Path.home() / ".cache" / "tunewright" / "models" / "smollm2-135m-instruct"
DRIVERS: Final = {"tunewright predict": "own_generation", "transformers generate": "plain_generation"}
_MEDIAN_WORDS: Final = 40
_SPREAD: Final = 0.8
Line = dict[str, Any]


def main() -> int:
    """Measure, write the result, print it. Returns the exit code: 1 if a side fails."""
    wish = _arguments()
    wish.folder.mkdir(parents=True, exist_ok=True)
    rows = wish.folder / "questions.jsonl"
    _write_questions(rows, wish.prompts)
    job = {"rows": str(rows), "model": str(wish.model), "batch": wish.batch, "new_tokens": wish.new_tokens}
    runs: dict[str, list[Line]] = {name: [] for name in DRIVERS}
    for number in range(wish.rounds):
        for name in DRIVERS if number % 2 == 0 else reversed(DRIVERS):
            found = ran(DRIVERS[name], Path(sys.executable), job, 1, wish.folder)
            if "failure" in found:
                raise SystemExit(f"error: {name}: {found['failure']}; see {wish.folder}")
            runs[name].append(found)
    asked = {"model": wish.model.name, "prompts": wish.prompts, "new_tokens": wish.new_tokens, "batch": wish.batch}
    result = {**asked, **compared(runs, wish.model)}
    wish.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    for name, side in result["sides"].items():
        print(f"{name:24}{side['tokens_per_cpu_s']} tokens per CPU s, tunewright is faster by {side['faster']}")
    print(f"{result['same']} of {wish.prompts} answers are the same")
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=24)
    parser.add_argument("--new-tokens", type=int, default=48, help="longest answer")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--model", type=Path, default=DEMO_MODEL, help="directory; `tunewright demo` fetches the default")
    parser.add_argument("--folder", type=Path, default=Path("/tmp/tunewright-benchmark"))
    parser.add_argument("--output", type=Path, default=HERE / "results" / "generation.json")
    return parser.parse_args()


def _write_questions(path: Path, count: int) -> None:
    """Questions of long-tailed lengths out of the text of Python's library, the same for each call."""
    words, draw = library_words(), random.Random(count)
    with path.open("w", encoding="utf-8") as file:
        for _ in range(count):
            length = min(400, max(3, round(_MEDIAN_WORDS * draw.lognormvariate(0, _SPREAD))))
            begin = draw.randrange(len(words) - length)
            row = {"instruction": "".join(words[begin : begin + length]).strip() or "nothing", "input": "", "output": "unknown"}
            file.write(json.dumps(row) + "\n")


def compared(runs: dict[str, list[Line]], model: Path) -> Line:
    """Speeds by round, and how many answers are the same on both sides."""
    from tokenizers import Tokenizer

    encoder = Tokenizer.from_file(str(model / "tokenizer.json"))

    def rate(run: Line) -> float:
        return float(sum(len(encoder.encode(answer, add_special_tokens=False).ids) for answer in run["answers"]) / run["cpu"])

    own, other = (list(map(rate, runs[name])) for name in DRIVERS)
    names = list(DRIVERS)
    return {
        "same": sum(one == two for one, two in zip(*(runs[name][0]["answers"] for name in names), strict=True)),
        "sides": {names[0]: {"tokens_per_cpu_s": [round(one, 2) for one in own], "faster": []},
                  names[1]: {"tokens_per_cpu_s": [round(one, 2) for one in other],
                             "faster": [round(one / two, 3) for one, two in zip(own, other, strict=True)]}},
        "peak_mb": {name: [run["peak_mb"] for run in runs[name]] for name in names}, "versions": runs[names[0]][0]["versions"]}


if __name__ == "__main__":
    raise SystemExit(main())
