"""Makes, checks and mends the environment in `.venv` of this clone. Standard library only; run by `make`.

    python scripts/environment.py demo|test

`demo` is what a user needs, `test` what a developer and CI need on top. Work that is done is not done again: a stamp in
`.venv` says what is installed. Work that was cut off is found and finished.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
EXTRAS: Final = {"demo": "[arrow,demo]", "test": "[arrow,demo,metrics,onnx,quant,tensorboard,dev]"}
COVERS: Final = {"demo": ("demo", "test"), "test": ("test",)}
"""Which environments will do: whoever has the one for tests has the one for the demo."""

MENDER: Final = r"""
import importlib.metadata, pathlib, shutil, sys

def whole(dist):
    return dist.files is not None and all(
        path.exists() and (file.size is None or path.stat().st_size == file.size)
        for file in dist.files for path in [pathlib.Path(dist.locate_file(file))])

broken = [dist for dist in importlib.metadata.distributions() if not whole(dist)]
for dist in broken:
    print(dist._path.name.split("-")[0])
    if "--remove" in sys.argv:
        shutil.rmtree(dist._path)
"""
"""Prints the installed packages whose files are not all there. With `--remove` pip is made to forget them: it takes a package
for installed as soon as its metadata folder exists, which is the case if it was killed half-way."""


def main(arguments: list[str]) -> int:
    """Make the environment ready; 0, or 1 after a line that says what to do."""
    if len(arguments) != 1 or arguments[0] not in EXTRAS:
        print("usage: python scripts/environment.py demo|test", file=sys.stderr)
        return 1
    try:
        prepare(ROOT, arguments[0])
    except subprocess.CalledProcessError as error:
        print(f"error: `{' '.join(map(str, error.cmd))}` failed; if the network was at fault, run the same command again: "
              "it goes on where it stopped", file=sys.stderr)
        return 1
    return 0


def prepare(root: Path, profile: str) -> None:
    """Bring `root/.venv` to what `profile` needs."""
    venv = root / ".venv"
    python = venv / "bin" / "python"
    if any(_stamp(venv, able).is_file() and _stamp(venv, able).read_text() == fingerprint(root, able)
           for able in COVERS[profile]) and usable(python) and not incomplete(python):
        return
    if not usable(python):
        _make(venv)
        print("environment: the first installation takes a minute or more, and 1.5 GB of disk; more where torch brings CUDA", flush=True)
    for name in EXTRAS:
        _stamp(venv, name).unlink(missing_ok=True)
    for package in incomplete(python, "--remove"):
        print(f"environment: {package} is incomplete and is installed again", flush=True)
    print(f"environment: installing into {venv}", flush=True)
    # Of 15,000 files a run imports a fifth, each compiled when it is first read; compiling all of them takes 45 seconds.
    _pip(python, "install", "--no-compile", "-c", str(root / "constraints.txt"), "-e", f"{root}{EXTRAS[profile]}")
    _stamp(venv, profile).write_text(fingerprint(root, profile))


def fingerprint(root: Path, profile: str) -> str:
    """Changes whenever the environment has to be looked at again: requirements, profile, place of the clone."""
    digest = hashlib.sha256(f"{profile}\n{root}\n".encode())
    for name in ("pyproject.toml", "constraints.txt"):
        digest.update((root / name).read_bytes())
    return digest.hexdigest()


def usable(python: Path) -> bool:
    """Whether the environment's interpreter runs, is new enough and has pip, and the environment lies where it was made:
    the programs in its `bin` name their interpreter by its full path."""
    place = python.parent.parent / ".tunewright-place"
    if not (python.parent / "pip").exists() or (place.is_file() and place.read_text() != str(python)):
        return False
    probe = "import sys, importlib.metadata as m; m.version('pip'); sys.exit(sys.version_info < (3, 11))"
    try:
        return subprocess.run([python, "-c", probe], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def incomplete(python: Path, *options: str) -> list[str]:
    """Names of the installed packages that miss files."""
    found = subprocess.run([python, "-c", MENDER, *options], capture_output=True, text=True, check=False)
    return found.stdout.split("\n")[:-1]


def _make(venv: Path) -> None:
    """A new environment in place of whatever is there."""
    print(f"environment: creating {venv} with Python {sys.version.split()[0]}", flush=True)
    if venv.exists():
        shutil.rmtree(venv)
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    (venv / ".tunewright-place").write_text(str(venv / "bin" / "python"))


def _pip(python: Path, *arguments: str) -> None:
    """pip, without questions. What it says goes to a file; on a terminal its current step is shown, after a failure its end.

    A personal configuration that wants other places than the environment does not count.
    """
    settings = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_REQUIRE_VIRTUALENV": "0", "PIP_USER": "0"}
    settings.pop("PYTHONPATH", None)
    command = [str(python), "-m", "pip", "--no-input", *arguments]
    log = python.parent.parent / ".tunewright-install.log"
    with log.open("w") as record, subprocess.Popen(
            command, env=settings, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace") as pip:
        for line in pip.stdout or ():
            record.write(line)
            record.flush()
            if sys.stdout.isatty() and line.lstrip().startswith(("Collecting", "Downloading", "Installing")):
                print(f"\r\033[K  {line.strip()[:70]}", end="", flush=True)
    if sys.stdout.isatty():
        print("\r\033[K", end="", flush=True)
    if pip.returncode:
        print("".join(log.read_text().splitlines(keepends=True)[-20:]), end="", file=sys.stderr)
        raise subprocess.CalledProcessError(pip.returncode, command)


def _stamp(venv: Path, profile: str) -> Path:
    return venv / f".tunewright-{profile}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
