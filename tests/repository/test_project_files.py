"""The files around the code: links that lead somewhere, words that do not belong, generated files that are fresh."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.repository.source import ROOT, tracked_files

PAGES = sorted(path for path in tracked_files() if path.suffix == ".md")
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
FRAGMENT = re.compile(r"[a-z0-9-]+\.(added|changed|fixed|removed)\.md")
MACHINE_WORDS = re.compile(
    "|".join(["/wor" + "k/", "/opt/(wheels|py" + "pi)", "/ro" + "ot/", "files\\.python" + "hosted\\.org", "py" + "pi\\.org",
              "-----BEGIN [A-Z ]*PRIVATE" + " KEY", "hf_[A-Za-z0-9]{20,}", "AKIA[0-9A-Z]{16}"]))
"""Paths of one machine, hosts of registries and secrets; written apart here so that this file does not hold them."""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_leads_somewhere(page: Path) -> None:
    """Links inside the repository point at files that are there, pictures included."""
    targets = [target.split("#")[0] for target in LINK.findall(page.read_text(encoding="utf-8")) if "://" not in target]
    assert [target for target in targets if target and not (page.parent / target).exists()] == []


def test_every_page_is_reached_from_the_readme() -> None:
    """Following links from README.md; the fragments of the changelog are reached through their folder."""
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop().resolve()
        if page in reached or not page.is_file():
            continue
        reached.add(page)
        if page.suffix == ".md":
            links = LINK.findall(page.read_text(encoding="utf-8"))
            waiting += [page.parent / link.split("#")[0] for link in links if "://" not in link]
    pages = {page.resolve() for page in PAGES if not FRAGMENT.fullmatch(page.name) and "tests" not in page.relative_to(ROOT).parts
             and "src" not in page.relative_to(ROOT).parts}
    assert {page.relative_to(ROOT.resolve()).as_posix() for page in pages - reached} == set()


def test_papers_are_found_in_the_code() -> None:
    """Each file that docs/papers.md names is there, and the name behind it is defined in it."""
    text = (ROOT / "docs" / "papers.md").read_text(encoding="utf-8")
    wrong = []
    for file, name in re.findall(r"`([\w/]+\.py)`(?: `(\w+)`)?", text):
        path = ROOT / "src" / "tunewright" / file
        if not path.is_file() or (name and not re.search(rf"^(def|class) {name}\b", path.read_text(encoding="utf-8"), re.MULTILINE)):
            wrong.append(f"{file} {name}")
    assert wrong == []


def test_no_file_names_a_machine_or_holds_a_secret() -> None:
    """Every tracked text file."""
    found = []
    for path in tracked_files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += [f"{path.relative_to(ROOT)}: {match[0]}" for match in MACHINE_WORDS.finditer(text)]
    assert found == []


def test_fragments_of_the_changelog_are_named_by_their_kind_and_say_something() -> None:
    """`<topic>.<kind>.md` with at least one sentence."""
    files = [path for path in (ROOT / "changelog.d").iterdir() if path.name != "README.md"]
    texts = {path.name: path.read_text(encoding="utf-8").strip() for path in files}
    assert [name for name, text in texts.items() if not FRAGMENT.fullmatch(name) or not text.endswith(".")] == []


def test_the_licence_is_the_whole_apache_licence() -> None:
    """Its first and last sentences and the length of the text as the foundation publishes it."""
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert (text.split("\n")[1].strip(), text.rstrip().split("\n")[-1].strip(), len(text)) == (
        "Apache License", "limitations under the License.", 11358)


def test_scripts_that_are_started_can_be_started() -> None:
    """Git keeps the executable bit; CI starts .ci/run."""
    assert [name for name in (".ci/run", "scripts/test.sh", "scripts/lint.sh") if not os.access(ROOT / name, os.X_OK)] == []


def test_generated_files_are_fresh() -> None:
    """The parameters' reference, the schema and the figures of the README, against what would be written now."""
    assert generator().stale() == []


def test_figures_of_a_report_are_shown_as_they_are() -> None:
    """Worked by hand: shares as percent with one digit, minutes and gigabytes with one, tokens per second whole."""
    report = {"exact_match_before": 0.0, "exact_match_after": 0.935, "train_minutes": 3.46, "tokens_per_second": 187.4,
              "peak_memory_gb": 2.04, "model": "M", "versions": {"torch": "2.13.0"}}
    assert generator().figures(report) == (
        "| | |\n|---|---|\n| model | M |\n| exact match before | 0.0 % |\n| exact match after | 93.5 % |\n"
        "| training | 3.5 minutes, 187 tokens/s |\n| peak memory | 2.0 GB |\n| versions | torch 2.13.0 |\n")


def test_a_report_without_its_figures_is_not_adopted(tmp_path: Path) -> None:
    """A demo that did not end leaves the README as it is."""
    report = tmp_path / "report.json"
    report.write_text(json.dumps({"model": "M", "versions": {}}), encoding="utf-8")
    before = (ROOT / "README.md").read_bytes()
    done = subprocess.run([sys.executable, ROOT / "scripts" / "generate.py", "--adopt-demo-report", report],
                          capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr, (ROOT / "README.md").read_bytes() == before) == (
        1, f"error: {report}: no exact_match_before, exact_match_after, train_minutes, tokens_per_second, peak_memory_gb; "
           "run `make demo` to its end\n", True)


def generator() -> ModuleType:
    """scripts/generate.py as a module."""
    spec = importlib.util.spec_from_file_location("generate", ROOT / "scripts" / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
