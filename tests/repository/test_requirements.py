"""pyproject.toml, constraints.txt and the installed packages agree."""

from __future__ import annotations

import importlib.metadata
import re
import tomllib

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.repository.source import ROOT, modules

ACCELERATOR = re.compile(r"nvidia-|cuda-|triton|pytorch-triton")
"""What torch brings on machines with an accelerator; torch itself fixes these versions."""


UNTESTED_EXTRAS = {"flash", "liger"}
"""Extras that need an accelerator to be built, and so are neither pinned nor installed by the tests."""


def test_every_requirement_is_pinned_inside_its_range() -> None:
    """constraints.txt has one exact version for each requirement, and the requirement's range allows it."""
    pins = _pins()
    pinned = {str(one): pins.get(canonicalize_name(one.name)) for one in _requirements()}
    wrong = [str(one) for one in _requirements() if pinned[str(one)] is None or str(pinned[str(one)]) not in one.specifier]
    assert wrong == []


def test_everything_the_requirements_bring_is_pinned() -> None:
    """Walks the metadata of the installed packages from our requirements on; a package without a pin would float."""
    pins = _pins()
    brought: set[str] = set()
    waiting = [(one.name, tuple(one.extras)) for one in _requirements()]
    while waiting:
        name, extras = waiting.pop()
        if canonicalize_name(name) in brought or ACCELERATOR.match(name):
            continue
        brought.add(canonicalize_name(name))
        for line in importlib.metadata.requires(name) or []:
            needed = Requirement(line)
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
                waiting.append((needed.name, tuple(needed.extras)))
    assert brought - set(pins) == set()


def test_the_tests_ran_with_the_pinned_versions() -> None:
    """A green run speaks for the versions of constraints.txt only if these are the ones installed (`2.13.0+cpu` is 2.13.0)."""
    pins = _pins()
    names = {canonicalize_name(one.name) for one in _requirements()}
    installed = {name: Version(Version(importlib.metadata.version(name)).public) for name in names}
    assert installed == {name: pins[name] for name in names}


def test_error_messages_name_extras_that_exist() -> None:
    """`missing_package(..., extra=...)` prints an install command; the extra must be one of pyproject.toml."""
    named = set(re.findall(r'(?:extra=|EXTRA[^=]*= )"(\w+)"', "".join(module.text for module in modules())))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert named - set(project["optional-dependencies"]) == set()


def _pins() -> dict[str, Version]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): Version(version) for name, version in pairs}


def _requirements() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [lines for extra, lines in project["optional-dependencies"].items() if extra not in UNTESTED_EXTRAS]
    return [Requirement(line) for lines in (project["dependencies"], *extras) for line in lines]
