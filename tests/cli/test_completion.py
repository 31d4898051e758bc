"""Completion scripts: what a shell itself makes of them is the oracle."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from tunewright.commands.completion import SHELLS, values_of
from tunewright.config.table import table


def bash(words: list[str]) -> list[str]:
    """What bash offers for a command line whose last word is being typed."""
    script = SHELLS["bash"]() + (
        'COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _tunewright; printf "%s\\n" "${COMPREPLY[@]}"\n')
    done = subprocess.run(["bash", "-c", script, "bash", *words], capture_output=True, text=True, check=True)
    return done.stdout.split()


@pytest.mark.parametrize(("words", "offered"), [
    (["tunewright", "expl"], ["explain"]),
    (["tw", "train", "--lora_ra"], ["--lora_rank"]),
    (["tunewright", "data", "ch"], ["check"]),
    (["tunewright", "train", "--finetuning_type", "fr"], ["freeze"]),
    (["tunewright", "train", "finetuning_type", "=", "fu"], ["full"]),
    (["tunewright", "train", "finetuning_type", "="], ["lora", "freeze", "full", "none"]),
    (["tunewright", "train", "--full_determinism", "t"], ["true"]),
    (["tunewright", "train", "lora_alph"], ["lora_alpha="]),
])
def test_bash_offers(words: list[str], offered: list[str]) -> None:
    """Commands, names with and without dashes, choices after a blank and after the equals sign."""
    assert bash(words) == offered


@pytest.mark.parametrize("shell", SHELLS)
def test_every_parameter_and_choice_is_in_the_script(shell: str) -> None:
    """Nothing is left out, and a shell that is installed can read the script."""
    script = SHELLS[shell]()
    for field, row in table().items():
        assert field in script and all(value in script for value in values_of(row))
    if shutil.which(shell):
        subprocess.run([shell, "-n", "-c", script] if shell != "fish" else ["fish", "--no-execute", "-c", script], check=True)
