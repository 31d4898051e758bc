"""YAML text -> values and the line of every key, from PyYAML's node graph; nothing is constructed that the text could choose."""

from __future__ import annotations

import re
from typing import Any

import yaml

from tunewright.dialects.limits import MAX_ALIASES, MAX_DEPTH, KeyPath, too_deep, twice
from tunewright.errors import refuse

_PREFIX = "tag:yaml.org,2002:"
_OLD_NUMBER = re.compile(r"[+-]?0[\d_]+|.*:.*")
"""What only YAML 1.1 takes for a number, with a base of its own: 010 is 8, 1:30 is 90. It stays a text, whose parameter decides."""
_MOST_BITS = 14_000
"""Of an integer: 0x and 5,000 digits is one that Python does not print."""
_WRONG = object()
_SCALARS = ("null", "bool", "int", "float", "str", "timestamp")


def parse(text: str, path: str) -> tuple[Any, dict[KeyPath, int]]:
    """The value of the one YAML document in `text` and the line of each key. Raises InputError."""
    try:
        loader = _Loader(text, path)
        root = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        _syntax(error, path)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        refuse(f"the character #x{error.character:04x} is not allowed in YAML", where=f"{path}:{line}", mend="remove it")
    walk = _Walk(loader, path)
    value = None if root is None else walk.value(root, ())
    loader.dispose()
    return value, walk.lines


def _syntax(error: yaml.MarkedYAMLError, path: str) -> None:
    mark = error.problem_mark or error.context_mark
    where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else path
    problem = " ".join(str(error.problem or error.context or "not valid YAML").split())
    tab = "\\t" in problem
    refuse(f"not valid YAML: {'a tab is used where a space is needed' if tab else problem}", where=where,
           mend="indent with spaces" if tab else "correct the syntax there")


class _Loader(yaml.SafeLoader):
    """Composes nodes, counting depth and aliases."""

    def __init__(self, text: str, path: str) -> None:
        super().__init__(text)
        self.path = path
        self.depth = 0
        self.aliases = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        where = f"{self.path}:{event.start_mark.line + 1}"
        level = int(self.check_event(yaml.CollectionStartEvent))
        self.depth += level
        if self.depth > MAX_DEPTH:
            too_deep(where)
        if self.check_event(yaml.AliasEvent):
            self.aliases += 1
            if self.aliases > MAX_ALIASES:
                refuse(f"more than {MAX_ALIASES} aliases", where=where, mend="write the values out")
        node = super().compose_node(parent, index)
        self.depth -= level
        return node


class _Walk:
    """Values of a node graph; an alias repeats its anchor's value, within a bound on the whole."""

    def __init__(self, loader: _Loader, path: str) -> None:
        self.loader = loader
        self.path = path
        self.lines: dict[KeyPath, int] = {}
        self.open: set[int] = set()
        self.count = 0

    def value(self, node: yaml.Node, keys: KeyPath) -> Any:
        where = f"{self.path}:{node.start_mark.line + 1}"
        self.count += 1
        if id(node) in self.open or self.count > 100_000:
            refuse("an alias that holds itself, or too many values", where=where, mend="write the values out")
        self.open.add(id(node))
        found = self._value(node, keys, where)
        self.open.discard(id(node))
        return found

    def _value(self, node: yaml.Node, keys: KeyPath, where: str) -> Any:
        kind = node.tag.removeprefix(_PREFIX)
        if isinstance(node, yaml.MappingNode) and kind == "map":
            return self._mapping(node, keys)
        if isinstance(node, yaml.SequenceNode) and kind == "seq":
            return [self.value(one, keys) for one in node.value]
        if isinstance(node, yaml.ScalarNode) and kind in _SCALARS and node.tag.startswith(_PREFIX):
            return self._scalar(node, kind, where)
        refuse(f"the tag {node.tag.replace(_PREFIX, '!!')} is not allowed", where=where, mend="write a plain value")

    def _scalar(self, node: yaml.ScalarNode, kind: str, where: str) -> Any:
        if kind in ("timestamp", "str") or (kind in ("int", "float") and _OLD_NUMBER.fullmatch(node.value)):
            return node.value
        try:
            value = self.loader.construct_object(node)
        except (yaml.YAMLError, ValueError, LookupError):
            value = _WRONG
        if value is _WRONG or (isinstance(value, int) and value.bit_length() > _MOST_BITS):
            shown = node.value if len(node.value) <= 60 else f"{node.value[:57]}..."
            refuse(f"'{shown}' is not a valid {kind}", where=where, mend="put a text in quotes")
        return value

    def _mapping(self, node: yaml.MappingNode, keys: KeyPath) -> dict[str, Any]:
        found: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        seen: dict[str, int] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if key_node.tag == _PREFIX + "merge":
                merged = {**self._merge(value_node, keys, line), **merged}
                continue
            key = self._key(key_node, line)
            if key in seen:
                twice(self.path, key, seen[key], line)
            seen[key] = line
            self.lines[(*keys, key)] = line
            found[key] = self.value(value_node, (*keys, key))
        return {**merged, **found}

    def _merge(self, node: yaml.Node, keys: KeyPath, line: int) -> dict[str, Any]:
        parts = node.value if isinstance(node, yaml.SequenceNode) else [node]
        found: dict[str, Any] = {}
        for part in reversed(parts):
            value = self.value(part, keys)
            if not isinstance(value, dict):
                refuse("<< needs a mapping", where=f"{self.path}:{line}", mend="merge an anchored mapping")
            found.update(value)
        return found

    def _key(self, node: yaml.Node, line: int) -> str:
        if not isinstance(node, yaml.ScalarNode) or not node.tag.startswith(_PREFIX):
            refuse("a key that is not a plain name", where=f"{self.path}:{line}", mend="write `key: value`")
        return str(node.value)
