"""Killed at any file operation, the writer leaves the old files, the new ones, or an index that is missing: never a mixture.

Oracle: the documents that were written before and those that were to be written.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tunewright.data.megatron.reader import open_tokens
from tunewright.data.megatron.writer import IndexedWriter
from tunewright.errors import InputError
from tunewright.selftest.killing import KILLED, Case, Server, server

pytestmark = pytest.mark.slow

WRITE = "tests.harness.scenarios:write_token_files"
OLD, NEW = [[1, 2], [3]], [[4], [5, 6, 7], [8, 9]]


@pytest.fixture(scope="module")
def kill_server() -> Server:
    return server()


def left(prefix: Path) -> list[list[int]] | str:
    try:
        found = open_tokens(prefix)
    except InputError as error:
        return error.message
    return [found.document(number).tolist() for number in range(found.num_documents)]


@pytest.mark.parametrize("mode", ["kill", "tear", "full"])
def test_every_file_operation(kill_server: Server, tmp_path: Path, mode: str) -> None:
    """Before an operation, in the middle of a write, or with a disk that is full after so many bytes."""
    counted = Case(WRITE, {"prefix": f"{tmp_path}/0/t", "documents": NEW}, str(tmp_path), "count")
    operations = kill_server.run(counted).operations
    assert len(operations) >= 8 and any(operation.startswith("rename") for operation in operations), operations
    seen = set()
    for at in range(1, len(operations) + 4):
        prefix = tmp_path / f"{mode}-{at}" / "t"
        prefix.parent.mkdir()
        with IndexedWriter(prefix, np.dtype("uint16")) as writer:
            for document in OLD:
                writer.add(document)
        arguments = {"prefix": str(prefix), "documents": NEW}
        first = kill_server.run(Case(WRITE, arguments, str(prefix.parent), mode, 12 * at if mode == "full" else at))
        assert first.code in (0, 4 if mode == "full" else KILLED), first.output
        found = left(prefix)
        assert found in (OLD, NEW, "the file is missing, its partner is there"), (at, found)
        seen.add(str(found))
        assert kill_server.run(Case(WRITE, arguments, str(prefix.parent))).code == 0
        assert left(prefix) == NEW and sorted(path.name for path in prefix.parent.iterdir()) == ["t.bin", "t.idx"]
    assert {str(OLD), str(NEW)} <= seen
