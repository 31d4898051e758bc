"""The report as a page that stands alone: it loads nothing and runs nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from tunewright.data.doctor.drawing import drawing
from tunewright.data.doctor.finding import LEVELS, Finding, Place
from tunewright.data.doctor.report import DoctorReport, SetReport, TokenReport
from tunewright.data.marks import escaped
from tunewright.data.spread import Spread

_TITLE: Final = "tunewright data check"


def page(report: DoctorReport) -> str:
    """Verdict, sets with their histograms, findings with their first places. Every text of the data is escaped."""
    body = [_verdict(report), *(_set(one, report.cutoff_len) for one in report.sets), _findings(report.findings)]
    return _PAGE.format(title=_TITLE, style=_STYLE, body="\n".join(body))


def _verdict(report: DoctorReport) -> str:
    if not report.problems:
        counts = {level: sum(one.level == level for one in report.findings) for level in LEVELS}
        told = ", ".join(f"{count} {level}{'s' if count != 1 else ''}" for level, count in counts.items())
        return f'<p class="verdict ok">A run can use this data: {told}.</p>'
    items = "".join(f"<li>{escaped(one.line())}</li>" for one in report.problems)
    return f'<p class="verdict bad">A run would be refused:</p><ul>{items}</ul>'


def _set(one: SetReport, cutoff_len: int) -> str:
    found = one.tally.to_json()
    reasons = "".join(_row((reason["action"], reason["reason"], reason["count"], reason["first"])) for reason in found["reasons"])
    table = f"<table><tr><th>what</th><th>why</th><th>rows</th><th>first</th></tr>{reasons}</table>" if reasons else ""
    sizes = _tokens(one.tokens, cutoff_len) if one.tokens is not None else _figure(
        "length in characters", one.characters, drawing(one.character_histogram, "characters"))
    how = "".join(f"<p>{escaped(line)}</p>" for line in (one.how, *one.more()))
    return (f"<section><h2>{escaped(one.name)} <small>{escaped(one.split)}</small></h2>{how}"
            f"<p>{found['rows']} rows read, {found['kept']} used, {found['dropped']} dropped, {found['changes']} changes.</p>"
            f"{table}{sizes}</section>")


def _tokens(found: TokenReport, cutoff_len: int) -> str:
    told = (f"<p>{found.trained.total} of {found.lengths.total} tokens are trained ({found.trained_fraction:.1%}); "
            f"{found.over_cutoff} rows are longer than cutoff_len {cutoff_len}, {found.hardly_trained} are hardly trained.</p>")
    return (told + _figure("length in tokens", found.lengths, drawing(found.length_histogram, "tokens", cutoff_len))
            + _figure("trained tokens of a row", found.trained, drawing(found.trained_histogram, "trained tokens")))


def _figure(title: str, spread: Spread, picture: str) -> str:
    return f"<figure>{picture}<figcaption>{escaped(title)}: {escaped(spread)}</figcaption></figure>"


def _findings(findings: Sequence[Finding]) -> str:
    if not findings:
        return "<section><h2>Findings</h2><p>None.</p></section>"
    return "<section><h2>Findings</h2>" + "".join(map(_finding, findings)) + "</section>"


def _finding(one: Finding) -> str:
    head = (f'<h3><span class="{one.level}">{one.level}</span> {escaped(one.dataset)}: {escaped(one.what)}</h3>'
            f"<p>{escaped(one.mend)} <code>{escaped(one.check)}</code></p>")
    return head + (_places(one) if one.places else "")


def _places(one: Finding) -> str:
    rest = one.count - len(one.places)
    more = f"<p>and {rest} more</p>" if rest > 0 and one.check != "repeated-answer" else ""
    rows = "".join(_row(_cells(place)) for place in one.places)
    return f"<details><summary>first places</summary><table>{rows}</table>{more}</details>"


def _cells(place: Place) -> tuple[object, ...]:
    return place.origin, place.detail


def _row(cells: Sequence[object]) -> str:
    return "<tr>" + "".join(f"<td>{escaped(cell)}</td>" for cell in cells) + "</tr>"


_STYLE: Final = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem; color: #222; background: #fff }
h1 { font-size: 1.3rem } h2 { font-size: 1.1rem; margin-top: 2rem } h3 { font-size: .95rem; margin-bottom: 0 }
small, code { color: #777; font-weight: normal } p { margin: .3rem 0 }
figure { margin: 1rem 0 } figcaption { font-size: .85rem; color: #666 }
table { border-collapse: collapse; font-size: .85rem }
td, th { border: 1px solid #ddd; padding: .2rem .5rem; text-align: left; overflow-wrap: anywhere }
h3 span { border-radius: 4px; padding: 0 .4rem; font-size: .8rem }
.ok { color: #064 } .bad { color: #a11 }
.error { color: #fff; background: #b22 } .warning { color: #222; background: #fc6 } .note { color: #222; background: #cde }
svg { max-width: 100%; height: auto } svg rect { fill: #39c } svg text { fill: #666; font-size: 11px }
svg line { stroke: #999 } svg .limit { stroke: #c33 }
@media (prefers-color-scheme: dark) {
body { color: #ddd; background: #181818 } td, th { border-color: #444 } small, code, figcaption { color: #999 } svg text { fill: #999 }
.ok { color: #8d8 } .bad { color: #f88 } }
"""
_PAGE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width"><style>{style}</style></head>
<body><h1>{title}</h1>
{body}
</body></html>
"""
