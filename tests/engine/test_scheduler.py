"""Many processes, real signals: nothing hangs, nothing is lost, nothing stays behind."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.engine.grids import ENDS, Grid


def multiprocessing(**config: Any) -> dict[str, Any]:
    return {"type": "multiprocessing", "config": {"process_count": 2, "retry_delay": 0.1, **config}}


@pytest.fixture
def grid(tmp_path: Path) -> Iterator[Grid]:
    found = Grid(tmp_path)
    yield found
    found.kill_all()


def test_whatever_a_job_dies_of(grid: Grid) -> None:
    """LOST with the signal or exit code, tried again, then FAILED; an accident that happens once does no harm."""
    kinds = ["kill", "segfault", "abort", "os_exit", "closes_all", "kill_once", "interrupt", "fine"]
    grid.write(multiprocessing(max_retries=1), {"kind": kinds})
    ended = grid.run()
    assert ended.returncode == 1, ended.stderr
    assert grid.ended_once() == {"FAILED": 5, "DONE": 2, "STOPPED": 1}
    lost = {(s.experiment_id, s.job_id): s.error for s in grid.statuses() if s.status == "LOST"}
    how = ["killed by SIGKILL (out of memory?)", "killed by SIGSEGV", "killed by SIGABRT", "exit code 7", "exit code 0"]
    for i, words in enumerate(how):
        assert lost[(i, f"{i}-1")] == lost[(i, f"{i}-2")] == words
        found = grid.state.experiments[i]
        assert (found.status, found.attempt, found.error) == ("FAILED", 2, f"lost 2 times, the last time: {words}")
        assert found.device == "cpu"
    assert lost[(5, "5-1")] == how[0]
    assert (grid.state.experiments[5].status, grid.state.experiments[5].attempt) == ("DONE", 2)
    assert len(lost) == 11
    assert "Fatal Python error: Segmentation fault" in grid.output(1)
    assert "--- attempt 2, " in grid.output(1)
    assert "  | " in ended.stdout
    assert "experiment 0 LOST after 0 epochs (kind=kill): killed by SIGKILL" in ended.stderr
    grid.gone()


def test_what_hangs_is_ended(grid: Grid) -> None:
    """With SIGTERM, then SIGKILL; also when it ignores the one, is stopped, or hangs after its end."""
    grid.write(
        multiprocessing(max_retries=0, progress_timeout=1, process_count=4),
        {"kind": ["hang", "deaf", "frozen", "at_exit"]},
    )
    ended = grid.run()
    assert ended.returncode == 1, ended.stderr
    assert grid.ended_once() == {"FAILED": 3, "DONE": 1}
    errors = [str(e.error) for e in grid.state.experiments.values()]
    why = "no batch was finished in progress_timeout (1 s): killed by"
    assert errors[:3] == [f"lost: {why} SIGTERM", f"lost: {why} SIGKILL", f"lost: {why} SIGKILL"]
    assert "in misbehave" in grid.output(0)  # where it hung
    grid.gone()


def test_a_job_that_takes_too_long_is_not_tried_again(grid: Grid) -> None:
    grid.write(multiprocessing(job_timeout=0.5), {"sleep": [0.0, 0.1]}, epochs=5)
    assert grid.run().returncode == 1
    slow = grid.state.experiments[1]
    assert (slow.status, slow.attempt) == ("FAILED", 1)
    assert str(slow.error).startswith("lost: it took longer than job_timeout (0.5 s): killed by SIGTERM")


def test_an_exception_is_tried_again_when_asked(grid: Grid) -> None:
    grid.write(multiprocessing(retry_failed=True), {"kind": ["raise", "raise_once"]})
    assert grid.run().returncode == 1
    always, once = grid.state.experiments.values()
    assert (always.status, always.attempt, once.status, once.attempt) == ("FAILED", 3, "DONE", 2)
    assert grid.ended_once() == {"FAILED": 1, "DONE": 1}


def test_a_device_error_is_not_the_codes_fault(grid: Grid) -> None:
    grid.write(multiprocessing(), {"kind": "device"})
    assert grid.run().returncode == 0
    assert [(s.status, s.reason) for s in grid.statuses() if s.status in ENDS] == [
        *(("FAILED", "device error"), ("DONE", None)),
    ]


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"computation_device_ids": [77]}, "run_config.yml:1:.*there is no CUDA device 77: this machine has"),
        ({"computation_device_ids": [0, 0]}, "computation_device_ids: device 0 is named twice"),
        ({"process_count": 0}, "process_count: must be at least 1, not 0"),
        ({"job_timeout": -1}, "job_timeout: must be more than 0, not -1"),
        ({"proces_count": 2}, "did you mean 'process_count'"),
    ],
)
def test_a_bad_environment_is_told_before_anything_starts(grid: Grid, config: dict[str, Any], words: str) -> None:
    grid.write({"type": "multiprocessing", "config": config}, {"number": 1})
    ended = grid.run()
    assert ended.returncode == 2
    assert re.search(words, ended.stderr), ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (grid.folder / "event_storage").exists()
    grid.gone()


# --- output -------------------------------------------------------------------------------------------------


def test_output_goes_to_a_file(grid: Grid) -> None:
    """From Python, shells and C; also right before a kill. Not through the bars, and the script speaks once."""
    grid.one_script = True
    grid.write(multiprocessing(max_retries=0), {"kind": ["prints", "last_words"]})
    ended = grid.run()
    for words in ("from python\n", "from a shell\n", "from C\n", "to stderr, \\udcff and all"):
        assert words in grid.output(0)
    assert "from python" not in ended.stdout + ended.stderr
    assert "last words from C\n" in grid.output(1)
    assert "  | last words from C\n" in ended.stdout
    assert ended.stdout.count("printed by the script itself") == 1


def test_a_jobs_own_processes_end_with_it(grid: Grid) -> None:
    """Also those in sessions of their own, and those whose parents have left; loader workers too."""
    kinds = ["children", "children_kill", "fine"]
    grid.write(multiprocessing(max_retries=0), {"kind": kinds}, workers=2)
    process = grid.start()
    try:
        process.communicate(timeout=120)
    finally:
        grid.gone(0)
    assert grid.ended_once() == {"DONE": 2, "FAILED": 1}


def test_what_jobs_may_do(grid: Grid) -> None:
    """Start something and wait for it, fork, leave a thread behind, and fail in any language."""
    grid.environment |= {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    kinds = ["background", "fork_exit", "fork_raise", "thread", "fine", "fine", "foreign"]
    grid.write(multiprocessing(), {"kind": kinds}, epochs=2)
    ended = grid.run()
    assert grid.ended_once() == {"DONE": 6, "FAILED": 1}, ended.stderr
    assert all(e.epochs_done == 2 for e in list(grid.state.experiments.values())[:6])
    assert (grid.folder / "thread").exists()
    assert grid.state.experiments[6].error == "ValueError: größe \\udcff"
    grid.gone()


def test_a_script_with_shared_memory(grid: Grid) -> None:
    """Python's own process that looks after it must be let to do so."""
    before = set(Path("/dev/shm").iterdir())
    grid.one_script = True
    grid.write(multiprocessing(), {"number": [1, 2]})
    script = grid.folder / "run.py"
    more = "from multiprocessing import get_context, shared_memory\nLOCK = get_context('spawn').Lock()\n"
    more += "MEMORY = shared_memory.SharedMemory(create=True, size=100)\n"
    script.write_text(script.read_text().replace("import torch\n", f"import torch\n{more}", 1))
    assert grid.run().returncode == 0
    end = time.monotonic() + 5
    mine = {path for path in Path("/dev/shm").iterdir() if path.name.startswith(("psm_", "sem.mp-"))} - before
    while mine & set(Path("/dev/shm").iterdir()) and time.monotonic() < end:
        time.sleep(0.05)
    assert not mine & set(Path("/dev/shm").iterdir())
    grid.gone()


@pytest.mark.parametrize(
    ("shell", "status"),
    [("python run.py {0} | true", 1), ("python run.py {0} >&- 2>&-", 1), ("python run.py {0} > /dev/full", 1)],
)
def test_when_nobody_reads(grid: Grid, shell: str, status: int) -> None:
    """The exit code is that of the grid all the same."""
    grid.write(multiprocessing(max_retries=0), {"kind": ["fine", "raise"]})
    script = grid.folder / "parts.py"
    script.write_text(script.read_text().replace('print("printed by the script itself")', ""))
    command = grid.command()
    line = shell.format("--config_path run_config.yml").replace("python", sys.executable)
    command["args"] = ["bash", "-c", f"set -o pipefail; {line}"]
    ended = subprocess.run(**command, capture_output=True, timeout=120, check=False)
    assert ended.returncode == status, ended.stderr
    assert grid.ended_once() == {"DONE": 1, "FAILED": 1}


def test_an_event_storage_that_is_deleted(grid: Grid) -> None:
    grid.write(multiprocessing(), {"number": [1, 2], "sleep": 0.05}, epochs=10)
    process = grid.start()
    grid.wait_for("RUNNING", 2)
    shutil.rmtree(grid.folder / "event_storage", ignore_errors=True)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "was deleted while the grid search was running" in stderr
    grid.gone()


# --- ending -------------------------------------------------------------------------------------------------


def test_a_second_signal_kills(grid: Grid) -> None:
    grid.write(multiprocessing(), {"kind": ["deaf", "hang"], "number": [1, 2]})
    process = grid.start()
    grid.wait_for("RUNNING", 2)
    time.sleep(0.3)
    assert process.stderr
    process.send_signal(signal.SIGTERM)  # as good as Ctrl-C
    assert any("once more to kill" in line for line in process.stderr)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 130, stderr
    found = [e.status for e in grid.state.experiments.values()]
    assert sorted(found) == ["INIT", "INIT", "LOST", "LOST"]
    assert {e.error for e in grid.state.experiments.values()} == {None, "killed by the user: killed by SIGKILL"}
    assert grid.state.status == "INTERRUPTED"
    assert not grid.ended_once()
    grid.gone(0.5)


def test_a_signal_while_the_server_loads(grid: Grid) -> None:
    grid.write(multiprocessing(), {"number": 1})
    process = grid.start()
    while not grid.server():
        time.sleep(0.01)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 130
    assert stderr == "run.py: interrupted\n"
    grid.gone()


@pytest.mark.parametrize("wait", [0.5, 2.5, None])
def test_when_the_parent_is_killed_its_workers_go(grid: Grid, wait: float | None) -> None:
    """While the server loads, while it tries the configuration, and while jobs with children run."""
    grid.write(multiprocessing(), {"kind": "children", "sleep": 0.05}, epochs=10_000, workers=1)
    process = grid.start()
    if wait is None:
        grid.wait_for("RUNNING")
        time.sleep(1)
        assert len(grid.processes()) > 4
    else:
        time.sleep(wait)
    process.kill()
    process.communicate(timeout=30)
    grid.gone()


def test_when_the_server_is_killed_another_takes_over(grid: Grid) -> None:
    grid.write(multiprocessing(), {"number": [1, 2, 3], "sleep": 0.05}, epochs=15)
    process = grid.start()
    grid.wait_for("RUNNING", 2)
    server = grid.server()
    assert server
    os.kill(server, signal.SIGKILL)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    assert "the process that starts jobs has died; starting another" in stderr
    assert grid.ended_once() == {"DONE": 3}
    lost = [s.error for s in grid.statuses() if s.status == "LOST"]
    assert lost == ["the process that starts jobs has died"] * 2
    grid.gone()


def test_a_server_that_hangs_is_replaced(grid: Grid) -> None:
    """Neither the hung job can be killed through it, nor the next be started."""
    script = "import mlgym.engine.scheduler as scheduler\nscheduler._ANSWER, scheduler._GRACE = 2.0, 0.5\n"
    grid.write(multiprocessing(progress_timeout=2), {"kind": ["stops_server", "fine"]})
    path = grid.folder / "run.py"
    path.write_text(
        path.read_text().replace("    run(blueprint)", f"    {script.replace(chr(10), chr(10) + '    ')}run(blueprint)")
    )
    ended = grid.run()
    assert ended.returncode == 0, ended.stderr
    assert "the process that starts jobs has died; starting another" in ended.stderr
    assert "it does not even die of SIGKILL" in ended.stderr
    assert grid.ended_once() == {"DONE": 2}
    grid.gone()


# --- random kills -------------------------------------------------------------------------------------------


def kill_jobs(grid: Grid, process: Any, kills: int, rng: random.Random, and_server: bool) -> int:
    """SIGKILL random jobs (and now and then the server) until there have been `kills`; how many there were."""
    done = 0
    while done < kills and process.poll() is None:
        time.sleep(rng.uniform(0.0, 0.3))
        jobs = grid.jobs()
        if and_server and jobs and rng.random() < 0.05:
            jobs = [grid.server() or 0]
        if jobs:
            try:
                os.kill(rng.choice(jobs), signal.SIGKILL)
                done += 1
            except ProcessLookupError:
                pass
    return done


def survive(grid: Grid, kills: int, experiments: int, seed: int) -> None:
    grid.write(
        multiprocessing(max_retries=1_000, retry_delay=0),
        {"kind": [*(["fine"] * (experiments - 1)), "wait"], "sleep": 0.01},
        epochs=4,
        workers=1,
    )
    process = grid.start()
    grid.wait_for("RUNNING")
    done = kill_jobs(grid, process, kills, random.Random(seed), and_server=True)
    (grid.folder / "enough").touch()
    _, stderr = process.communicate(timeout=280)
    assert process.returncode == 0, stderr
    assert done == kills
    assert grid.ended_once() == {"DONE": experiments}
    statuses = grid.statuses()
    assert [s.reason for s in statuses if s.status in ENDS] == [None] * experiments
    assert sum(s.status == "LOST" for s in statuses) >= 0.5 * kills  # some were killed after their end
    for found in grid.state.experiments.values():
        assert found.epochs_done == 4
    grid.gone(0.5)


def test_random_kills(grid: Grid) -> None:
    survive(grid, kills=12, experiments=8, seed=1)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(4))
def test_a_hundred_random_kills(grid: Grid, seed: int) -> None:
    survive(grid, kills=30, experiments=20, seed=seed)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(20))
def test_the_parent_is_killed_at_a_random_moment(grid: Grid, seed: int) -> None:
    grid.write(multiprocessing(), {"kind": ["children", "fine"], "number": [1, 2, 3]}, epochs=50, workers=1)
    process = grid.start()
    time.sleep(random.Random(seed).uniform(0, 12))
    process.kill()
    process.communicate(timeout=30)
    grid.gone()


# --- size ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [60, pytest.param(1_000, marks=pytest.mark.long)])
def test_a_large_grid(grid: Grid, count: int) -> None:
    """All of them DONE, in a parent that does not grow with them."""
    grid.write(multiprocessing(), {"number": list(range(count))})
    with (grid.folder / "stdout").open("w") as stdout:
        process = subprocess.Popen(**grid.command(), stdout=stdout, stderr=subprocess.STDOUT)
    grid.wait_for("DONE", 10)
    before = resident(process.pid)
    peak = before
    while process.poll() is None:
        peak = max(peak, resident(process.pid))
        time.sleep(0.1)
    assert process.returncode == 0
    assert grid.ended_once() == {"DONE": count}
    assert peak - before < 50
    grid.gone(0.5)


def resident(pid: int) -> float:
    """MiB."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    return 0.0
