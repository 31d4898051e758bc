"""`tunewright selftest`: what is promised, shown on this machine."""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import active_children, get_context
from pathlib import Path
from typing import Final

from tunewright.errors import UsageError
from tunewright.selftest.check import CHECKS, Check, Size
from tunewright.selftest.record import Result, append, result_of

USAGE: Final = """usage: tunewright selftest [--full] [--only NAME[,NAME ...]] [--jobs N] [--record FILE] [--seed N] [--json] [--list]

Show what is promised about faults and exactness on this machine, on tiny models that are made on the spot: runs are killed, disks filled,
files damaged. A few cases of each kind by default (minutes); --full runs all of them (hours). Exit code 1 if a case did not pass.

  --only    the checks to run; --list names them
  --jobs    checks that run side by side (default 2)
  --record  a file of JSON lines to add the results to; docs/reliability.md is made from such a file
  --seed    of what is drawn at random (default 0)
"""
FAILED: Final = 1


@dataclass(frozen=True, slots=True)
class Wish:
    """What the command line asks for."""

    names: tuple[str, ...]
    size: Size
    jobs: int
    seed: int
    record: Path | None
    as_json: bool


def run(argv: Sequence[str]) -> int:
    """Run the checks and print a line for each. Returns 0, or 1 if a case did not pass."""
    if not {"-h", "--help"}.isdisjoint(argv):
        sys.stdout.write(USAGE)
        return 0
    if list(argv) == ["--list"]:
        sys.stdout.write("".join(f"{entry.name:<{_width()}}  {entry.summary}\n" for entry in CHECKS))
        return 0
    wish = read_wish(argv)
    began = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    results: list[Result] = []
    for name in wish.names:
        found: list[Result] = []
        for one in ran(CHECKS.load(name), wish):
            found.append(one)
            sys.stderr.write(progress(one))
            if wish.record is not None:
                append(wish.record, began, [one])
        results += found
        if not wish.as_json:
            sys.stdout.write(line(name, found))
            sys.stdout.flush()
    if wish.as_json:
        sys.stdout.write(json.dumps([{name: getattr(one, name) for name in Result.__slots__} for one in results], indent=1) + "\n")
    return FAILED if any(one.passed < one.cases for one in results) else 0


def read_wish(argv: Sequence[str]) -> Wish:
    """Raises `UsageError` for what cannot be understood, with the nearest name."""
    from tunewright.commands.own_options import take_options

    options, rest = take_options(argv, "selftest", ("--only", "--jobs", "--record", "--seed"), ("--full", "--json"))
    if rest:
        raise UsageError(f"selftest does not know {' '.join(rest)}", mend="see tunewright selftest --help")
    names = tuple(name.strip() for name in options["--only"].split(",")) if "--only" in options else CHECKS.names()
    for name in names:
        CHECKS.entry(name)
    record = Path(options["--record"]) if "--record" in options else None
    return Wish(names, Size.FULL if "--full" in options else Size.SAMPLE, _number(options, "--jobs", 2, least=1),
                _number(options, "--seed", 0, least=0), record, "--json" in options)


def _number(options: dict[str, str], name: str, default: int, *, least: int) -> int:
    written = options.get(name, str(default))
    if not written.isdecimal() or int(written) < least:
        raise UsageError(f"{name} must be a whole number of at least {least}, not {written!r}")
    return int(written)


def ran(check: Check, wish: Wish) -> Iterator[Result]:
    """The results of a check's groups, as they come."""
    groups = check.groups(wish.size)
    lacking = {group: said for group in groups if (said := check.missing(group)) is not None}
    yield from (Result(check.name, group, wish.size, left_out=said) for group, said in lacking.items())
    with (tempfile.TemporaryDirectory(prefix="tunewright-selftest-", ignore_cleanup_errors=True) as folder,
          ProcessPoolExecutor(wish.jobs, mp_context=get_context("spawn"), initializer=_begin, initargs=(folder,)) as pool):
        futures = [pool.submit(ran_group, check.name, group, wish.size, wish.seed) for group in groups if group not in lacking]
        try:
            yield from (one.result() for one in as_completed(futures))
        except BaseException:
            for process in active_children():
                process.terminate()
            raise


def _begin(folder: str) -> None:
    """In a process of the pool: an interrupt is for the command, which ends this process and removes what it left in `folder`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    tempfile.tempdir = os.environ["TMPDIR"] = folder


def ran_group(name: str, group: str, size: Size, seed: int) -> Result:
    """In a process that has others before and after it: the cases of one group. An error that a check does not expect is a case that did
    not pass."""
    from tunewright.models.load import quiet_transformers
    from tunewright.selftest.check import Outcome, Tools
    from tunewright.selftest.killing import cpu_seconds, server

    quiet_transformers()
    check: Check = CHECKS.load(name)
    outcomes: list[Outcome] = []
    before = cpu_seconds()
    with tempfile.TemporaryDirectory() as folder:
        try:
            outcomes.extend(check.run(group, size, Tools(Path(folder), server, seed)))
        except Exception as error:
            told = " ".join(f"{type(error).__name__}: {error}".split())[:500]
            outcomes.append(Outcome(group, f"after {len(outcomes)} cases", False, told))
    return result_of(name, group, size, outcomes, cpu_seconds() - before)


def progress(result: Result) -> str:
    """A group in one line, while others are still at work."""
    told = f"left out: {result.left_out}" if result.left_out else f"{result.passed} of {result.cases}, {result.cpu_s:.0f} CPU s"
    return f"  {result.check}: {result.group}: {told}\n"


def _width() -> int:
    return max((len(name) for name in CHECKS.names()), default=0)


def line(name: str, results: Sequence[Result]) -> str:
    """A check in one line, and a line for each case that did not pass."""
    cases, passed = sum(one.cases for one in results), sum(one.passed for one in results)
    told = f"{passed} of {cases} passed  {sum(one.cpu_s for one in results):.0f} CPU s"
    left_out = "".join(f"  {one.group}: left out: {one.left_out}\n" for one in results if one.left_out)
    failed = [f"  {one.group}: {case}: {said}\n" for one in results for case, said in one.failed]
    return f"{name:<{_width()}}  {told}\n" + "".join(failed) + left_out
