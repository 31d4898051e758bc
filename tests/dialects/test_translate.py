"""Translation: what one vocabulary wrote means the same in the other, and comes back. The oracle is identity."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunewright.config import checks
from tunewright.config.table import Row, names_in, table, values
from tunewright.dialects.converters import CONVERTERS
from tunewright.dialects.native import NATIVE
from tunewright.dialects.read import Reading, read_config
from tunewright.dialects.translate import to_text, translate
from tunewright.errors import ConfigError

WORDS = st.text("abcxyz_.-/0123456789é中", min_size=1, max_size=12).filter(
    lambda text: text.strip("~").lower() not in ("", "null", "none", "true", "false", "auto", "all"))
KWARGS = st.dictionaries(st.sampled_from(["num_cycles", "power", "min_lr"]), st.integers(1, 9) | st.floats(0.125, 8), min_size=1)


def value_of(row: Row) -> st.SearchStrategy[Any]:
    """Any value that the declaration allows."""
    param = row.param
    low = param.minimum if param.minimum is not None else (param.above if param.above is not None else -1000)
    high = param.maximum if param.maximum is not None else (param.below if param.below is not None else low + 1000)
    numbers = st.floats(low, high, exclude_min=param.above is not None, exclude_max=param.below is not None,
                        allow_subnormal=False)
    lists = st.lists(WORDS.filter(lambda text: text not in (".", "-")), max_size=3).map(tuple)
    found: st.SearchStrategy[Any] = {
        "bool": st.booleans(), "int": st.integers(int(low), int(high)), "float": numbers, "str": WORDS, "names": lists,
        "datasets": lists, "mapping": KWARGS}[row.base]
    if param.choices:
        found = st.sampled_from([choice for choice in param.choices if choice != "none" or row.base == "str"])
        found = found.map(lambda one: (one,)) if row.base == "names" else found
    return found | st.none() if row.nullable else found


def settings(dialect: str) -> st.SearchStrategy[dict[str, Any]]:
    """Any settings of a few parameters in a vocabulary, in its own form."""
    rows = [row for row in table().values() if dialect == "native" or dialect in row.param.names]

    def theirs(row: Row, value: Any) -> tuple[str, Any]:
        alias = names_in(dialect)[row.field][1] if dialect == "native" else row.param.names[dialect][0]
        convert = NATIVE.convert.get(row.field) if dialect == "native" else alias.convert
        return alias.name, CONVERTERS[convert].theirs(value) if convert else list(value) if isinstance(value, tuple) else value

    several = st.lists(st.sampled_from(rows).flatmap(lambda row: value_of(row).map(lambda value: theirs(row, value))), max_size=12)
    return several.map(dict)


def read(path: Path, text: str) -> Reading | None:
    """The reading, or None if the settings break a rule between them, which is not the matter here."""
    path.write_text(text, encoding="utf-8")
    try:
        return read_config([str(path)])
    except ConfigError as error:
        broken = {problem.rule for problem in error.problems}
        assert broken <= {rule.id for rule in checks.RULES}, error
        return None


@given(settings("native"), st.sampled_from([".yaml", ".json"]))
def test_native_to_file_to_native_is_identity(tmp_path_factory: pytest.TempPathFactory, written: dict[str, Any], suffix: str) -> None:
    """Every value comes back as it was, through YAML and JSON."""
    base = tmp_path_factory.getbasetemp()
    first = read(base / "a.json", json.dumps({"dialect": "native", **written}))
    if first is None:
        return
    second = read_config([_write(base / f"b{suffix}", to_text(translate(first, "native"), suffix=suffix))])
    assert second.config == first.config


@given(settings("llamafactory"), st.sampled_from([".yaml", ".json"]))
def test_llamafactory_to_native_to_llamafactory_is_identity(
    tmp_path_factory: pytest.TempPathFactory, written: dict[str, Any], suffix: str,
) -> None:
    """A file of LLaMA-Factory means the same run after conversion to ours, and after conversion back."""
    base = tmp_path_factory.getbasetemp()
    first = read(base / "a.json", json.dumps({"dialect": "llamafactory", **written}))
    if first is None:
        return
    ours = read_config([_write(base / f"b{suffix}", to_text(translate(first, "native"), suffix=suffix))])
    assert ours.config == first.config and ours.dialect == "native"
    back = read_config([_write(base / f"c{suffix}", to_text(translate(ours, "llamafactory"), suffix=suffix))])
    assert back.config == first.config and back.dialect == "llamafactory"


def _write(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_report_of_every_kind(tmp_path: Path) -> None:
    """One line for each parameter that was written or whose default differs; worked by hand."""
    reading = read_config(["--padding_free", "cutoff_policy=drop", "seed=3", "gradient_checkpointing=false", "lora_rank=4",
                           "report_to=none"])
    translation = translate(reading, "llamafactory")
    kinds = {line.field: line.text() for line in translation.report}
    assert kinds == {
        "padding_free": "no equivalent: padding_free true is not known in llamafactory",
        "cutoff_policy": "no equivalent: cutoff_policy drop is not known in llamafactory",
        "seed": "exact: seed",
        "gradient_checkpointing": "value mapped: gradient_checkpointing -> disable_gradient_checkpointing true",
        "lora_rank": "exact: lora_rank",
        "report_to": "exact: report_to",
        "do_train": "default made explicit: do_train true",
        "optim": "default made explicit: optim adamw_torch_fused",
        "learning_rate": "default made explicit: learning_rate 0.0001",
        "lr_scheduler_type": "default made explicit: lr_scheduler_type cosine",
        "per_device_train_batch_size": "default made explicit: per_device_train_batch_size 4",
        "cutoff_len": "default made explicit: cutoff_len 2048",
        "export_size": "default made explicit: export_size 5",
        "logging_steps": "default made explicit: logging_steps 10",
        "plot_loss": "default made explicit: plot_loss true",
    }
    assert to_text(translation, suffix=".yaml").splitlines()[:3] == ["dialect: llamafactory", "do_train: true", "seed: 3"]


def test_old_names_are_renamed(tmp_path: Path) -> None:
    """A deprecated name becomes the present one."""
    path = tmp_path / "c.yaml"
    path.write_text("stage: sft\nevaluation_strategy: epoch\nval_size: 0.1\n")
    report = translate(read_config([str(path)]), "native").report
    assert [line.text() for line in report if line.field == "eval_strategy"] == ["renamed: evaluation_strategy -> eval_strategy"]


def test_every_value_has_a_form_in_both_vocabularies() -> None:
    """theirs, then ours, of every converter gives back the default in each readable vocabulary."""
    for name, convert in {**{row.field: alias.convert for row, alias in names_in("llamafactory").values()}, **NATIVE.convert}.items():
        if convert not in (None, "adafactor_switch", "null_is_absent"):
            value = table()[name].param.default
            ours = CONVERTERS[convert].ours(CONVERTERS[convert].theirs(value))
            assert (tuple(ours.split(",")) if isinstance(ours, str) and isinstance(value, tuple) else ours) == value, name
    assert values(read_config([]).config) == values(read_config(["--dialect", "native"]).config)
