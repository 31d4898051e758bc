"""docs/reliability.md from a record of checks: the same record gives the same page. Standard library only."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tunewright.selftest.check import CHECKS, Check, Size
from tunewright.selftest.record import Result, newest

HEAD: Final = """# Reliability

What tunewright promises about faults, exactness and bad input, and how often it was shown. Each figure is from the newest whole run of a
check that is recorded in [reliability.jsonl](reliability.jsonl); a sample of each runs again with every change. On a machine of your own:

```console
$ tunewright selftest
$ tunewright selftest --full
$ tunewright verify-resume my.yaml
```

The first shows a sample of each promise (minutes), the second all of it (an hour or two); the third proves on your own configuration that
a run goes on bit for bit after any step.

| promise | cases passed | command |
|---|---|---|
"""


def page(record: Path, more: str = "") -> str:
    """The page, with what is shown otherwise at its end."""
    known = newest(record)
    checks: list[Check] = [CHECKS.load(name) for name in CHECKS.names()]
    rows = "".join(_row(one, known[one.name][1] if one.name in known else ()) for one in checks)
    sections = "".join(_section(one, *known[one.name]) for one in checks if one.name in known)
    return f"{HEAD}{rows}\n{sections}{more}"


def _row(check: Check, results: Sequence[Result]) -> str:
    cases, passed = sum(one.cases for one in results), sum(one.passed for one in results)
    figure = f"{passed:,} of {cases:,}{_size(results)}" if cases else "not run yet"
    return f"| {check.promise} | {figure} | `tunewright selftest --full --only {check.name}` |\n"


def _section(check: Check, run: str, found: Sequence[Result]) -> str:
    places = {group: place for place, group in enumerate(check.groups(Size.FULL))}
    results = sorted(found, key=lambda one: places.get(one.group, len(places)))
    lines = [f"## {check.name}\n", f"Run of {run[:10]}{_size(results)}; {sum(one.cpu_s for one in results):,.0f} CPU seconds.\n",
             "| group | cases | passed |\n|---|---|---|", *(f"| {one.group} | {_figures(one)} |" for one in results)]
    failed = [f"- {one.group}: {case}: {said}" for one in results for case, said in one.failed]
    return "\n".join([*lines, *(["", "Not passed:", "", *failed] if failed else []), "", ""])


def _size(results: Sequence[Result]) -> str:
    return "" if all(one.size == Size.FULL for one in results) else " (a sample)"


def _figures(result: Result) -> str:
    return f"| left out: {result.left_out}" if result.left_out else f"{result.cases:,} | {result.passed:,}"
