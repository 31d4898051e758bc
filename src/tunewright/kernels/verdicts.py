"""What was proven of a model's fast paths, kept for its next run: a proof costs passes through the model and finds the same every time.

A proof compares two ways to compute with the same weights, of the shapes that the model has. What it finds depends on the model's
configuration and structure, on the code of both ways, on torch and on the device. All of that is the name under which a verdict is
kept; the numbers in the weights are not. A verdict against a path (a text: the reason) is not kept: it may come from weights that are
broken. A file that is damaged is as if it were not there.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar, cast

import torch

from tunewright import __version__
from tunewright.durable import make_directory
from tunewright.durable import sha256 as file_digest
from tunewright.models.demo_model import cache_root

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

Verdict = TypeVar("Verdict")
_MOST_FILES: Final = 100
"""The newest stay."""


class Ask(Protocol):
    """Answers a question by its proof, or by what an earlier proof of the same has found. A verdict is something that JSON can say."""

    def __call__(self, question: str, proof: Callable[[], Verdict]) -> Verdict:
        """The verdict."""


def prove_anew(question: str, proof: Callable[[], Verdict]) -> Verdict:
    """The verdict of the proof itself."""
    return proof()


class Verdicts:
    """The verdicts on one model. `file`: where they are kept, whether it is there or not."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._known, self._found = _read(file), dict[str, Any]()
        self._questions, self._proofs, self._seconds = 0, 0, 0.0

    @classmethod
    def of(cls, model: PreTrainedModel) -> Verdicts:
        """Those on a model as it is now: call it before anything of the model is replaced."""
        return cls(folder() / f"{_digest(facts(model))}.json")

    def ask(self, question: str, proof: Callable[[], Verdict]) -> Verdict:
        """What is known, or the verdict of the proof."""
        self._questions += 1
        if question in self._known:
            return cast("Verdict", self._known[question])
        began = time.monotonic()
        found = proof()
        self._proofs, self._seconds = self._proofs + 1, self._seconds + time.monotonic() - began
        if not isinstance(found, str):
            self._found[question] = self._known[question] = found
        return found

    def keep(self) -> tuple[str, ...]:
        """Keep what was found; a line that says so, if anything was asked."""
        if not self._proofs:
            return (f"these paths were proven by an earlier run: {self.file}",) if self._questions else ()
        made = f"{self._proofs} proofs of these paths took {self._seconds:.1f} s"
        if not self._found:
            return (made,)
        try:
            _write(self.file, self._known)
        except OSError as error:
            return (f"{made}; they are not kept: {error.strerror} ({self.file.parent})",)
        return (f"{made}; kept in {self.file}",)


def folder() -> Path:
    """Where verdicts are kept; it may be removed at any time."""
    return cache_root() / "kernels"


def facts(model: PreTrainedModel) -> dict[str, Any]:
    """All that a proof depends on but its question."""
    config = {name: value for name, value in model.config.to_dict().items() if name != "_name_or_path"}
    return {
        "config": config,
        "modules": [(name, _class(module), "forward" in module.__dict__) for name, module in model.named_modules()],
        "weights": [(name, tuple(one.shape), one.dtype, one.device.type) for name, one in model.named_parameters()],
        "forwards": sorted({_forward(type(module)) for module in model.modules()}),
        "code": sorted(file_digest(path) for path in _sources(model)),
        "versions": (__version__, torch.__version__, platform.python_version(), *map(version, ("transformers", "peft"))),
        "device": (_processor(model.device), torch.get_float32_matmul_precision()),
    }


def _class(module: nn.Module) -> str:
    return f"{type(module).__module__}.{type(module).__qualname__}"


def _forward(kind: type[nn.Module]) -> tuple[str, ...]:
    """The code that a class of modules has for its forward at this moment: other packages may have replaced it."""
    code = getattr(kind.forward, "__code__", None)
    return (kind.__qualname__, "") if code is None else (kind.__qualname__, code.co_filename, str(code.co_firstlineno), code.co_code.hex())


def _sources(model: nn.Module) -> set[Path]:
    """Files of the model's modules, torch's apart, and of this folder."""
    modules = {type(module).__module__ for module in model.modules()}
    files = {getattr(sys.modules[name], "__file__", None) for name in modules if name.partition(".")[0] != "torch"}
    return {*Path(__file__).parent.glob("*.py"), *(Path(file) for file in files if file is not None)}


def _processor(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} {platform.machine()} {torch.backends.cpu.get_cpu_capability()}"


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def _read(file: Path) -> dict[str, Any]:
    """What a file says; nothing if it is absent or not as it was written."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    verdicts = content.get("verdicts") if isinstance(content, dict) else None
    is_whole = isinstance(verdicts, dict) and content.get("sha256") == _digest(verdicts)
    return dict(verdicts) if is_whole and verdicts is not None else {}


def _write(file: Path, verdicts: Mapping[str, Any]) -> None:
    """In one piece, though several ranks may do so at once; the oldest of too many files go."""
    make_directory(file.parent)
    descriptor, fresh = tempfile.mkstemp(prefix=".", suffix=".new", dir=file.parent)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        json.dump({"sha256": _digest(verdicts), "verdicts": verdicts}, stream, indent=1)
    os.replace(fresh, file)
    for old in sorted(file.parent.glob("*.json"), key=_age)[_MOST_FILES:]:
        old.unlink(missing_ok=True)


def _age(file: Path) -> float:
    """Files that another rank has just removed are the oldest."""
    try:
        return -file.stat().st_mtime
    except FileNotFoundError:
        return 0.0
