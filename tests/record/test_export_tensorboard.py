"""Read back by TensorBoard's own reader."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlgym.errors import InputError
from mlgym.record.log import Log
from mlgym.record.to_tensorboard import write_tensorboard
from tests.conftest import Run
from tests.ml_board.page.logs import START
from tests.record.exported import FORMULA, HOSTILE, ID, LINES, SERIES, goes_on, script


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("storage")
    script().write(found)
    return found


@pytest.fixture(scope="module")
def runs(storage: Path) -> Path:
    target = storage / "runs"
    assert write_tensorboard(Log.load(storage / ID / "event_storage.log"), target) == [target]
    return target


def accumulated(run: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(run), size_guidance={"scalars": 0, "tensors": 0})
    found.Reload()
    return found


def points(run: Path, tag: str) -> list[tuple[int, float, float]]:
    """Step, value and wall time of each."""
    return [(one.step, one.value, one.wall_time) for one in accumulated(run).Scalars(tag)]


def hparams(run: Path, tag: str) -> Any:
    from tensorboard.plugins.hparams import metadata

    content = accumulated(run).PluginTagToContent("hparams")[tag]
    return {
        metadata.SESSION_START_INFO_TAG: metadata.parse_session_start_info_plugin_data,
        metadata.SESSION_END_INFO_TAG: metadata.parse_session_end_info_plugin_data,
    }[tag](content)


def test_scores(runs: Path) -> None:
    assert {path.name for path in runs.iterdir() if path.is_dir()} == {f"experiment_{i}" for i in range(5)}
    found = accumulated(runs / "experiment_0")
    assert set(found.Tags()["scalars"]) == set(SERIES)
    for tag, values in SERIES.items():
        read = points(runs / "experiment_0", tag)
        assert [step for step, _, _ in read] == list(range(5))
        assert [time for _, _, time in read] == [START / 1000 + 1.25 + 0.25 * i for i in range(5)]
        with np.errstate(over="ignore"):  # what 32 bits cannot hold is infinite
            np.testing.assert_array_equal([value for _, value, _ in read], np.array(values).astype(np.float32))
    assert math.isnan(points(runs / "experiment_0", "val/f1")[1][1])
    again = [value for _, value, _ in points(runs / "experiment_1", "val/f1")]
    np.testing.assert_array_equal(
        again, np.array([0.3, 0.3, 0.4], np.float32)
    )  # of an epoch that was run again, the later


def test_hyperparameters(runs: Path) -> None:
    start = hparams(runs / "experiment_0", "_hparams_/session_start_info")
    assert (start.group_name, start.start_time_secs) == (f"experiment_0 ({ID})", START / 1000 + 1)
    values = start.hparams
    assert (values["opt.lr"].number_value, values["fold"].number_value) == (0.1, 0)
    assert (values["opt.name"].string_value, values["model.layers"].string_value) == (FORMULA, "[8, 8]")
    assert values["model.bias"].bool_value is True
    assert "status" not in hparams(runs / "experiment_3", "_hparams_/session_start_info").hparams
    zero = hparams(runs / "experiment_4", "_hparams_/session_start_info").hparams["opt.lr"]
    assert zero.WhichOneof("kind") == "number_value"
    end = hparams(runs / "experiment_0", "_hparams_/session_end_info")
    assert (end.status, end.end_time_secs) == (1, START / 1000 + 2.25)  # success
    assert hparams(runs / "experiment_2", "_hparams_/session_end_info").status == 2  # failure
    tags = accumulated(runs / "experiment_1").PluginTagToContent("hparams")
    assert "_hparams_/session_end_info" not in tags  # it is running


@pytest.mark.filterwarnings("ignore:html5lib's sanitizer:DeprecationWarning")  # of TensorBoard itself
def test_texts_are_shown_as_they_are(runs: Path) -> None:
    def text(run: Path, tag: str) -> str:
        (event,) = accumulated(run).Tensors(tag)
        return str(event.tensor_proto.string_val[0].decode())

    config = text(runs / "experiment_0", "experiment_config")
    assert all(line.startswith("    ") for line in config.splitlines())
    assert f'"{HOSTILE}": "one' in config
    assert text(runs, "grid_search_config") == f"    # {HOSTILE}\n    opt: {{}}"
    assert text(runs / "experiment_2", "stacktrace").splitlines()[1:] == [f"      {LINES.splitlines()[0]}"] + [
        f"    {line}" for line in LINES.splitlines()[1:]
    ]

    from tensorboard.plugins.text.text_plugin import text_array_to_html

    shown = text_array_to_html(np.array(config.encode()), enable_markdown=True)
    assert "<script" not in shown
    assert "<pre><code>" in shown


def test_a_second_export_replaces_the_first_and_nothing_else(tmp_path: Path, python: Run) -> None:
    storage = tmp_path / "event_storage"
    script().write(storage)
    command = ["-m", "mlgym", "export", ID, "--format", "tensorboard", "-o", "runs"]
    assert python(*command).stdout == "runs: 5 experiments, 33 scores, up to event 30\n"
    ended = python(*command)
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)
    assert "mlgym: runs: is not empty; --force replaces" in ended.stderr
    mine = tmp_path / "runs" / "experiment_1" / "notes.txt"
    mine.write_text("mine")
    goes_on().write(storage)
    assert python(*command, "--force").returncode == 0
    assert mine.read_text() == "mine"
    assert [step for step, _, _ in points(mine.parent, "val/f1")] == [0, 1, 2, 3, 4]
    assert len(points(tmp_path / "runs" / "experiment_4", "val/f1")) == 1
    with pytest.raises(InputError, match="is a file; TensorBoard reads folders"):
        write_tensorboard(Log.load(storage / ID / "event_storage.log"), mine)


def test_torch_is_not_imported(storage: Path, python: Run) -> None:
    command = ["export", ID, "--format", "tensorboard", "-o", "runs", "--event_storage_path", str(storage)]
    code = f"import sys; from mlgym.cli import main; main({command}); print(sorted({{'torch', 'tensorflow'}} & {{*sys.modules}}))"
    assert python("-c", code).stdout.splitlines()[-1] == "[]"
