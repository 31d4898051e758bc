"""What one vocabulary wrote means the same in another, as far as that has names for it, and comes back. The oracle is identity."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as profile
from hypothesis import strategies as st

from tests.dialects.generated import VOCABULARIES, named, settings, settled, write
from tunewright.config.derive import derived
from tunewright.config.table import defaults, table, values
from tunewright.dialects.known import get_dialect
from tunewright.dialects.read import Reading, examine, read_config
from tunewright.dialects.shapes import to_text
from tunewright.dialects.translate import Translation, form_in, translate, unread_in

SUFFIXES = st.sampled_from([".yaml", ".json"])


def convert(base: Any, reading: Reading, target: str, suffix: str) -> tuple[Translation, str]:
    """The translation and the path of its file."""
    translation = translate(reading, target)
    return translation, write(base / f"to_{target}{suffix}", to_text(translation, suffix=suffix))


@pytest.mark.parametrize("dialect", VOCABULARIES)
@profile(max_examples=20)
@given(data=st.data())
def test_to_ours_and_back_is_identity(dialect: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Every value of the run comes back as it was; every key that was written comes back with the value it had, and every other has
    the default of the vocabulary."""
    base, suffix = tmp_path_factory.getbasetemp(), data.draw(SUFFIXES)
    kept = settled(base / "a.json", dialect, data.draw(settings(dialect)))
    first = read_config([str(base / "a.json")])
    ours = read_config([convert(base, first, "native", suffix)[1]])
    assert ours.config == first.config and ours.dialect == "native"
    translation, path = convert(base, ours, dialect, suffix)
    back = read_config([path])
    assert back.config == first.config and back.dialect == dialect, kept
    assert not translation.lost


@pytest.mark.parametrize("dialect", VOCABULARIES)
@profile(max_examples=20)
@given(data=st.data())
def test_the_settings_themselves_come_back(dialect: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Under preferred names: every setting that was written comes back as it was written, and what comes with it is a default."""
    base = tmp_path_factory.getbasetemp()
    kept = settled(base / "a.json", dialect, data.draw(settings(dialect, primary=True)))
    first = read_config([str(base / "a.json")])
    ours = read_config([convert(base, first, "native", ".yaml")[1]])
    back = translate(ours, dialect).settings
    rows = {alias.name: row for row, alias in named(dialect, primary=True)}
    given = {name: value for name, value in kept.items() if rows[name].field in first.given}
    assert {name: back[name] for name in given} == {name: form_in(rows[name], values(first.config)[rows[name].field],
                                                                  get_dialect(dialect)) for name in given}
    # A converter may know several spellings of one value, and writes one of them.
    converted = {name for name, (_, alias) in get_dialect(dialect).names().items() if alias.convert is not None}
    # The vocabularies after LLaMA-Factory pack where `neat_packing` is on, whatever `packing` says, and tell so.
    overruled = {"packing"} if any(note.endswith("turns packing on, as in LLaMA-Factory") or note.endswith(
        "turns packing on, as in MindSpeed-LLM") for note in first.notes) else set()
    assert all(_text(back[name]) == _text(value) for name, value in given.items() if name not in converted | overruled)
    usual = defaults(dialect)
    extra = [name for name in back if name not in given]
    # What follows from other settings stands as written; all else is at its default.
    assert all(values(first.config)[rows[name].field] == usual.get(rows[name].field)
               or first.origins[rows[name].field].source == "rule" or rows[name].field in first.given for name in extra)


def _text(value: Any) -> Any:
    """A value without the differences of 1 and 1.0, of null and nothing, and of a list of texts and one text with commas."""
    if isinstance(value, list):
        return [_text(one) for one in value] if any(isinstance(one, dict) for one in value) else ",".join(map(str, value)) or None
    if isinstance(value, dict):
        return {key: _text(one) for key, one in value.items()} or None
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


@profile(max_examples=60)
@given(data=st.data())
def test_any_to_any_keeps_what_it_can_and_tells_the_rest(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Reading the converted file gives the same value of every parameter; those of which it does not are in the report, unless the run
    never reads them and nobody wrote them."""
    base = tmp_path_factory.getbasetemp()
    source, target = data.draw(st.sampled_from(VOCABULARIES)), data.draw(st.sampled_from(VOCABULARIES))
    settled(base / "a.json", source, data.draw(settings(source)))
    first = read_config([str(base / "a.json")])
    translation, path = convert(base, first, target, data.draw(SUFFIXES))
    examined = examine([path])
    assert examined.reading.dialect == target
    assert not examined.problems or translation.lost, [problem.line() for problem in examined.problems]
    told = {line.field for line in translation.report if line.kind == "no equivalent"}
    unread = {field for field in unread_in(first.config) if field not in first.given}
    assert differing(first, examined.reading) <= told | unread


def differing(one: Reading, other: Reading) -> set[str]:
    """The fields in which two runs differ, as they stand and after open values are filled in."""
    as_written, filled = values(one.config), values(derived(one.config)[0])
    theirs, theirs_filled = values(other.config), values(derived(other.config)[0])
    found = {field for field in table() if as_written[field] != theirs[field] and filled[field] != theirs_filled[field]}
    # An absent least rate means zero.
    return {field for field in found if field != "min_lr" or (filled[field] or 0) != (theirs_filled[field] or 0)}
