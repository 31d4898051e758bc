"""Values as written -> values of the declared type: a table worked by hand."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunewright.config.coerce import BadValueError, coerce, range_of
from tunewright.config.literals import read_literal, read_mapping, show, split_commas
from tunewright.config.table import table

GOOD: list[tuple[str, Any, Any]] = [
    ("learning_rate", "1e-4", 1e-4), ("learning_rate", " 1E-4 ", 1e-4), ("learning_rate", 1, 1.0), ("learning_rate", ".5", 0.5),
    ("lora_rank", "16", 16), ("lora_rank", 16.0, 16), ("lora_rank", "1e3", 1000), ("lora_rank", "1_000", 1000),
    ("max_steps", "-1", -1), ("max_steps", "+5", 5),
    ("eval_strategy", False, "no"), ("bf16", "TRUE", True), ("bf16", "false", False), ("bf16", True, True),
    ("packing", None, None), ("packing", "None", None), ("packing", "true", True), ("lora_alpha", "null", None), ("lora_alpha", "~", None),
    ("run_name", "none", "none"), ("run_name", "null", None), ("cache_dir", "None", None), ("eval_steps", "none", None),
    ("lora_target", "a, b,,c", ("a", "b", "c")), ("lora_target", ["a,b"], ("a,b",)), ("lora_target", "['a','b']", ("a", "b")),
    ("lora_target", "[qv]_proj", ("[qv]_proj",)), ("lora_target", "[qv]_proj,k", ("[qv]_proj", "k")), ("lora_target", [], ()),
    ("dataset", "a", ("a",)), ("dataset", {"file_name": "x"}, ({"file_name": "x"},)),
    ("dataset", ["a", {"file_name": "x"}], ("a", {"file_name": "x"})), ("dataset", "[{'file_name': 'x'}, 'b']", ({"file_name": "x"}, "b")),
    ("optim_args", "a=1,b=x,c=1e-2,d=(1, 2)", {"a": 1, "b": "x", "c": 0.01, "d": (1, 2)}), ("optim_args", {"a": "1e-4"}, {"a": 1e-4}),
    ("optim_args", {}, {}), ("optim_args", '{"a": [1, null]}', {"a": [1, None]}),
]


@pytest.mark.parametrize(("field", "raw", "value"), GOOD)
def test_good(field: str, raw: Any, value: Any) -> None:
    """The value, of the right type."""
    found = coerce(table()[field], raw)
    assert found == value and type(found) is type(value)


BAD: list[tuple[str, Any, str, str | None]] = [
    ("learning_rate", True, "true is not a number", "write a number > 0 and <= 100"),
    ("learning_rate", "", "'' is not a number", "write a number > 0 and <= 100"),
    ("learning_rate", float("inf"), "inf is not a finite number", "write a number > 0 and <= 100"),
    ("learning_rate", 10**400, "1" + "0" * 76 + "... is not a finite number", "write a number > 0 and <= 100"),
    ("learning_rate", [1], "1 is not a number", "write a number > 0 and <= 100"),
    ("learning_rate", {"a": 1}, '{"a": 1} is not a number', "write a number > 0 and <= 100"),
    ("lora_rank", "010", "'010' begins with a zero, by which some readers mean octal", "write it without"),
    ("eval_strategy", True, "true is not a text", "write one of no, steps, epoch"),
    ("lora_rank", "8.5", "'8.5' is not an integer", "write an integer >= 1 and <= 65536"),
    ("lora_rank", "0x10", "'0x10' is not an integer", "write an integer >= 1 and <= 65536"),
    ("bf16", None, "null is not true or false", "write true or false"),
    ("bf16", 0, "0 is not true or false", "write true or false"),
    ("packing", "maybe", "'maybe' is not true or false or null", "write true or false"),
    ("cutoff_policy", 3, "3 is not a text", "write one of drop, cut_right, cut_left, split, proportional"),
    ("cutoff_policy", "zzz", "'zzz' is not one of drop, cut_right, cut_left, split, proportional", None),
    ("lora_dropout", 1, "1 is out of range", "write a number >= 0 and < 1"),
    ("adam_beta1", -0.5, "-0.5 is out of range", "write a number >= 0 and < 1"),
    ("lora_target", [""], "'' is not a text", "write a list of texts, or one text with commas"),
    ("dataset", [3], "3 is not a data set", "write a name, a file, a folder, or a mapping with file_name"),
    ("optim_args", "a", "'a' is not key=value", "write a mapping, JSON, or key=value pairs with commas"),
    ("optim_args", "a=1,a=2", "'a' is given twice", "write a mapping, JSON, or key=value pairs with commas"),
    ("optim_args", {1: 2}, "the key 1 is not a text", "write a mapping, JSON, or key=value pairs with commas"),
    ("optim_args", 3, "3 is not a mapping", "write a mapping, JSON, or key=value pairs with commas"),
    ("optim_args", "{'a': __import__('os')}", '"{\'a\': __import__(\'os\')}" is neither JSON nor a Python literal',
     "write a mapping, JSON, or key=value pairs with commas"),
]


@pytest.mark.parametrize(("field", "raw", "what", "mend"), BAD)
def test_bad(field: str, raw: Any, what: str, mend: str | None) -> None:
    """What is wrong, and what to write instead."""
    with pytest.raises(BadValueError) as refused:
        coerce(table()[field], raw)
    assert (refused.value.what, refused.value.mend) == (what, mend)


@given(st.text(max_size=40) | st.integers() | st.floats() | st.none() | st.booleans() | st.lists(st.integers(), max_size=2),
       st.sampled_from(sorted(table())))
def test_any_value_is_taken_or_refused(raw: Any, field: str) -> None:
    """No input raises anything else, and what is taken is taken again unchanged."""
    row = table()[field]
    try:
        value = coerce(row, raw)
    except BadValueError:
        return
    assert coerce(row, value) == value


def test_ranges_in_symbols() -> None:
    """Inclusive and exclusive bounds."""
    assert [range_of(table()[field]) for field in ("learning_rate", "lora_dropout", "max_steps", "optim")] == [
        "> 0 and <= 100", ">= 0 and < 1", ">= -1", None]


def test_texts_that_spell_values() -> None:
    """Literals, comma lists and their way back."""
    assert read_literal("{'a': True, 'b': (1, None)}") == {"a": True, "b": (1, None)}
    assert split_commas("f(a,b),c[1,2]") == ("f(a,b)", "c[1,2]")
    assert read_mapping("{'a': '5'}") == {"a": 5.0}
    assert [show(one) for one in (None, True, 1.0, 0.1, ("a", "b"), (), {"a": None}, "x", 1e-5)] == [
        "null", "true", "1", "0.1", "a, b", "[]", '{"a": null}', "x", "1e-05"]
    with pytest.raises(ValueError, match="neither JSON nor a Python literal"):
        read_literal("NaN")
