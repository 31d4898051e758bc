"""`tunewright chat`: talk to a model, an adapter or a run's output directory in the terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

USAGE = """usage: tunewright chat CONFIG|DIRECTORY [key=value ...] [--key value ...]

Talk to a model in the terminal. DIRECTORY is a model, an adapter or the output_dir of a run.
In the conversation: `clear` starts afresh, `exit` ends, Ctrl-C stops an answer.

Often used: --default_system TEXT  --max_new_tokens N  --temperature T  --do_sample false  --adapter_name_or_path DIR
"""


def run(argv: list[str]) -> int:
    """Chat until `exit` or the end of the input; lines come from a pipe as well as from a keyboard."""
    if not argv or not {"-h", "--help"}.isdisjoint(argv):
        sys.stdout.write(USAGE)
        return 0 if argv else 2
    from tunewright.commands.preflight import read_ready

    reading = read_ready(directories_as_models(argv), "chat")
    config = reading.config
    from tunewright.inference.chat import HELP, ChatSession, converse
    from tunewright.inference.opening import open_model
    from tunewright.models.load import quiet_transformers
    from tunewright.runtime import Ranks, configure_logging, seed_everything

    log = configure_logging(Ranks())
    for note in reading.notes:
        log.info(note)
    quiet_transformers()
    seed_everything(config.run.seed, Ranks())
    session = ChatSession(open_model(config), config.generation, config.template.default_system, say)
    is_terminal = sys.stdin.isatty()
    if is_terminal:
        say(HELP + "\n")
    converse(session, typed() if is_terminal else sys.stdin, say)
    return 0


def directories_as_models(argv: Sequence[str]) -> list[str]:
    """A directory among the words that is not the value of an option means the model."""
    before = ["", *argv]
    is_value = [option.startswith("--") and "=" not in option for option in before[:-1]]
    return [f"model_name_or_path={word}" if not taken and not word.startswith("-") and Path(word).is_dir() else word
            for word, taken in zip(argv, is_value, strict=True)]


def typed() -> Iterable[str]:
    """Lines from the keyboard, with editing and history, until end of file; Ctrl-C at the prompt drops the line."""
    with suppress(ImportError):
        import readline  # noqa: F401 - input() edits lines once it is loaded
    while True:
        try:
            yield input("\n> ")
        except EOFError:
            return
        except KeyboardInterrupt:
            say("\n")


def say(text: str) -> None:
    """Write at once."""
    sys.stdout.write(text)
    sys.stdout.flush()
