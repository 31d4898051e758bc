"""The page: well-formed, alone, and nothing that rows, files or labels hold can act in it."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tunewright.config.data import DataConfig
from tunewright.config.run import RunConfig
from tunewright.data.doctor.drawing import drawing
from tunewright.data.doctor.examine import Plan, examine
from tunewright.data.doctor.histogram import Histogram
from tunewright.data.doctor.page import page
from tunewright.data.doctor.report import DoctorReport
from tunewright.data.marks import visible

HOSTILE = "<script>alert(1)</script>\"'&<img src=x onerror=y>\u202e\x1b[31m"
ALONE = {"meta"}


class Parsed(HTMLParser):
    """Tags that are open, all tags with their attributes, all text; fails where a tag is not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ALONE:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DoctorReport:
    """Of a file whose name, roles, labels and texts are hostile."""
    monkeypatch.chdir(tmp_path)
    name = "<script>.jsonl"
    rows = [{"messages": [{"role": "user", "content": HOSTILE}, {"role": "assistant", "content": HOSTILE}], "category": HOSTILE},
            {"messages": [{"role": "user", "content": "a\ufffd"}, {"role": "assistant", "content": "b"}], "category": "b"},
            {"messages": [{"role": HOSTILE, "content": "a"}, {"role": "assistant", "content": "b"}]}]
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = RunConfig(data=DataConfig(dataset=(name,)))
    return examine(Plan(run, None, 4, lambda line: None, lambda line: None))


def test_page_is_well_formed_and_alone(report: DoctorReport) -> None:
    """No script, no address, no handler; the policy forbids all of them too; what was hostile is text."""
    text = page(report)
    parsed = Parsed(text)
    assert {tag for tag, _ in parsed.tags} <= {
        "html", "head", "meta", "title", "style", "body", "h1", "h2", "h3", "p", "section", "small", "code", "span", "table", "tr", "th",
        "td", "figure", "figcaption", "details", "summary", "svg", "rect", "line", "text", "ul", "li"}
    attributes = {name for _, found in parsed.tags for name in found}
    assert not {name for name in attributes if name.startswith("on")} and not attributes & {"src", "href", "style"}
    assert ("meta", {"http-equiv": "Content-Security-Policy", "content": "default-src 'none'; style-src 'unsafe-inline'"}) in parsed.tags
    assert "<script>alert(1)</script>" in parsed.text and "<script" not in text
    assert "prefers-color-scheme: dark" in text
    assert not re.search("[\x00-\x09\x0b-\x1f\u202e]", text)


def test_page_tells_what_the_report_tells(report: DoctorReport) -> None:
    """Every finding and every first place is there."""
    parsed = Parsed(page(report))
    for finding in report.findings:
        assert visible(finding.what) in parsed.text and finding.check in parsed.text
        for place in finding.places:
            assert visible(str(place.origin)) in parsed.text and visible(place.detail) in parsed.text
    assert {one.check for one in report.findings} >= {
        "dropped-row", "answer-is-question", "replacement-character", "unseen-character", "labels"}


def test_page_of_refused_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The verdict comes first."""
    monkeypatch.chdir(tmp_path)
    Path("d.jsonl").write_text('{"instruction": "a", "output": ""}\n')
    run = RunConfig(data=DataConfig(dataset=("d.jsonl", "absent.jsonl")))
    text = Parsed(page(examine(Plan(run, None, 4, lambda line: None, lambda line: None)))).text
    assert "A run would be refused:" in text
    assert "d.jsonl: no trainable token in 1 of 1 rows" in text and "`absent.jsonl` is not a name in" in text


def test_histogram_is_drawn_to_scale() -> None:
    """Three bins of 1, 0 and 4 rows: bars a quarter, none and all of the height; the limit stands at the end of its bin."""
    parsed = Parsed(drawing(Histogram((0, 10, 20, 30), (1, 0, 4)), "tokens", 19))
    bars = [found for tag, found in parsed.tags if tag == "rect"]
    heights = [float(str(found["height"])) for found in bars]
    assert heights == pytest.approx([heights[2] / 4, 0, heights[2]], abs=0.1)
    assert "0 to 9: 1" in parsed.text and "20 to 29: 4" in parsed.text
    limit = next(found for tag, found in parsed.tags if tag == "line" and found.get("class") == "limit")
    assert float(str(limit["x1"])) == pytest.approx(float(str(bars[2]["x"])), abs=0.1)
    assert "limit" not in drawing(Histogram((0, 10), (3,)), "tokens", 10)
