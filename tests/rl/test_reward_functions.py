"""Reward functions of the user's: how they are found, what they are given, and what they may not return."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tunewright.config.alignment import AlignmentConfig
from tunewright.engine.online import columns_of
from tunewright.errors import InputError, NumericError
from tunewright.rl.reward_functions import FunctionScorer, demand_columns, open_function
from tunewright.rl.rewards import Answers, open_scorers

TWO = Answers([[1], [2]], [[4, 5], [6]], ("what? ", "why? "), ("a", "bcd"), {"answer": ["a", "x"], "level": [1, 2]})
CODE = '''
import json


def length(completions, **kwargs):
    return [float(len(one)) for one in completions]


def right(completions, answer):
    return [one == wanted for one, wanted in zip(completions, answer)]


def everything(**kwargs):
    global seen
    seen = kwargs
    return (0, 1)


def ids(completion_ids, prompts):
    return [len(one) + len(prompt) for one, prompt in zip(completion_ids, prompts)]


def faulty(completions):
    return [1 / 0 for _ in completions]


def faulty_below(completions):
    return json.loads(completions[0])


class Model:
    def __call__(self, completions):
        return [2.0] * len(completions)


as_object = Model()
number = 3
'''


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "my_rewards.py"
    path.write_text(CODE)
    return path


@pytest.mark.parametrize(("name", "expected"), [
    ("length", [1.0, 3.0]), ("right", [1.0, 0.0]), ("everything", [0.0, 1.0]), ("ids", [8.0, 6.0]), ("as_object", [2.0, 2.0])])
def test_functions_of_a_file(file: Path, name: str, expected: list[float]) -> None:
    """Counted by hand: lengths of `a` and `bcd`; equal to the column; tokens plus letters of the prompt."""
    scorer = open_function(f"{file}:{name}")
    assert scorer(TWO) == expected and scorer.name == f"{file}:{name}"


def test_one_that_takes_anything_gets_everything(file: Path) -> None:
    """The keywords of TRL's reward functions, lists of equal length; and a file is run once."""
    scorer = open_function(f"{file}:everything")
    scorer(TWO)
    assert scorer.function.__globals__["seen"] == {
        "prompts": ["what? ", "why? "], "completions": ["a", "bcd"], "completion_ids": [[4, 5], [6]], "answer": ["a", "x"], "level": [1, 2]}
    assert open_function(f"{file}:everything").function is scorer.function


@pytest.mark.effect("reward_funcs")
def test_functions_that_a_run_names(file: Path) -> None:
    """One scorer each, in their order."""
    scorers = open_scorers(AlignmentConfig(reward_funcs=(f"{file}:length", f"{file}:right")), None, 0, 8)
    assert [scorer(TWO) for scorer in scorers] == [[1.0, 3.0], [1.0, 0.0]]
    assert open_scorers(AlignmentConfig(), None, 0, 8) == ()


def test_a_function_of_an_installed_module(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    monkeypatch.syspath_prepend(str(file.parent))
    assert open_function("my_rewards:length")(TWO) == [1.0, 3.0]


RETURNED: dict[str, tuple[Any, type[Exception] | None, str]] = {
    "a tensor": (torch.tensor([0.5, 2.0]), None, ""),
    "tensors": ([torch.tensor(0.5), torch.tensor([2.0])], None, ""),
    "an iterator": (iter([0.5, 2]), None, ""),
    "too few": ([0.5], InputError, "gave 1 rewards for 2 answers; return one for each"),
    "too many": ([0.5, 2, 3], InputError, "gave more rewards than the 2 answers"),
    "nothing": (None, InputError, "TypeError: 'NoneType' object is not iterable"),
    "a number": (0.5, InputError, "TypeError: 'float' object is not iterable"),
    "None in it": ([0.5, None], InputError, "the reward of answer 2 of 2 is 'None', not a number"),
    "texts": (["good", "bad"], InputError, "the reward of answer 1 of 2 is 'good', not a number"),
    "not a number": ([0.5, float("nan")], NumericError, "the reward of answer 2 of 2 is nan"),
    "two at once": ([torch.tensor([1.0, 2.0]), 1], InputError, "not a number"),
}


@pytest.mark.parametrize("case", RETURNED)
def test_what_a_function_may_return(file: Path, case: str) -> None:
    returned, kind, words = RETURNED[case]
    scorer = open_function(f"{file}:length")
    scorer = type(scorer)("mine:f", lambda completions: returned, frozenset({"completions"}))
    if kind is None:
        assert scorer(TWO) == [0.5, 2.0]
        return
    with pytest.raises(kind, match=words) as refused:
        scorer(TWO)
    assert "reward function mine:f" in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize(("name", "text", "words"), [
    ("faulty", "    return [1 / 0 for _ in completions]", "ZeroDivisionError: division by zero"),
    ("faulty_below", "    return json.loads(completions[0])", "JSONDecodeError: Expecting value")])
def test_an_error_of_the_function_names_its_line(file: Path, name: str, text: str, words: str) -> None:
    """Its own last line, also where a library raises."""
    with pytest.raises(InputError, match=words) as refused:
        open_function(f"{file}:{name}")(TWO)
    assert refused.value.where == f"{file}:{CODE.splitlines().index(text) + 1}"


def test_columns_that_a_function_needs(file: Path) -> None:
    """A missing one is told before anything is generated."""
    scorer = open_function(f"{file}:right")
    demand_columns(scorer, {"answer": None})
    demand_columns(open_function(f"{file}:everything"), {})
    with pytest.raises(InputError, match="asks for answer, which the rows do not have; there are prompts, completions, completion_ids"):
        demand_columns(scorer, {"level": None})


def test_columns_of_rows_that_are_not_kept() -> None:
    """Token files hold no columns: a function that needs one is refused, one that can do without keeps its default."""
    def scaled(completions: list[str], scale: float = 2.0) -> list[float]:
        return [scale * len(one) for one in completions]

    tokens_alone: Any = SimpleNamespace(train=None, trained_from=(), sources={})
    usual = FunctionScorer("scaled", scaled, frozenset({"completions", "scale"}))
    assert columns_of(tokens_alone, [usual])([0, 1]) == {} and usual(TWO) == [2.0, 6.0]
    with pytest.raises(InputError, match="scale cannot be handed over: tokenized_path holds tokens alone"):
        columns_of(tokens_alone, [replace(usual, needs=frozenset({"scale"}))])


ABSENT = {
    "no colon": ("my_rewards", "names no function"),
    "no function": ("{file}:wrong", "has no function wrong; it has everything, faulty, faulty_below, ids, length, right"),
    "not callable": ("{file}:number", "has no function number"),
    "an expression": ("{file}:length()", "names no function"),
    "no file": ("nowhere.py:f", "path not found: nowhere.py"),
    "no module": ("no_such_module_here:f", "no module no_such_module_here"),
    "a syntax error": ("{broken}:f", "SyntaxError"),
    "an import that fails": ("{importing}:f", "ModuleNotFoundError: No module named 'no_such_package'"),
}


@pytest.mark.parametrize("case", ABSENT)
def test_a_function_that_is_not_there(file: Path, case: str) -> None:
    broken, importing = file.with_name("broken.py"), file.with_name("importing.py")
    broken.write_text("def f(:\n")
    importing.write_text("\nimport no_such_package\n")
    name, words = ABSENT[case]
    with pytest.raises(InputError, match=words) as refused:
        open_function(name.format(file=file, broken=broken, importing=importing))
    if case in ("a syntax error", "an import that fails"):
        assert refused.value.where == (f"{broken}:1" if case == "a syntax error" else f"{importing}:2")
