"""Rows to measure preprocessing with: real prose and code of Python's own library, in rows of long-tailed lengths.

The text is cut from the documentation, doc strings and sources of the Python that runs this, so that it holds the words, names, numbers
and indentation that people write; one word in two hundred is a name that stands nowhere else, because new texts bring new words.
Half the rows have fewer than 130 tokens, few more than 1,000. One row in five has earlier turns. The same seed gives the same rows.
"""

from __future__ import annotations

import ast
import json
import random
import re
import sysconfig
from collections.abc import Iterator
from functools import cache
from pathlib import Path

_SEED = 11
_NEW_WORDS = 0.005
_MEDIAN_WORDS = {"instruction": 14, "input": 30, "output": 34}
_SPREAD = 0.95
_LONGEST_WORDS = 900


def write_rows(path: Path, count: int) -> None:
    """Write `count` Alpaca rows to `path` (.jsonl), the same for each call on one version of Python."""
    words = library_words()
    draw = random.Random(_SEED)
    with path.open("w", encoding="utf-8") as file:
        for _ in range(count):
            row: dict[str, object] = {"instruction": _text(words, draw, "instruction"), "input": "", "output": _text(words, draw, "output")}
            if draw.random() < 0.4:
                row["input"] = _text(words, draw, "input")
            if draw.random() < 0.2:
                row["history"] = [[_text(words, draw, "instruction"), _text(words, draw, "output")] for _ in range(draw.randint(1, 3))]
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def _text(words: list[str], draw: random.Random, part: str) -> str:
    """A stretch of the library's text, of a long-tailed number of words; white space as it stands there."""
    length = min(_LONGEST_WORDS, max(3, round(_MEDIAN_WORDS[part] * draw.lognormvariate(0, _SPREAD))))
    begin = draw.randrange(len(words) - length)
    taken = words[begin : begin + length]
    for place in range(length):
        if draw.random() < _NEW_WORDS:
            taken[place] = _name(draw) + (" " if taken[place].endswith(" ") else "")
    return "".join(taken).strip() or "nothing"


def _name(draw: random.Random) -> str:
    return "".join(draw.choice("bcdfghklmnprstvwz") + draw.choice("aeiou") for _ in range(draw.randint(2, 4))).capitalize()


@cache
def library_words() -> list[str]:
    """Every word of the library's text with the white space behind it."""
    return [found for text in _texts() for found in re.findall(r"\S+\s*", text)]


def _texts() -> Iterator[str]:
    library = Path(sysconfig.get_paths()["stdlib"])
    yield from (value for _, value in sorted(_topics(library).items()))
    for path in sorted([*library.glob("*.py"), *library.glob("*/*.py")]):
        if "site-packages" in path.parts or "test" in path.parts or path.parent.name == "encodings":
            continue
        source = path.read_text(encoding="utf-8", errors="ignore")
        try:
            tree = ast.parse(source)
        except (SyntaxError, ValueError):
            continue
        documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
        yield from (text + "\n" for node in ast.walk(tree) if isinstance(node, documented) and (text := ast.get_docstring(node)))
        yield source[: len(source) // 4]


def _topics(library: Path) -> dict[str, str]:
    """The texts that `help()` shows, read from the module that holds them."""
    tree = ast.parse((library / "pydoc_data" / "topics.py").read_text(encoding="utf-8"))
    found = next(node.value for node in tree.body if isinstance(node, ast.Assign))
    topics: dict[str, str] = ast.literal_eval(found)
    return topics
