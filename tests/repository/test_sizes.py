"""Sizes of files, functions and parameter lists (limits of CONTRIBUTING.md).

The exceptions are in ratchet.json and may only shrink: a new one, one that grew and one that is no longer needed all fail.
"""

from __future__ import annotations

import ast
import json

from tests.repository.source import ROOT, Function, functions, modules

LIMITS = {"file_lines": 400, "function_lines": 60, "parameters": 6}
RATCHET = ROOT / "tests" / "repository" / "ratchet.json"


def test_sizes_are_within_limits_or_in_the_ratchet() -> None:
    """Measured here from the syntax tree; the whole list of exceptions must be exactly what the ratchet file says."""
    allowed = json.loads(RATCHET.read_text(encoding="utf-8"))
    measured = {kind: {name: size for name, size in sizes.items() if size > LIMITS[kind]} for kind, sizes in _sizes().items()}
    assert measured == allowed, "split what is new or grew; take out of ratchet.json, or lower there, what shrank"


def test_the_measure_counts_lines_and_parameters() -> None:
    """Worked by hand: decorators and the docstring count as lines; self, *args and keyword-only parameters are parameters
    except self."""
    tree = ast.parse('class A:\n    @staticmethod\n    def f(self, a, b=1, *c, d, **e):\n        """Text."""\n        return 1\n')
    ((name, function),) = functions(tree)
    assert (name, _lines(function), _parameters(function)) == ("A.f", 4, 5)


def _sizes() -> dict[str, dict[str, int]]:
    sizes: dict[str, dict[str, int]] = {kind: {} for kind in LIMITS}
    for module in modules():
        sizes["file_lines"][module.path] = len(module.text.splitlines())
        for name, function in functions(module.tree):
            sizes["function_lines"][f"{module.path}:{name}"] = _lines(function)
            sizes["parameters"][f"{module.path}:{name}"] = _parameters(function)
    return sizes


def _lines(function: Function) -> int:
    first = min([function.lineno, *(decorator.lineno for decorator in function.decorator_list)])
    return (function.end_lineno or first) - first + 1


def _parameters(function: Function) -> int:
    given = function.args
    names = [one.arg for one in (*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg) if one]
    return len([name for name in names if name not in ("self", "cls")])
