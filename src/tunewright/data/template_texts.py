"""Whether a chat template does nothing with the texts of messages but place them: read from its syntax tree, once, without rendering.

Every expression of the template is one of three kinds. `PLAIN`: the same for all conversations with the same roles. `TEXT`: texts of
messages, trimmed or not, with plain text around them. `TURNS`: a message, or a list of them. What a template may do with a text is to
write it, to trim it, to join it to others and to ask whether there is any; what it may do with a message is to ask for its parts by
name. Anything else - a comparison, a search, a filter that we do not list - is not certain, and the answer is no. A variable has one
kind in the whole template, whatever is assigned to it first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from jinja2 import nodes

Kind = Literal["plain", "text", "turns"]
PLAIN: Final = "plain"
TEXT: Final = "text"
TURNS: Final = "turns"

_MOST_ROUNDS: Final = 20
_OF_TYPE: Final = frozenset(
    {"defined", "undefined", "none", "string", "mapping", "iterable", "sequence", "number", "boolean", "true", "false"})
"""Tests that ask for the type of a value, which is the same for every text."""
_SAME_TURNS: Final = frozenset({"list", "first", "last", "reverse"})
_WRITES: Final = frozenset({"trim", "string"})
_OF_LOOPS: Final = frozenset({"previtem", "nextitem"})
_COUNTS: Final = frozenset({"index", "index0", "revindex", "revindex0", "length"})
"""Numbers that a loop knows."""
_UNSURE: Final = frozenset({"safe", "escape", "e", "forceescape", "xmlattr", "urlize", "random"})
"""Filters whose results escape what is added to them, or are others every time."""


class _Uncertain(Exception):
    """The template does something that is not known to leave texts alone."""


@lru_cache(maxsize=32)
def only_places_texts(source: str) -> bool:
    """Whether the template with this source writes every text as it is, but for white space at its ends, whatever the texts say.

    Texts are not blank, and there are no tools, calls and thoughts. False where that is not certain, and for what is no template.
    """
    from jinja2.exceptions import TemplateError

    from tunewright.data.template_sandbox import compiled

    try:
        tree = compiled(source).environment.parse(source)
    except TemplateError:
        return False
    reading = _Reading(tree)
    try:
        for _ in range(_MOST_ROUNDS):
            before = dict(reading.kinds)
            reading.statements(tree.body)
            if reading.kinds == before:
                return True
    except _Uncertain:
        pass
    return False


class _Reading:
    """Reads a template statement by statement. `kinds`: variables, and `name.attribute` of namespaces; `macros`: their parameters."""

    def __init__(self, tree: nodes.Template) -> None:
        from jinja2 import nodes as kinds

        self.kinds: dict[str, Kind] = {"messages": TURNS}
        self.macros: dict[str, Sequence[str]] = {
            one.name: [argument.name for argument in one.args] for one in tree.find_all(kinds.Macro)}
        self.spaces = {one.target.name for one in tree.find_all(kinds.Assign) if isinstance(one.target, kinds.Name) and _is_space(one.node)}

    def statements(self, body: Iterable[nodes.Node]) -> None:
        """Read statements in order."""
        for one in body:
            getattr(self, f"_statement_{type(one).__name__}", _unknown)(one)

    def of(self, node: nodes.Node | None) -> Kind:
        """The kind of an expression."""
        if node is None:
            return PLAIN
        found: Kind = getattr(self, f"_of_{type(node).__name__}", _unknown)(node)
        return found

    def _plain(self, *found: nodes.Node | None) -> Kind:
        """Demand that all of these are plain."""
        for node in found:
            _demand(self.of(node) == PLAIN)
        return PLAIN

    def _set(self, name: str, kind: Kind) -> None:
        _demand(name != "loop" and name not in self.macros and name not in self.spaces)
        self.kinds[name] = _joined(self.kinds.get(name, PLAIN), kind)

    def _unpacked(self, target: nodes.Node, value: nodes.Node) -> None:
        """Several variables at once, of which each must be plain."""
        from jinja2 import nodes as kinds

        self._plain(value)
        for one in target.find_all(kinds.Name):
            self._set(one.name, PLAIN)

    # Statements

    def _statement_Output(self, node: nodes.Output) -> None:
        for one in node.nodes:
            _demand(self.of(one) != TURNS)

    def _statement_If(self, node: nodes.If) -> None:
        self.of(node.test)
        self.statements([*node.body, *node.elif_, *node.else_])

    def _statement_For(self, node: nodes.For) -> None:
        from jinja2 import nodes as kinds

        _demand(not node.recursive and self.of(node.iter) != TEXT)
        if isinstance(node.target, kinds.Name):
            self._set(node.target.name, self.of(node.iter))
        else:
            self._unpacked(node.target, node.iter)
        self.of(node.test)
        self.statements([*node.body, *node.else_])

    def _statement_Assign(self, node: nodes.Assign) -> None:
        from jinja2 import nodes as kinds

        target, value = node.target, node.node
        if isinstance(target, kinds.NSRef):
            _demand(target.name in self.spaces)
            self._set(f"{target.name}.{target.attr}", self.of(value))
        elif not isinstance(target, kinds.Name):
            self._unpacked(target, value)
        elif isinstance(value, kinds.Call) and _is_space(value):
            _demand(not (value.args or value.dyn_args or value.dyn_kwargs))
            for pair in value.kwargs:
                self._set(f"{target.name}.{pair.key}", self.of(pair.value))
        else:
            self._set(target.name, self.of(value))

    def _statement_Macro(self, node: nodes.Macro) -> None:
        for default in node.defaults:
            self._plain(default)
        self.statements(node.body)

    def _statement_ExprStmt(self, node: nodes.ExprStmt) -> None:
        self.of(node.node)

    def _statement_Break(self, node: nodes.Node) -> None:
        """Whether it is reached is decided by what is around it."""

    _statement_Continue = _statement_Break

    # Expressions

    def _of_TemplateData(self, node: nodes.Node) -> Kind:
        return PLAIN

    _of_Const = _of_TemplateData

    def _of_Name(self, node: nodes.Name) -> Kind:
        _demand(node.name not in ("loop", "namespace", "lipsum") and node.name not in self.macros and node.name not in self.spaces)
        return self.kinds.get(node.name, PLAIN)

    def _of_Getattr(self, node: nodes.Getattr) -> Kind:
        from jinja2 import nodes as kinds

        if isinstance(node.node, kinds.Name):
            if node.node.name == "loop":
                return TURNS if node.attr in _OF_LOOPS else PLAIN
            if node.node.name in self.spaces:
                return self.kinds.get(f"{node.node.name}.{node.attr}", PLAIN)
        return self._part(node.node, node.attr)

    def _of_Getitem(self, node: nodes.Getitem) -> Kind:
        from jinja2 import nodes as kinds

        if isinstance(node.arg, kinds.Const) and isinstance(node.arg.value, str):
            return self._of_Getattr(kinds.Getattr(node.node, node.arg.value, "load"))
        _demand(self.of(node.node) != TEXT)
        self._plain(node.arg)
        _demand(self.of(node.node) == PLAIN or _is_number(node.arg))
        return self.of(node.node)

    def _part(self, node: nodes.Node, name: str) -> Kind:
        """A part of a message by its name. What is neither role nor content is absent from all that are read here."""
        kind = self.of(node)
        _demand(kind == PLAIN or (kind == TURNS and not hasattr(dict, name) and not hasattr(list, name)))
        return TEXT if kind == TURNS and name == "content" else PLAIN

    def _named(self, node: nodes.Node, name: nodes.Node) -> Kind:
        """A part of a message by a name that the template spells out."""
        from jinja2 import nodes as kinds

        if not (isinstance(name, kinds.Const) and isinstance(name.value, str)):
            raise _Uncertain
        return self._part(node, name.value)

    def _of_Slice(self, node: nodes.Slice) -> Kind:
        return self._plain(node.start, node.stop, node.step)

    def _of_CondExpr(self, node: nodes.CondExpr) -> Kind:
        self.of(node.test)
        return _joined(self.of(node.expr1), self.of(node.expr2))

    def _of_Or(self, node: nodes.BinExpr) -> Kind:
        return _joined(self.of(node.left), self.of(node.right))

    _of_And = _of_Or

    def _of_Not(self, node: nodes.Not) -> Kind:
        self.of(node.node)
        return PLAIN

    def _of_Concat(self, node: nodes.Concat) -> Kind:
        found = {self.of(one) for one in node.nodes}
        _demand(TURNS not in found)
        return TEXT if TEXT in found else PLAIN

    def _of_Add(self, node: nodes.BinExpr) -> Kind:
        found = {self.of(node.left), self.of(node.right)}
        _demand(TURNS not in found)
        return TEXT if TEXT in found else PLAIN

    def _of_Sub(self, node: nodes.BinExpr) -> Kind:
        return self._plain(node.left, node.right)

    _of_Mul = _of_Div = _of_FloorDiv = _of_Mod = _of_Pow = _of_Sub

    def _of_Neg(self, node: nodes.UnaryExpr) -> Kind:
        return self._plain(node.node)

    _of_Pos = _of_Neg

    def _of_List(self, node: nodes.List) -> Kind:
        return self._plain(*node.items)

    _of_Tuple = _of_List

    def _of_Dict(self, node: nodes.Dict) -> Kind:
        return self._plain(*(part for pair in node.items for part in (pair.key, pair.value)))

    def _of_Compare(self, node: nodes.Compare) -> Kind:
        from jinja2 import nodes as kinds

        kind = self.of(node.expr)
        for one in node.ops:
            if one.op in ("in", "notin") and kind == PLAIN and self.of(one.expr) == TURNS:
                continue  # the keys of a message depend on its role alone
            if one.op in ("eq", "ne") and isinstance(one.expr, kinds.Const) and one.expr.value in (None, ""):
                continue  # no text is
            _demand(kind == PLAIN)
            self._plain(one.expr)
        return PLAIN

    def _of_Test(self, node: nodes.Test) -> Kind:
        kind = self.of(node.node)
        _demand(kind == PLAIN or node.name in _OF_TYPE)
        return self._plain(*_arguments(node))

    def _of_Filter(self, node: nodes.Filter) -> Kind:
        kind = self.of(node.node)
        arguments = _arguments(node)
        _demand(node.name not in _UNSURE)
        if node.name in ("default", "d") and len(arguments) == 1:
            return _joined(kind, self.of(arguments[0]))
        self._plain(*arguments)
        if kind == PLAIN or (not arguments and ((kind == TEXT and node.name in _WRITES) or (kind == TURNS and node.name in _SAME_TURNS))):
            return kind
        _demand(kind == TURNS and not arguments and node.name in ("length", "count"))
        return PLAIN

    def _of_Call(self, node: nodes.Call) -> Kind:
        from jinja2 import nodes as kinds

        called, arguments = node.node, _arguments(node)
        if isinstance(called, kinds.Name) and called.name in self.macros:
            return self._of_macro(called.name, node)
        if isinstance(called, kinds.Name) and called.name == "raise_exception":
            for one in arguments:
                self.of(one)
            return PLAIN
        if isinstance(called, kinds.Getattr):
            kind = self.of(called.node)
            if kind == TEXT:
                _demand(called.attr == "strip" and not arguments)
                return TEXT
            if kind == TURNS:
                _demand(called.attr == "get" and len(arguments) == 1)
                return self._named(called.node, arguments[0])
        return self._plain(called, *arguments)

    def _of_macro(self, name: str, node: nodes.Call) -> Kind:
        """What a macro writes may hold the text that it was given."""
        _demand(not (node.dyn_args or node.dyn_kwargs) and len(node.args) <= len(self.macros[name]))
        for parameter, value in zip(self.macros[name], node.args, strict=False):
            self._set(parameter, self.of(value))
        for pair in node.kwargs:
            _demand(pair.key in self.macros[name])
            self._set(pair.key, self.of(pair.value))
        return TEXT


def _unknown(node: nodes.Node) -> Kind:
    raise _Uncertain(type(node).__name__)


def _demand(is_certain: bool) -> None:
    if not is_certain:
        raise _Uncertain


def _joined(one: Kind, other: Kind) -> Kind:
    """The kind of a value that is one or the other."""
    if one in (PLAIN, other):
        return other
    _demand(other == PLAIN)
    return one


def _arguments(node: Any) -> list[nodes.Node]:
    """All arguments of a call, filter or test. Those that only the render knows are not certain."""
    _demand(node.dyn_args is None and node.dyn_kwargs is None)
    return [*node.args, *(pair.value for pair in node.kwargs)]


def _is_space(node: nodes.Node) -> bool:
    """Whether this is a call that makes a namespace."""
    from jinja2 import nodes as kinds

    return isinstance(node, kinds.Call) and isinstance(node.node, kinds.Name) and node.node.name == "namespace"


def _is_number(node: nodes.Node) -> bool:
    """Whether an index is a number or a slice, so that it cannot be the name of a part."""
    from jinja2 import nodes as kinds

    if isinstance(node, kinds.Const):
        return isinstance(node.value, int)
    if isinstance(node, kinds.Add):
        return _is_number(node.left) or _is_number(node.right)
    if isinstance(node, kinds.Getattr):
        return isinstance(node.node, kinds.Name) and node.node.name == "loop" and node.attr in _COUNTS
    return isinstance(node, kinds.Slice | kinds.Neg | kinds.Sub)
