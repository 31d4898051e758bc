"""The package's source as syntax trees, for the rules that are checked on them."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src"

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Module:
    """One source file: `name` as it is imported, `path` from the root of the repository."""

    name: str
    path: str
    text: str
    tree: ast.Module


@cache
def modules() -> tuple[Module, ...]:
    """All modules of the package, by path."""
    found = []
    for file in sorted(SOURCE.rglob("*.py")):
        parts = file.relative_to(SOURCE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        text = file.read_text(encoding="utf-8")
        found.append(Module(name, file.relative_to(ROOT).as_posix(), text, ast.parse(text, str(file))))
    return tuple(found)


def functions(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, Function]]:
    """Every function and method with its dotted name inside the module, nested ones too."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, Function):
            yield prefix + node.name, node
            yield from functions(node, f"{prefix}{node.name}.")
        elif isinstance(node, ast.ClassDef):
            yield from functions(node, f"{prefix}{node.name}.")
        else:
            yield from functions(node, prefix)


def imported(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """(dotted name, line) of every absolute import anywhere in `tree`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module, node.lineno


def imported_on_import(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """As `imported`, but only what runs when the module itself is imported: nothing inside functions or TYPE_CHECKING."""
    for statement in _executed(tree.body):
        if isinstance(statement, ast.Import | ast.ImportFrom):
            yield from imported(ast.Module([statement], []))


def _executed(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    for statement in body:
        if isinstance(statement, ast.If) and "TYPE_CHECKING" in ast.dump(statement.test):
            yield from _executed(statement.orelse)
        elif isinstance(statement, Function):
            continue
        else:
            yield statement
            for inner in ("body", "orelse", "finalbody", "handlers"):
                parts = getattr(statement, inner, [])
                for part in parts:
                    yield from _executed(part.body if isinstance(part, ast.ExceptHandler) else [part])


@cache
def tracked_files() -> tuple[Path, ...]:
    """Files that belong to the repository: tracked ones and new ones that are not ignored; all files outside of git."""
    listed = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
                            cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode == 0 and (ROOT / ".git").exists():
        names = [name for name in listed.stdout.split("\0") if name]
    else:
        skipped = {".venv", ".git", "runs", "build", "dist", "__pycache__", ".cache"}
        names = [path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*")
                 if not any(part in skipped or part.endswith("_cache") for part in path.relative_to(ROOT).parts)]
    return tuple(sorted(ROOT / name for name in names if (ROOT / name).is_file()))
