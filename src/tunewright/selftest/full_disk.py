"""Disks that are full: exit code 4 with the path, what is needed and what is free; nothing torn is published; with room again the run ends
the same."""

from __future__ import annotations

import ctypes
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tunewright.engine.checkpoint import damage, read_checkpoint
from tunewright.selftest import killing
from tunewright.selftest.check import Check, Outcome, Size, Tools
from tunewright.selftest.killing import Case
from tunewright.selftest.kills import TWO, TWO_RANKS
from tunewright.selftest.settling import judged, settled
from tunewright.selftest.workspace import Workspace, results, unlike

STORAGE, REFUSED = 4, 2
SAID: Final = re.compile(r"error: (?P<where>/\S+): .*?(?P<need>[\d.,]+) MB needed, (?P<free>[\d.,]+) MB free; make room and run the same "
                         r"command again to go on")
BEFORE: Final = re.compile(r"error: command line: output_dir: two checkpoints need about [\d.]+ MB, (?P<where>/\S+) has [\d.]+ MB left; ")
"""Said before anything is opened, where it is plain that the run cannot save."""
SMALL_DISKS: Final[Mapping[str, tuple[str, Mapping[str, Any], int]]] = {
    "LoRA on a small disk": ("command_line", {"lora_dropout": 0.2}, 50),
    "full on a small disk": ("command_line", {"finetuning_type": "full"}, 20),
    "two ranks on a small disk": (TWO, {**TWO_RANKS, "lora_dropout": 0.2}, 12)}
COUNTED: Final = "LoRA, full after so many bytes"
PAGE: Final = 4096
ROOM: Final = "64m"
CLONE_NEWNS: Final = 0x00020000
CLONE_NEWUSER: Final = 0x10000000


def groups(size: Size) -> Sequence[str]:
    """Real small disks, and a disk that a library calls full in the middle of a write."""
    return (*SMALL_DISKS, COUNTED)


def run(group: str, size: Size, tools: Tools) -> Iterator[Outcome]:
    """The cases of a group."""
    workspace = Workspace.make(tools.folder / "workspace")
    found = _by_bytes(workspace, size, tools) if group == COUNTED else _on_disks(group, workspace, size, tools)
    yield from (Outcome(group, case, not said, said) for case, said in found)


def _on_disks(name: str, workspace: Workspace, size: Size, tools: Tools) -> Iterator[tuple[str, str]]:
    """Disks of sizes from a page more than nothing to nearly what the run needs."""
    scenario, changes, number = SMALL_DISKS[name]
    straight = workspace.settings(tools.folder / "straight", **changes)
    tools.server().done(Case(scenario, {"settings": straight}, straight["output_dir"]))
    expected = results(tools.folder / "straight")
    needed = sum(-(-path.stat().st_size // PAGE) * PAGE for path in (tools.folder / "straight").rglob("*") if path.is_file())
    number = number if size is Size.FULL else max(2, number // 8)
    disk = tools.folder / "disk"
    disk.mkdir()
    settings = workspace.settings(disk / "run", **changes)
    for one in range(number):
        bytes_ = PAGE * round(8 + (0.95 * needed / PAGE - 8) * one / max(1, number - 1))
        told = tools.folder / f"told-{one}.json"
        arguments = {"settings": settings, "disk": str(disk), "size": bytes_, "told": str(told), "scenario": scenario}
        tools.server().done(Case(f"{__name__}:on_small_disk", arguments, settings["output_dir"]))
        found = json.loads(told.read_text(encoding="utf-8"))
        when = "refused before it begins" if found["first"][0] == REFUSED else "full while it runs"
        yield f"{bytes_:,} bytes, {when}", _wrong_on_disk(found, settings, expected)


def _wrong_on_disk(told: dict[str, Any], settings: Mapping[str, str], expected: Mapping[str, Any]) -> str:
    code, output = told["first"]
    if code not in (STORAGE, REFUSED):
        return f"exit code {code} instead of {STORAGE}: {output[-300:]}"
    if wrong := _wrong_words(output, settings["output_dir"], SAID if code == STORAGE else BEFORE):
        return wrong
    if told["damaged"]:
        return f"published and damaged: {', '.join(told['damaged'])}"
    code, output = told["second"]
    return unlike(told["results"], expected) if code == 0 else f"with room it ends with {code}: {output[-300:]}"


def _wrong_words(output: str, root: str, said: re.Pattern[str] = SAID) -> str:
    """What is wrong with the first error that was printed: it has to name the path, the need and what is free."""
    errors = [line for line in output.splitlines() if line.startswith("error:")]
    found = said.match(errors[0]) if errors else None
    return "" if found and root in found["where"] else f"the path, the need or the free space is not said: {errors or output[-300:]}"


def on_small_disk(settings: Mapping[str, str], disk: str, size: int, told: str, scenario: str) -> int:
    """A scenario: a run on a file system of `size` bytes that only this process sees, and with room the same again. `told` gets the exit
    codes, what was printed, the checkpoints that are damaged after the first, and the results of the second."""
    from tunewright.selftest import scenarios

    _mount(disk, size)
    first = _in_child(scenarios.__dict__[scenario], settings)
    damaged = [path.name for path in Path(settings["output_dir"]).glob("checkpoint-*")
               if (found := read_checkpoint(path)) is None or damage(found)]
    subprocess.run(["mount", "-o", f"remount,size={ROOM}", disk], check=True)
    second = _in_child(scenarios.__dict__[scenario], settings)
    found_results = results(Path(settings["output_dir"])) if second[0] == 0 else {}
    Path(told).write_text(json.dumps({"first": first, "damaged": damaged, "second": second, "results": found_results}), encoding="utf-8")
    return 0


def _mount(disk: str, size: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    spaces = CLONE_NEWNS if os.geteuid() == 0 else CLONE_NEWNS | CLONE_NEWUSER
    if libc.unshare(spaces) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", disk], check=True)


def _in_child(scenario: Any, settings: Mapping[str, str]) -> tuple[int, str]:
    from tunewright.errors import TunewrightError

    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(writer, 1)
        os.dup2(writer, 2)
        os.close(reader)
        try:
            code = scenario(settings)
        except TunewrightError as error:
            print(f"error: {error.line()}")
            code = error.exit_code
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    os.close(writer)
    with os.fdopen(reader, encoding="utf-8", errors="replace") as stream:
        output = stream.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), output


def _by_bytes(workspace: Workspace, size: Size, tools: Tools) -> Iterator[tuple[str, str]]:
    """Full in the middle of the first write of each kind of file: of the record, the log, each checkpoint, the final weights, the
    results."""
    server = tools.server()
    settings = workspace.settings(tools.folder / "straight", lora_dropout=0.2)
    counted = server.done(Case("command_line", {"settings": settings}, settings["output_dir"], "count"))
    expected = results(tools.folder / "straight")
    left: dict[str, Path] = {}
    wrong: dict[str, str] = {}
    for at, place in _cuts(counted.operations)[1:: 1 if size is Size.FULL else 6]:  # the first is the lock's note of who holds it
        root, name = tools.folder / f"full-{at}", f"{place}, after {at:,} bytes"
        ended = server.run(Case("command_line", {"settings": {**settings, "output_dir": str(root)}}, str(root), "full", at))
        left[name] = root
        wrong[name] = f"exit code {ended.code}" if ended.code != STORAGE else _wrong_words(ended.output, str(root))
        for path in root.glob("checkpoint-*"):
            checkpoint = read_checkpoint(path)
            if checkpoint is None or damage(checkpoint):
                wrong[name] = f"{path.name} is published and damaged"
    settles = settled(server, settings, left, timed=False)
    for name, said in judged(server, "train", settings, left, expected, settles):
        yield name, wrong[name] or said


def _cuts(operations: tuple[str, ...]) -> list[tuple[int, str]]:
    """(bytes after which the disk is full, the file then written), in the middle of the first write of each kind of file in each
    directory."""
    chosen: dict[tuple[str, str], int] = {}
    written = 0
    for operation in operations:
        if operation.startswith("write "):
            _, path, size = operation.split(" ")
            name = re.sub(r"^\.tmp.*", "weights", Path(path).name)
            chosen.setdefault((Path(path).parent.name, name), written + int(size) // 2)
            written += int(size)
    return [(at, f"{folder}/{name}") for (folder, name), at in chosen.items()]


def missing(group: str) -> str | None:
    """Why there is nothing to show here, or no small disk to be had."""
    script = f"import sys; sys.path[:0] = {sys.path!r}; from tunewright.selftest.full_disk import mountable; mountable()"
    lacking = killing.missing()
    if lacking is None and group in SMALL_DISKS and subprocess.run([sys.executable, "-c", script], capture_output=True).returncode != 0:
        lacking = "this user may not mount a small disk"
    return lacking


def mountable() -> None:
    """Make a small disk that ends with this process. Raises where that is not allowed."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        _mount(folder, PAGE * 16)
        subprocess.run(["umount", folder], check=True)


CHECK: Final = Check(
    "full-disk", "A full disk ends the run with exit code 4, the path, what is needed and what is free; nothing damaged is published; with "
    "room the run goes on to bit-identical weights.", 138, groups, run, missing)
