"""Each format is read back with what it is for."""

from __future__ import annotations

import csv
import json
import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from mlgym.errors import InputError, StorageError
from mlgym.record.export import experiments_table, needs, write_csv, write_json, write_parquet
from mlgym.record.log import Log
from tests.conftest import Run
from tests.ml_board.page.logs import START
from tests.record.exported import FORMULA, HOSTILE, ID, LINES, LONG, SERIES, script

POINTS = 5 * len(SERIES) + 3


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("storage")
    script().write(found)
    return found


@pytest.fixture
def log(storage: Path) -> Log:
    return Log.load(storage / ID / "event_storage.log")


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, strict=True))


def test_csv(log: Log, tmp_path: Path) -> None:
    paths = write_csv(log, tmp_path / "new" / "x.csv")
    assert [path.name for path in paths] == ["x.csv", "x-scores.csv"]
    rows = read_csv(paths[0])
    assert [row["experiment_id"] for row in rows] == list("01234")
    assert [row["status"] for row in rows] == ["DONE", "RUNNING", "FAILED", "STOPPED", "INIT"]
    assert [row["attempt"] for row in rows] == ["1", "2", "1", "1", "1"]
    assert rows[3]["reason"] == "removed"
    assert [row["run_seed"] for row in rows] == ["40", "41", "42", "43", "44"]
    assert [row["seed"] + row["fold"] for row in rows] == ["00", "10", "01", "11", "02"]
    assert [row["status (2)"] for row in rows] == ["1", "2", "", "", ""]  # what is swept may be called like a column
    assert [float(row["opt.lr"]) for row in rows] == [0.1, 1, math.inf, 1e-07, 0.0]
    assert [row["opt.name"] for row in rows] == [f"'{FORMULA}", LINES, HOSTILE, "adam", "'-1"]
    assert [row["model.layers"] for row in rows] == ["[8, 8]", "deep", "", '{"a": "NaN"}', str(10**30)]
    assert rows[2]["error"] == f"'@ValueError: {HOSTILE}"
    assert rows[0]["started"] == "2026-09-21T14:13:21.000Z"
    assert [rows[0][f"val/f1 {name}"] for name in ("last", "last epoch", "best", "best epoch")] == [
        "0.5", "4", "0.7", "2",
    ]  # fmt: skip
    assert (rows[0]["val/x_loss best"], rows[0]["val/x_loss best epoch"]) == ("1e-300", "3")  # -inf is not the best
    assert (rows[1]["val/f1 last"], rows[1]["val/x_loss last"]) == ("0.4", "")
    points = read_csv(paths[1])
    assert len(points) == POINTS
    found = [row for row in points if row["experiment_id"] == "0" and row["tag"] == "f1"]
    assert [(row["split"], row["kind"], row["epoch"]) for row in found] == [("val", "metric", str(i)) for i in range(5)]
    assert [repr(float(row["value"])) for row in found] == list(map(repr, SERIES["val/f1"]))
    assert found[1]["time"] == "2026-09-21T14:13:21.500Z"
    assert {row["tag"] for row in points} == {"f1", "x_loss", "'=cmd()", "_cmd__", LONG, "../../up"}
    assert {row["kind"] for row in points if row["tag"] == "x_loss"} == {"loss"}


def test_no_cell_of_a_csv_is_a_formula(log: Log, tmp_path: Path) -> None:
    for path in write_csv(log, tmp_path / "x.csv"):
        with path.open(encoding="utf-8", newline="") as file:
            for cell in (cell for row in csv.reader(file) for cell in row):
                assert cell[:1] not in tuple("=+@\t\r\n")
                if cell.startswith("-"):
                    float(cell)


def test_parquet(log: Log, tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    first, second = write_parquet(log, tmp_path / "x.parquet")
    table = parquet.read_table(first)
    types = {field.name: field.type for field in table.schema}
    assert types["opt.lr"] == types["val/f1 last"] == pa.float64()
    assert types["experiment_id"] == types["seed"] == types["val/f1 best epoch"] == pa.int64()
    assert types["model.bias"] == pa.bool_()
    assert types["opt.name"] == types["model.layers"] == pa.string()
    assert types["started"] == pa.timestamp("ms", "UTC")
    columns = table.to_pydict()
    assert columns["opt.lr"] == [0.1, 1, math.inf, 1e-07, 0.0]
    assert columns["opt.name"] == [FORMULA, LINES, HOSTILE, "adam", "-1"]
    assert columns["model.layers"] == ["[8, 8]", "deep", None, '{"a": "NaN"}', str(10**30)]
    assert columns["finished"][0] == datetime.fromtimestamp(START / 1000 + 2.25, UTC)
    assert columns["finished"][4] is None
    points = parquet.read_table(second)
    assert (points.num_rows, points["value"].null_count) == (POINTS, 0)
    rows = [row for row in points.to_pylist() if (row["experiment_id"], row["tag"]) == (0, "f1")]
    assert [repr(row["value"]) for row in rows] == list(map(repr, SERIES["val/f1"]))
    assert [row["epoch"] for row in rows] == list(range(5))
    assert rows[0]["time"] == datetime.fromtimestamp(START / 1000 + 1.25, UTC)
    assert set(points["kind"].to_pylist()) == {"metric", "loss"}


def test_json(log: Log, tmp_path: Path) -> None:
    def refuse(constant: str) -> None:
        raise ValueError(constant)

    (path,) = write_json(log, tmp_path / "x.json")
    found = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
    assert (found["format"], found["grid_search_id"], found["seq"]) == (1, ID, log.state.seq)
    names = [column.name for column in experiments_table(log)]
    assert [list(row) for row in found["experiments"]] == [names] * 5
    rows = found["experiments"]
    assert [row["model.layers"] for row in rows] == [[8, 8], "deep", None, {"a": "NaN"}, 10**30]
    assert (rows[0]["opt.name"], rows[0]["started"], rows[2]["opt.lr"]) == (FORMULA, START + 1000, "Infinity")
    series = {(one["experiment_id"], one["split"], one["tag"]): one for one in found["scores"]}
    assert series[0, "val", "f1"] == {
        "experiment_id": 0,
        "split": "val",
        "tag": "f1",
        "kind": "metric",
        "epochs": [0, 1, 2, 3, 4],
        "values": [0.1, "NaN", 0.7, "Infinity", 0.5],
        "times": [START + 1250 + 250 * i for i in range(5)],
    }
    assert series[1, "val", "f1"]["values"] == [0.3, 0.3, 0.4]
    assert sum(len(one["epochs"]) for one in found["scores"]) == POINTS


@pytest.mark.parametrize("write", [write_csv, write_json, write_parquet])
def test_what_is_there_stays(log: Log, tmp_path: Path, write: Any) -> None:
    suffix = write.__name__.removeprefix("write_")
    target = tmp_path / f"x.{suffix}"
    target.write_text("mine")
    with pytest.raises(InputError, match="is there already; --force replaces it"):
        write(log, target)
    assert (target.read_text(), list(tmp_path.iterdir())) == ("mine", [target])
    write(log, target, force=True)
    assert target.read_bytes() != b"mine"
    assert not any(path.name.startswith(".") for path in tmp_path.iterdir())


def test_a_folder_takes_both_tables(log: Log, tmp_path: Path) -> None:
    assert write_csv(log, tmp_path) == [tmp_path / "experiments.csv", tmp_path / "scores.csv"]


def test_what_cannot_be_written_is_told(log: Log) -> None:
    for target in (Path("/proc/x.csv"), Path(__file__) / "x.csv"):  # nobody may, and no folder
        with pytest.raises(StorageError, match=r"x\.csv: cannot be written: "):
            write_csv(log, target)


def test_an_empty_log(tmp_path: Path) -> None:
    path = tmp_path / ID / "event_storage.log"
    path.parent.mkdir()
    path.touch()
    assert read_csv(write_csv(Log.load(path), tmp_path / "x.csv")[0]) == []
    write_parquet(Log.load(path), tmp_path / "x.parquet")
    assert json.loads(write_json(Log.load(path), tmp_path / "x.json")[0].read_text())["scores"] == []


def test_an_old_log(tmp_path: Path) -> None:
    path = tmp_path / ID / "event_storage.log"
    path.parent.mkdir()
    ids = {"grid_search_id": ID, "experiment_id": 3}
    payloads = {
        "experiment_config": {**ids, "job_id": "3", "config": {"lr": 0.1}},
        "job_status": {**ids, "job_id": "3", "status": "DONE", "starting_time": 1.7e9, "finishing_time": 1.7e9 + 1},
        "evaluation_result": {
            **ids,
            "epoch": 1,
            "metric_scores": [{"metric": "f1", "split": "val", "score": math.nan}],
        },
    }
    lines = [json.dumps({"event_type": k, "creation_ts": 1.7e15, "payload": v}) for k, v in payloads.items()]
    path.write_text("\n".join(lines) + "\n")
    rows, points = map(read_csv, write_csv(Log.load(path), tmp_path / "x.csv"))
    assert (rows[0]["experiment_id"], rows[0]["started"]) == ("3", "2023-11-14T22:13:20.000Z")
    assert [(point["value"], point["time"]) for point in points] == [("nan", "2023-11-14T22:13:20.000Z")]


# --- the command --------------------------------------------------------------------------------------------


def test_the_command(storage: Path, python: Run, tmp_path: Path) -> None:
    def export(*arguments: str) -> tuple[int, str, str]:
        ended = python("-m", "mlgym", "export", *arguments, "--event_storage_path", storage)
        return ended.returncode, ended.stdout, ended.stderr

    code, stdout, stderr = export(ID, "-o", "x.csv")
    assert (code, stderr) == (0, "mlgym: warning: the run is no longer alive\n")
    assert stdout == f"x.csv, x-scores.csv: 5 experiments, {POINTS} scores, up to event 30\n"
    for arguments, message in (
        ((ID, "-o", "x.csv"), "x.csv: is there already; --force replaces it"),
        ((ID.replace("58", "59"), "-o", "y.csv"), f"there is no grid search '2026-11-21--10-26-59' in {storage}; did "),
        ((ID, "-o", "y.txt"), "y.txt: name the --format; only .html, .csv, "),
        ((ID, "-o", "y.csv", "--format", "json"), "y.csv: this is no name for json"),
        ((ID, "-o", "y.csv", "--checkpoints"), "--checkpoints is for --format mlflow, not for csv"),
        ((ID,), "name a file to write, such as -o results.csv"),
        ((ID, "--format", "mlflow", "--tracking_uri", "my.db"), "did you mean 'sqlite:///my.db'?"),
    ):
        code, stdout, stderr = export(*arguments)
        assert (code, stdout) == (2, "")
        assert message in stderr
        assert stderr.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} == {"x.csv", "x-scores.csv"}


def test_damage_is_told(python: Run, tmp_path: Path) -> None:
    script().write(tmp_path / "event_storage")
    path = tmp_path / "event_storage" / ID / "event_storage.log"
    lines = path.read_bytes().splitlines(keepends=True)
    lines[1] = lines[1].replace(b"node-1", b"node-2")
    path.write_bytes(b"".join(lines))
    ended = python("-m", "mlgym", "export", ID, "-o", "x.json")
    assert ended.returncode == 0
    assert f"{len(lines[1])} bytes of the log are damaged and were left out" in ended.stderr
    assert json.loads((tmp_path / "x.json").read_text())["damaged_bytes"] == len(lines[1])


def test_a_missing_library_is_named(storage: Path, python: Run) -> None:
    with pytest.raises(InputError, match=r"needs nowhere_to_be_found: pip install 'mlgym\[mlflow\]'"):
        needs("mlflow", "json", "nowhere_to_be_found")
    for extra, module, arguments in (
        ("parquet", "pyarrow", ["-o", "x.parquet"]),
        ("tensorboard", "tensorboard", ["-o", "x", "--format", "tensorboard"]),
        ("mlflow", "sqlalchemy", ["--format", "mlflow", "--tracking_uri", "sqlite:///x.db"]),
    ):
        command = ["export", ID, *arguments, "--event_storage_path", str(storage)]
        code = f"import sys; sys.modules[{module!r}] = None; from mlgym.cli import main; sys.exit(main({command}))"
        ended = python("-c", code)
        assert ended.returncode == 2
        assert ended.stderr == f"mlgym: --format {extra} needs {module}: pip install 'mlgym[{extra}]'\n"
