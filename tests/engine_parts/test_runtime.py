"""Ranks, collectives and the launcher, with real processes and real signals. Oracle: arithmetic and POSIX exit codes."""

from __future__ import annotations

import json
import logging
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tunewright.errors import LostRankError
from tunewright.runtime import (
    Ranks,
    configure_logging,
    in_ranked_world,
    launch_ranks,
    lost_rank_named,
    process_group,
    seed_everything,
    wanted_processes,
)

SOURCE = str(Path(__file__).resolve().parents[2] / "src")

COLLECTIVES = """
import json, sys
from pathlib import Path
from tunewright.runtime import Ranks, end_process, process_group
ranks = Ranks.from_environment()
with process_group(ranks, timeout_s=60):
    total = ranks.all_reduce_sum([0.1, ranks.rank, 2.0 ** 53])
    gathered = ranks.gather_objects({"rank": ranks.rank, "text": "x" * (1 + 5000 * ranks.rank), "third": 1 / 3})
    ranks.barrier()
Path(sys.argv[1], f"{ranks.rank}.json").write_text(json.dumps([total, gathered]))
end_process(0)
"""


@pytest.fixture(autouse=True)
def _package_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", SOURCE)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def script(body: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", body, *arguments]


def test_ranks_from_environment() -> None:
    assert Ranks.from_environment({}) == Ranks(0, 1, 0)
    assert Ranks.from_environment({"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}) == Ranks(5, 8, 1)
    assert Ranks(0, 8).is_main and not Ranks(1, 8).is_main
    assert in_ranked_world({"RANK": "0", "WORLD_SIZE": "1"}) and not in_ranked_world({"LOCAL_RANK": "0"})


def test_a_lone_rank_needs_nobody() -> None:
    ranks = Ranks()
    with process_group(ranks, timeout_s=10):
        assert ranks.all_reduce_sum([1, 2.5]) == [1.0, 2.5]
        assert ranks.gather_objects({"a": 1}) == [{"a": 1}]
        ranks.barrier()


def test_two_ranks_add_and_gather_exactly(tmp_path: Path) -> None:
    """2^53 + 2^53 = 2^54 needs float64; 1/3 keeps every bit; parts of unequal length arrive whole, in order."""
    assert launch_ranks(script(COLLECTIVES, str(tmp_path)), 2) == 0
    for rank in (0, 1):
        total, gathered = json.loads((tmp_path / f"{rank}.json").read_text())
        assert total == [0.2, 1.0, 2.0**54]
        assert gathered == [{"rank": 0, "text": "x", "third": 1 / 3}, {"rank": 1, "text": "x" * 5001, "third": 1 / 3}]


@pytest.mark.slow
def test_real_torchrun_works_too(tmp_path: Path) -> None:
    """A user may put torchrun in front: the ranks then meet where torchrun says."""
    program = tmp_path / "program.py"
    program.write_text(COLLECTIVES)
    subprocess.run([sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(program),
                    str(tmp_path)], check=True, timeout=120, capture_output=True)
    assert json.loads((tmp_path / "1.json").read_text())[0] == [0.2, 1.0, 2.0**54]


@pytest.mark.parametrize(("body", "expected"), [
    ("pass", 0),
    ("import sys; sys.exit(75)", 75),
    ("import sys, os; sys.exit(2 if os.environ['RANK'] == '1' else 0)", 2),
    # the rank that failed for a reason of its own counts, not the one that lost contact with it
    ("import sys, os, time; time.sleep(0.3 * (os.environ['RANK'] == '1')); sys.exit(5 if os.environ['RANK'] == '1' else 6)", 5),
    ("import sys; sys.exit(6)", 6),
])
def test_exit_codes_pass_through(body: str, expected: int) -> None:
    assert launch_ranks(script(body), 2) == expected


def test_arguments_are_not_split(tmp_path: Path) -> None:
    """Spaces, quotes, newlines and dashes arrive as they were given."""
    odd = [str(tmp_path), "a b", "--x='y z'", "line\nbreak", "-", "$(touch canary)"]
    body = "import sys, json, os; open(os.path.join(sys.argv[1], 'got' + os.environ['RANK']), 'w').write(json.dumps(sys.argv[1:]))"
    assert launch_ranks(script(body, *odd), 2) == 0
    assert json.loads((tmp_path / "got1").read_text()) == odd and not Path("canary").exists()


def test_a_killed_rank_ends_the_job_and_is_named(capfd: pytest.CaptureFixture[str]) -> None:
    """The other rank, which would sleep for a minute, is ended after the grace period."""
    body = "import os, signal, time; os.kill(os.getpid(), signal.SIGKILL) if os.environ['RANK'] == '1' else time.sleep(60)"
    started = time.monotonic()
    assert launch_ranks(script(body), 2, grace_s=0.5) == 6
    assert time.monotonic() - started < 15
    assert "rank 1 was ended by SIGKILL" in capfd.readouterr().err


LAUNCHER = """
import sys
from tunewright.runtime import launch_ranks
sys.exit(launch_ranks([sys.executable, "-c", sys.argv[1], sys.argv[2]], 2))
"""
WAITING = """
import os, signal, sys, time
from pathlib import Path
from tunewright.runtime import _watch_parent
def stop(*_):
    Path(sys.argv[1], "stopped" + os.environ["RANK"]).touch()
    sys.exit(75)
signal.signal(getattr(signal, "SIGTERM"), stop)
signal.signal(getattr(signal, "SIGUSR1"), stop)
_watch_parent()
Path(sys.argv[1], "ready" + os.environ["RANK"]).touch()
time.sleep(60)
"""


def wait_for(*paths: Path) -> None:
    deadline = time.monotonic() + 30
    while not all(path.exists() for path in paths):
        assert time.monotonic() < deadline, f"{paths} did not appear"
        time.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_signals_reach_every_rank(tmp_path: Path, number: signal.Signals) -> None:
    process = subprocess.Popen(script(LAUNCHER, WAITING, str(tmp_path)))
    wait_for(tmp_path / "ready0", tmp_path / "ready1")
    process.send_signal(number)
    assert process.wait(timeout=30) == 75
    assert (tmp_path / "stopped0").exists() and (tmp_path / "stopped1").exists()


def test_ranks_stop_when_the_launcher_is_killed(tmp_path: Path) -> None:
    process = subprocess.Popen(script(LAUNCHER, WAITING, str(tmp_path)))
    wait_for(tmp_path / "ready0", tmp_path / "ready1")
    process.kill()
    process.wait(timeout=30)
    wait_for(tmp_path / "stopped0", tmp_path / "stopped1")


def test_a_lost_peer_is_reported_as_such(tmp_path: Path) -> None:
    """Rank 1 leaves without a word; rank 0, in the middle of an exchange, exits with 6 and not with a traceback's 1."""
    body = """
import os, sys
from tunewright.errors import LostRankError
from tunewright.runtime import Ranks, process_group
ranks = Ranks.from_environment()
with process_group(ranks, timeout_s=20):
    ranks.barrier()
    if ranks.rank == 1:
        os._exit(0)
    try:
        ranks.all_reduce_sum([1.0])
        ranks.all_reduce_sum([1.0])
    except LostRankError as error:
        print(error.line(), file=sys.stderr, flush=True)
        os._exit(error.exit_code)
"""
    assert launch_ranks(script(body), 2) == 6


@pytest.mark.slow
def test_a_hung_peer_ends_the_job_after_the_timeout() -> None:
    """Rank 1 stops without dying; rank 0 gives up after 4 s, and the launcher ends both."""
    body = """
import os, signal, sys
from tunewright.errors import LostRankError
from tunewright.runtime import Ranks, process_group
ranks = Ranks.from_environment()
with process_group(ranks, timeout_s=4):
    ranks.barrier()
    if ranks.rank == 1:
        os.kill(os.getpid(), signal.SIGSTOP)
    try:
        ranks.all_reduce_sum([1.0])
    except LostRankError as error:
        os._exit(error.exit_code)
"""
    started = time.monotonic()
    assert launch_ranks(script(body), 2, grace_s=0.5) == 6
    assert time.monotonic() - started < 60


def test_only_rank_errors_are_translated() -> None:
    with pytest.raises(LostRankError, match="rank 1 of 2 lost contact with another rank while saving"), \
            lost_rank_named(Ranks(1, 2), "saving"):
        raise RuntimeError("[gloo/transport/tcp/pair.cc] Connection closed by peer")
    with pytest.raises(RuntimeError, match="shape mismatch"), lost_rank_named(Ranks(1, 2), "saving"):
        raise RuntimeError("shape mismatch")


def test_seeds_repeat_and_differ_between_ranks() -> None:
    import numpy as np
    import torch

    def draw(seed: int, rank: int) -> tuple[float, float, float]:
        seed_everything(seed, Ranks(rank, 2))
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    assert draw(7, 0) == draw(7, 0)
    assert all(one != other for one, other in zip(draw(7, 0), draw(7, 1), strict=True))
    assert draw(2**32 - 1, 1) == draw(0, 0)


def test_log_lines_hide_secrets_and_name_other_ranks(capsys: pytest.CaptureFixture[str]) -> None:
    token = "hf_" + "a" * 30
    logger = configure_logging(Ranks(1, 2))
    logger.info("not shown")
    logger.warning("push to https://me:%s@host/x with %s and sk-%s", "pw", token, "b" * 20)
    assert capsys.readouterr().err == "[rank 1] push to https://***@host/x with *** and ***\n"
    configure_logging(Ranks()).info("hello")
    assert capsys.readouterr().err == "hello\n"
    logging.getLogger("tunewright").handlers.clear()


def test_wanted_processes() -> None:
    """As many as asked for; on the CPU one, unless asked."""
    assert wanted_processes(3, use_cpu=True) == 3
    assert wanted_processes(None, use_cpu=True) == 1


@pytest.mark.slow
def test_full_determinism_refuses_an_operation_without_a_deterministic_form() -> None:
    """Oracle: torch itself, whose `put_` without accumulation has none."""
    code = """
import torch
from tunewright.runtime import demand_determinism
demand_determinism()
assert torch.are_deterministic_algorithms_enabled() and not torch.backends.cudnn.benchmark
try:
    torch.zeros(3).put_(torch.tensor([0]), torch.tensor([1.0]), accumulate=False)
except RuntimeError as error:
    assert "does not have a deterministic implementation" in str(error)
else:
    raise SystemExit("not refused")
"""
    assert subprocess.run(script(code)).returncode == 0


def test_importing_runtime_needs_no_torch() -> None:
    code = "import sys, tunewright.runtime; sys.exit('torch' in sys.modules)"
    assert subprocess.run(script(code), env={**os.environ, "PYTHONPATH": SOURCE}).returncode == 0
