"""That plants of foreign code, canaries and sockets are noticed at all.

Oracle: Python itself runs each plant without us, in a process of its own, and leaves its mark.
"""

from __future__ import annotations

import base64
import subprocess
import sys
from pathlib import Path

import pytest

from tunewright.selftest import foreign_code, network, secrets
from tunewright.selftest.forked import Ended


@pytest.mark.parametrize("words", ["import pickle; pickle.load(open('plant', 'rb'))",
                                   "import pickle, zipfile; pickle.loads(zipfile.ZipFile('archive').read('archive/data.pkl'))"])
def test_the_pickles_would_run(words: str, tmp_path: Path) -> None:
    """Read by Python's own unpickler, plain and from the archive."""
    mark = tmp_path / foreign_code.MARK
    (tmp_path / "plant").write_bytes(foreign_code.pickled(mark))
    (tmp_path / "archive").write_bytes(foreign_code.archived(mark))
    subprocess.run([sys.executable, "-c", words], cwd=tmp_path, check=True)
    assert mark.exists()


def test_the_code_would_run(tmp_path: Path) -> None:
    """The first line of the planted module leaves the mark, before any package is imported."""
    mark = tmp_path / foreign_code.MARK
    subprocess.run([sys.executable, "-c", foreign_code.code(mark).splitlines()[0]], check=True)
    assert mark.exists()


def test_what_happened_is_judged(tmp_path: Path) -> None:
    """A mark, an opened plant, a socket, a traceback and another exit code each fail a case; a good end passes."""
    (tmp_path / "model").mkdir()

    def passed(code: int = 0, err: str = "", events: tuple[str, ...] = ()) -> bool:
        return foreign_code.judged("plants", "one", Ended(code, "", err, events), tmp_path, (0, 2), ["model.pkl"]).passed

    assert passed()
    assert passed(2)
    assert not passed(1)
    assert not passed(err="Traceback (most recent call last):")
    assert not passed(events=("socket of family 2",))
    assert not passed(events=("open model/model.pkl",))
    assert passed(events=("open /elsewhere/model.pkl",))
    (tmp_path / "model" / foreign_code.MARK).touch()
    assert not passed()


def test_there_are_enough_plants() -> None:
    """A hundred and more combinations of a role, a command and a kind, each once."""
    names = [(role, verb, kind.name) for role, verb, kind in foreign_code.cases()]
    assert len(names) == len(set(names)) > 150


@pytest.mark.parametrize("before", ["", "x", "xy", "xyz"])
def test_a_canary_is_found_in_every_form(before: str, tmp_path: Path) -> None:
    """As a text with something before and behind it, encoded by the standard library."""
    text = f"{before}hf_{secrets.CORE}07\n"
    kept = {"plain": text.encode(), "hex": text.encode().hex().encode(), "base64": base64.b64encode(text.encode()),
            "url": base64.urlsafe_b64encode(text.encode()), "utf16": text.encode("utf-16"), "utf32": text.encode("utf-32"),
            "backwards": text.encode()[::-1]}
    for name, content in kept.items():
        (tmp_path / name).write_bytes(b"\0\1" * 100 + content)
    (tmp_path / "clean").write_bytes(b"hf_" + b"Canary" * 5)
    assert {line.split(":")[0] for line in secrets.found_in(tmp_path)} == set(kept)


def test_every_secret_variable_has_a_canary() -> None:
    """The ones that our own table calls secret, each with a canary of its own."""
    given = secrets.canaries()
    assert {"HF_TOKEN", "WANDB_API_KEY", "API_KEY"} <= set(given)
    assert len(set(given.values())) == len(given)


def test_sockets_are_noticed(tmp_path: Path) -> None:
    """A process with the same hook that opens a socket of each family, and looks up a name: three events; a local one is none."""
    program = ("import socket, sys\nfrom tunewright.selftest.forked import Noted\nnoted = Noted()\nsys.addaudithook(noted)\n"
               "socket.socket(socket.AF_INET).close()\nsocket.socket(socket.AF_INET6).close()\nsocket.socket(socket.AF_UNIX).close()\n"
               "socket.getaddrinfo('127.0.0.1', 80)\nprint(sum('socket' in one for one in noted.events))")
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True,
                           env=network.local_environment(tmp_path))
    assert ended.stdout == "3\n"
