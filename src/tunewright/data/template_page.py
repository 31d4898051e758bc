"""docs/templates.md: every name of a template with its source and its policy. Standard library only."""

from __future__ import annotations

from typing import Final

from tunewright.data.template_table import THINK, Policy, policies, tool_format_names

_HEAD: Final = """# Chat templates

Generated from `src/tunewright/assets/templates/table.json`; do not edit. `tunewright template show NAME` shows a template's text,
`tunewright template check --model DIR` whether training, generation, the tokenizer's own template and the exported one agree.

`template: auto` is the tokenizer's own template, and the right choice wherever there is one. The names below are LLaMA-Factory's and a
few more; they render as the models' vendors do, where these are known to differ from LLaMA-Factory. A name whose source is `tokenizer`
means the tokenizer's own template, for the reason given. Rows with pictures, sound or video are refused: for the models marked as text
only, the text part of their format works. Each answer is trained with the literal that closes it, which also ends generation, so that
EOS need not be replaced; formats that leave earlier answers open close the last one with EOS.

Tools (`tool_format`) can be written in another format than the template's own: {formats}.

| Name | Source | Own system prompt | System prompt stands | Ends generation too | Around thoughts | Tools | Remarks |
|---|---|---|---|---|---|---|---|
"""


def templates_text() -> str:
    """The page."""
    rows = "".join(f"| {' | '.join(_cells(policy))} |\n" for policy in policies().values())
    return _HEAD.format(formats=", ".join(f"`{name}`" for name in tool_format_names())) + rows


def _cells(policy: Policy) -> list[str]:
    names = ", ".join(f"`{name}`" for name in (policy.name, *policy.aliases))
    default = (policy.default_system or "").strip().replace("\n", " ").replace("|", "\\|")
    remarks = [f"like `{policy.like}`" if policy.like else "", "text only" if policy.media else "", policy.tokenizer or "",
               "thinking is always off" if policy.never_thinks else "", "earlier answers are not closed" if policy.is_open else ""]
    return [names, f"`{policy.origin}`", default if len(default) < 60 else default[:57] + "...",
            "in the first question" if policy.folds_system else "", _code(*policy.stops, *policy.also_stop),
            _code(*policy.thought) if policy.thought != THINK else "", _code(policy.tools) if policy.tools else "",
            "; ".join(filter(None, remarks))]


def _code(*texts: str) -> str:
    return " ".join(f"`{text.strip()}`".replace("|", "\\|") for text in texts)
