"""Writes the files that are made from others, or says which of them are out of date.

    python scripts/generate.py --write | --check | --adopt-demo-report REPORT

docs/parameters.md, docs/schema.json and docs/coverage.md come from the parameters' declarations, docs/templates.md from the table of
templates, docs/benchmarks.md and the table in docs/planning.md from benchmarks/results, docs/life_cycle.md from
docs/life-cycle-report.json, which is the report.json of a `make life-cycle`; docs/reliability.md from docs/reliability.jsonl, to which
`make reliability` adds, and the results in fuzz; the registry of effect tests from the marks of the tests; the figures in README.md from
docs/demo-report.json, the report of a demo run that `--adopt-demo-report` copies there.
"""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "src"))

REPORT: Final = ROOT / "docs" / "demo-report.json"
LIFE_CYCLE: Final = ROOT / "docs" / "life-cycle-report.json"
REPORT_KEYS: Final = (
    "exact_match_before", "exact_match_after", "train_minutes", "tokens_per_second", "peak_memory_gb", "model", "versions")


def parameters() -> str:
    """The reference of all parameters."""
    from tunewright.dialects.reference import parameters_text

    return parameters_text()


def schema() -> str:
    """The JSON Schema of configuration files."""
    from tunewright.dialects.reference import schema_text

    return schema_text()


def readme() -> str:
    """README.md with the figures of docs/demo-report.json between its marks."""
    if not REPORT.is_file():
        raise SystemExit("error: docs/demo-report.json is missing; run `make demo`, then `make readme`")
    return _with("README.md", "demo figures", figures(json.loads(REPORT.read_text(encoding="utf-8"))))


def _with(name: str, mark: str, made: str) -> str:
    """A file with what is made between its marks."""
    begin, end = (f"<!-- {mark}: {side} -->\n" for side in ("begin", "end"))
    before, rest = (ROOT / name).read_text(encoding="utf-8").split(begin)
    _, after = rest.split(end)
    return before + begin + made + end + after


def figures(report: Mapping[str, Any]) -> str:
    """A demo report as a table."""
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    rows = (
        ("model", report["model"]),
        ("exact match before", f"{100 * report['exact_match_before']:.1f} %"),
        ("exact match after", f"{100 * report['exact_match_after']:.1f} %"),
        ("training", f"{report['train_minutes']:.1f} minutes, {report['tokens_per_second']:.0f} tokens/s"),
        ("peak memory", f"{report['peak_memory_gb']:.1f} GB"),
        ("versions", versions),
    )
    return "| | |\n|---|---|\n" + "".join(f"| {name} | {value} |\n" for name, value in rows)


def planning() -> str:
    """docs/planning.md with the memory estimates of benchmarks/results between its marks."""
    sys.path.insert(0, str(ROOT))
    from benchmarks.memory_estimate import section

    return _with("docs/planning.md", "memory estimates", section(ROOT / "benchmarks" / "results" / "memory_estimate.jsonl"))


def coverage() -> str:
    """What becomes of every name of every vocabulary."""
    from tunewright.dialects.coverage import coverage_text

    return coverage_text()


def templates() -> str:
    """The names of chat templates with their sources and policies."""
    from tunewright.data.template_page import templates_text

    return templates_text()


def benchmarks() -> str:
    """The figures in benchmarks/results as tables."""
    sys.path.insert(0, str(ROOT))
    from benchmarks.table import page

    return page(ROOT / "benchmarks" / "results")


def life_cycle() -> str:
    """The figures, commands and settings of the life cycle that docs/life-cycle-report.json tells of."""
    sys.path.insert(0, str(ROOT / "examples" / "life_cycle"))
    from page import page  # type: ignore[import-not-found]

    return str(page(json.loads(LIFE_CYCLE.read_text(encoding="utf-8"))))


def reliability() -> str:
    """What is promised about faults, with the figures of docs/reliability.jsonl and of the results in fuzz."""
    sys.path.insert(0, str(ROOT))
    from fuzz.page import section
    from tunewright.selftest.page import page

    return page(ROOT / "docs" / "reliability.jsonl", section(ROOT / "fuzz"))


def effects() -> str:
    """Parameter -> the test marked `@effect("parameter")`, by reading the tests without running them."""
    found: dict[str, str] = {}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for name, field in _marks(path):
            found.setdefault(field, f"{path.relative_to(ROOT)}::{name}")
    return json.dumps(dict(sorted(found.items())), indent=1) + "\n"


def _marks(path: Path) -> list[tuple[str, str]]:
    """(test, parameter) for each `@pytest.mark.effect("parameter", ...)` of a file."""
    text = path.read_text(encoding="utf-8")
    if "mark.effect(" not in text:
        return []
    return [(function.name, argument.value)
            for function in ast.walk(ast.parse(text)) if isinstance(function, ast.FunctionDef) and function.name.startswith("test_")
            for mark in function.decorator_list if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.effect"
            for argument in mark.args if isinstance(argument, ast.Constant)]


GENERATED: Final[Mapping[str, Callable[[], str]]] = {
    "docs/parameters.md": parameters,
    "docs/schema.json": schema,
    "src/tunewright/dialects/effects.json": effects,
    "docs/coverage.md": coverage,
    "docs/templates.md": templates,
    "docs/benchmarks.md": benchmarks,
    "docs/planning.md": planning,
    "docs/life_cycle.md": life_cycle,
    "docs/reliability.md": reliability,
    "README.md": readme,
}


def stale() -> list[str]:
    """The generated files that are not what they would be if written now."""
    return [name for name, make in GENERATED.items()
            if not (ROOT / name).is_file() or (ROOT / name).read_text(encoding="utf-8") != make()]


def adopt(report_path: Path) -> None:
    """Make the report of a demo run the one whose figures the README shows; refuse one that lacks a figure."""
    report = json.loads(report_path.read_text(encoding="utf-8"))
    missing = [key for key in REPORT_KEYS if key not in report]
    if missing:
        raise SystemExit(f"error: {report_path}: no {', '.join(missing)}; run `make demo` to its end")
    kept = {key: report[key] for key in REPORT_KEYS}
    REPORT.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
    (ROOT / "README.md").write_text(readme(), encoding="utf-8")


def main(arguments: list[str]) -> int:
    """0, or 1 if `--check` found a stale file."""
    if arguments == ["--write"]:
        for name, make in GENERATED.items():
            (ROOT / name).write_text(make(), encoding="utf-8")
        return 0
    if arguments == ["--check"]:
        for name in stale():
            print(f"{name} is out of date; run `make docs` and commit the result")
        return int(bool(stale()))
    if len(arguments) == 2 and arguments[0] == "--adopt-demo-report":
        adopt(Path(arguments[1]))
        return 0
    print("usage: python scripts/generate.py --write | --check | --adopt-demo-report REPORT", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
