"""Read back by MLflow's own client, from a database that it has made."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mlgym.errors import InputError, StorageError
from mlgym.record.log import Log
from mlgym.record.to_mlflow import _names, write_mlflow
from mlgym.specs import RunPaths
from tests.conftest import Run
from tests.ml_board.page.logs import START
from tests.record.exported import FORMULA, HOSTILE, ID, LINES, LONG, SERIES, goes_on, script

pytestmark = pytest.mark.filterwarnings("ignore:.*noload:DeprecationWarning")  # between MLflow and SQLAlchemy


class Exported:
    """A grid search and the database that it is exported to."""

    def __init__(self, folder: Path) -> None:
        self.paths = RunPaths(folder / "event_storage", ID)
        self.uri = f"sqlite:///{folder}/mlflow.db"
        script().write(self.paths.event_storage)

    def export(self, **more: Any) -> Any:
        return write_mlflow(Log.load(self.paths.log), self.paths, self.uri, **more)

    def client(self) -> Any:
        from mlflow import MlflowClient

        return MlflowClient(tracking_uri=self.uri)

    def runs(self, name: str = ID) -> dict[str, Any]:
        client = self.client()
        found = client.search_runs([client.get_experiment_by_name(name).experiment_id])
        return {run.data.tags["mlgym.experiment_id"]: run for run in found}

    def points(self, run: Any, key: str) -> list[tuple[int, float, int]]:
        history = self.client().get_metric_history(run.info.run_id, key)
        return sorted((one.step, one.value, one.timestamp) for one in history)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exported]:
    """Exported once. MLflow puts artifacts below the current directory."""
    folder = tmp_path_factory.mktemp("mlflow")
    before = Path.cwd()
    os.chdir(folder)
    found = Exported(folder)
    written = found.export(checkpoints=True)
    assert written == (ID, 3, 33, 1, 2)
    yield found
    os.chdir(before)


def test_runs(exported: Exported) -> None:
    runs = exported.runs()
    assert {i: run.info.status for i, run in runs.items()} == {"0": "FINISHED", "1": "RUNNING", "2": "FAILED"}
    done = runs["0"]
    assert (done.info.start_time, done.info.end_time) == (START + 1000, START + 2250)
    assert done.info.run_name == "experiment_0"
    tags = done.data.tags
    assert tags["mlgym.grid_search_id"] == ID
    assert (tags["mlgym.config_hash"], tags["mlgym.seed"], tags["mlflow.source.git.commit"]) == (
        "hash0",
        "40",
        "c0ffee",
    )
    assert runs["2"].data.tags["mlgym.error"] == f"@ValueError: {HOSTILE}"
    params = done.data.params
    assert (params["opt.lr"], params["opt.name"], params["model.layers"]) == ("0.1", FORMULA, "[8, 8]")
    assert (params["fold"], params["seed"], params["model.bias"]) == ("0", "0", "true")
    assert (params["opt.config.lr"], params["opt.component_type_key"]) == ("0.1", "OPTIMIZER")
    assert params["opt.config._/script__script_alert_1__/script_"] == LINES
    assert len(params["opt.config.long"]) == 6000
    assert "opt.requirements" not in params
    assert runs["1"].data.params["opt.name"] == LINES


def test_scores(exported: Exported) -> None:
    run = exported.runs()["0"]
    keys = dict(
        zip(SERIES, ("val/f1", "val/x_loss", "train/_cmd__", "train/_cmd___2", f"train/{LONG[:244]}"), strict=False)
    )
    keys["test/../../up"] = "_test_.._.._up"
    assert set(run.data.metrics) == set(keys.values())
    for name, values in SERIES.items():
        points = exported.points(run, keys[name])
        assert [step for step, _, _ in points] == [0, 1, 2, 3, 4]
        assert [time for _, _, time in points] == [START + 1250 + 250 * i for i in range(5)]
        for (_, value, _), expected in zip(points, values, strict=True):
            if math.isinf(expected):  # a database has no infinity: MLflow keeps the largest number instead
                assert value == math.copysign(1.7976931348623157e308, expected)
            else:
                assert repr(value) == repr(expected)
    assert [value for _, value, _ in exported.points(exported.runs()["1"], "val/f1")] == [0.3, 0.3, 0.4]


def test_names_are_those_that_mlflow_takes() -> None:
    from mlflow.utils import validation

    validate: Callable[[str], None] = validation._validate_metric_name

    keys = [
        "val/f1",
        "a",
        "a/",
        "./a",
        "../x",
        "..",
        "",
        ".",
        "a//b",
        "a\n",
        "a\n\n",
        "/",
        " ",
        HOSTILE,
        "ä/漢",
        LONG,
        f"{LONG}y",
    ]
    names = _names(keys)
    for name in names.values():
        validate(name)
    assert len(set(names.values())) == len(keys)
    assert max(map(len, names.values())) == 250
    assert (names["val/f1"], names["ä/漢"]) == ("val/f1", "ä/漢")


def test_artifacts(exported: Exported) -> None:
    client, run = exported.client(), exported.runs()["0"].info.run_id

    def read(path: str) -> bytes:
        return Path(client.download_artifacts(run, path)).read_bytes()

    assert {file.path for file in client.list_artifacts(run, "config")} == {
        f"config/{name}" for name in ("experiment_config.json", "grid_search_config.yml", "run_config.yml")
    }
    assert HOSTILE in read("config/grid_search_config.yml").decode()
    assert b'"component_type_key": "OPTIMIZER"' in read("config/experiment_config.json")
    assert read("checkpoints/4/model.safetensors") == bytes(range(256))
    assert {file.path.rpartition("/")[2] for file in client.list_artifacts(run, "checkpoints/4")} == {
        "model.safetensors", "lr_scheduler.json", "manifest.json",
    }  # fmt: skip


def test_a_second_export_brings_what_is_new(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    exported = Exported(tmp_path)
    assert exported.export() == (ID, 3, 33, 0, 2)
    before = exported.runs()
    assert exported.export() == (ID, 3, 0, 0, 2)
    exported.client().set_tag(before["0"].info.run_id, "note", "mine")
    exported.client().set_tag(before["1"].info.run_id, "mlgym.error", "of an earlier attempt")
    goes_on().write(exported.paths.event_storage)
    model = exported.paths.experiment(0) / "4" / "model.safetensors"
    model.write_bytes(b"damaged")
    assert exported.export(checkpoints=True) == (ID, 4, 3, 0, 1)
    assert f"mlgym: warning: left out: {model}: not what was saved" in capfd.readouterr().err
    after = exported.runs()
    assert {i: run.info.run_id for i, run in after.items() if i in before} == {
        i: run.info.run_id for i, run in before.items()
    }
    assert (after["1"].info.status, after["1"].info.end_time) == ("FINISHED", START + 60_000)
    assert "mlgym.error" not in after["1"].data.tags
    assert after["0"].data.tags["note"] == "mine"
    assert [step for step, _, _ in exported.points(after["1"], "val/f1")] == [0, 1, 2, 3, 4]
    assert after["4"].data.metrics == {"val/f1": 0.9}


def test_an_experiment_of_another_name(exported: Exported) -> None:
    assert exported.export(experiment_name="mine").experiment_name == "mine"
    assert exported.runs("mine").keys() >= {"0", "1", "2"}
    client = exported.client()
    client.delete_experiment(client.get_experiment_by_name("mine").experiment_id)
    with pytest.raises(InputError, match="the MLflow experiment 'mine' is deleted"):
        exported.export(experiment_name="mine")


def test_a_server_that_is_not_there(exported: Exported) -> None:
    with pytest.raises(StorageError, match=r"^foo://\*\*\*@x: .*unsupported URI 'foo://\*\*\*@x'"):
        write_mlflow(Log.load(exported.paths.log), exported.paths, "foo://user:secret@x")


def test_the_command(exported: Exported, python: Run, tmp_path: Path) -> None:
    ended = python(
        "-m", "mlgym", "export", ID, "--format", "mlflow", "--tracking_uri", "sqlite:///new.db", "--checkpoints",
        "--event_storage_path", exported.paths.event_storage,
    )  # fmt: skip
    assert ended.returncode == 0
    assert ended.stdout.startswith(f"MLflow experiment {ID}: ")
    assert "INFO" not in ended.stderr
    assert (tmp_path / "new.db").is_file()
