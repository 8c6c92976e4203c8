"""The executor for a Ray cluster: connecting, what is asked of the cluster before a run, and leaving it.

Importing this does not import Ray; making the executor does.
"""

from __future__ import annotations

import importlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mlgym.engine import guard, station
from mlgym.engine.checking import Checked
from mlgym.engine.dividing import Divided
from mlgym.engine.driver import Driver, gist, name_of
from mlgym.engine.executor import Blueprint, Emit, Stop
from mlgym.engine.forkserver import whereabouts
from mlgym.engine.station import Code, Home, Station
from mlgym.errors import ConfigError, ConfigPath, InputError, StorageError, tell
from mlgym.plan.config import LoggingConfig, RayConfig
from mlgym.plan.folds import CrossValidation, NestedCrossValidation
from mlgym.record.token import board_token
from mlgym.specs import ExperimentSpec, RunPaths

_WHERE: ConfigPath = ("environment", "config")
_LONGEST_FOLDER = 20  # Ray puts sockets some 85 characters below it; their paths can have 107
_EXCLUDED = [".git", ".venv", "__pycache__"]


class Ray:
    """The executor. Making it connects to the cluster, or starts one that ends with it. Raises `ConfigError`."""

    kills_after = 3  # the second signal kills the jobs

    def __init__(self, config: RayConfig, logging: LoggingConfig, blueprint: Blueprint | None) -> None:
        self._config = config
        self._logging = logging
        self._own = config.address is None
        folder = str(Path.cwd())
        environment = _runtime_env(config, Path(logging.event_storage_path))
        path = [entry or folder for entry in sys.path if isinstance(entry, str)]
        where = whereabouts(blueprint)
        self._code = Code(where, sys.argv, _without_python(path), folder, "working_dir" in environment)
        self._threads = max(1, int(config.num_cpus_per_job))
        self._temporary = _Temporary() if self._own else None
        self._ray: Any = None
        try:
            self._ray = _ray()
            self._connect(environment)
        except BaseException:
            self.close()
            raise

    def _connect(self, environment: dict[str, Any]) -> None:
        options: dict[str, Any] = {"address": self._config.address}
        if self._temporary:
            options = {
                "address": "local",
                "_temp_dir": str(self._temporary.folder),
                "include_dashboard": False,
                "object_store_memory": 100 << 20,  # what travels is small
            }
        with _own_signals():
            try:
                _knock(self._config.address)
                self._ray.init(
                    **options, runtime_env=environment, log_to_driver=False, logging_level="error", namespace="mlgym"
                )
            except (ConnectionError, RuntimeError, ValueError, TypeError, OSError) as error:
                raise ConfigError(*self._refusal(error)) from None
        if self._temporary:
            self._temporary.begun()

    def _refusal(self, error: Exception) -> tuple[str, ConfigPath]:
        text = next(iter(str(error).strip().splitlines()), type(error).__name__)
        if isinstance(error, ConnectionError | RuntimeError) and not self._own:
            return (
                f"no Ray cluster answers ({text}); `ray start --head` starts one on this machine, `address: null` "
                "lets the run start its own",
                (*_WHERE, "address"),
            )
        return f"Ray refuses it: {text}", (*_WHERE, "runtime_env") if self._config.runtime_env else _WHERE

    # --- before a run -------------------------------------------------------------------------------------------

    def gpus(self) -> list[dict[str, Any]]:
        """The CUDA devices that a job sees. Raises `ConfigError` when no machine has what a job needs, or when the
        machines can reach neither the event storage nor a server that keeps the files."""
        self._refuse_unseen_storage()
        if not self._has_room() or not self._config.num_gpus_per_job:
            return []
        error, found = self._ask(station.probe_task)
        if error is not None:
            raise ConfigError(str(error), (*_WHERE, "num_gpus_per_job"))
        return list(found)

    def check(self, specs: list[ExperimentSpec]) -> Checked:
        """Try each of `specs` as a job would."""
        self._has_room()
        found: Checked = self._ask(
            station.check_task, self._code, specs, self._config.num_gpus_per_job > 0, self._threads
        )
        return found

    def divide(self, specs: list[ExperimentSpec], wanted: CrossValidation | NestedCrossValidation) -> Divided:
        """Divide the data where a job would read them."""
        self._has_room()
        found: Divided = self._ask(station.divide_task, self._code, specs, wanted)
        return found

    def _ask(self, function: Callable[..., Any], *arguments: Any) -> Any:
        task = self._ray.remote(function).options(**self._resources(), max_retries=0)
        with _own_signals():
            try:
                return self._ray.get(task.remote(*arguments))
            except self._ray.exceptions.RayError as error:
                raise InputError(f"the process that tried the configuration has died: {gist(error)}") from None

    def _resources(self) -> dict[str, Any]:
        return {"num_cpus": self._config.num_cpus_per_job, "num_gpus": self._config.num_gpus_per_job}

    def _nodes(self) -> list[dict[str, Any]]:
        return [node for node in self._ray.nodes() if node["Alive"]]

    def _has_room(self) -> bool:
        """Whether a machine can hold a job. Raises `ConfigError` when that is sure to stay so."""
        for name, key in (("CPU", "num_cpus_per_job"), ("GPU", "num_gpus_per_job")):
            wanted = getattr(self._config, key)
            most = max((node["Resources"].get(name, 0) for node in self._nodes()), default=0)
            if wanted <= most:
                continue
            message = f"a job needs {wanted:g} {name}s, and no machine has more than {most:g}"
            if self._own:
                raise ConfigError(message, (*_WHERE, key))
            tell(f"warning: {message}; waiting for one that joins the cluster")
            return False
        return True

    def _refuse_unseen_storage(self) -> None:
        if self._own or self._logging.gs_rest_api_endpoint:
            return
        storage = Path(self._logging.event_storage_path).absolute()
        folder = next(path for path in (storage, *storage.parents) if path.is_dir())
        marker, content = folder / f".mlgym-{secrets.token_hex(8)}", secrets.token_hex(16)
        try:
            marker.write_text(content)
        except OSError as error:
            raise StorageError(f"{folder}: the event storage cannot be written: {error.strerror}") from None
        try:
            sees = self._ray.remote(station.sees)
            asked = {
                sees.options(num_cpus=0, scheduling_strategy=self._on(node["NodeID"])).remote(
                    str(marker), content
                ): node
                for node in self._nodes()
            }
            blind = [name_of(node) for ref, node in asked.items() if not self._sees(ref)]
        finally:
            marker.unlink()
        if blind:
            raise ConfigError(
                f"{blind[0]} does not see {folder}: put the event storage where all machines see it "
                "(logging.event_storage_path), or name websocket_logging_servers and a gs_rest_api_endpoint",
                (*_WHERE, "address"),
            )

    def _sees(self, ref: Any) -> bool:
        """What a machine answers; one that has just gone will run nothing, and needs to see nothing."""
        try:
            return bool(self._ray.get(ref))
        except self._ray.exceptions.RayError:
            return True

    def _on(self, node: str) -> Any:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        return NodeAffinitySchedulingStrategy(node, soft=False)

    # --- run ----------------------------------------------------------------------------------------------------

    def run(self, specs: list[ExperimentSpec], paths: RunPaths, emit: Emit, stop: Stop) -> str | None:
        """Run the experiments; they are given to Ray in this order. None when all have ended, otherwise why not."""
        rest = self._logging.gs_rest_api_endpoint
        home = Home(paths, paths.lock.read_text(), self._own, (rest, board_token()) if rest else None)
        task = self._ray.remote(station.job_task).options(
            **self._resources(), max_retries=self._config.max_retries, retry_exceptions=False
        )
        rest_of_arguments = (self._config.num_gpus_per_job > 0, self._threads)
        code = self._ray.put(self._code)

        def submit(spec: ExperimentSpec, source: str, scored: int) -> Any:
            return task.remote(code, home, spec, source, scored, *rest_of_arguments)

        def place(node: str) -> Any:
            actor = self._ray.remote(Station).options(num_cpus=0, max_concurrency=2, scheduling_strategy=self._on(node))
            return actor.remote(home, node, [node["NodeID"] for node in self._nodes()])

        most = self._config.max_concurrent or sys.maxsize
        return Driver(self._ray, paths, emit, stop, submit, place, most, self._threads).run(specs)

    def close(self) -> None:
        """Leave the cluster; end it if it is the run's own."""
        if self._ray:
            self._ray.shutdown()
        if self._temporary:
            self._temporary.leave()


# --- Ray itself ---------------------------------------------------------------------------------------------


def _ray() -> Any:
    """The library, told to be quiet. Raises `ConfigError` when it is not installed."""
    try:
        ray = importlib.import_module("ray")
    except ImportError:
        raise ConfigError("`type: ray` needs Ray: pip install 'mlgym[ray]'", ("environment", "type")) from None
    if ray.is_initialized():
        raise InputError("this process is connected to a Ray cluster already; the run connects by itself")
    worker: Any = importlib.import_module("ray._private.worker")
    worker.print_to_stdstream = lambda *_, **__: None  # what has become of jobs, the log says
    return ray


def _knock(address: str | None) -> None:
    """Ray itself would go on trying for minutes. Raises `ConnectionError`."""
    host, _, port = (address or "").partition(":")
    if port:
        try:
            socket.create_connection((host, int(port)), timeout=10).close()
        except (OSError, OverflowError) as error:
            raise ConnectionError(getattr(error, "strerror", None) or str(error)) from None


class _Temporary:
    """The folder and the environment of a cluster of the run's own, and who cleans up after it.

    Ray looks at the environment when it is imported.
    """

    def __init__(self) -> None:
        base = tempfile.gettempdir()
        self.folder = Path(tempfile.mkdtemp(prefix="mlgym-", dir=base if len(base) <= _LONGEST_FOLDER else "/tmp"))
        self._guard = subprocess.Popen(
            [sys.executable, "-P", guard.__file__, str(self.folder)],
            stdin=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the run
        )
        wanted = {
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # whatever its name: every address is one of this machine's own
            "RAY_worker_niceness": "0",  # jobs are as important as those of `multiprocessing`
            "RAY_AUTH_MODE": "token",  # its processes ask each other for a secret that nobody else has
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
        }
        if "ray" in sys.modules:  # by the user's script: too late
            wanted = {}
        wanted[guard.VARIABLE] = str(self.folder)
        self._before = {key: os.environ.get(key) for key in wanted}
        os.environ.update(wanted)

    def begun(self) -> None:
        """The cluster is there: what the run starts from now on is not of it."""
        os.environ.pop(guard.VARIABLE, None)

    def leave(self) -> None:
        for key, value in self._before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value
        assert self._guard.stdin
        self._guard.stdin.close()
        self._guard.wait()


@contextmanager
def _own_signals() -> Iterator[None]:
    """Ray installs handlers of its own, which end the process."""
    before = {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def _runtime_env(config: RayConfig, storage: Path) -> dict[str, Any]:
    """What Ray brings to every machine: the current directory, unless the cluster is this machine."""
    found: dict[str, Any] = (
        {} if config.address is None else {"working_dir": str(Path.cwd()), "excludes": list(_EXCLUDED)}
    )
    if "working_dir" in found and storage.absolute().is_relative_to(Path.cwd()):
        found["excludes"].append(f"/{storage.absolute().relative_to(Path.cwd())}/")
    excludes = [*found.get("excludes", []), *config.runtime_env.get("excludes", [])]
    found = {**found, **config.runtime_env, "excludes": excludes}
    if found.get("working_dir") is None:
        found.pop("working_dir", None)
        found.pop("excludes")
    return found


def _without_python(path: list[str]) -> list[str]:
    """Only what the user has added: Python's own folders are every machine's own."""
    own = {os.path.realpath(prefix) for prefix in (sys.prefix, sys.base_prefix)}
    return [entry for entry in path if not any(os.path.realpath(entry).startswith(prefix + "/") for prefix in own)]
