"""Work on chunks in several processes, results in order. Standard library only."""

from __future__ import annotations

import itertools
import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

from tunewright.errors import LostRankError, TunewrightError

T = TypeVar("T")
R = TypeVar("R")


def ordered_map(work: Callable[[T], R], items: Iterable[T], workers: int) -> Iterator[R]:
    """`map(work, items)`, with `workers` forked processes when there are several.

    Forked, so that `work` - a tokenizer, a template - need not be pickled, and starts at once. Each process gets every
    `workers`-th item. An error of `work` is raised here; a process that dies is a `LostRankError`.
    """
    if workers <= 1:
        yield from map(work, items)
        return
    links: list[tuple[BaseProcess, Connection]] = []
    try:
        for _ in range(workers):
            links.append(_start(work, [connection for _, connection in links]))
        yield from _exchange([connection for _, connection in links], items)
    finally:
        for process, connection in links:
            connection.close()
            process.join(timeout=5)
            if process.is_alive():
                process.terminate()
                process.join()


def _exchange(connections: list[Connection], items: Iterable[T]) -> Iterator[Any]:
    """Items to the processes in turn. One item at a time each: two could leave both ends writing and neither reading."""
    waiting: deque[Connection] = deque()
    turns = itertools.cycle(connections)
    for item, connection in zip(items, turns):  # noqa: B905 - the turns have no end
        if len(waiting) == len(connections):
            yield _receive(waiting.popleft())
        _send(connection, item)
        waiting.append(connection)
    while waiting:
        yield _receive(waiting.popleft())


def _start(work: Callable[[T], R], others: list[Connection]) -> tuple[BaseProcess, Connection]:
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(work, theirs, [*others, ours]), daemon=True)
    process.start()
    theirs.close()
    return process, ours


def _serve(work: Callable[[T], R], connection: Connection, inherited: list[Connection]) -> None:
    """In a child process: one result, or the error, per item, until the parent closes its end or dies.

    The parent's ends of all pipes are inherited by the fork and closed here; otherwise no child would see them closed.
    """
    for other in inherited:
        other.close()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one thread per process, and no warning about forks
    while True:
        try:
            item = connection.recv()
        except (EOFError, OSError):
            return
        result: tuple[bool, Any]
        try:
            result = (True, work(item))
        except TunewrightError as error:
            result = (False, error)
        try:
            connection.send(result)
        except OSError:
            return


def _send(connection: Connection, item: object) -> None:
    try:
        connection.send(item)
    except OSError as error:
        raise _lost() from error


def _receive(connection: Connection) -> Any:
    try:
        done, result = connection.recv()
    except (EOFError, OSError) as error:
        raise _lost() from error
    if not done:
        raise result
    return result


def _lost() -> LostRankError:
    return LostRankError("a process that tokenises ended unexpectedly",
                         mend="lower preprocessing_num_workers if memory ran out")
