"""Translation: the report of every kind, what a target means by its defaults, and the shapes of files; worked by hand."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as profile
from hypothesis import strategies as st

from tests.dialects.generated import VOCABULARIES, settings, settled, write
from tunewright.config.param import DIALECTS
from tunewright.config.table import table, values
from tunewright.dialects.converters import ABSENT, CONVERTERS
from tunewright.dialects.document import read_document
from tunewright.dialects.native import NATIVE
from tunewright.dialects.read import read_config, written_in
from tunewright.dialects.report import Line
from tunewright.dialects.shapes import to_text, usual_suffix
from tunewright.dialects.translate import translate


def test_report_of_every_kind() -> None:
    """One line for each parameter that was written or whose default differs; worked by hand for a few of them."""
    reading = read_config(["--padding_free", "cutoff_policy=drop", "seed=3", "gradient_checkpointing=false", "lora_rank=4",
                           "report_to=none"])
    translation = translate(reading, "llamafactory")
    kinds = {line.field: line.text() for line in translation.report}
    assert {field: kinds[field] for field in (*reading.given, "do_train", "learning_rate", "cutoff_len", "logging_steps")} == {
        "padding_free": "no equivalent: padding_free true is not known in llamafactory: there it is null, and this is not done: "
                        "concatenate the rows of a batch instead of padding them; attention stays inside each row, and the same is "
                        "computed",
        "cutoff_policy": "no equivalent: cutoff_policy drop is not known in llamafactory: there it is proportional (what becomes of a "
                         "longer row, which the audit always counts: left out (drop), cut at its end (cut_right) or start (cut_left), made "
                         "several rows at the borders of its turns (split), or cut in each question and answer by the rule of LLaMA-Factory"
                         ", proportional)",
        "seed": "exact: seed",
        "gradient_checkpointing": "value mapped: gradient_checkpointing false -> disable_gradient_checkpointing true",
        "lora_rank": "exact: lora_rank",
        "report_to": "value mapped: report_to [] -> report_to none",
        "do_train": "default made explicit: do_train true",
        "learning_rate": "default made explicit: learning_rate 0.0001",
        "cutoff_len": "default made explicit: cutoff_len 2048",
        "logging_steps": "default made explicit: logging_steps 10",
    }
    assert {line.field for line in translation.lost} == {"padding_free", "cutoff_policy"}
    others = [line for line in translation.report if line.field not in reading.given]
    assert {line.kind for line in others} == {"default made explicit"}


LOST = [
    (["use_dora=true"], "sft_json", "use_dora true is not known in sft_json: there it is false, and this is not done: learn magnitude "
     "and direction apart (DoRA, Liu et al. 2024)"),
    (["lora_dropout=0.1"], "mindspeed_fsdp2", "lora_dropout 0.1 is not known in mindspeed_fsdp2: there it is 0 (dropout on the adapter's "
     "input)"),
    (["max_samples=7"], "sft_json", "max_samples 7 is not known in sft_json: there nothing is set for this: first rows of each set to use"),
    (["seed=7"], "cli_reference", "seed 7 is not known in cli_reference: there it is 42 (seed of initialisation, dropout and, without "
     "data_seed, the order of samples)"),
]


@pytest.mark.parametrize(("words", "target", "sentence"), LOST, ids=[words[0] for words, _, _ in LOST])
def test_what_the_loss_of_a_setting_changes(words: list[str], target: str, sentence: str) -> None:
    """The sentence names the value that the target has, and what the parameter does."""
    field = words[0].partition("=")[0]
    assert {line.field: line.detail for line in translate(read_config(words), target).lost}[field] == sentence


@pytest.mark.parametrize("target", ["cli_reference", "sft_json", "qlora_script"])
def test_what_is_open_is_said_as_it_comes_out(target: str) -> None:
    """Their alpha is a number: twice the rank, as ours comes out when it is left open."""
    translation = translate(read_config(["lora_rank=6"]), target)
    assert translation.settings["lora_alpha"] == 12 and "lora_alpha" not in {line.field for line in translation.lost}


def test_what_nobody_reads_is_not_lost() -> None:
    """The rank of an adapter says nothing where all weights train, and a vocabulary without the name loses nothing."""
    translation = translate(read_config(["finetuning_type=full", "lora_rank=4"]), "mindspeed_fsdp2")
    lines = {line.field: line for line in translation.report}
    assert lines["lora_rank"] == Line("lora_rank", "no equivalent", None,
                                      "lora_rank 4: changes nothing, because finetuning_type is not lora")
    assert "lora_rank" not in {line.field for line in translation.lost}


def test_what_is_so_anyway_is_exact() -> None:
    """A value that the target has no name for, and always has."""
    lines = {line.field: line for line in translate(read_config(["dataloader_timeout_s=600"]), "llamafactory").report}
    assert lines["dataloader_timeout_s"] == Line("dataloader_timeout_s", "exact", None,
                                                 "dataloader_timeout_s 600: so in llamafactory too, without being said")


def test_old_names_are_renamed(tmp_path: Path) -> None:
    """A deprecated name becomes the present one."""
    path = write(tmp_path / "c.yaml", "stage: sft\nevaluation_strategy: epoch\nval_size: 0.1\n")
    report = translate(read_config([path]), "native").report
    assert [line.text() for line in report if line.field == "eval_strategy"] == ["renamed: evaluation_strategy -> eval_strategy"]


def test_the_values_of_the_file_decide_what_is_mapped(tmp_path: Path) -> None:
    """`adamw` becomes `adamw_torch` under another name; 1e-4 and 0.0001, and `a,b` and a list of both, are no difference."""
    path = write(tmp_path / "c.yaml", "training:\n  optimizer: adamw\n  lr: 1e-4\n  output_dir: out\ndata:\n  dataset: a,b\n")
    reading = read_config([path])
    report = {line.field: line.text() for line in translate(reading, "native", written_in(read_document(path))).report}
    assert report["optim"] == "value mapped: optimizer adamw -> optim adamw_torch"
    assert report["learning_rate"] == "renamed: lr -> learning_rate" and report["dataset"] == "exact: dataset"


def test_every_key_of_the_file_has_a_line(tmp_path: Path) -> None:
    """Also those that say what is done without them, and therefore are no value of the run."""
    path = write(tmp_path / "c.yaml", "dialect: llamafactory\ntpu_num_cores: null\nlora_rank: 4\ngradient_checkpointing: false\n")
    report = translate(read_config([path]), "native", written_in(read_document(path))).report
    kinds = {line.field: line.detail for line in report if line.kind == "no equivalent"}
    assert kinds == {name: f"{name} {value}: changes nothing in the run, and is left out" for name, value in (
        ("tpu_num_cores", "null"), ("gradient_checkpointing", "false"))}


MEANT = [
    # Steps win over the ratio with us, and the ratio over steps in cli_reference: it is written as 0 there.
    (["warmup_steps=10", "warmup_ratio=0.1"], "cli_reference", {"warmup_steps": 10, "warmup_ratio": 0}),
    (["warmup_ratio=0.1"], "cli_reference", {"warmup_ratio": 0.1}),
    # Its default ratio of 0.03 is turned off, so that the steps count.
    (["warmup_steps=10"], "cli_reference", {"warmup_steps": 10, "warmup_ratio": 0}),
    # Without evaluation data nothing is evaluated in qlora_script; with data that it has no name for, it cannot say when.
    (["eval_strategy=no"], "qlora_script", {"evaluation_strategy": "no"}),
    # Ours keeps packed rows apart by default; in LLaMA-Factory to say so would turn packing on.
    (["packing=false"], "llamafactory", {"packing": False}),
    (["packing=true"], "llamafactory", {"packing": True, "neat_packing": True}),
    (["packing=true", "neat_packing=false"], "llamafactory", {"packing": True, "neat_packing": False}),
]


@pytest.mark.parametrize(("words", "target", "wanted"), MEANT)
def test_defaults_that_depend_on_what_is_written(words: list[str], target: str, wanted: dict[str, Any], tmp_path: Path) -> None:
    """The file says what it must for the target to mean the same, and no more; reading it shows that it does."""
    first = read_config(words)
    translation = translate(first, target)
    found = {name: value for name, value in translation.settings.items() if name in {*wanted, "neat_packing"}}
    assert found == wanted
    back = read_config([write(tmp_path / "b.yaml", to_text(translation, suffix=".yaml"))]).config
    assert (back.schedule.warmup_steps, back.evaluation.eval_strategy) == (
        first.config.schedule.warmup_steps, first.config.evaluation.eval_strategy)
    assert bool(back.data.packing) == bool(first.config.data.packing)


def test_what_the_target_says_together(tmp_path: Path) -> None:
    """LoRA over a base in 4 bits has one name in document 002, which none of its names says alone."""
    first = read_config(["finetuning_type=lora", "quantization_bit=4"])
    translation = translate(first, "sft_json")
    lines = {line.field: line.text() for line in translation.report}
    assert lines["finetuning_type"] == "value mapped: finetuning_type lora -> train_mode qlora"
    assert lines["quantization_bit"] == "exact: quantization_bit 4: so in sft_json too, without being said"
    back = read_config([write(tmp_path / "b.json", to_text(translation, suffix=".json"))]).config
    assert (back.tuning.finetuning_type, values(back)["quantization_bit"]) == ("lora", 4)
    eight = translate(read_config(["finetuning_type=lora", "quantization_bit=8"]), "sft_json")
    assert eight.settings["train_mode"] == "lora" and "quantization_bit" in {line.field for line in eight.lost}


def test_shape_of_mindspeed() -> None:
    """Sections in the order of the document, one line for each setting, lists in flow style."""
    text = to_text(translate(read_config(["dataset=a,b", "learning_rate=1e-5", "finetuning_type=full", "model_name_or_path=demo",
                                          "flash_attn=fa2"]), "mindspeed_fsdp2"), suffix=".yaml")
    lines = text.splitlines()
    order = ["model:", "data:", "parallel:", "training:", "optimization:", "profiling:"]
    sections = [line for line in lines if not line.startswith(" ")]
    assert sections == [one for one in order if one in sections] and {"model:", "data:", "training:"} <= set(sections)
    assert "  dataset: a,b" in lines and "  lr: 1.0e-05" in lines and "optimization:" in lines and "  use_flash_attn: true" in lines


def test_other_programs_files_name_our_vocabulary_only_where_they_must(tmp_path: Path) -> None:
    """A key `dialect` is refused by LLaMA-Factory; without telling names it is needed for us."""
    told = translate(read_config(["lora_rank=4"]), "llamafactory")
    assert "dialect" not in to_text(told, suffix=".yaml") and read_config(
        [write(tmp_path / "a.yaml", to_text(told, suffix=".yaml"))]).dialect == "llamafactory"
    assert to_text(translate(read_config(["lora_rank=4"]), "native"), suffix=".yaml") == "dialect: native\nlora_rank: 4\n"
    plain = translate(read_config(["--dialect", "sft_json", "num_train_epochs=2"]), "sft_json")
    assert json.loads(to_text(plain, suffix=".json")) == {"dialect": "sft_json", "num_train_epochs": 2}


def test_usual_endings() -> None:
    """The document of sft_json is JSON."""
    assert {one: usual_suffix(one) for one in ("sft_json", "llamafactory")} == {"sft_json": ".json", "llamafactory": ".yaml"}


@profile(max_examples=60)
@given(data=st.data())
def test_a_script_means_what_the_file_means(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The words that the shell makes of the script, read as a command line, give the run of the file."""
    base, target = tmp_path_factory.getbasetemp(), data.draw(st.sampled_from(VOCABULARIES))
    settled(base / "a.json", target, data.draw(settings(target)))
    first = read_config([str(base / "a.json")])
    translation = translate(first, target)
    head, _, rest = to_text(translation, suffix=".sh").partition("\n")
    words = shlex.split(rest.replace(" \\\n", " "))
    assert head == "#!/bin/sh" and words[:5] == ["exec", "tunewright", "train", "--dialect", target] and words[-1] == "$@"
    assert read_config(words[3:-1]).config == first.config


def test_every_value_has_a_form_in_both_vocabularies() -> None:
    """theirs, then ours, of every converter of a preferred name gives back the default of its vocabulary."""
    pairs = [(row, row.param.names[dialect][0], row.default_in(dialect)) for dialect in DIALECTS for row in table().values()
             if dialect in row.param.names]
    for _, alias, default in pairs:
        if alias.convert is not None:
            again = CONVERTERS[alias.convert].ours(CONVERTERS[alias.convert].theirs(default))
            again = default if again is ABSENT else again
            assert (tuple(again.split(",")) if isinstance(again, str) and isinstance(default, tuple) else again) == default, alias.name
    for name, convert in NATIVE.convert.items():
        value = table()[name].param.default
        again = CONVERTERS[convert].ours(CONVERTERS[convert].theirs(value))
        assert (tuple(again.split(",")) if isinstance(again, str) and isinstance(value, tuple) else again) == value, name
    assert values(read_config([]).config) == values(read_config(["--dialect", "native"]).config)
