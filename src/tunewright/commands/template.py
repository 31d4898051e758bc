"""`tunewright template`: the templates that have a name, and whether one says the same in training, in generation and once exported."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tunewright.data.template_table import Policy
from tunewright.errors import UsageError

if TYPE_CHECKING:
    from tunewright.data.template_check import Compared

USAGE = """usage: tunewright template list [--json]
       tunewright template show NAME
       tunewright template check [--model DIR] [--template NAME ...] [--tool_format NAME] [--enable_thinking true|false|null] [--json]

list   every name, with the source of its text and its policy
show   one name: its policy and its jinja text
check  render fixed conversations for training, as prompt and answer, by the tokenizer's own template and by the exported one, and compare
       them token by token; without a model, with a tokenizer of bytes. The exit code is 1 if anything differs.
"""


def run(argv: list[str]) -> int:
    """Run one of the verbs. Returns the exit code."""
    verbs = {"list": _list, "show": _show, "check": _check}
    if not argv or argv[0] in ("-h", "--help"):
        sys.stdout.write(USAGE)
        return 0 if argv else UsageError.exit_code
    if argv[0] not in verbs:
        raise UsageError(f"template: there is no verb {argv[0]!r}", mend="use list, show or check")
    return verbs[argv[0]](argv[1:])


def _list(argv: Sequence[str]) -> int:
    from tunewright.data.template_table import policies

    if argv not in ([], ["--json"]):
        raise UsageError(f"template list takes --json only, not {' '.join(argv)}")
    rows = list(policies().values())
    if argv:
        print(json.dumps([facts(policy) for policy in rows], ensure_ascii=False, indent=1))
        return 0
    width = max(len(policy.name) for policy in rows)
    for policy in rows:
        print(f"{policy.name:<{width}}  {policy.origin:<16} {summary(policy)}")
    return 0


def facts(policy: Policy) -> dict[str, Any]:
    """A policy as JSON values."""
    return {"name": policy.name, "aliases": list(policy.aliases), "source": policy.origin, "like": policy.like, "reason": policy.tokenizer,
            "default_system": policy.default_system, "folds_system": policy.folds_system, "stops": list(policy.stops),
            "also_stop": list(policy.also_stop), "thought": list(policy.thought), "tools": policy.tools, "media": policy.media}


def summary(policy: Policy) -> str:
    """A policy in a few words."""
    words = [f"also {', '.join(policy.aliases)}" if policy.aliases else "", f"like {policy.like}" if policy.like else "",
             "own system prompt" if policy.default_system else "", "system in the first question" if policy.folds_system else "",
             f"tools {policy.tools}" if policy.tools else "", f"stops {' '.join(policy.stops)}" if policy.stops else "",
             f"also stops at {' '.join(policy.also_stop)}" if policy.also_stop else "", "text only" if policy.media else "",
             policy.tokenizer or ""]
    return "; ".join(filter(None, words))


def _show(argv: Sequence[str]) -> int:
    from tunewright.data.template_sources import named_policy

    if len(argv) != 1:
        raise UsageError("template show takes one name", mend="`tunewright template list` shows them all")
    policy = named_policy(argv[0])
    for key, value in facts(policy).items():
        if value not in (None, [], False):
            print(f"{key:<15} {json.dumps(value, ensure_ascii=False)}")
    if policy.tokenizer is None:
        print(f"\n{policy.text()}")
    return 0


def _check(argv: Sequence[str]) -> int:
    options = parse(argv)
    names = options["--template"] or ["auto"]
    results = {name: _check_one(name, options) for name in names}
    if options["--json"]:
        from tunewright.data.template_check import as_json

        print(json.dumps({name: as_json(found) for name, found in results.items()}, ensure_ascii=False, indent=1))
    else:
        for name, found in results.items():
            print("\n".join(table(name, found)))
    return int(any(one.status == "differs" for found in results.values() for one in found))


def parse(argv: Sequence[str]) -> dict[str, Any]:
    """The words behind `check` by option. Raises `UsageError` if one is unknown or lacks its value."""
    found: dict[str, Any] = {"--template": [], "--json": False, "--model": None, "--tool_format": None, "--enable_thinking": "true"}
    words = iter(argv)
    for word in words:
        name, given, value = word.partition("=")
        name = f"--{name[2:].replace('-', '_')}"
        if name not in found or not word.startswith("--"):
            raise UsageError(f"template check does not know {word}", mend="see tunewright template --help")
        if name == "--json":
            found[name] = True
            continue
        value = value if given else next(words, "")
        if not value:
            raise UsageError(f"{name} needs a value", mend="see tunewright template --help")
        found[name] = [*found[name], *value.split(",")] if name == "--template" else value
    if found["--enable_thinking"] not in ("true", "false", "null"):
        raise UsageError(f"--enable_thinking is {found['--enable_thinking']}", mend="use true, false or null")
    if found["--model"] is None and not found["--template"]:
        raise UsageError("template check needs a model or a template", mend="add --model DIR or --template NAME")
    return found


def _check_one(name: str, options: dict[str, Any]) -> list[Compared]:
    from tunewright.config.data import TemplateConfig
    from tunewright.config.model import ModelConfig, TokenizerConfig
    from tunewright.data.template_check import check, tokenizer_without_model
    from tunewright.models.load import quiet_transformers
    from tunewright.models.tokenizer import load_tokenizer

    quiet_transformers()
    thinking = {"true": True, "false": False, "null": None}[options["--enable_thinking"]]
    config = TemplateConfig(template=name, tool_format=options["--tool_format"], enable_thinking=thinking)
    if options["--model"] is not None:
        tokenizer = load_tokenizer(ModelConfig(model_name_or_path=options["--model"]), TokenizerConfig())
    else:
        tokenizer = tokenizer_without_model(name)
    return check(config, tokenizer)[1]


def table(name: str, results: Sequence[Compared]) -> list[str]:
    """The comparisons in lines: a row for each conversation, and under it what differs."""
    from tunewright.data.template_check import COMPARISONS

    width = max(len(one.conversation) for one in results)
    lines = [f"template {name}: the render for training against", f"  {'':<{width}}  " + "".join(f"{one:<12}" for one in COMPARISONS)]
    for conversation in dict.fromkeys(one.conversation for one in results):
        row = [one for one in results if one.conversation == conversation]
        lines.append(f"  {conversation:<{width}}  " + "".join(f"{one.status:<12}" for one in row).rstrip())
        for one in row:
            if one.status == "differs":
                lines.append(f"    {one.comparison}: token {one.at}: {''.join(one.ours)!r}, there {''.join(one.theirs)!r}")
        lines += [f"    {why}" for why in dict.fromkeys(one.why for one in row if one.why)]
    return lines
