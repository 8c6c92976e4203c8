"""A grid search in MLflow: one MLflow experiment, and in it one run for each of our experiments.

Runs are found again by their tags, so a second export adds what is new. Imports checkpoint_folder, fold, log, export.
"""

from __future__ import annotations

import logging
import os
import posixpath
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from mlgym.errors import DamagedError, InputError, StorageError, tell
from mlgym.record.checkpoint_folder import MANIFEST, available, verified
from mlgym.record.events import ExperimentConfig
from mlgym.record.export import announced, as_text, needs, ordered, series
from mlgym.record.fold import Experiment
from mlgym.record.log import Log
from mlgym.specs import RunPaths

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

_STATUS = {
    "INIT": "SCHEDULED",
    "RUNNING": "RUNNING",
    "DONE": "FINISHED",
    "FAILED": "FAILED",
    "LOST": "FAILED",
    "STOPPED": "KILLED",
}
_ENDED = ("FINISHED", "FAILED", "KILLED")

# MLflow's limits.
_KEY, _PARAM, _TAG = 250, 6000, 8000  # characters
_PARAMS, _METRICS = 100, 1000  # in one request


class Written(NamedTuple):
    """What an export came to. `waiting` experiments have not begun, and have no run until they do."""

    experiment_name: str
    runs: int
    points: int
    """Those that were not there before."""
    checkpoints: int
    waiting: int


def need_mlflow(tracking_uri: str) -> None:
    """Raises `InputError` for a library that `tracking_uri` needs and that is not installed."""
    scheme = tracking_uri.partition(":")[0].partition("+")[0]
    databases = ("sqlite", "postgresql", "mysql", "mssql")
    needs("mlflow", "mlflow", *(("sqlalchemy", "alembic") if scheme in databases else ()))


def write_mlflow(
    log: Log, paths: RunPaths, tracking_uri: str, experiment_name: str | None = None, checkpoints: bool = False
) -> Written:
    """Write, or bring up to date, the runs of a grid search. The MLflow experiment is called like it unless told.

    Steps are epochs. Nothing that is in MLflow is deleted, and a parameter that is there keeps its value. Raises
    `StorageError` when MLflow cannot be reached or refuses.
    """
    from tqdm import tqdm

    with _client(tracking_uri) as client:
        name = experiment_name or paths.grid_search_id
        known = client.get_experiment_by_name(name)
        if known is not None and known.lifecycle_stage != "active":
            raise InputError(
                f"the MLflow experiment {name!r} is deleted; restore it, or name another: --experiment_name"
            )
        parent = known.experiment_id if known else client.create_experiment(name)
        runs = _runs(client, parent, paths.grid_search_id)
        begun = [experiment for experiment in ordered(log) if _start(experiment) is not None]
        points = saved = 0
        for experiment in tqdm(begun, "mlflow", unit="run", leave=False, disable=None):  # None: only on a terminal
            config = announced(log, experiment)
            run = runs.get(str(experiment.experiment_id))
            tags = _tags(log, paths, experiment, config)
            if run is None:
                run_name = f"experiment_{experiment.experiment_id}"
                run = client.create_run(parent, start_time=_start(experiment), tags=tags, run_name=run_name)
            else:
                client.log_batch(run.info.run_id, tags=[_entity("RunTag", *pair) for pair in tags.items()])
                for tag in run.data.tags.keys() - tags.keys():
                    if tag.startswith("mlgym."):  # what no longer holds, such as the error of an earlier attempt
                        client.delete_tag(run.info.run_id, tag)
            _put_params(client, run, experiment, config)
            points += _put_metrics(client, run, experiment)
            _put_configs(client, run, log, paths, config)
            if checkpoints:
                saved += _put_checkpoints(client, run, paths.experiment(experiment.experiment_id))
            status = _STATUS[experiment.status]
            if status in _ENDED:
                client.set_terminated(run.info.run_id, status, _end(experiment))
            else:
                client.update_run(run.info.run_id, status)
        return Written(name, len(begun), points, saved, len(log.state.experiments) - len(begun))


@contextmanager
def _client(tracking_uri: str) -> Iterator[MlflowClient]:
    """MLflow, which then tells nobody that it is used, and within a minute that there is no server."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # two lines a run
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    errors: tuple[type[Exception], ...] = (MlflowException, OSError)
    with suppress(ImportError):
        from sqlalchemy.exc import SQLAlchemyError

        errors = (*errors, SQLAlchemyError)
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    try:
        yield MlflowClient(tracking_uri=tracking_uri)
    except errors as error:
        where = re.sub(r"//[^/@]*@", "//***@", tracking_uri)  # without a password
        first = str(error).strip().partition("\n")[0].replace(tracking_uri, where)
        raise StorageError(f"{where}: {first[:300]}") from None


def _entity(name: str, *values: Any) -> Any:
    from mlflow import entities

    return getattr(entities, name)(*values)


def _runs(client: MlflowClient, parent: str, grid_search_id: str) -> dict[str, Run]:
    """Those of an earlier export, by experiment id."""
    found: dict[str, Run] = {}
    token: str | None = None
    while True:
        page = client.search_runs([parent], max_results=1000, page_token=token)
        for run in page:
            if run.data.tags.get("mlgym.grid_search_id") == grid_search_id:
                found.setdefault(run.data.tags.get("mlgym.experiment_id", ""), run)
        token = page.token
        if not token:
            return found


def _start(experiment: Experiment) -> int | None:
    """Unix time in ms at which the first attempt began, or its first score came; None: it has not begun."""
    times = [attempt.starting_time for attempt in experiment.attempts if attempt.starting_time is not None]
    return min(times) if times else next(iter(experiment.evaluations.times), None)


def _end(experiment: Experiment) -> int | None:
    return experiment.finishing_time or next(reversed(experiment.evaluations.times), None) or experiment.starting_time


# --- tags and parameters ------------------------------------------------------------------------------------


def _tags(log: Log, paths: RunPaths, experiment: Experiment, config: ExperimentConfig) -> dict[str, str]:
    host = next((attempt.host for attempt in reversed(experiment.attempts) if attempt.host), None)
    git = log.state.hosts.get(host or "", {}).get("git")
    tags = {
        "mlgym.grid_search_id": paths.grid_search_id,
        "mlgym.experiment_id": experiment.experiment_id,
        "mlgym.config_hash": experiment.config_hash,
        "mlgym.status": experiment.status,
        "mlgym.reason": experiment.reason,
        "mlgym.error": experiment.error,
        "mlgym.attempt": experiment.attempt,
        "mlgym.num_epochs": experiment.num_epochs,
        "mlgym.seed": config.seed,
        "mlgym.device": experiment.device,
        "mlgym.host": host,
        "mlflow.source.git.commit": git.get("commit") if isinstance(git, dict) else None,
    }
    return {name: _cut(as_text(value), _TAG) for name, value in tags.items() if value is not None}


def _put_params(client: MlflowClient, run: Run, experiment: Experiment, config: ExperimentConfig) -> None:
    """What is swept, and the whole configuration. A parameter of MLflow cannot change: one that is there stays."""
    given = {**_flat(msgspec.json.decode(config.config)), **experiment.swept}
    names = _names(given)
    there = run.data.params
    new = [_entity("Param", names[key], _cut(as_text(value), _PARAM)) for key, value in given.items()]
    new = [param for param in new if param.key not in there]
    for i in range(0, len(new), _PARAMS):
        client.log_batch(run.info.run_id, params=new[i : i + _PARAMS])


def _flat(config: Any, prefix: str = "") -> dict[str, Any]:
    """`{"a": {"b": 1}}` as `{"a.b": 1}`; lists are values. Requirements are wiring, not parameters."""
    found: dict[str, Any] = {}
    for key, value in config.items() if isinstance(config, dict) else ():
        if isinstance(value, dict) and value:
            found |= _flat(value, f"{prefix}{key}.")
        elif key != "requirements":
            found[f"{prefix}{key}"] = value
    return found


def _names(keys: Iterable[str]) -> dict[str, str]:
    """Names that MLflow allows: what it does not becomes `_`, and no two are alike."""
    found: dict[str, str] = {}
    taken: set[str] = set()
    for key in keys:
        name = re.sub(r"[^/\w.\- :]", "_", key)[:_KEY]
        if posixpath.normpath(name) != name or name.startswith(("/", ".")):
            name = "_" + name.replace("/", "_")[: _KEY - 1]
        number, base = 1, name
        while name in taken:
            number += 1
            name = f"{base[: _KEY - 8]}_{number}"
        taken.add(name)
        found[key] = name
    return found


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 3] + "..."


# --- scores and files ---------------------------------------------------------------------------------------


def _put_metrics(client: MlflowClient, run: Run, experiment: Experiment) -> int:
    """All points that are not there yet; how many they were."""
    names = _names(experiment.scores)
    start = _start(experiment) or 0
    new = []
    for one in series(experiment):
        name = names[f"{one.split}/{one.tag}"]
        there = set()
        if name in run.data.metrics:
            there = {(point.step, point.timestamp) for point in client.get_metric_history(run.info.run_id, name)}
        for epoch, value, time in zip(one.scores.epochs, one.scores.values_, one.times, strict=True):
            timestamp = max(0, time or start)
            if (epoch, timestamp) not in there:
                new.append(_entity("Metric", name, value, timestamp, epoch))
    new.sort(key=lambda point: -point.step)  # MLflow keeps the newest apart: it then comes once, not again and again
    for i in range(0, len(new), _METRICS):
        client.log_batch(run.info.run_id, metrics=new[i : i + _METRICS])
    return len(new)


def _put_configs(client: MlflowClient, run: Run, log: Log, paths: RunPaths, config: ExperimentConfig) -> None:
    """As artifacts, from the log or from beside it; the validation config is only there."""
    texts = {"experiment_config.json": msgspec.json.format(bytes(config.config), indent=2).decode()}
    for path in (paths.grid_search_config, paths.run_config, paths.validation_config):
        with suppress(OSError, UnicodeDecodeError):
            texts[path.name] = path.read_text(encoding="utf-8")
    if log.state.grid_search_config:
        texts[paths.grid_search_config.name] = log.state.grid_search_config
    for name, text in texts.items():
        client.log_text(run.info.run_id, text, f"config/{name}")


def _put_checkpoints(client: MlflowClient, run: Run, folder: Path) -> int:
    """Those of whole epochs, each verified before; how many they were. One that is damaged is told and left out."""
    count = 0
    for checkpoint in reversed(available(folder)):
        if checkpoint.batch:
            continue
        try:
            names = [file.name for file in verified(checkpoint).files]
        except DamagedError as error:
            tell(f"warning: left out: {error}")
            continue
        for name in (*names, MANIFEST):
            client.log_artifact(run.info.run_id, f"{checkpoint.directory}/{name}", f"checkpoints/{checkpoint.epoch}")
        count += 1
    return count
