"""The exception tree and the exit codes (house.md section 9). Standard library only.

Every error a user can meet is a `TunewrightError`: one line that says what is wrong, where, and what to do about it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, NoReturn

_UNPRINTABLE: Final = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\u2028\\u2029\\ud800-\\udfff]")
"""Ends of lines, what steers a terminal, and halves of characters that no file takes."""


def shown(text: str) -> str:
    """`text` in one line that can be printed: control characters as Python writes them."""
    return _UNPRINTABLE.sub(lambda found: found.group().encode("unicode_escape").decode("ascii"), text)


class TunewrightError(Exception):
    """An error with an exit code and a one-line message; `mend` says what to do."""

    exit_code = 1

    def __init__(self, message: str, *, where: str | None = None, mend: str | None = None) -> None:
        self.message = message
        self.where = where
        self.mend = mend
        super().__init__(self.line())

    def line(self) -> str:
        """`<where>: <message>; <mend>`, with the absent parts left out: one line, whatever foreign names are quoted in it."""
        text = f"{self.where}: {self.message}" if self.where else self.message
        return shown(f"{text}; {self.mend}" if self.mend else text)


class InputError(TunewrightError):
    """Bad input: configuration, data, a model directory or the command line."""

    exit_code = 2


class UsageError(InputError):
    """The command line itself cannot be understood."""


class OutOfMemoryError(TunewrightError):
    """The device or the host ran out of memory."""

    exit_code = 3


class StorageError(TunewrightError):
    """No space left, or a file cannot be read or written."""

    exit_code = 4


class NumericError(TunewrightError):
    """A loss or a gradient is not finite; the step was not applied."""

    exit_code = 5


class LostRankError(TunewrightError):
    """Another rank, a data-loader worker or the network was lost."""

    exit_code = 6


class Preempted(TunewrightError):
    """A signal stopped the run after a checkpoint was committed; the run can be resumed."""

    exit_code = 75


class Interrupted(TunewrightError):
    """A signal came where there is nothing to save, or the user interrupted twice; nothing more was saved."""

    exit_code = 130


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a configuration or a data set. `rule` is the identifier of the check that found it."""

    message: str
    where: str | None = None
    mend: str | None = None
    rule: str | None = None

    def line(self) -> str:
        """The problem as one line, in the form of `TunewrightError.line`."""
        return TunewrightError(self.message, where=self.where, mend=self.mend).line()


class ConfigError(InputError):
    """All problems of one configuration, reported together: one line each."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(problem.line() for problem in problems))

    def line(self) -> str:
        """The lines of all problems."""
        return self.message


def require(condition: bool, message: str, *, where: str | None = None, mend: str | None = None) -> None:
    """Raise `InputError` unless `condition` holds."""
    if not condition:
        refuse(message, where=where, mend=mend)


def refuse(message: str, *, where: str | None = None, mend: str | None = None) -> NoReturn:
    """Raise `InputError`."""
    raise InputError(message, where=where, mend=mend)


def missing_package(package: str, *, feature: str, parameter: str, extra: str) -> InputError:
    """The error for an optional package that `feature`, asked for by `parameter`, needs."""
    return InputError(
        f"{feature} ({parameter}) needs the package `{package}`, which is not installed",
        mend=f'run: pip install "tunewright[{extra}]"',
    )
