"""The command line: verbs, exit codes, one-line errors, lightness. Processes are real where they are the matter."""

from __future__ import annotations

import errno
import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tunewright import __version__, cli
from tunewright.config.table import table
from tunewright.errors import (
    ConfigError,
    InputError,
    LostRankError,
    NumericError,
    Preempted,
    Problem,
    StorageError,
)
from tunewright.registry import Entry, Registry

SRC = Path(__file__).parent.parent.parent / "src"
HEAVY = ("torch", "transformers", "peft", "accelerate", "datasets", "numpy", "pyarrow", "matplotlib")

RUN = {"model_name_or_path": "demo", "dataset": "rows.json", "output_dir": "out", "lora_rank": 4}
ROWS = [{"instruction": f"say {number}", "output": str(number)} for number in range(20)]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a run that is ready to train."""
    monkeypatch.chdir(tmp_path)
    Path("rows.json").write_text(json.dumps(ROWS))
    Path("c.yaml").write_text("".join(f"{key}: {value}\n" for key, value in RUN.items()))
    return tmp_path


def process(*words: str, cwd: Path | None = None, code: str | None = None) -> subprocess.CompletedProcess[str]:
    """`python -m tunewright words`, or the given code, in a process of its own."""
    command = [sys.executable, "-c", code] if code else [sys.executable, "-m", "tunewright", *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=60,
                          env={**os.environ, "PYTHONPATH": str(SRC)}, check=False)


def cpu_seconds(*words: str) -> float:
    """The least CPU time of three runs: other processes may disturb one of them."""
    spent = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert process(*words).returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(spent)


@pytest.mark.parametrize(("words", "limit"), [(["--help"], 0.3), (["train", "--help"], 0.5), (["explain", "lora_rank"], 0.5)])
def test_help_is_quick(words: list[str], limit: float) -> None:
    """CPU seconds that the issue allows; measured about 0.05 and 0.08."""
    assert cpu_seconds(*words) < limit


LIGHT = [
    ["--help"], ["train", "--help"], ["version"], ["explain"], ["explain", "lr"], ["explain", "c.yaml", "lora_rank"], ["explain", "c.yaml"],
    ["convert", "c.yaml", "--to", "llamafactory"], ["check", "c.yaml"], ["schema"],
]


@pytest.mark.parametrize("words", LIGHT, ids=" ".join)
def test_light_commands_import_nothing_heavy(words: list[str], here: Path) -> None:
    """After the command no heavy package is in sys.modules."""
    code = (f"import sys; sys.argv[1:] = {words!r}\nfrom tunewright.cli import main\ncode = main()\n"
            f"heavy = [name for name in {HEAVY!r} if name in sys.modules]\n"
            "yaml = 'yaml' in sys.modules and '--help' in sys.argv\nsys.exit(f'{code} {heavy} {yaml}' if code or heavy or yaml else 0)")
    done = process(code=code, cwd=here)
    assert (done.returncode, done.stderr if done.returncode else "") == (0, "")


def test_help_names_every_command_and_train_help_every_parameter() -> None:
    """Generated from the tables."""
    text = process("--help").stdout
    assert [name for name in cli.COMMANDS.names() if f"\n  {name} " not in text] == []
    text = process("train", "--help").stdout
    assert [field for field in table() if f"  --{field}\n" not in text] == []
    assert process("help", "train").stdout == text


USAGE = [
    ([], 2, ""),
    (["trian"], 2, "error: 'trian' is not a command; did you mean train?\n"),
    (["xyzzy"], 2, f"error: 'xyzzy' is not a command; choose one of {', '.join(cli.COMMANDS.names())}\n"),
    (["train", "--lora_rank"], 2, "error: command line: --lora_rank: a value is missing; write --lora_rank VALUE\n"),
    (["check"], 2, "error: check needs a configuration; give a YAML or JSON file, or key=value settings\n"),
    (["explain", "lora_rnak"], 2, "error: lora_rnak: no parameter has this name; did you mean lora_rank?\n"),
    (["explain", "deepspeed"], 2, "error: deepspeed: DeepSpeed JSON config file (or object); giving it enables DeepSpeed. A name of "
     "llamafactory, cli_reference; not built yet; its default null is accepted\n"),
    (["convert", "c.yaml"], 2, "error: convert needs a target; add --to and one of native, llamafactory, cli_reference, sft_json, "
     "qlora_script, mindspeed_fsdp2, megatron\n"),
    (["convert", "c.yaml", "--to", "sft"], 2, "error: --to: 'sft' is not a vocabulary; choose one of native, llamafactory, "
     "cli_reference, sft_json, qlora_script, mindspeed_fsdp2\n"),
    (["convert", "c.yaml", "--to", "native", "-o", "c.yaml"], 2,
     "error: c.yaml: exists already, and convert overwrites nothing; name another file\n"),
    (["schema", "a", "b"], 2, "error: schema takes one vocabulary, not a b\n"),
    (["check", "absent.yaml"], 2, "error: absent.yaml: no such file; give the path of a YAML or JSON file, or key=value settings\n"),
    (["check", "c.yaml", "lora_rank=0", "seed=-1"], 2,
     "error: command line: lora_rank: 0 is out of range; write an integer >= 1 and <= 65536\n"
     "error: command line: seed: -1 is out of range; write an integer >= 0 and <= 4294967295\n"),
]


@pytest.mark.parametrize(("words", "code", "text"), USAGE, ids=[" ".join(words) or "nothing" for words, _, _ in USAGE])
def test_usage_errors(words: list[str], code: int, text: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line for each problem on stderr, exit code 2."""
    assert cli.main(words) == code
    assert capsys.readouterr().err == text


RAISED: list[tuple[BaseException, int, str]] = [
    (InputError("bad", where="c.yaml:3", mend="mend it"), 2, "error: c.yaml:3: bad; mend it\n"),
    (ConfigError([Problem("one"), Problem("two", mend="do")]), 2, "error: one\nerror: two; do\n"),
    (NumericError("nan"), 5, "error: nan\n"), (LostRankError("rank 1"), 6, "error: rank 1\n"),
    (Preempted("stopped"), 75, "error: stopped\n"),
    (StorageError("full"), 4, "error: full\n"),
    (OSError(errno.ENOSPC, "No space left on device", "/data/x"), 4,
     "error: /data/x: no space left on the device; free some space, or name another directory\n"),
    (OSError(errno.EDQUOT, "Quota", "/data/x"), 4,
     "error: /data/x: no space left on the device; free some space, or name another directory\n"),
    (OSError(errno.EIO, "Input/output error", "/data/x"), 4, "error: /data/x: Input/output error\n"),
    (PermissionError(errno.EACCES, "Permission denied", "/data/x"), 4, "error: /data/x: Permission denied\n"),
    (MemoryError("no memory"), 3, "error: out of memory: no memory; use a smaller per_device_train_batch_size or cutoff_len, "
     "or gradient_checkpointing\n"),
    (KeyboardInterrupt(), 130, "error: interrupted\n"),
    (ZeroDivisionError("division\nby zero"), 1, "error: internal error: ZeroDivisionError: division by zero; "
     "run again with --debug for the traceback\n"),
    (SystemExit(7), 7, ""), (SystemExit(None), 0, ""), (SystemExit("why"), 1, "error: why\n"),
]


@pytest.mark.parametrize(("error", "code", "text"), RAISED, ids=[type(error).__name__ + str(code) for error, code, _ in RAISED])
def test_every_error_has_its_exit_code_and_one_line(
    error: BaseException, code: int, text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:
    """What a command raises, as its user sees it: no traceback."""
    monkeypatch.setattr("tunewright.commands.version.run", raising(error))
    assert cli.main(["version"]) == code
    assert capsys.readouterr().err == text


def raising(error: BaseException) -> Any:
    def run(argv: list[str]) -> int:
        raise error

    return run


def test_torch_out_of_memory_is_exit_3(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """torch's own exception, without importing torch in the command line."""
    import torch

    monkeypatch.setattr("tunewright.commands.version.run", raising(torch.OutOfMemoryError("CUDA out of memory. Tried 2 GiB")))
    assert cli.main(["version"]) == 3
    assert capsys.readouterr().err.startswith("error: out of memory: CUDA out of memory. Tried 2 GiB; use a smaller")


@pytest.mark.parametrize("by", ["argument", "variable"])
def test_debug_shows_the_traceback(by: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """--debug anywhere, or TUNEWRIGHT_DEBUG=1; the line comes last all the same."""
    monkeypatch.setattr("tunewright.commands.version.run", raising(InputError("bad")))
    monkeypatch.setenv("TUNEWRIGHT_DEBUG", "1" if by == "variable" else "0")
    assert cli.main(["version", "--debug"] if by == "argument" else ["version"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Traceback (most recent call last):" and lines[-1] == "error: bad"
    assert os.environ["TUNEWRIGHT_DEBUG"] == "1", "the processes of other ranks show theirs"


def test_a_reader_that_leaves_early(here: Path) -> None:
    """`tunewright explain | head -1`: no traceback, the code of SIGPIPE."""
    done = subprocess.run(f"{sys.executable} -m tunewright schema; echo code $? >&2", shell=True, cwd=here, timeout=60, text=True,  # noqa: S602
                          stdout=_closed_pipe(), stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(SRC)}, check=False)
    assert done.stderr == "code 141\n"


def _closed_pipe() -> int:
    reading, writing = os.pipe()
    os.close(reading)
    return writing


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """By verb and by option."""
    assert [cli.main([word]) for word in ("version", "--version")] == [0, 0]
    assert capsys.readouterr().out == f"tunewright {__version__}\n" * 2


def test_registry_refuses_duplicates_and_resolves_late() -> None:
    """A second entry of a name is a defect; nothing is imported before it is asked for."""
    registry = Registry("thing", (Entry("a", "json:dumps", "A."), Entry("b", "nowhere:at_all", "B.")))
    assert registry.names() == ("a", "b") and "a" in registry and registry.load("a") is json.dumps
    with pytest.raises(ModuleNotFoundError):
        registry.load("b")
    with pytest.raises(InputError, match="'c' is not a thing; choose one of a, b"):
        registry.entry("c")
    with pytest.raises(ValueError, match="the thing a is registered twice"):
        Registry("thing", (Entry("a", "x:y", ""), Entry("a", "x:z", "")))


def test_every_command_exists() -> None:
    """Each verb's module has its function."""
    for name in cli.COMMANDS.names():
        assert callable(cli.COMMANDS.load(name)), name
