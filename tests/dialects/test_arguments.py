"""The forms of the command line: each pair says what a word means; the oracle is the list of forms in the help."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunewright.config.table import values
from tunewright.dialects.arguments import parse_arguments
from tunewright.dialects.read import read_config
from tunewright.errors import UsageError

FORMS = [
    ("lora_rank=16", {"lora_rank": 16}),
    ("lora-rank=16", {"lora_rank": 16}),
    ("lora.lora_rank=16", {"lora_rank": 16}),
    ("--lora_rank 16", {"lora_rank": 16}),
    ("--lora-rank 16", {"lora_rank": 16}),
    ("--lora_rank=16", {"lora_rank": 16}),
    ("--lora.lora_rank 16", {"lora_rank": 16}),
    ("--lora.lora-rank=16", {"lora_rank": 16}),
    ("--template.template qwen3", {"template": "qwen3"}),
    ("--max_steps -1", {"max_steps": -1}),
    ("--learning_rate 1e-4", {"learning_rate": 1e-4}),
    ("--bf16", {"bf16": True}),
    ("--bf16 true", {"bf16": True}),
    ("--bf16 True", {"bf16": True}),
    ("--plot_loss false", {"plot_loss": False}),
    ("--plot-loss=false", {"plot_loss": False}),
    ("--no_plot_loss", {"plot_loss": False}),
    ("--no-plot-loss", {"plot_loss": False}),
    ("--no_plot_loss false", {"plot_loss": True}),
    ("no_plot_loss=true", {"plot_loss": False}),
    ("--bf16 --lora_rank 4", {"bf16": True, "lora_rank": 4}),
    ("--bf16 lora_rank=4", {"bf16": True, "lora_rank": 4}),
    ("--packing", {"packing": True}),
    ("--packing none", {"packing": None}),
    ("--enable_thinking None", {"enable_thinking": None}),
    ("--lora_target q_proj,v_proj", {"lora_target": ("q_proj", "v_proj")}),
    ("--lora_target=layers\\.[0-9]{1,2}\\.q_proj", {"lora_target": ("layers\\.[0-9]{1,2}\\.q_proj",)}),
    ('--lora_target ["q_proj","v_proj"]', {"lora_target": ("q_proj", "v_proj")}),
    ("--dataset a.json,b", {"dataset": ("a.json", "b")}),
    ('--dataset {"file_name":"a.json"}', {"dataset": ({"file_name": "a.json"},)}),
    ('--lr_scheduler_kwargs {"num_cycles":2}', {"lr_scheduler_kwargs": {"num_cycles": 2}}),
    ("--lr_scheduler_kwargs {'num_cycles':2}", {"lr_scheduler_kwargs": {"num_cycles": 2}}),
    ("--lr_scheduler_kwargs num_cycles=2,min_lr_rate=1e-1", {"lr_scheduler_kwargs": {"num_cycles": 2, "min_lr_rate": 0.1}}),
    ("lr_scheduler_kwargs={'decay_type':'cosine','x':None}", {"lr_scheduler_kwargs": {"decay_type": "cosine", "x": None}}),
    ("optim_args=scale_parameter=False", {"optim_args": {"scale_parameter": False}}),
    ("--save_steps 0.25", {"save_steps": 0.25}),
    ("--lora_rank 4 --lora_rank 8", {"lora_rank": 8}),
]


@pytest.mark.parametrize(("words", "expected"), FORMS, ids=[form for form, _ in FORMS])
def test_form(words: str, expected: dict[str, object]) -> None:
    """Each form sets these fields and nothing else."""
    reading = read_config([*words.split(), "--dialect", "native"])
    assert {field: values(reading.config)[field] for field in expected} == expected
    assert reading.given == set(expected)


def test_files_values_and_vocabulary_are_told_apart() -> None:
    """Words with = or dashes are values, the others files; a switch takes no value but a truth."""
    found = parse_arguments(["a.yaml", "--bf16", "b.json", "lora_rank=3", "--dialect=llamafactory", "--no_fp16", "dir/c=d.yaml"])
    assert found.files == ("a.yaml", "b.json", "dir/c=d.yaml")
    assert [(one.key, one.name, one.value) for one in found.written] == [
        ("--bf16", "bf16", True), ("lora_rank", "lora_rank", "3"), ("--no_fp16", "no_fp16", True)]
    assert found.dialect == "llamafactory"


def test_names_of_other_vocabularies_are_switches_too() -> None:
    """A bare switch of LLaMA-Factory does not swallow the next word, built or not."""
    found = parse_arguments(["--disable_gradient_checkpointing", "a.yaml", "--use_badam", "b.yaml"])
    assert found.files == ("a.yaml", "b.yaml")


@pytest.mark.parametrize("word", ["-x", "-lora_rank"])
def test_single_dash_is_refused(word: str) -> None:
    """Options have two dashes."""
    with pytest.raises(UsageError, match=f"command line: {word} is not an option; options begin with two dashes: --name value"):
        parse_arguments([word])


def test_nothing_is_evaluated(tmp_path: Path) -> None:
    """A literal is data: an expression with an effect is refused as text that is no mapping."""
    target = tmp_path / "made"
    with pytest.raises(Exception, match="neither JSON nor a Python literal"):
        read_config([f"lr_scheduler_kwargs={{'a': open({str(target)!r}, 'w')}}"])
    assert not target.exists()
