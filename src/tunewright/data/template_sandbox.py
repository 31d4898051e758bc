"""The environment in which chat templates are rendered: transformers' own, with bounds on what one operation may make.

The limit of time is kept between operations of Python; one multiplication or one join could make gigabytes before it is looked at
again. So everything by which a short template makes long values in one operation is bounded here. Templates of people stay far below.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import cache, lru_cache, wraps
from types import BuiltinMethodType
from typing import Any, Final

from jinja2 import Environment, Template
from jinja2.exceptions import SecurityError
from jinja2.nodes import EvalContext
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

MOST_CHARACTERS: Final = 2**26
"""What a join, a replacement or a whole render may make; a conversation of that length is 200 novels."""
MOST_REPEATED: Final = 2**20
"""What a multiplication may make, in characters or members; the largest number that a filter or a method of texts is given."""
MOST_BITS: Final = 2**14
"""Bits of a number."""
_WIDTH: Final = re.compile(r"[%{][^a-zA-Z%}]*?(\*|\d{4,}|:[^}]*\{)")
"""A format that pads to a width of four digits and more, or to one that it is given."""
_MOST_INDENT: Final = 100
"""Of JSON."""
_GROWING: Final = frozenset({"center", "ljust", "rjust", "zfill", "expandtabs", "replace", "join", "translate"})
"""Methods by which a text becomes a longer one."""
_FORMATS: Final = frozenset({"format", "format_map"})
"""Methods of texts that read attributes of what they are given: those are the sandbox's."""
_GROWING_FILTERS: Final = frozenset({
    "batch", "center", "format", "indent", "join", "replace", "slice", "sum", "tojson", "truncate", "urlize", "wordwrap", "xmlattr"})
"""Filters whose result may be longer than what they are given, by more than a few times."""


class LimitError(SecurityError):
    """A template asked for more in one operation than any conversation needs."""


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """A sandbox whose operators, filters, methods of texts and renders cannot make values of any size."""

    intercepted_binops = frozenset({"*", "**", "%"})

    def __init__(self, origin: Any) -> None:
        """Like `origin`, an environment of transformers, which stays as it is."""
        extensions = [type(extension) for extension in origin.extensions.values()]
        super().__init__(trim_blocks=origin.trim_blocks, lstrip_blocks=origin.lstrip_blocks, extensions=extensions)
        self.globals = dict(origin.globals)
        self.filters = {name: _bounded_filter(name, function) if name in _GROWING_FILTERS else function
                        for name, function in origin.filters.items()}

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """The operator, unless its result would be too large."""
        if operator == "%":
            if isinstance(left, str):
                _demand_short_format(left, right if isinstance(right, tuple) else (right,))
        elif isinstance(left, int) and isinstance(right, int):
            bits = left.bit_length() * abs(right) if operator == "**" else left.bit_length() + right.bit_length()
            _demand(bits <= MOST_BITS, "a number of thousands of digits")
        elif operator == "*":
            repeated = next((one for one in (left, right) if hasattr(one, "__len__")), "")
            times = next((one for one in (left, right) if isinstance(one, int)), 0)
            _demand(len(repeated) * times <= MOST_REPEATED, "too much in one multiplication")
        return super().call_binop(context, operator, left, right)

    def call(self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        """The call, unless it is a method of a text that would make too long a one."""
        if type(__obj) is BuiltinMethodType and type(__obj.__self__) is str and __obj.__name__ not in _FORMATS:
            if __obj.__name__ in _GROWING:
                _demand_small_numbers((*args, *kwargs.values()))
                args = _bounded_text(__obj.__name__, __obj.__self__, args, kwargs)
            # Python's own method of a text reaches nothing else: it is called as it is, which pays for what is looked at here. What jinja
            # hands on of a loop or a block is not for it.
            kwargs.pop("_loop_vars", None)
            kwargs.pop("_block_vars", None)
            return __obj(*args, **kwargs)
        if isinstance(owner := getattr(getattr(__obj, "__wrapped__", __obj), "__self__", None), str):
            # The sandbox's own function in the place of `str.format`, or a text of another type.
            _demand_small_numbers((*args, *kwargs.values()))
            _demand_short_format(owner, (*args, *kwargs.values()))
            args = _bounded_text(__obj.__name__, owner, args, kwargs)
        return super().call(__context, __obj, *args, **kwargs)

    @staticmethod
    def concat(pieces: Iterable[str]) -> str:
        """The pieces of a render as one text."""
        kept = list(pieces)
        _demand(sum(map(len, kept)) <= MOST_CHARACTERS, "a render of millions of characters")
        return "".join(kept)


@lru_cache(maxsize=64)
def compiled(text: str) -> Template:
    """The template with this text. Raises `jinja2.TemplateSyntaxError` if it is none."""
    return _environment().from_string(text)


@cache
def _environment() -> BoundedEnvironment:
    """The environment of all templates, with the filters, globals and tags that transformers gives its own."""
    from transformers.utils.chat_template_utils import _compile_jinja_template

    return BoundedEnvironment(_compile_jinja_template("").environment)


def _bounded_filter(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The filter with its arguments looked at. What jinja marked on it - that it takes the environment first - is kept."""
    @wraps(function)
    def bounded(*given: Any, **named: Any) -> Any:
        first = next((place for place, one in enumerate(given) if not isinstance(one, Environment | EvalContext | Context)), 0)
        value, arguments = given[first], given[first + 1:]
        everything = (*arguments, *named.values())
        _demand_small_numbers(everything)
        if name == "format":
            _demand_short_format(str(value), everything)
        elif name == "replace":
            _bounded_text(name, str(value), everything, {})
        elif name == "join":
            value = list(value)
            _demand_joined(str(next(iter(arguments), named.get("d", ""))), value)
        elif name == "sum":
            value = list(value)
            _demand_joined("", value)
        elif name in ("indent", "wordwrap"):
            places = str(value).count("\n") + 1 if name == "indent" else len(str(value))
            widths = (len(one) if isinstance(one, str) else one for one in everything if name == "indent" or isinstance(one, str))
            _demand(places * max(widths, default=0) <= MOST_CHARACTERS, "millions of characters in one indentation")
        elif name == "tojson":
            _demand_light(value)
            _demand(all(not isinstance(one, int) or one <= _MOST_INDENT for one in everything), "a width of hundreds")
        return function(*given[:first], value, *arguments, **named)

    return bounded


def _bounded_text(method: str, owner: str, arguments: tuple[Any, ...], named: Mapping[str, Any]) -> tuple[Any, ...]:
    """The arguments of a method of texts, unless its result would be too long; an iterator is read, to be able to tell."""
    if method == "replace" and len(arguments) >= 2 and all(isinstance(one, str) for one in arguments[:2]):
        most = len(owner) + (owner.count(arguments[0]) if arguments[0] else len(owner) + 1) * len(arguments[1])
        _demand(most <= MOST_CHARACTERS, "millions of characters in one replacement")
    elif method == "join" and arguments and isinstance(arguments[0], Iterable):
        members = list(arguments[0])
        _demand_joined(owner, members)
        arguments = (members, *arguments[1:])
    elif method == "expandtabs":
        most = owner.count("\t") * next((one for one in (*arguments, *named.values()) if isinstance(one, int)), 8)
        _demand(most <= MOST_CHARACTERS, "millions of characters in one expansion")
    elif method == "translate" and arguments and isinstance(arguments[0], Mapping):
        most = len(owner) * max((len(one) for one in arguments[0].values() if isinstance(one, str)), default=1)
        _demand(most <= MOST_CHARACTERS, "millions of characters in one translation")
    return arguments


def _demand_joined(between: str, members: list[Any]) -> None:
    # What is no text is written out by the join itself; of a list in the list, the members count.
    most = sum(len(one) for one in members if hasattr(one, "__len__")) + len(between) * len(members)
    _demand(most <= MOST_CHARACTERS, "millions of characters in one join")


def _demand_small_numbers(arguments: Iterable[Any]) -> None:
    _demand(not any(isinstance(one, int) and abs(one) > MOST_REPEATED for one in arguments), "a width or a count of millions")


def _demand_short_format(text: str, arguments: Iterable[Any]) -> None:
    """Refuse a format that pads, or that writes long texts many times."""
    _demand(_WIDTH.search(text) is None, "a format of four digits' width")
    longest = max((len(one) for given in arguments for one in (given.values() if isinstance(given, Mapping) else (given,))
                   if isinstance(one, str)), default=0)
    _demand((text.count("{") + text.count("%")) * longest <= MOST_CHARACTERS, "millions of characters in one format")


def _demand_light(value: Any) -> None:
    """Refuse lists and mappings that hold the same ones again and again: written out they are larger than they are."""
    rest, counted = [value], 0
    while rest:
        one = rest.pop()
        if isinstance(one, dict):
            rest.extend(one.values())
        elif isinstance(one, list | tuple):
            rest.extend(one)
        counted += 1
        _demand(len(rest) + counted <= MOST_REPEATED, "millions of values in one JSON")


def _demand(condition: bool, what: str) -> None:
    if not condition:
        raise LimitError(f"it makes {what}")
