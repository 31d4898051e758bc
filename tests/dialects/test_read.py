"""Precedence, origins, recognition of the vocabulary, and all problems at once. Cases worked by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunewright.config.origin import Origin
from tunewright.config.table import values
from tunewright.dialects.read import Reading, read_config
from tunewright.errors import ConfigError


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def read(text: str, *arguments: str, dialect: str | None = None) -> Reading:
    Path("c.yaml").write_text(text, encoding="utf-8")
    return read_config(["c.yaml", *arguments], dialect=dialect)


def test_every_level_of_precedence_and_its_origin() -> None:
    """Own default < dialect default < file < later file < command line; a rule fills in what is open."""
    Path("second.yaml").write_text("lora_rank: 32\nseed: 5\n", encoding="utf-8")
    reading = read("dialect: llamafactory\nlora_rank: 16\nseed: 4\nlearning_rate: 1e-3\n", "second.yaml", "--seed", "6").resolve()
    expected = {
        "lora_dropout": (0.0, Origin("default")),
        "cutoff_len": (1024, Origin("dialect default", "llamafactory")),
        "learning_rate": (1e-3, Origin("file", "c.yaml:4", "learning_rate")),
        "lora_rank": (32, Origin("file", "second.yaml:1", "lora_rank")),
        "seed": (6, Origin("command line", "command line", "--seed")),
        "lora_alpha": (64.0, Origin("rule", "twice lora_rank")),
        "data_seed": (6, Origin("rule", "as seed")),
    }
    current = values(reading.config)
    assert {field: (current[field], reading.origins[field]) for field in expected} == expected
    assert set(reading.origins) == set(current)


def test_origins_in_words() -> None:
    """What `explain` prints for each kind."""
    assert [origin.describe() for origin in (
        Origin("default"), Origin("dialect default", "llamafactory"), Origin("file", "c.yaml:3", "lr"),
        Origin("command line", "command line", "--lr"), Origin("rule", "as seed"))] == [
        "default", "default of llamafactory", "c.yaml:3 (lr)", "command line (--lr)", "derived: as seed"]


RECOGNISED = [
    ("seed: 1\n", [], "native"),
    ("padding_free: true\n", [], "native"),
    ("lora:\n  lora_rank: 4\n", [], "native"),
    ("do_train: true\n", [], "llamafactory"),
    ("preprocessing_batch_size: 1000\n", [], "native"),
    ("push_to_hub_model_id: null\n", [], "llamafactory"),
    ("do_train: true\npadding_free: true\n", [], "native"),
    ("stage: sft\ndisable_gradient_checkpointing: true\n", [], "llamafactory"),
    ("fp32: false\ndisable_gradient_checkpointing: true\n", [], "cli_reference"),
    ("learning_rate: 1\n", ["--lora_r", "4", "--padding_free"], "qlora_script"),
    ('{"train_mode": "lora"}', [], "sft_json"),
    ("training:\n  lr: 1e-5\n", [], "mindspeed_fsdp2"),
    ("data:\n  cutoff_len: 64\n", [], "native"),
    ("data:\n  cutoff_len: 64\ntraining:\n  max_steps: 3\n", [], "mindspeed_fsdp2"),
    ("seed: 1\n", ["--do_train"], "native"),
    ("dialect: native\ndo_train: true\n", [], "native"),
    ("dialect: native\n", ["--dialect", "llamafactory"], "llamafactory"),
    ("stage: sft\nevaluation_strategy: 'no'\n", ["--padding_free"], "llamafactory"),
]


@pytest.mark.parametrize(("text", "arguments", "dialect"), RECOGNISED)
def test_recognition(text: str, arguments: list[str], dialect: str) -> None:
    """A vocabulary is given, or recognised by keys that only it has; our own names may follow any file on the command line."""
    assert read(text, *arguments).dialect == dialect


def test_ambiguity_names_every_candidate() -> None:
    """Names that several other vocabularies have, and ours has not, do not tell which defaults are meant."""
    with pytest.raises(ConfigError, match=r"^c\.yaml:1: evaluation_strategy: is a name of llamafactory, cli_reference and qlora_script, "
                                          r"whose defaults differ; say which: dialect: llamafactory$"):
        read("evaluation_strategy: 'no'\n")


def test_dialect_argument_wins() -> None:
    """The caller's word stands above the file's key."""
    assert read("dialect: native\n", dialect="llamafactory").dialect == "llamafactory"


def test_a_guess_is_told() -> None:
    """Recognition by a key that is merely usual there is a note, with how to be silent."""
    assert read("stage: sft\ndo_train: true\n").notes == (
        "c.yaml:2: do_train: read in the llamafactory vocabulary, with its defaults, because of this key; "
        "write `dialect: native` for ours, or `dialect: llamafactory` to be silent",)
    assert read("dialect: llamafactory\ndo_train: true\n").notes == ()


def test_all_problems_at_once_in_the_order_of_the_file() -> None:
    """Types, ranges, names, secrets, rules, both levels: one report. A rule that would read a wrong value is left out."""
    with pytest.raises(ConfigError) as refused:
        read("lora_rank: 0\nlearnig_rate: 1\nbf16: true\nfp16: true\nhub_token: abc\nsave_steps: x\nload_best_model_at_end: false\n",
             "--seed", "-1", "val_size=0.1", "eval_dataset=a")
    assert str(refused.value).splitlines() == [
        "c.yaml:1: lora_rank: 0 is out of range; write an integer >= 1 and <= 65536",
        "c.yaml:2: learnig_rate: unknown key; did you mean learning_rate?",
        "c.yaml:4: fp16: fp16 and bf16 are both on; keep one of them",
        "c.yaml:5: hub_token: a secret does not belong in a configuration or on a command line; set the environment variable HF_TOKEN",
        "c.yaml:6: save_steps: 'x' is not a number; write a number > 0",
        "command line: --seed: -1 is out of range; write an integer >= 0 and <= 4294967295",
        "command line: val_size: rows are held back, but eval_dataset is given too; keep one of them",
    ]
    assert refused.value.exit_code == 2
    assert [problem.rule for problem in refused.value.problems].count(None) == 5


def test_secrets_are_never_shown() -> None:
    """The report names the key, not the value."""
    for key in ("hf_hub_token", "hub_token", "push_to_hub_token", "ms_hub_token", "om_hub_token", "use_auth_token", "my_secret",
                "openai_api_key"):
        with pytest.raises(ConfigError) as refused:
            read(f"{key}: hf_SECRETVALUE\n")
        assert "SECRETVALUE" not in str(refused.value) and "environment variable" in str(refused.value)


def test_notes_for_values_that_nothing_reads() -> None:
    """A written value that the run never reads is told, at its place; a default that nobody wrote is not."""
    Path("d.yaml").write_text("finetuning_type: full\nlora_rank: 64\nmodel_name_or_path: demo\ndataset: d\noutput_dir: o\n")
    assert read_config(["d.yaml", "--warmup_ratio", "0.1", "--warmup_steps", "5"], purpose="train").notes == (
        "d.yaml:2: lora_rank: is not read by this run: finetuning_type is not lora",
        "command line: --warmup_ratio: is not read by this run: warmup_steps wins")


def test_no_file_and_no_words_is_our_defaults() -> None:
    """Nothing given: every value is a default."""
    reading = read_config([])
    assert reading.dialect == "native" and reading.given == frozenset()
    assert {origin.source for origin in reading.origins.values()} == {"default"}


def test_a_name_twice_in_one_file() -> None:
    """Flat and below its group."""
    with pytest.raises(ConfigError, match=r"^c\.yaml:3: lora\.lora_rank: given twice, as lora_rank at c\.yaml:1 too; remove one of them$"):
        read("lora_rank: 8\nlora:\n  lora_rank: 16\n")
