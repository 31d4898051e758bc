"""Uploads to the Hugging Face hub: in the background, once the files are safe on this disk, and never at the run's expense.

Nothing here knows the token: huggingface_hub reads HF_TOKEN or the file of `hf auth login` by itself. Each upload is one commit, so
the repository never holds half of one.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Final

from tunewright.config.hub import HubConfig
from tunewright.config.run import RunConfig
from tunewright.errors import LostRankError, refuse, require
from tunewright.runtime import LOGGER_NAME, Ranks

WAITS_S: Final = (2.0, 10.0)
"""Pauses before the second and the third attempt."""

MODEL_FILES: Final = (
    "model*.safetensors", "model*.safetensors.index.json", "adapter_*", "value_head.safetensors", "merged_adapters.json", "pissa_*",
    "config.json", "generation_config.json", "tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab*", "merges.txt",
    "chat_template*", "*.py")
"""What makes up a trained model. A checkpoint's state and the rows named in an audit are not among it."""

RESULT_FILES: Final = ("README.md", "*_results.json", "training_*.png", "lora_*.png")
"""What the end of a run adds."""

_LOGIN: Final = "set HF_TOKEN, or log in once with `hf auth login`"
_DENIED: Final = (401, 403)

log = logging.getLogger(LOGGER_NAME)


def demand_access(parameter: str) -> None:
    """Raise `InputError` where no upload can succeed: offline, or without a token. Reaches for no network."""
    from huggingface_hub import constants, get_token

    require(not constants.is_offline_mode(), f"{parameter}: the hub is out of reach, because HF_HUB_OFFLINE is set",
            mend=f"unset it, or leave {parameter} out and use `hf upload` later")
    require(get_token() is not None, f"{parameter}: there is no token for the hub", mend=_LOGIN)


def repository_name(hub: HubConfig, output_dir: str) -> str:
    """The repository that the run names; what it leaves out of the name is the last part of output_dir."""
    given = hub.hub_model_id or ""
    if given and not given.endswith("/"):
        return given
    last = Path(output_dir).expanduser().resolve().name
    return given + (re.sub(r"[^A-Za-z0-9_.]+", "-", last).strip("-.") or "model")


def files_of(directory: Path, patterns: Sequence[str]) -> dict[str, Path]:
    """The files directly inside `directory` that fit a pattern, by name."""
    return {path.name: path for path in sorted(directory.iterdir())
            if path.is_file() and any(fnmatch(path.name, pattern) for pattern in patterns)}


def files_below(directory: Path, folder: str) -> dict[str, Path]:
    """All files of a checkpoint, by the place they get in the repository."""
    return {f"{folder}/{path.relative_to(directory).as_posix()}": path for path in sorted(directory.rglob("*")) if path.is_file()}


@dataclass(slots=True)
class Repository:
    """A model repository; made at the first need of it. `name` has its owner from then on."""

    name: str
    is_private: bool
    waits_s: Sequence[float] = field(default_factory=lambda: WAITS_S)
    _is_made: bool = field(default=False, repr=False)

    def open(self) -> None:
        """Make the repository unless it is there. Raises `InputError` if the hub denies it; if the hub is silent, that is only told."""
        failure = self._attempt(self._make)
        if failure is not None and status(failure) in _DENIED:
            refuse(f"the hub denies access to {self.name}: {one_line(failure)}",
                   mend=f"use a token that may write there: {_LOGIN}")
        if failure is not None:
            log.warning("the hub does not answer (%s); training goes on, uploads are tried again", one_line(failure))

    def commit(self, files: Mapping[str, Path], message: str) -> Exception | None:
        """Upload the files in one commit; why that failed after all attempts, or None."""
        return self._attempt(lambda: self._commit(files, message))

    def _make(self) -> None:
        from huggingface_hub import HfApi
        from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]

        disable_progress_bars()
        if not self._is_made:
            self.name = str(HfApi().create_repo(self.name, private=self.is_private, exist_ok=True).repo_id)
            self._is_made = True

    def _commit(self, files: Mapping[str, Path], message: str) -> None:
        from huggingface_hub import CommitOperationAdd, HfApi

        self._make()
        HfApi().create_commit(self.name, [CommitOperationAdd(place, str(path)) for place, path in files.items()], commit_message=message)

    def _attempt(self, act: Callable[[], None]) -> Exception | None:
        from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]

        failure: Exception | None = None
        for wait in (0.0, *self.waits_s):
            time.sleep(wait)
            try:
                act()
            except (HTTPError, OSError, ValueError, RuntimeError) as error:
                # What huggingface_hub and its transports raise: a run must not end because a server does.
                failure = error
                if status(error) in _DENIED or isinstance(error, FileNotFoundError):
                    return failure
            else:
                return None
        return failure


def status(error: Exception) -> int | None:
    """The HTTP status that an error of the hub carries."""
    found: Any = getattr(getattr(error, "response", None), "status_code", None)
    return found if isinstance(found, int) else None


def one_line(error: Exception) -> str:
    """What an error says, short."""
    said = str(error).partition("\nFor more information")[0]
    return " ".join((said or type(error).__name__).split())[:200]


@dataclass(slots=True)
class _Job:
    """One commit. `step` is that of the checkpoint it reads, None for the result."""

    files: Mapping[str, Path]
    what: str
    directory: Path
    step: int | None
    done: threading.Event = field(default_factory=threading.Event)


class Uploads:
    """The uploads of one run, one after the other in background threads that do not keep a process alive."""

    def __init__(self, repository: Repository, strategy: str, *, always: bool) -> None:
        self._repository = repository
        self._strategy = strategy
        self._always = always
        self._jobs: list[_Job] = []
        self._left_out: tuple[int, Path] | None = None

    def saved(self, step: int, directory: Path) -> None:
        """Upload a committed checkpoint as the strategy says; while another upload is under way it is left out, unless always."""
        if self._strategy == "end":
            return
        if self._pending() and not self._always:
            log.info("%s is not uploaded: an upload is still under way", directory.name)
            self._left_out = (step, directory)
            return
        self._left_out = None
        self._start(_Job(self._files_of_save(step, directory), directory.name, directory, step))

    def in_use(self) -> set[int]:
        """Steps whose checkpoints are being read, which must not be deleted meanwhile."""
        return {job.step for job in self._pending() if job.step is not None}

    def finish(self, output_dir: Path) -> None:
        """Upload the result and wait for everything; what a signal meanwhile raises ends the wait."""
        if self._left_out is not None and self._strategy != "every_save" and self._left_out[1].is_dir():
            step, directory = self._left_out
            self._start(_Job(self._files_of_save(step, directory), directory.name, directory, step))
        result = files_of(output_dir, (*MODEL_FILES, *RESULT_FILES))
        self._start(_Job(result, "the result", output_dir, None))
        while pending := self._pending():
            pending[0].done.wait(0.1)

    def abandon(self) -> None:
        """Tell what is not uploaded when the process ends early."""
        for job in self._pending():
            log.warning("the upload of %s was not finished; %s", job.what, self._by_hand(job))

    def _files_of_save(self, step: int, directory: Path) -> dict[str, Path]:
        files = files_of(directory, MODEL_FILES)
        folder = {"checkpoint": "last-checkpoint", "all_checkpoints": f"checkpoint-{step}"}.get(self._strategy)
        return files | files_below(directory, folder) if folder else files

    def _start(self, job: _Job) -> None:
        before = self._jobs[-1] if self._jobs else None
        self._jobs.append(job)
        threading.Thread(target=self._run, args=(job, before), name="tunewright-upload", daemon=True).start()

    def _run(self, job: _Job, before: _Job | None) -> None:
        try:
            if before is not None:
                before.done.wait()
            failure = self._repository.commit(job.files, f"tunewright: {job.what}")
            if failure is None:
                log.info("uploaded %s to %s", job.what, self._repository.name)
            else:
                log.warning("%s was not uploaded: %s; %s", job.what, one_line(failure), self._by_hand(job))
        finally:
            job.done.set()

    def _pending(self) -> list[_Job]:
        return [job for job in self._jobs if not job.done.is_set()]

    def _by_hand(self, job: _Job) -> str:
        return f"it is safe on this disk: hf upload {self._repository.name} {job.directory}"


@contextmanager
def uploading(run: RunConfig, ranks: Ranks) -> Iterator[Uploads | None]:
    """The run's uploads; None where it wants none, and on other ranks than the main one. The repository is made at once.

    Raises `InputError` if the hub denies it.
    """
    if not run.hub.push_to_hub or not ranks.is_main:
        yield None
        return
    demand_access("push_to_hub")
    repository = Repository(repository_name(run.hub, str(run.run.output_dir)), run.hub.hub_private_repo)
    repository.open()
    uploads = Uploads(repository, run.hub.hub_strategy, always=run.hub.hub_always_push)
    try:
        yield uploads
    finally:
        uploads.abandon()


def upload_directory(directory: Path, repository: Repository) -> None:
    """Upload all files of an exported model. Raises `LostRankError`, which is the exit code of a lost network, if that fails."""
    files = {path.relative_to(directory).as_posix(): path for path in sorted(directory.rglob("*")) if path.is_file()}
    failure = repository.commit(files, "tunewright: exported model")
    if failure is None:
        log.info("uploaded %s to %s", directory, repository.name)
        return
    raise LostRankError(f"{directory} is complete, but was not uploaded: {one_line(failure)}",
                        mend=f"hf upload {repository.name} {directory}")
