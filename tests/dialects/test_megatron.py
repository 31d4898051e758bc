"""Megatron's flags: the twenty rows of document 004's table, as the ledger has them; the forms of values in its arguments.py, by hand."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml

from tests.dialects.generated import VOCABULARIES
from tunewright.config.table import table
from tunewright.dialects.megatron import STYLES, TABLE, to_flags, to_text
from tunewright.dialects.read import read_config
from tunewright.errors import InputError


def rows() -> dict[str, str]:
    """Flag -> name in document 004, from the ledger; the batch is worked out from three names, of which this is one."""
    ledger = yaml.safe_load((Path(__file__).parents[1] / "spec" / "ledger.yaml").read_text(encoding="utf-8"))
    found = {row["megatron"]: row["ours"] for row in ledger["dialects"]["mindspeed-fsdp2"]["extras"]["megatron_mapping"]}
    return {**found, "--global-batch-size": "gradient_accumulation_steps"}


FULL = ["model_name_or_path=m", "dataset=a.jsonl,b.jsonl", "cutoff_len=4096", "preprocessing_num_workers=8", "packing=true",
        "gradient_checkpointing=true", "per_device_train_batch_size=2", "gradient_accumulation_steps=3", "lr_scheduler_type=cosine",
        "warmup_ratio=0.1", "max_steps=1000", "save_steps=200", "logging_steps=5"]


def test_every_row_of_the_table() -> None:
    """Each flag with its value; a switch that is off is left out, and so is nothing else."""
    found = dict(to_flags(read_config(FULL), cards=8).settings)
    assert found == {
        "--load": "m", "--tokenizer-name-or-path": "m", "--data-path": ["a.jsonl", "b.jsonl"], "--seq-length": 4096, "--workers": 8,
        "--pack": None, "--tensor-model-parallel-size": 1, "--expert-model-parallel-size": 1, "--context-parallel-size": 1,
        "--context-parallel-algo": "ulysses_cp_algo", "--recompute-granularity": "full", "--recompute-method": "uniform",
        "--recompute-num-layers": 1, "--micro-batch-size": 2, "--lr-decay-style": "cosine", "--lr-warmup-fraction": 0.1,
        "--train-iters": 1000, "--save-interval": 200, "--log-interval": 5, "--global-batch-size": 48}
    assert {name for name, _ in TABLE} == set(rows().values()) and len(rows()) == 20
    assert set(found) - {"--recompute-num-layers"} == set(rows()) - {"--no-shuffle"}


def test_no_shuffle_is_bare() -> None:
    """It has no value."""
    assert to_flags(read_config(["disable_shuffling=true"])).settings["--no-shuffle"] is None


@pytest.mark.parametrize(("words", "flag", "value"), [
    (["lr_scheduler_type=linear"], "--lr-decay-style", "linear"),
    (["lr_scheduler_type=constant_with_warmup", "warmup_ratio=0.2"], "--lr-warmup-fraction", 0.2),
    (["lr_scheduler_type=constant_with_warmup"], "--lr-decay-style", "constant"),
    # Megatron warms a constant rate up too, ours does not.
    (["lr_scheduler_type=constant", "warmup_ratio=0.2"], "--lr-warmup-fraction", 0),
    (["lr_scheduler_type=inverse_sqrt"], "--lr-decay-style", "inverse-square-root"),
    (["lr_scheduler_type=warmup_stable_decay", "lr_scheduler_kwargs=num_decay_steps=3"], "--lr-decay-style", "WSD"),
    (["warmup_steps=50", "max_steps=200"], "--lr-warmup-fraction", 0.25),
    (["save_steps=0.1", "max_steps=200"], "--save-interval", 20),
    (["logging_steps=0.001", "max_steps=200"], "--log-interval", 1),
    (["stage=pt"], "--pack", None),
])
def test_values_in_megatrons_form(words: list[str], flag: str, value: object) -> None:
    """Names of schedules, fractions of a known length, and what follows from the stage."""
    assert to_flags(read_config(words)).settings[flag] == value


def test_styles_are_megatrons() -> None:
    """The choices of --lr-decay-style."""
    assert set(STYLES.values()) == {"constant", "linear", "cosine", "inverse-square-root", "WSD"}
    assert set(STYLES) <= set(table()["lr_scheduler_type"].param.choices or ())


@pytest.mark.parametrize(("words", "sentence"), [
    (["lr_scheduler_type=polynomial"],
     "lr_scheduler_type: --lr-decay-style has no polynomial, only linear, cosine, constant, inverse-square-root, WSD"),
    (["num_train_epochs=2"],
     "max_steps: Megatron counts iterations, not epochs: num_train_epochs 2 is left out; give max_steps"),
    (["warmup_steps=5"], "warmup_ratio: warmup_steps 5 is a fraction of a length that only max_steps tells"),
    (["save_strategy=epoch"], "save_steps: --save-interval counts steps, and here it is epoch"),
    (["save_steps=0.1"], "save_steps: save_steps 0.1 is a fraction of a length that only max_steps tells"),
    (["lora_rank=4"], "lora_rank 4 is not in the table of Megatron's flags; set it there by hand: rank of the two factors"),
    # Nobody wrote it, and Megatron trains all weights.
    ([], "finetuning_type lora is not in the table of Megatron's flags; set it there by hand: which weights train: all, some of the "
         "model's own, a low-rank adapter, or none (to evaluate, predict or export only)"),
])
def test_what_has_no_flag_is_told(words: list[str], sentence: str) -> None:
    """One line for each, and it counts as lost."""
    assert sentence in [line.detail for line in to_flags(read_config(words)).lost]


def test_every_setting_that_was_written_is_told() -> None:
    """Either under its flag or as one without; also those that another line speaks of."""
    told = {line.field for line in to_flags(read_config([*FULL, "seed=3", "lora_dropout=0.1", "group_by_length=true"])).report}
    assert {word.partition("=")[0] for word in FULL} | {"seed", "lora_dropout", "group_by_length"} <= told


def test_cards_that_make_no_group_are_refused() -> None:
    """No cards, no batch."""
    with pytest.raises(InputError, match="--cards 0: not a multiple of tp_size"):
        to_flags(read_config([]), cards=0)


def test_text_is_one_command() -> None:
    """The script hands its own arguments on as the launcher; values with spaces and quotes stay one word."""
    flags = to_flags(read_config(["model_name_or_path=my model's", "max_steps=3"]))
    script = to_text(flags, suffix=".sh")
    assert script.startswith("#!/bin/sh\nexec \"$@\" \\\n  --load 'my model'\"'\"'s' \\\n")
    words = shlex.split(to_text(flags, suffix="").replace("\\\n", " "))
    assert words[:2] == ["--load", "my model's"] and words[-2:] == ["--global-batch-size", "4"]
    assert re.fullmatch(r"(--[a-z-]+( \S+)*( \\)?\n)+", to_text(to_flags(read_config(["max_steps=3"])), suffix=""))


def test_from_every_vocabulary() -> None:
    """Their defaults: cutoff_len of each."""
    wanted = {dialect: table()["cutoff_len"].default_in(dialect) for dialect in VOCABULARIES}
    assert {dialect: to_flags(read_config(["--dialect", dialect])).settings["--seq-length"] for dialect in VOCABULARIES} == wanted
