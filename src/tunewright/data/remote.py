"""Brings the files of a hub's data set, or of a path in the cloud, to this machine. The only module that fetches data.

Nothing of a repository is run: its scripts are not read. Access is that of `hf auth login` and of the cloud's own settings.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from tunewright.data.files import KINDS, kind_of
from tunewright.data.hub_files import files_of
from tunewright.data.place import CLOUD, HUB, Place
from tunewright.errors import InputError, refuse

_PACKAGES: Final = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "abfs": "adlfs", "az": "adlfs", "adl": "adlfs",
                    "oss": "ossfs", "hdfs": "pyarrow", "http": "aiohttp", "https": "aiohttp", "sftp": "paramiko", "ssh": "paramiko"}
"""Scheme -> the package that fsspec needs for it."""


def fetch(place: Place, key: str) -> list[Path]:
    """The local files that hold the rows; `key` is named in errors."""
    if place.kind == CLOUD:
        return _cloud_files(place.name, key)
    return _hub_files(place, key) if place.kind == HUB else _modelscope_files(place, key)


def fetch_file(repository: str, name: str, key: str) -> Path:
    """One file of a hub's data set."""
    from huggingface_hub import hf_hub_download

    with _hub_errors(repository, key):
        return Path(hf_hub_download(repository, name, repo_type="dataset", revision="main"))


def _hub_files(place: Place, key: str) -> list[Path]:
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import OfflineModeIsEnabled

    revision = place.revision
    with _hub_errors(place.name, key):
        try:
            names = HfApi().list_repo_files(place.name, repo_type="dataset", revision=revision)
        except OfflineModeIsEnabled:
            return _cached(place, Path(snapshot_download(place.name, repo_type="dataset", revision=revision, local_files_only=True)))
        readme = None
        if "README.md" in names:
            from huggingface_hub import hf_hub_download

            readme = _text(Path(hf_hub_download(place.name, "README.md", repo_type="dataset", revision=revision)))
        wanted = files_of(place, names, readme)
        folder = Path(snapshot_download(place.name, repo_type="dataset", revision=revision, allow_patterns=wanted))
    return [folder / name for name in wanted]


def _modelscope_files(place: Place, key: str) -> list[Path]:
    try:
        download: Any = importlib.import_module("modelscope.hub.snapshot_download").dataset_snapshot_download
    except ImportError as error:
        raise InputError(f"{key}: {place.name} lies on ModelScope, which needs the package `modelscope`, which is not installed",
                         mend="run: pip install modelscope, or download the data and set file_name") from error
    with _foreign_errors(f"{key}: ModelScope did not give {place.name}"):
        folder = Path(download(place.name, revision=place.revision, allow_patterns=["README.md", *(f"*{ending}*" for ending in KINDS)]))
    return _cached(place, folder)


def _cached(place: Place, folder: Path) -> list[Path]:
    """The files among those that lie in `folder`."""
    names = [str(path.relative_to(folder)) for path in sorted(folder.rglob("*")) if path.is_file()]
    readme = _text(folder / "README.md") if "README.md" in names else None
    return [folder / name for name in files_of(place, names, readme)]


def _cloud_files(url: str, key: str) -> list[Path]:
    """Copies of the files that the path, folder or pattern names; a file that did not change is not fetched again."""
    import fsspec  # type: ignore[import-untyped]

    scheme = url.partition("://")[0]
    try:
        system, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        package = _PACKAGES.get(scheme, scheme)
        raise InputError(f"{key}: {url} needs the package `{package}`, which is not installed",
                         mend=f"run: pip install {package}, or copy the file here") from error
    except ValueError as error:
        raise InputError(f"{key}: {url}: {_first_line(error)}", mend="schemes: s3, gs, file and others of fsspec") from error
    with _foreign_errors(f"{key}: {url} cannot be read"):
        names = _cloud_names(system, path)
        _require_some(names, url, key)
        return [_copied(system, scheme, name) for name in names]


def _require_some(names: list[str], url: str, key: str) -> None:
    """Refuse a path that names no file."""
    if not names:
        refuse(f"{key}: {url} names no data file", mend="check the path and your access to it")


def _cloud_names(system: Any, path: str) -> list[str]:
    if any(sign in path for sign in "*?["):
        return sorted(system.glob(path))
    if system.isdir(path):
        return sorted(name for name in system.ls(path, detail=False) if kind_of(name) is not None)
    return [path] if system.exists(path) else []


def _copied(system: Any, scheme: str, name: str) -> Path:
    if scheme in ("file", "local"):
        return Path(name)
    version = hashlib.sha256(f"{scheme}://{name} {system.ukey(name)}".encode()).hexdigest()[:16]
    path = cache_folder() / version / name.rpartition("/")[2]
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(f".{path.name}.{os.getpid()}.new")
        try:
            system.get_file(name, str(fresh))
            os.replace(fresh, path)
        finally:
            fresh.unlink(missing_ok=True)
    return path


def cache_folder() -> Path:
    """Where copies of cloud files are kept, by their path and version."""
    return Path.home() / ".cache" / "tunewright" / "files"


@contextlib.contextmanager
def _hub_errors(repository: str, key: str) -> Iterator[None]:
    from huggingface_hub.errors import HFValidationError, HTTPError, LocalEntryNotFoundError  # type: ignore[attr-defined]

    try:
        yield
    except (HTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        refuse(f"{key}: {repository} is no file, folder or registered name here, and the hub did not give it ({_first_line(error)})",
               mend="check the spelling and the network, or download the data and name its folder")


@contextlib.contextmanager
def _foreign_errors(what: str) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # each cloud's package has errors of its own, of no common type; the run ends here
        refuse(f"{what}: {_first_line(error)}", mend="check the path and your access to it")


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".strip().splitlines()[0].rstrip(". :")
