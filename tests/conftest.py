"""What all tests share: no network, quiet libraries, reproducible property tests."""

from __future__ import annotations

import gc
import os
import socket
from collections.abc import Iterator

# Set before anything imports a library that reads them.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("MPLBACKEND", "Agg")

import pytest
from hypothesis import settings

settings.register_profile("tunewright", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("tunewright")


@pytest.fixture(autouse=True)
def _working_directory() -> Iterator[None]:
    """No test leaves the working directory for those after it in its process, which may look for files in it."""
    before = os.getcwd()
    yield
    after = os.getcwd()
    os.chdir(before)
    assert after == before, f"this test left its process in {after}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow tests first, the slowest before the others, for each of the processes that share them: each begins with its own stretch of the
    tests and takes over what others have not begun, so that at the end only short ones are left."""
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    slow, short = sorted(filter(_is_slow, items), key=_minutes, reverse=True), [item for item in items if not _is_slow(item)]
    items[:] = [item for number in range(processes)
                for item in (*slow[number::processes], *short[len(short) * number // processes: len(short) * (number + 1) // processes])]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What the samples of the self-test have shown, one line a check."""
    shown: dict[str, list[float]] = {}
    for report in (one for several in terminalreporter.stats.values() for one in several if isinstance(one, pytest.TestReport)):
        for key, value in report.user_properties:
            if key == "selftest" and report.when == "call":
                sums = shown.setdefault(value[0], [0, 0, 0.0])
                sums[:] = [one + more for one, more in zip(sums, value[1:], strict=True)]
    if shown:
        terminalreporter.section("self-test, samples")
    for name, (cases, passed, cpu_s) in shown.items():
        terminalreporter.write_line(f"{name:<14} {passed:.0f} of {cases:.0f} cases passed, {cpu_s:.0f} CPU s")


def pytest_collection_finish() -> None:
    """Leave the items of the tests and the modules that are loaded out of later garbage collections: half a million objects, a third of a
    second each time."""
    gc.collect()
    gc.freeze()


def _is_slow(item: pytest.Item) -> bool:
    return item.get_closest_marker("slow") is not None


def _minutes(item: pytest.Item) -> float:
    """What `slow(minutes=...)` says; a quarter of one otherwise."""
    marker = item.get_closest_marker("slow")
    return float(marker.kwargs.get("minutes", 0.25)) if marker else 0.0


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Only addresses of this machine can be reached: a test that needs the network is wrong, not slow."""
    connect = socket.socket.connect

    def local_only(self: socket.socket, address: object) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6):
            host = address[0] if isinstance(address, tuple) else address
            if host not in ("127.0.0.1", "::1", "localhost", "", socket.gethostname()) and not str(host).startswith("127."):
                raise AssertionError(f"a test tried to reach {address}")
        connect(self, address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket.socket, "connect", local_only)
    yield
