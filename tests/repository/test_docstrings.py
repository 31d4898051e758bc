"""Every public module, class, function and method says what it is."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache

from tests.repository.source import Function, Module, modules


def test_everything_public_has_a_docstring() -> None:
    """Empty files, names with an underscore, special methods and functions inside functions are not public; a method that a
    protocol documents is documented there, once, for all who implement it."""
    missing = [f"{module.path}:{line} {name}" for module in modules() for name, line in _undocumented(module)]
    assert missing == []


def test_every_docstring_begins_with_a_sentence() -> None:
    """The first line is a whole thought: it does not begin with a blank, and the text ends with punctuation."""
    ends = (".", ":", "?", ")", "`")
    wrong = []
    for module in modules():
        for node in ast.walk(module.tree):
            if isinstance(node, ast.ClassDef | ast.Module | Function):
                text = ast.get_docstring(node, clean=False)
                if text is not None and (text[:1].isspace() or not text.strip().split("\n\n")[0].rstrip().endswith(ends)):
                    wrong.append(f"{module.path}:{getattr(node, 'lineno', 1)}")
    assert wrong == []


def _undocumented(module: Module) -> Iterator[tuple[str, int]]:
    if module.text.strip() and ast.get_docstring(module.tree) is None:
        yield module.name, 1
    yield from _members(module.tree, "")


def _members(parent: ast.AST, prefix: str) -> Iterator[tuple[str, int]]:
    for node in ast.iter_child_nodes(parent):
        if isinstance(node, ast.ClassDef | Function) and not node.name.startswith("_"):
            inherited = bool(prefix) and node.name in _protocol_methods()
            if ast.get_docstring(node) is None and not inherited and not _says_nothing_new(node):
                yield prefix + node.name, node.lineno
            if isinstance(node, ast.ClassDef):
                yield from _members(node, f"{prefix}{node.name}.")


@cache
def _protocol_methods() -> frozenset[str]:
    protocols = (node for module in modules() for node in ast.walk(module.tree)
                 if isinstance(node, ast.ClassDef) and any("Protocol" in ast.unparse(base) for base in node.bases))
    return frozenset(method.name for protocol in protocols for method in protocol.body
                     if isinstance(method, Function) and ast.get_docstring(method))


def _says_nothing_new(node: ast.ClassDef | Function) -> bool:
    """An override that is marked as one, the setter of a documented property and an overload inherit their words; a rule of the
    configuration, known by its `Case`, has its reason and mend in the table of rules."""
    arguments = node.args.args if isinstance(node, Function) else []
    if [ast.unparse(one.annotation) for one in arguments if one.annotation] == ["Case"]:
        return True
    marks = {ast.unparse(decorator).split(".")[-1] for decorator in node.decorator_list}
    return bool(marks & {"override", "overload", "setter"})
