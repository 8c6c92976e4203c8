"""The fork server by itself, and the ways in which a script can hand its blueprint to it."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlgym.engine.channel import receive
from mlgym.engine.forkserver import Child, ForkServer
from mlgym.errors import InputError, StorageError
from tests.engine.grids import Grid

PREPARE = "mlgym.engine.worker:registry_of"
ONE = {"type": "multiprocessing", "config": {"process_count": 1, "max_retries": 0}}


@pytest.fixture
def grid(tmp_path: Path) -> Iterator[Grid]:
    found = Grid(tmp_path, one_script=True)
    found.write(ONE, {"number": 1})
    yield found
    found.kill_all()


def rewrite(grid: Grid, old: str, new: str) -> None:
    path = grid.folder / "run.py"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


GUARD = 'if __name__ == "__main__":\n    run(blueprint)'


@pytest.mark.parametrize(
    "script",
    [
        "run(blueprint)",  # no guard: loading it calls run again
        "run(lambda registry: blueprint(registry))",
        "import other\nif __name__ == '__main__':\n    run(other.blueprint)",
    ],
)
def test_a_blueprint_is_found(grid: Grid, script: str) -> None:
    (grid.folder / "other.py").write_text((grid.folder / "run.py").read_text())
    rewrite(grid, GUARD, script)
    ended = grid.run()
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("grid search ") == 1
    grid.gone()


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (
            'if __name__ == "__main__":\n    run(lambda registry: blueprint(registry))',
            "the blueprint '<lambda>' cannot be found by other processes: define it with `def` at the top",
        ),
        ('if __name__ != "__main__":\n    raise OSError("not twice")\n' + GUARD, "OSError: not twice"),
        ('if __name__ != "__main__":\n    sys.exit("no")\n' + GUARD, "SystemExit: no"),
        (
            'if __name__ != "__main__":\n    os._exit(9)\n' + GUARD,
            "the process that starts jobs died while it was loading: exit code 9",
        ),
    ],
)
def test_a_script_that_cannot_be_loaded(grid: Grid, script: str, words: str) -> None:
    rewrite(grid, GUARD, script)
    ended = grid.run()
    assert ended.returncode == 2, ended.stderr
    assert words in ended.stderr
    assert not (grid.folder / "event_storage").exists()
    grid.gone()


def test_as_a_module(grid: Grid) -> None:
    command = grid.command()
    command["args"] = [sys.executable, "-m", "run", *command["args"][2:]]
    ended = subprocess.run(**command, capture_output=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr


def test_a_configuration_that_kills_the_check(grid: Grid) -> None:
    rewrite(grid, "    def forward(self", "    def forward(self, x):\n        os._exit(5)\n\n    def forward_(self")
    ended = grid.run()
    assert ended.returncode == 2
    assert "the process that tried the configuration ended before it could answer: exit code 5" in ended.stderr


# --- by itself ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    with ForkServer(PREPARE) as found:
        found.wait_ready()
        yield found


def ended(server: ForkServer, child: Child) -> int | None:
    while not child.ended:
        select.select([server], [], [], 1)
        server.update()
    child.channel.close()
    return child.exit_status


def test_a_child_is_fresh_and_has_everything_loaded(server: ForkServer) -> None:
    children = [server.start("tests.engine.test_forkserver:look") for _ in range(4)]
    found = [receive(child.channel) for child in children]
    assert [ended(server, child) for child in children] == [0] * 4
    pids, sessions, threads, loaded, cuda, variants = zip(*found, strict=True)
    assert len(set(pids)) == 4
    assert sessions == pids
    assert set(threads) == {1}  # a thread of the server's would be lost in the fork, with what it holds
    assert set(loaded) == {True}
    assert set(cuda) == {False}
    assert all(variants)


def look(channel: object, registry: object) -> None:
    from mlgym.engine.channel import send

    threads = len(list(Path("/proc/self/task").iterdir()))
    torch = sys.modules["torch"]
    cuda = torch.cuda.is_initialized()
    loaded = "torch._dynamo" in sys.modules
    found = (os.getpid(), os.getsid(0), threads, loaded, cuda, registry is not None)
    send(channel, found)  # type: ignore[arg-type]


def test_exit_statuses(server: ForkServer) -> None:
    child = server.start("tests.engine.test_forkserver:leave", 7)
    assert ended(server, child) == 7
    child = server.start("tests.engine.test_forkserver:no_such_function")
    assert ended(server, child) == 1
    child = server.start("tests.engine.test_forkserver:nap")
    while child.pid is None:
        server.update()
    server.signal(child, signal.SIGTERM)
    assert ended(server, child) == -signal.SIGTERM
    server.signal(child, signal.SIGKILL)  # too late: no harm to whoever has the number now


def leave(channel: object, registry: object, status: int) -> int:
    return status


def nap(channel: object, registry: object) -> None:
    time.sleep(100)


def test_large_objects_travel(server: ForkServer) -> None:
    child = server.start("tests.engine.test_forkserver:echo", "x" * 3_000_000, {1: float("inf"), "b": 2**100})
    assert receive(child.channel) == ("x" * 3_000_000, {1: float("inf"), "b": 2**100})
    assert ended(server, child) == 0


def echo(channel: object, registry: object, *arguments: object) -> None:
    from mlgym.engine.channel import send

    send(channel, arguments)  # type: ignore[arg-type]


def test_no_more_processes(server: ForkServer) -> None:
    """A limit of the kernel: told as a failure of the child, and over when the limit is."""
    import resource

    soft, hard = resource.prlimit(server._process.pid, resource.RLIMIT_NPROC)
    if os.getuid() == 0:
        pytest.skip("root has no such limit")
    resource.prlimit(server._process.pid, resource.RLIMIT_NPROC, (1, hard))
    try:
        child = server.start("tests.engine.test_forkserver:leave", 0)
        assert ended(server, child) is None
        assert "no process could be started" in str(child.failure)
    finally:
        resource.prlimit(server._process.pid, resource.RLIMIT_NPROC, (soft, hard))


def test_a_blueprint_of_a_prompt() -> None:
    def blueprint(registry: object) -> None: ...

    blueprint.__module__ = "__main__"
    main = sys.modules["__main__"]
    before = main.__spec__, getattr(main, "__file__", None)
    main.__spec__ = main.__file__ = None
    try:
        with pytest.raises(InputError, match="use `type: main_process`"):
            ForkServer(PREPARE, blueprint)
    finally:
        main.__spec__, main.__file__ = before


def test_a_server_that_dies_while_loading() -> None:
    with ForkServer(PREPARE) as server:
        server._process.kill()
        with pytest.raises(StorageError, match="died while it was loading: killed by SIGKILL"):
            server.wait_ready()
