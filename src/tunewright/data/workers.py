"""Work on chunks in several processes, results in order. Standard library only."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

from tunewright.errors import LostRankError, TunewrightError

T = TypeVar("T")
R = TypeVar("R")

_AHEAD = 2


def ordered_map(work: Callable[[T], R], items: Iterable[T], workers: int) -> Iterator[R]:
    """`map(work, items)`, with `workers` forked processes when there are several.

    Forked, so that `work` - a tokenizer, a template - need not be pickled, and starts at once. An error of `work`, or
    of `items`, is raised here in its turn; a process that dies is a `LostRankError`.
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
    """Items to whichever process is free, results in order. One item at a time each: two could leave both ends writing and neither
    reading. No item is taken while `_AHEAD` results for each process wait for one that comes before them."""
    taken = enumerate(items)
    free = deque(connections)
    busy: dict[Connection, int] = {}
    done: dict[int, tuple[bool, Any]] = {}
    turn, is_over = 0, False
    while True:
        while free and not is_over and len(busy) + len(done) < _AHEAD * len(connections):
            try:
                number, item = next(taken)
            except StopIteration:
                is_over = True
            except TunewrightError as error:
                done[turn + len(busy) + len(done)] = (False, error)
                is_over = True
            else:
                _send(free[0], item)
                busy[free.popleft()] = number
        while turn in done:
            yield _opened(done.pop(turn))
            turn += 1
        if not busy and is_over:
            return
        for connection in wait(list(busy)) if busy else ():
            assert isinstance(connection, Connection)
            done[busy.pop(connection)] = _receive(connection)
            free.append(connection)


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
    # Whoever started us decides: ^C reaches all processes of a terminal, and what a run does on SIGTERM is not for us to do.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
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


def _receive(connection: Connection) -> tuple[bool, Any]:
    try:
        done, result = connection.recv()
    except (EOFError, OSError) as error:
        raise _lost() from error
    return done, result


def _opened(answer: tuple[bool, Any]) -> Any:
    """The result, or the error that it is."""
    done, result = answer
    if not done:
        raise result
    return result


def _lost() -> LostRankError:
    return LostRankError("a process that tokenises ended unexpectedly",
                         mend="lower preprocessing_num_workers if memory ran out")
