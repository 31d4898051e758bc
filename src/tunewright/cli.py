"""argv -> command. Standard library only; a command's module is imported when it is called."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from typing import Final

from tunewright.commands.verbs import COMMANDS as COMMANDS
from tunewright.errors import Interrupted, OutOfMemoryError, Preempted, StorageError, TunewrightError, UsageError

READS_CONFIG: Final = ("train", "eval", "predict")
"""Commands whose arguments are a configuration and nothing else; their help is the table of parameters."""

SIGPIPE_EXIT: Final = 141


def main(argv: list[str] | None = None) -> int:
    """Run one command; the exit code is that of house rules: 0, or that of the error, told in one line on stderr."""
    words = list(sys.argv[1:] if argv is None else argv)
    if "--debug" in words:
        os.environ["TUNEWRIGHT_DEBUG"] = "1"  # for the processes of other ranks, too
        words = [word for word in words if word != "--debug"]
    try:
        code = _dispatch(words)
        sys.stdout.flush()
        return code
    except SystemExit as stop:
        return _system_exit(stop)
    except BrokenPipeError:
        # The reader has gone; what is left in the buffer must not raise again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return SIGPIPE_EXIT
    except (Exception, KeyboardInterrupt) as error:
        if os.environ.get("TUNEWRIGHT_DEBUG") == "1":
            traceback.print_exc()
        return _report(error)


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("help", "--help", "-h"):
        if len(words) > 1 and words[0] == "help":
            return _dispatch([words[1], "--help"])
        print(_help())
        return 0 if words else UsageError.exit_code
    if words[0] in ("--version", "-V"):
        words = ["version"]
    verb, rest = words[0], words[1:]
    if verb not in COMMANDS.names() and verb.lower().endswith((".yaml", ".yml", ".json")):
        raise UsageError(f"'{verb}' is not a command", mend=f"write: tunewright train {' '.join(words)}")
    COMMANDS.entry(verb)
    if verb in READS_CONFIG and any(word in ("--help", "-h") for word in rest):
        from tunewright.commands.parameter_help import print_help

        print_help(verb, COMMANDS.entry(verb).summary)
        return 0
    code: int = COMMANDS.load(verb)(rest)
    return code


def _help() -> str:
    width = max(len(name) for name in COMMANDS.names())
    commands = "\n".join(f"  {entry.name:<{width}}  {entry.summary}" for entry in COMMANDS)
    return (
        "usage: tunewright COMMAND [CONFIG.yaml|CONFIG.json] [key=value ...] [--key value ...]\n\n"
        f"commands:\n{commands}\n\n"
        "A configuration may use our own vocabulary or one of five others (`tunewright coverage`); `explain` lists every parameter.\n"
        "--debug (or TUNEWRIGHT_DEBUG=1) shows the traceback of an error. `tunewright COMMAND --help` says more.")


def _system_exit(stop: SystemExit) -> int:
    if stop.code is None or isinstance(stop.code, int):
        return stop.code or 0
    print(f"error: {stop.code}", file=sys.stderr)
    return 1


def _report(error: BaseException) -> int:
    """Tell the error in one line for each problem, and return its exit code."""
    known = _known(error)
    rank = os.environ.get("RANK", "0")
    if rank != "0" and isinstance(known, Preempted):
        return known.exit_code  # all ranks stop at the same step, and the first says so
    who = "" if rank == "0" else f"[rank {rank}] "
    if known is None:
        print(f"{who}error: internal error: {type(error).__name__}: {_one_line(error)}; run again with --debug for the traceback",
              file=sys.stderr)
        return 1
    for line in str(known).splitlines():
        print(f"{who}error: {line}", file=sys.stderr)
    return known.exit_code


def _known(error: BaseException) -> TunewrightError | None:
    """The error as one of ours; None for what can only be a defect."""
    if isinstance(error, TunewrightError):
        return error
    if isinstance(error, KeyboardInterrupt):
        return Interrupted("interrupted")
    if _is_out_of_memory(error):
        return OutOfMemoryError(f"out of memory: {_one_line(error)}",
                                mend="use a smaller per_device_train_batch_size or cutoff_len, or gradient_checkpointing")
    if isinstance(error, OSError):
        return _storage(error)
    return None


def _is_out_of_memory(error: BaseException) -> bool:
    torch = sys.modules.get("torch")
    on_device = torch is not None and isinstance(error, torch.OutOfMemoryError)
    on_host = isinstance(error, RuntimeError) and "can't allocate memory" in str(error)  # what torch raises for the CPU
    return isinstance(error, MemoryError) or on_device or on_host or (isinstance(error, OSError) and error.errno == errno.ENOMEM)


def _storage(error: OSError) -> StorageError:
    where = str(error.filename) if error.filename is not None else None
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageError("no space left on the device", where=where, mend="free some space, or name another directory")
    return StorageError(error.strerror or _one_line(error), where=where)


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 300 else text[:297] + "..."


if __name__ == "__main__":
    sys.exit(main())
