"""Which vocabulary a run is written in, without being told. The samples are those of the documents; the oracle is the document that a
sample is from, and for mixtures which document has which name."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.dialects import samples
from tunewright.dialects.read import Examined, examine
from tunewright.dialects.translate import translate


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def look(text: str, *arguments: str) -> Examined:
    """Examine a file of this text, JSON if it begins like it, or a command line alone if it begins with a dash."""
    if text.lstrip().startswith("--"):
        return examine([*text.split(), *arguments])
    name = "c.json" if text.lstrip().startswith("{") else "c.yaml"
    Path(name).write_text(text, encoding="utf-8")
    return examine([name, *arguments])


SAMPLES = {
    "sft_json": samples.SFT_JSON, "qlora_script": samples.QLORA_SCRIPT, "mindspeed_fsdp2": samples.MINDSPEED_FSDP2,
    "llamafactory": samples.LLAMAFACTORY, "cli_reference": samples.CLI_REFERENCE,
}


@pytest.mark.parametrize("dialect", SAMPLES)
def test_the_sample_of_each_document(dialect: str) -> None:
    """Recognised, and nothing in it is unknown or of the wrong form."""
    examined = look(SAMPLES[dialect])
    assert examined.reading.dialect == dialect
    assert [one.line() for one in examined.problems if one.rule is None] == []


SHAPES = [
    ("llamafactory", samples.LLAMAFACTORY_LINE),
    ("llamafactory", "--stage sft --do_train --model_name_or_path m --dataset d --output_dir o"),
    ("llamafactory", "--model_name_or_path m --do_train True --neat_packing --disable_gradient_checkpointing --use_llama_pro"),
    ("llamafactory", "stage: dpo\ndo_train: true\npref_beta: 0.1\n"),
    ("cli_reference", "--model-name-or-path m --lora-weight-path a --merge-lora --export-dir x"),
    ("cli_reference", "model_name_or_path: m\nfinetuning_type: lora\nevaluation_strategy: steps\nearly_stopping_patience: 3\n"),
    ("qlora_script", "--model_name m --data_path d.json --bits 4 --lora_r 64 --n_epochs 1"),
    ("qlora_script", '{"model_name": "m", "training_recipe": "full"}'),
    ("sft_json", '{"train_file_path": "data", "train_file_name": "a.csv"}'),
    ("sft_json", "train_mode: qlora\nmax_seq_length: 1024\n"),
    ("sft_json", "--train_mode lora --template_name qwen --max-seq-length 512"),
    ("mindspeed_fsdp2", "--training.lr 1e-5 --model.model_name_or_path m --data.dataset d"),
    ("mindspeed_fsdp2", "model:\n  model_name_or_path: m\nparallel:\n  tp_size: 1\n"),
    ("mindspeed_fsdp2", "optimization:\n  use_flash_attn: true\n"),
    ("mindspeed_fsdp2", "lr: 1e-5\nper_device_train_batch_size: 1\n"),
    ("mindspeed_fsdp2", "training.lr: 1e-5\n"),
    ("mindspeed_fsdp2", "data:\n  dataset: a\ntraining:\n  save_steps: 5\nprofiling:\n  profile: false\n"),
    ("native", "model:\n  model_name_or_path: m\ndata:\n  dataset: [a]\nlora:\n  lora_rank: 4\n"),
    ("llamafactory", "model_name_or_path: m\ndo_predict: true\neval_dataset: e\npredict_with_generate: true\nddp_timeout: 180000000\n"),
    ("native", "model_name_or_path: m\ndataset: d\ndo_predict: true\nval_size: 0.1\n"),
    ("native", "model_name_or_path: m\ndataset: d\nlora_rank: 4\n"),
    ("native", "--model_name_or_path demo --dataset d.jsonl --output_dir o"),
    ("native", "--model_name_or_path demo --dataset d.jsonl do_train=true"),
    ("native", "--model_name_or_path demo --do_train --padding_free"),
    ("cli_reference", "--model_name_or_path m --attn-implementation sdpa --padding_free data_cache_dir=none"),
    ("qlora_script", "--lora_r 8 --val_size 0.1"),
]


@pytest.mark.parametrize(("dialect", "text"), SHAPES)
def test_shapes(dialect: str, text: str) -> None:
    """Files and command lines in the shape of their vocabulary."""
    examined = look(text)
    assert examined.reading.dialect == dialect
    assert [one.line() for one in examined.problems if "unknown" in one.message or one.rule in _CHOICE] == []


_CHOICE = ("ambiguous-vocabulary", "mixed-vocabularies")


def test_the_command_line_of_llamafactory_is_told_as_a_guess() -> None:
    """All its names are ours too but for the switch; how to be silent depends on where it stands."""
    assert look("--stage sft --do_train --model_name_or_path m --dataset d --output_dir o").reading.notes == (
        "command line: --do_train: read in the llamafactory vocabulary, with its defaults, because of this key; "
        "write --dialect native for ours, or --dialect llamafactory to be silent",)


TYPOS = [
    ("sft_json", samples.SFT_JSON.replace("max_grad_norm", "max_gard_norm"), "max_gard_norm", "max_grad_norm"),
    ("sft_json", samples.SFT_JSON.replace("train_mode", "train_mod"), "train_mod", "train_mode"),
    ("sft_json", '{"output_dir": "o", "learning_rate": 1e-4, "train_mod": "lora"}', "train_mod", "train_mode"),
    ("qlora_script", samples.QLORA_SCRIPT.replace("lora_r:", "lorar:"), "lorar", "lora_r"),
    ("qlora_script", samples.QLORA_SCRIPT.replace("learning_rate", "learning_rte"), "learning_rte", "learning_rate"),
    ("mindspeed_fsdp2", samples.MINDSPEED_FSDP2.replace("cutoff_len", "cutof_len"), "data.cutof_len", "cutoff_len"),
    ("mindspeed_fsdp2", samples.MINDSPEED_FSDP2.replace("training:", "trainning:"), "trainning", "training"),
    ("llamafactory", samples.LLAMAFACTORY.replace("warmup_ratio", "warmup_ration"), "warmup_ration", "warmup_ratio"),
    ("llamafactory", samples.LLAMAFACTORY_LINE.replace("--save_steps", "--save_step"), "--save_step", "save_steps"),
    ("cli_reference", samples.CLI_REFERENCE.replace("--lora_dropout", "--lora_droput"), "--lora_droput", "lora_dropout"),
    ("cli_reference", samples.CLI_REFERENCE.replace("--evaluation-strategy", "--evaluation-stratgy"), "--evaluation-stratgy",
     "evaluation_strategy"),
    ("native", "lora_rank: 8\nlearnig_rate: 1e-4\npadding_free: true\n", "learnig_rate", "learning_rate"),
    ("native", "lora_rank: 8\nlearnig_rate: 1e-4\n", "learnig_rate", "learning_rate"),
]


@pytest.mark.parametrize(("dialect", "text", "key", "meant"), TYPOS, ids=[f"{dialect} {key}" for dialect, _, key, _ in TYPOS])
def test_one_typo_does_not_change_the_vocabulary(dialect: str, text: str, key: str, meant: str) -> None:
    """It is the one problem, and the right name is named."""
    examined = look(text)
    assert examined.reading.dialect == dialect
    found = [one for one in examined.problems if one.rule is None]
    assert len(found) == 1
    assert found[0].message.startswith(f"{key}: unknown ") and f"did you mean {meant}?" in found[0].line()


MIXTURES = [
    (samples.QLORA_SCRIPT + "train_mode: lora\n", "qlora_script",
     "c.yaml:35: train_mode: is a name of the sft_json vocabulary, but model_name at c.yaml:1 is one of qlora_script; keep to one "
     "vocabulary"),
    (samples.LLAMAFACTORY + "lora_r: 16\n", "llamafactory",
     "c.yaml:41: lora_r: is a name of the qlora_script vocabulary, but model_name_or_path at c.yaml:2 is one of llamafactory; "
     "keep to one vocabulary"),
    (samples.LLAMAFACTORY + "lr: 1e-5\n", "llamafactory",
     "c.yaml:41: lr: is a name of the mindspeed_fsdp2 vocabulary, but do_train at c.yaml:6 is one of llamafactory; keep to one vocabulary"),
    ("lora_r: 16\npadding_free: true\n", "native",
     "c.yaml:1: lora_r: is a name of the qlora_script vocabulary, but padding_free at c.yaml:2 is one of native; keep to one vocabulary"),
    ("training:\n  lr: 1e-5\nlora:\n  lora_rank: 4\n", "native",
     "c.yaml:2: training.lr: is a name of the mindspeed_fsdp2 vocabulary, but lora.lora_rank at c.yaml:4 is one of native; "
     "keep to one vocabulary"),
    (samples.CLI_REFERENCE + " --max_seq_length 100", "cli_reference",
     "command line: --max_seq_length: is a name of the sft_json vocabulary, but --finetuning_type at command line is one of "
     "cli_reference; keep to one vocabulary"),
]


@pytest.mark.parametrize(("text", "dialect", "report"), MIXTURES, ids=[report[:50] for _, _, report in MIXTURES])
def test_a_mixture_names_a_key_of_either_side(text: str, dialect: str, report: str) -> None:
    """With their places; the foreign key is not reported a second time."""
    examined = look(text)
    found = [one.line() for one in examined.problems if one.rule in (None, "mixed-vocabularies")]
    assert found == [report]
    assert examined.reading.dialect == dialect


AMBIGUOUS = [
    ("disable_gradient_checkpointing: true\n", "c.yaml:1: disable_gradient_checkpointing: is a name of llamafactory and cli_reference, "
    "whose "
     "defaults differ; say which: dialect: llamafactory"),
    ("output_dir: o\nevaluation_strategy: 'no'\n", "c.yaml:2: evaluation_strategy: is a name of llamafactory, cli_reference and "
    "qlora_script, "
     "whose defaults differ; say which: dialect: llamafactory"),
    ("--disable-gradient-checkpointing --output_dir o", "command line: --disable-gradient-checkpointing: is a name of llamafactory and "
     "cli_reference, whose defaults differ; say which: --dialect llamafactory"),
]


@pytest.mark.parametrize(("text", "report"), AMBIGUOUS)
def test_ambiguity_is_an_error(text: str, report: str) -> None:
    """Every candidate is named, and a key that does not tell them apart."""
    assert [one.line() for one in look(text).problems] == [report]


def test_the_command_line_tells_files_apart() -> None:
    """A name on the command line that only one of the candidates has decides; ours says nothing."""
    text = "disable_gradient_checkpointing: true\n"
    assert look(text, "--tuner_backend", "peft").reading.dialect == "cli_reference"
    assert look(text, "--use_galore", "false").reading.dialect == "llamafactory"
    assert [one.rule for one in look(text, "--padding_free").problems] == ["ambiguous-vocabulary"]


def test_what_is_written_here_is_recognised() -> None:
    """A translated file names its vocabulary, so that nothing is guessed."""
    reading = look(samples.SFT_JSON).reading
    for dialect in SAMPLES:
        assert translate(reading, dialect).dialect == dialect
