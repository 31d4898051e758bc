"""Shows which tokens of an example are trained: lines for a terminal, a page for a browser. Pure; no output here."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from tunewright.data import marks
from tunewright.data.records import IGNORE_INDEX, Origin

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from tunewright.data.collate import Example

Kind = Literal["trained", "context", "note"]

_MOST_TOKENS_PER_CHARACTER = 8
_MARKS = {0: "", 1: ", called desirable", -1: ", called undesirable"}
_SHOWN = {"\t": "⇥", "\n": "\n"}


class ShownToken(NamedTuple):
    """One token, or the few tokens that only together make a character; `position` is counted within the segment."""

    text: str
    ids: tuple[int, ...]
    is_trained: bool
    segment: int
    position: int


class Part(NamedTuple):
    """Text of one kind."""

    text: str
    kind: Kind


Line = tuple[Part, ...]


def shown_tokens(example: Example, tokenizer: PreTrainedTokenizerBase) -> list[ShownToken]:
    """The tokens of an example, in order."""
    ids = [int(one) for one in example.input_ids]
    trained = example.labels != IGNORE_INDEX
    segments = np.repeat(np.arange(len(example.bounds) - 1), np.diff(example.bounds))
    shown: list[ShownToken] = []
    at = 0
    while at < len(ids):
        alike = [end for end in range(at + 1, min(at + _MOST_TOKENS_PER_CHARACTER, len(ids)) + 1)
                 if len(set(trained[at:end].tolist())) == 1 and segments[end - 1] == segments[at]]
        end = next((end for end in alike if "\ufffd" not in tokenizer.decode(ids[at:end])), at + 1)
        segment = int(segments[at])
        shown.append(ShownToken(tokenizer.decode(ids[at:end], clean_up_tokenization_spaces=False), tuple(ids[at:end]),
                                bool(trained[at]), segment, at - int(example.bounds[segment])))
        at = end
    return shown


def preview_lines(example: Example, tokenizer: PreTrainedTokenizerBase, origins: Sequence[Origin],
                  names: Sequence[str] = ()) -> list[Line]:
    """The example as text, each segment under a heading, by `names` if there are any; trained tokens are parts of their own kind."""
    lines: list[Line] = [_heading(example, origins, names)]
    for segment, tokens in _by_segment(example, tokenizer):
        lines.append((Part(_segment_heading(example, segment, origins, names), "note"),))
        line: list[Part] = []
        for token in tokens:
            *before, last = visible(token.text).split("\n")
            kind: Kind = "trained" if token.is_trained else "context"
            for piece in before:
                lines.append((*line, Part(piece + "⏎", kind)))
                line = []
            line.append(Part(last, kind))
        lines.append(tuple(line))
    return [_joined(line) for line in lines]


def token_lines(example: Example, tokenizer: PreTrainedTokenizerBase, origins: Sequence[Origin],
                names: Sequence[str] = ()) -> list[Line]:
    """The example as a table, one token in each line: segment, position, id, text."""
    lines: list[Line] = [_heading(example, origins, names)]
    for segment, tokens in _by_segment(example, tokenizer):
        lines.append((Part(_segment_heading(example, segment, origins, names), "note"),))
        for token in tokens:
            ids = " ".join(map(str, token.ids))
            place = f"  {_name(token.segment, names)}  position {token.position:>5}  id {ids:>7}  "
            text = visible(token.text).replace("\n", "⏎")
            lines.append((Part(place, "note"), Part(text, "trained" if token.is_trained else "context")))
    return lines


def plain(line: Line) -> str:
    """A line without colour: trained text stands in ⟦ ⟧."""
    return "".join(f"⟦{part.text}⟧" if part.kind == "trained" and part.text else part.text for part in line)


def preview_html(shown: Sequence[tuple[Example, Sequence[Origin]]], tokenizer: PreTrainedTokenizerBase, title: str,
                 names: Sequence[str] = ()) -> str:
    """A page that stands alone and loads nothing; hovering over a token tells its id, position and segment."""
    body: list[str] = []
    for example, origins in shown:
        body.append(f"<h2>{_escaped(plain(_heading(example, origins, names)))}</h2>")
        for segment, tokens in _by_segment(example, tokenizer):
            body.append(f"<h3>{_escaped(_segment_heading(example, segment, origins, names))}</h3>")
            body.append("<pre>" + "".join(map(_token_html, tokens)) + "</pre>")
    return _PAGE.format(title=_escaped(title), style=_STYLE, body="\n".join(body))


def visible(text: str) -> str:
    """Text in which control and direction characters are written out, so that they cannot act on a terminal or a page."""
    return marks.visible(text, _SHOWN)


def _heading(example: Example, origins: Sequence[Origin], names: Sequence[str]) -> Line:
    trained = int((example.labels != IGNORE_INDEX).sum())
    total = len(example.input_ids)
    share = f"{trained / total:.1%}" if total else "none"
    packed = f", {len(origins)} rows packed" if len(origins) > 1 and not names else ""
    return (Part(f"row {example.sample_id}: {total} tokens, {trained} trained ({share}){packed}{_MARKS[example.mark]}", "note"),)


def _segment_heading(example: Example, segment: int, origins: Sequence[Origin], names: Sequence[str]) -> str:
    begin, end = int(example.bounds[segment]), int(example.bounds[segment + 1])
    trained = int((example.labels[begin:end] != IGNORE_INDEX).sum())
    return f"{_name(segment, names)}, positions 0-{end - begin - 1}, {trained} trained, from {visible(str(origins[segment]))}"


def _name(segment: int, names: Sequence[str]) -> str:
    return names[segment] if names else f"segment {segment}"


def _by_segment(example: Example, tokenizer: PreTrainedTokenizerBase) -> Iterator[tuple[int, list[ShownToken]]]:
    tokens = shown_tokens(example, tokenizer)
    for segment in range(len(example.bounds) - 1):
        yield segment, [token for token in tokens if token.segment == segment]


def _joined(line: Line) -> Line:
    """Neighbours of one kind as one part."""
    parts: list[Part] = []
    for part in line:
        if parts and parts[-1].kind == part.kind:
            parts[-1] = Part(parts[-1].text + part.text, part.kind)
        else:
            parts.append(part)
    return tuple(parts)


def _token_html(token: ShownToken) -> str:
    ids = ", ".join(map(str, token.ids))
    tag = "ins" if token.is_trained else "span"
    text = _escaped(visible(token.text)).replace("\n", "⏎\n")
    return f'<{tag} title="id {ids}, position {token.position}, segment {token.segment}">{text}</{tag}>'


def _escaped(text: str) -> str:
    return html.escape(text, quote=True)


_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem; color: #222; background: #fff }
h1 { font-size: 1.3rem } h2 { font-size: 1.05rem; margin-top: 2rem } h3 { font-size: .85rem; font-weight: normal; color: #666 }
pre { white-space: pre-wrap; overflow-wrap: anywhere; border: 1px solid #ddd; border-radius: 6px; padding: .8rem }
span { color: #777 } ins { color: #064; background: #dff5e3; text-decoration: underline; text-decoration-color: #2a7 }
ins:hover, span:hover { outline: 1px solid #39c }
@media (prefers-color-scheme: dark) {
body { color: #ddd; background: #181818 } pre { border-color: #444 } span { color: #999 } ins { color: #bfb; background: #133a20 } }
"""
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width"><style>{style}</style></head>
<body><h1>{title}</h1><p><ins>Underlined</ins> tokens are trained; <span>grey</span> ones are context.</p>
{body}
</body></html>
"""
