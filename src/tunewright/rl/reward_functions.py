"""Rewards from Python functions that a run names: `module:function`, or `path/to/file.py:function`. The code runs in this process.

A function is called as TRL's trainers call theirs: `function(prompts=[...], completions=[...], <column>=[...], ...)`, lists of equal
length, and returns a number for each completion. It gets what it has parameters for: all of it if it takes `**kwargs`.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from tunewright.errors import InputError, TunewrightError, refuse, require
from tunewright.rl.rewards import checked

if TYPE_CHECKING:
    from tunewright.rl.rewards import Answers

OWN = ("prompts", "completions", "completion_ids")
"""What every function can ask for besides columns."""


@dataclass(frozen=True, slots=True)
class FunctionScorer:
    """One function. `takes`: the names of its parameters, or None if it takes any; `needs`: columns that it cannot do without."""

    name: str
    function: Callable[..., Any]
    takes: frozenset[str] | None
    needs: frozenset[str] = frozenset()

    def __call__(self, answers: Answers) -> list[float]:
        """Its rewards. Raises InputError with file and line for whatever it raises, and for a result that is not one number for each."""
        given: dict[str, Any] = {**answers.columns, "prompts": list(answers.prompts), "completions": list(answers.completions),
                                 "completion_ids": [list(ids) for ids in answers.answer_ids]}
        asked = given if self.takes is None else {name: value for name, value in given.items() if name in self.takes}
        try:
            rewards = self.function(**asked)
            rewards = rewards if isinstance(rewards, list) else list(rewards)
        except TunewrightError:
            raise
        except Exception as error:
            raise _failed(self.name, error, getattr(inspect.getmodule(self.function), "__file__", None)) from error
        return checked(rewards, len(answers), f"reward function {self.name}")


def open_function(name: str) -> FunctionScorer:
    """The function that `name` points at. Raises `InputError` if there is none."""
    place, sign, attribute = name.rpartition(":")
    require(bool(sign and place and attribute.isidentifier()), f"reward_funcs: {name!r} names no function",
            mend="write module:function, or path/to/file.py:function")
    module = _file(place, name) if place.endswith(".py") else _module(place, name)
    function = getattr(module, attribute, None)
    if not callable(function):
        known = sorted(one for one, value in vars(module).items() if inspect.isfunction(value) and value.__module__ == module.__name__)
        refuse(f"reward_funcs: {place} has no function {attribute}", mend=f"it has {', '.join(known)}" if known else "name another")
    return FunctionScorer(name, function, *_parameters(function))


def demand_columns(scorer: FunctionScorer, columns: Mapping[str, Any]) -> None:
    """Raise `InputError` if the function needs a column that the rows do not have."""
    absent = sorted(scorer.needs - {*columns})
    require(not absent, f"reward function {scorer.name} asks for {', '.join(absent)}, which the rows do not have",
            mend=f"there are {', '.join([*OWN, *columns])}")


def _parameters(function: Callable[..., Any]) -> tuple[frozenset[str] | None, frozenset[str]]:
    """What it takes, and the columns it needs."""
    try:
        found = inspect.signature(function).parameters.values()
    except ValueError:  # written in C, without a signature
        return None, frozenset()
    named = [one for one in found if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)]
    needs = frozenset(one.name for one in named if one.default is one.empty) - {*OWN}
    takes_any = any(one.kind is one.VAR_KEYWORD for one in found)
    return None if takes_any else frozenset(one.name for one in named), needs


def _module(place: str, name: str) -> ModuleType:
    try:
        return importlib.import_module(place)
    except ModuleNotFoundError as error:
        if error.name is None or not (place == error.name or place.startswith(f"{error.name}.")):
            raise _failed(name, error) from error
        raise InputError(f"reward_funcs: no module {place}", mend="install it, or write path/to/file.py:function") from error
    except Exception as error:
        raise _failed(name, error) from error


def _file(place: str, name: str) -> ModuleType:
    path = Path(place).expanduser()
    require(path.is_file(), f"reward_funcs: path not found: {place}", mend="paths begin in the working directory")
    known = f"_tunewright_rewards_{path.resolve().as_posix()}"
    if known in sys.modules:
        return sys.modules[known]
    spec = importlib.util.spec_from_file_location(known, path)
    assert spec is not None and spec.loader is not None, "a file that ends in .py has a loader"
    module = importlib.util.module_from_spec(spec)
    sys.modules[known] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[known]
        raise _failed(name, error, str(path)) from error
    return module


def _failed(name: str, error: Exception, home: str | None = None) -> InputError:
    """One line for what the user's code raised: at its last line in the file `home`, else at the last that is not ours."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__ and frame.filename[:1] != "<"]
    frames = [frame for frame in frames if frame.filename == home] or frames
    where = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else None
    said = " ".join(str(error).split())[:300]
    if isinstance(error, SyntaxError):
        where = f"{error.filename}:{error.lineno}"
    return InputError(f"reward function {name}: {type(error).__name__}: {said}", where=where, mend="mend the function")
