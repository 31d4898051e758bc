"""The options that a command has besides the parameters of a run: taken out of its words, which hold both."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tunewright.errors import UsageError


def take_options(
    argv: Sequence[str], command: str, valued: Sequence[str], switches: Sequence[str] = (), spelt: Callable[[str], str] = str,
) -> tuple[dict[str, str], list[str]]:
    """The options of `command` that were given, by name, and the words that are left.

    `--name VALUE` and `--name=VALUE` give one of `valued`, the last one counting; one of `switches` has the value "". `spelt` turns other
    spellings of an option into these; it never sees a value. Raises `UsageError` for an option without its value.
    """
    found: dict[str, str] = {}
    rest: list[str] = []
    words = iter(argv)
    for word in map(spelt, words):
        name, given, value = word.partition("=")
        if name in valued:
            written = value if given else next(words, None)
            if written is None:
                raise UsageError(f"{name} needs a value", mend=f"see tunewright {command} --help")
            found[name] = written
        elif word in switches:
            found[word] = ""
        else:
            rest.append(word)
    return found, rest
