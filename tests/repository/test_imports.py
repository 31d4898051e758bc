"""Who may import what, beyond the doors that import-linter watches."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from functools import cache

import pytest

from tests.repository.source import ROOT, imported, imported_on_import, modules

OPTIONAL = ("jieba", "nltk", "rouge_chinese", "tensorboard", "torch.utils.tensorboard", "matplotlib", "gguf", "datasets", "bitsandbytes",
            "deepspeed", "wandb", "mlflow", "swanlab", "trackio", "liger_kernel", "flash_attn", "vllm", "gradio", "fastapi", "openai")
"""Packages that a run can do without: one module of ours stands between each of them and the rest."""

HEAVY = frozenset({"torch", "transformers", "peft", "accelerate", "datasets", "tokenizers", "safetensors", "pyarrow", "numpy", "matplotlib",
                   "jieba", "nltk", "rouge_chinese", "tensorboard", "gguf", "scipy", "pandas"})

LIGHT = ("tunewright", "tunewright.cli", "tunewright.errors", "tunewright.registry", "tunewright.config", "tunewright.dialects",
         "tunewright.commands")
"""These and all below them start in a blink, so nothing heavy is imported at the top of a module."""

DISTRIBUTION = {"yaml": "pyyaml", "rouge_chinese": "rouge-chinese"}
"""Packages whose distribution has another name."""


SEVERAL = {"bitsandbytes": {"tunewright.engine.optimizers.bitsandbytes", "tunewright.quantization.bitsandbytes"}}
"""Packages that are two libraries under one name: bitsandbytes' optimizers and its quantised weights have nothing in common, and belong
to rooms that must not know each other."""


@pytest.mark.parametrize("package", OPTIONAL)
def test_an_optional_package_has_one_importer(package: str) -> None:
    """Counted over all imports, inside functions too."""
    importers = {module.name for module in modules() for name, _ in imported(module.tree)
                 if name == package or name.startswith(package + ".")}
    assert len(importers) <= 1 or importers <= SEVERAL.get(package, set()), f"{package} is imported in {sorted(importers)}; leave one"


def test_light_modules_import_nothing_heavy_at_their_top() -> None:
    """Commands import what they need inside their functions."""
    found = [f"{module.path}:{line} {name}" for module in modules() if _is_light(module.name)
             for name, line in imported_on_import(module.tree) if name.split(".")[0] in HEAVY]
    assert found == []


def test_importing_the_light_modules_loads_nothing_heavy() -> None:
    """Seen from outside, in a new interpreter: what a command-line start really loads."""
    names = [module.name for module in modules() if _is_light(module.name) and not module.name.endswith("__main__")]
    code = f"import importlib, sys\nfor name in {names!r}: importlib.import_module(name)\nprint(*sorted({set(HEAVY)!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT / "src")
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, [], "")


def test_every_import_is_declared() -> None:
    """Each package that the source imports is a dependency or an extra of pyproject.toml; nothing comes by luck."""
    declared = {name for names in _requirements().values() for name in names}
    used = {name.split(".")[0] for module in modules() for name, _ in imported(module.tree)}
    third_party = used - set(sys.stdlib_module_names) - {"tunewright"}
    assert {DISTRIBUTION.get(name, name).replace("_", "-").lower() for name in third_party} - declared - _asked_for_by_value() == set()


def test_what_is_declared_is_used() -> None:
    """A dependency of the core that no module imports is dead weight; tools and what others load are named here."""
    used = {DISTRIBUTION.get(name.split(".")[0], name.split(".")[0]).replace("_", "-").lower()
            for module in modules() for name, _ in imported(module.tree)}
    # transformers reads GGUF files, renders chat templates and calls FlashAttention; torch writes TensorBoard files.
    loaded_by_others = {"gguf", "jinja2", "flash-attn", "tensorboard"}
    declared = {name for extra, names in _requirements().items() if extra != "dev" for name in names}
    assert declared - used - loaded_by_others == set()


def _is_light(name: str) -> bool:
    return name == "tunewright" or any(name == light or name.startswith(light + ".") for light in LIGHT[1:])


def _asked_for_by_value() -> set[str]:
    """Packages that only a value of a parameter asks for and that install outside our extras."""
    return {"flash-attn"}


@cache
def _requirements() -> dict[str, set[str]]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    groups = {"": project["dependencies"], **project["optional-dependencies"]}
    return {extra: {re.split(r"[<>=!~\[; ]", line)[0].lower() for line in lines} for extra, lines in groups.items()}
