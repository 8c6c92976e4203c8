"""Cross validation as a user does it: the folds that arrive, the scores that scikit-learn gets, kills in its middle."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from contextlib import chdir
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, KFold, StratifiedKFold, cross_val_score

import mlgym
from mlgym.build.graph import Graph
from mlgym.cli import main
from mlgym.engine.announce import Todo, announce
from mlgym.engine.in_process import InProcess
from mlgym.engine.run import divided, executor
from mlgym.engine.worker import registry_of
from mlgym.plan.config import read_run_config, required
from mlgym.plan.experiments import Folds, read_plan, recorded_folds
from mlgym.plan.folds import Data, split
from mlgym.record.checkpoint_folder import available, verified
from mlgym.record.events import DataFoldEvent, ExperimentConfigEvent, GridSearch, decode_lines
from mlgym.record.fold import State, fold_all
from mlgym.record.spool import Spool
from mlgym.record.validation import as_json, validated
from mlgym.specs import RunPaths
from tests.engine.folding import blueprint, flowers, folded, injectable, regression, sweep
from tests.engine.grids import Grid

MAIN: dict[str, Any] = {"type": "main_process"}
MANY: dict[str, Any] = {"type": "multiprocessing", "config": {"process_count": 2, "retry_delay": 0}}
PENALTIES = [0.001, 0.03, 0.3]
STORAGE = "--event_storage_path"


@pytest.fixture
def grid(tmp_path: Path) -> Iterator[Grid]:
    found = Grid(tmp_path)
    yield found
    found.kill_all()


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Sums depend on the number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def write(grid: Grid, environment: dict[str, Any], gs_config: dict[str, Any], validation: Any, **train: Any) -> None:
    (grid.folder / "validation.yml").write_text(json.dumps(validation, indent=1))
    values = {"num_epochs": 1, "seed": 3, "validation_config_path": "validation.yml", **train}
    grid.train("folding.py", environment, gs_config, **values)


def cross(folds: int = 5, **values: Any) -> dict[str, Any]:
    config = {"num_folds": folds, "shuffle": True, "seed": 3, **values}
    return {"CROSS_VALIDATION": {"iterator_key": "iterators", "split_key": "train", "config": config}}


def nested(outer: int = 3, inner: int = 2, **values: Any) -> dict[str, Any]:
    counts = {"num_outer_loop_folds": outer, "num_inner_loop_folds": inner}
    config = {**counts, "shuffle": True, "seed": 3, "metric": "test/loss", **values}
    return {"NESTED_CROSS_VALIDATION": {"iterator_key": "iterators", "split_key": "train", "config": config}}


Here = Callable[..., int]


@pytest.fixture
def here(grid: Grid, monkeypatch: pytest.MonkeyPatch) -> Here:
    """Run a command in this process, in the grid's folder."""
    monkeypatch.chdir(grid.folder)

    def command(*arguments: str) -> int:
        return main(arguments if "report" in arguments or "status" in arguments else [*arguments, *CONFIG], blueprint)

    return command


CONFIG = ["--config_path", "run_config.yml"]


def report(grid: Grid, here: Here, capsys: pytest.CaptureFixture[str], *options: str) -> Any:
    """What `mlgym report` prints."""
    capsys.readouterr()
    assert here("report", grid.root.name, *options) == 0
    return capsys.readouterr().out


def notes(path: Path, key: str) -> list[Any]:
    return [found[key] for line in path.read_text().splitlines() if key in (found := json.loads(line))]


# --- what scikit-learn gets ---------------------------------------------------------------------------------


class PerSample(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """scikit-learn's logistic regression, its penalty per sample, as that of a mean loss is."""

    def __init__(self, weight_decay: float = 1.0) -> None:
        self.weight_decay = weight_decay

    def fit(self, x: Any, y: Any) -> PerSample:
        found = LogisticRegression(C=1 / (len(x) * self.weight_decay), tol=1e-8, max_iter=10_000)
        self.found_ = found.fit(x, y)
        self.classes_ = found.classes_
        return self

    def predict(self, x: Any) -> Any:
        return self.found_.predict(x)

    def predict_proba(self, x: Any) -> Any:
        return self.found_.predict_proba(x)


@pytest.mark.parametrize("environment", [MAIN, MANY], ids=["main_process", "multiprocessing"])
def test_cross_validation_is_that_of_scikit_learn(
    grid: Grid, here: Here, environment: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    write(grid, environment, regression(PENALTIES), cross(stratification=True))
    if environment is MAIN:
        assert here("run") == 0
        printed = capsys.readouterr().out
    else:
        ended = grid.run()
        assert ended.returncode == 0, ended.stderr
        printed = ended.stdout
    x, y = (values.numpy() for values in flowers())
    folds = StratifiedKFold(5, shuffle=True, random_state=3)
    for score, scoring, sign in (("val/accuracy", "accuracy", 1), ("val/loss", "neg_log_loss", -1)):
        theirs = {p: sign * cross_val_score(PerSample(p), x, y, cv=folds, scoring=scoring) for p in PENALTIES}
        found = json.loads(report(grid, here, capsys, "--metric", score, "--json"))
        assert (found["kind"], found["missing"]) == ("cross validation", [])
        assert len(found["ranking"]) == len(PENALTIES)
        for one in found["ranking"]:
            (penalty,) = one["swept"].values()
            ours = [one["scores"][f"fold {i}"]["value"] for i in range(5)]
            assert ours == pytest.approx(theirs[penalty].tolist(), abs=1e-3)
            assert one["mean"] == pytest.approx(np.mean(theirs[penalty]), abs=1e-3)
            assert one["std"] == pytest.approx(np.std(theirs[penalty]), abs=1e-3)
        means = [sign * one["mean"] for one in found["ranking"]]
        assert means == sorted(means, reverse=True)
    assert "best: combination" in printed  # the table at the end is this report
    assert f"more: mlgym report {grid.root.name}" in printed


@pytest.mark.parametrize("selected", [False, True], ids=["all", "selected"])
def test_nested_cross_validation_is_a_loop_over_a_grid_search(
    grid: Grid, here: Here, selected: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    write(grid, MAIN, regression(PENALTIES, "test"), nested(outer_only_for_selected=selected))
    assert here("run") == 0
    found = json.loads(report(grid, here, capsys, "--json"))
    x, y = (values.numpy() for values in flowers())
    theirs = []
    for train, test in KFold(3, shuffle=True, random_state=3).split(x):
        search = GridSearchCV(
            PerSample(), {"weight_decay": PENALTIES}, scoring="neg_log_loss", cv=KFold(2, shuffle=True, random_state=3)
        )
        search.fit(x[train], y[train])
        theirs.append((search.best_params_["weight_decay"], -search.best_score_, -search.score(x[test], y[test])))
    assert len(found["outer"]) == 3
    for ours, (penalty, inner, outer) in zip(found["outer"], theirs, strict=True):
        assert list(ours["chosen"]["swept"].values()) == [penalty]
        assert ours["chosen"]["mean"] == pytest.approx(inner, abs=1e-3)
        assert ours["score"]["value"] == pytest.approx(outer, abs=1e-3)
    scores = [outer for _, _, outer in theirs]
    assert found["mean"] == pytest.approx(np.mean(scores), abs=1e-3)
    assert found["std"] == pytest.approx(np.std(scores), abs=1e-3)
    assert (found["status"], found["missing"], found["mode"]) == ("FINISHED", [], "min")
    assert len(grid.state.experiments) == (3 * 2 * 3 + 3 if selected else 3 * (2 + 1) * 3)
    assert grid.state.num_experiments == len(grid.state.experiments)


# --- what arrives -------------------------------------------------------------------------------------------


def test_every_experiment_is_given_its_fold(grid: Grid, here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLGYM_TEST_NOTES", str(grid.folder / "notes"))
    ids = {
        "experiment": "id_experiment_id",
        "combination": "id_hyper_paramater_combination_id",
        "spelt_right": "id_hyper_parameter_combination_id",
        "outer": "id_outer_test_fold_id",
        "inner": "id_inner_test_fold_id",
        "indices": "id_split_indices",
    }
    write(grid, MAIN, regression([0.1, 1.0], "test", **ids), nested(2, 2), num_epochs=0)
    assert here("run") == 0
    found = {given["experiment"]: given for given in notes(grid.folder / "notes", "ids")}
    expected = []
    for outer, (train, test) in enumerate(KFold(2, shuffle=True, random_state=3).split(np.zeros(150))):
        for inner, (fit, judge) in enumerate(KFold(2, shuffle=True, random_state=3).split(train)):
            expected.append((outer, inner, train[fit].tolist(), train[judge].tolist()))
        expected.append((outer, -1, train.tolist(), test.tolist()))
    wanted = [(*part, combination) for part in expected for combination in (0, 1)]
    assert list(found) == sorted(found) == list(range(12))
    assert found == {
        i: {
            "experiment": i,
            "combination": combination,
            "spelt_right": combination,
            "outer": outer,
            "inner": inner,
            "indices": {"train": fit, "test": judge},
        }
        for i, (outer, inner, fit, judge, combination) in enumerate(wanted)
    }
    # Written down once: in no configuration, in no event but those of the folds.
    recorded = json.loads((grid.root / "0" / "experiment_config.json").read_text())
    assert recorded["folds"]["config"]["split_indices"] == injectable("id_split_indices")
    folds = [e.payload for e in grid.events if isinstance(e, DataFoldEvent)]
    assert [(p.fold, p.samples, p.test) for p in folds] == [(f"{o}/{i}", 150, judge) for o, i, _, judge in expected]
    configs = [bytes(e.payload.config) for e in grid.events if isinstance(e, ExperimentConfigEvent)]
    assert len({len(config) for config in configs}) == 1


def test_dividing_builds_the_data_once_and_nothing_else(
    grid: Grid, monkeypatch: pytest.MonkeyPatch, here: Here
) -> None:
    write(grid, MAIN, regression(PENALTIES), cross() | {"SEEDS": {"seeds": [1, 2]}})
    monkeypatch.setenv("MLGYM_TEST_NOTES", str(grid.folder / "notes"))
    plan = read_plan(*read_run_config(grid.folder / "run_config.yml"))
    assert not (grid.folder / "notes").exists()  # planning builds nothing
    with executor(plan.run_document, plan.run_config, blueprint) as started:
        assert isinstance(started, InProcess)
        found = divided(plan, started)
        assert divided(found, started) is found
    assert found.folds is not None
    assert found.folds.samples == 150
    assert (grid.folder / "notes").read_text() == '{"built": "iris"}\n'


def test_a_model_of_a_fold_comes_back(
    grid: Grid, here: Here, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(grid, MAIN, regression([0.1, 1.0], fold="id_val_fold_id", indices="id_split_indices"), cross(3))
    assert here("run") == 0
    monkeypatch.setenv("MLGYM_TEST_NOTES", str(grid.folder / "notes"))
    model = mlgym.load_model("event_storage", grid.root.name, 3, "last", blueprint)
    (given,) = notes(grid.folder / "notes", "ids")
    state = grid.state
    assert given["fold"] == state.experiments[3].swept["fold"] == 1
    assert given["indices"]["val"] == state.folds["1"].test.tolist()
    x, y = flowers()
    with torch.no_grad():
        right = (model(x).argmax(1) == y)[torch.tensor(given["indices"]["val"])]
    assert state.experiments[3].scores["val/accuracy"][1] == pytest.approx(float(right.double().mean()))


# --- seeds --------------------------------------------------------------------------------------------------


def test_seeds_change_all_but_the_data() -> None:
    """Initialisation and shuffling, explicit seeds included; not what divides the data, nor what it is made from."""
    registry = registry_of(blueprint)
    drawn: list[tuple[str, int]] = []

    def source(*, seed: int) -> dict[str, Any]:
        drawn.append(("source", seed))
        return {}

    def made(source: Any, *, seed: int) -> dict[str, Any]:
        drawn.append(("data", seed))
        return {}

    registry.component("SOURCE", "DEFAULT", source)
    registry.component("SOURCE_ITERATORS", "DEFAULT", made)
    config = folded({"width": 4})
    config["loaders"]["config"] |= {"seeds": {"train": 7}}
    config["split"] = {
        "component_type_key": "SPLITTED_DATASET_ITERATORS",
        "variant_key": "RANDOM",
        "requirements": [{"name": "iterators", "component_name": "iterators"}],
        "config": {"split_configs": {"train": {"train": 0.5, "val": 0.5}}, "seed": 4},
    }
    config["folds"] = config["split"] | {"config": config["split"]["config"] | {"seed": None}}
    config["listed"] = config["loaders"] | {"config": {"batch_size": 4, "seeds": [5, 6]}}
    config["future"] = config["loaders"] | {
        "variant_key": "FUTURE",
        "config": {"batch_size": 4, "sampling_strategies": {"train": {"seed": 9}}},
    }
    config["source"] = {"component_type_key": "SOURCE", "variant_key": "DEFAULT", "config": {"seed": 1}}
    config["made"] = {
        "component_type_key": "SOURCE_ITERATORS",
        "variant_key": "DEFAULT",
        "requirements": [{"name": "source", "component_name": "source"}],
    }
    seeded = config["model"]["config"] | {"seed": 5}
    config["seeded"] = config["model"] | {"config": seeded}
    roots = ["loaders", "listed", "future", "model", "seeded", "split", "made"]

    def built(repeat: int | None, seed: int = 0) -> Graph:
        return Graph(required(config, roots), registry, seed, {}, repeat)

    graphs = [built(None), built(1), built(2)]
    for name, split_ in (("loaders", "train"), ("loaders", "val"), ("listed", "val"), ("future", "train")):
        assert len({graph[name][split_].seed for graph in graphs}) == 3, (name, split_)
    assert graphs[0]["loaders"]["train"].seed == 7
    for name in ("model", "seeded"):
        weights = [tuple(graph[name].layers[0].weight.flatten().tolist()) for graph in graphs]
        assert len(set(weights)) == 3, name
        again = built(1)[name].layers[0].weight
        assert torch.equal(again, graphs[1][name].layers[0].weight)
    for name in ("split", "folds"):
        indices = [[int(target) for _, target, _ in graph[name]["train"]] for graph in graphs]
        assert indices[0] == indices[1] == indices[2]
    for graph in graphs:
        assert graph["made"] == {}
    assert drawn[0] == ("source", 1)
    assert drawn == drawn[:2] * 3
    assert built(None, 8)["model"].layers[0].weight[0, 0] != graphs[0]["model"].layers[0].weight[0, 0]


def test_two_launches_are_equal_by_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        grid = Grid(tmp_path / name)
        config = folded({"width": sweep(4, 8)})
        config["model"]["config"]["seed"] = 5
        config["loaders"]["config"]["seeds"] = {"train": 6}
        write(grid, MAIN, config, cross(2) | {"SEEDS": {"seeds": [1, 2]}}, num_epochs=2)
        monkeypatch.chdir(grid.folder)
        assert main(["run", *CONFIG], blueprint) == 0
        experiments = grid.state.experiments.values()
        digests = [
            {file.name: file.sha256 for file in verified(available(grid.root / str(e.experiment_id))[0]).files}
            for e in experiments
        ]
        found.append((digests, [e.scores for e in experiments], grid.state))
    (*first, state), (*second, _) = found
    assert first == second
    assert sorted(state.folds) == ["0", "1"]  # one division for all seeds
    for width in (4, 8):
        for fold in (0, 1):
            before = [
                e.scores["val/loss"][0]
                for e in state.experiments.values()
                if (e.swept["fold"], e.swept["model.config.model_definition.width"]) == (fold, width)
            ]
            assert len(set(before)) == 2  # though the seed of the model is explicit
    told = validated(state)
    assert told.ranking is not None
    assert told.missing == []
    assert [len(score.experiments) for score in told.ranking.combinations[0].scores.values()] == [2, 2]
    capsys.readouterr()
    assert main(["report", grid.root.name]) == 0
    assert "each score is the mean over 2 seeds" in capsys.readouterr().out


# --- only what was chosen; kills ----------------------------------------------------------------------------


WIDTHS = [2, 6]


def selective(grid: Grid, environment: dict[str, Any], widths: list[int] = WIDTHS, selected: bool = True) -> None:
    validation = nested(2, 2, outer_only_for_selected=selected)
    write(grid, environment, folded({"width": sweep(*widths)}, "test"), validation, num_epochs=2)


def told(grid: Grid) -> dict[str, Any]:
    """The report, without what tells one launch from another."""
    return {key: value for key, value in as_json(validated(grid.state)).items() if key not in ("grid_search_id", "seq")}


def judged(grid: Grid) -> list[tuple[Any, ...]]:
    """What was chosen, and its score."""
    return [
        (one.chosen and one.chosen.swept, one.chosen and one.chosen.mean, one.score.value)
        for one in validated(grid.state).outer
    ]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The report of the same grid, run in one process with one thread, as jobs have here."""
    grid = Grid(tmp_path_factory.mktemp("uninterrupted"))
    selective(grid, MAIN)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with chdir(grid.folder):
        assert main(["run", *CONFIG], blueprint) == 0
    torch.set_num_threads(threads)
    assert len(grid.state.experiments) == 2 * 2 * 2 + 2
    found = told(grid)
    assert found["missing"] == []
    return found


@pytest.mark.parametrize("jobs", [pytest.param(3, marks=pytest.mark.long, id="inner"), pytest.param(9, id="outer")])
def test_killed_and_started_again(grid: Grid, uninterrupted: dict[str, Any], jobs: int) -> None:
    grid.environment["MLGYM_TEST_SLEEP"] = "0.01"
    grid.environment["OMP_NUM_THREADS"] = "1"
    selective(grid, MANY)
    process = grid.start()
    grid.wait_for("RUNNING", jobs)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)
    before = grid.state
    assert before.status == "STARTED"
    assert max(int(e.swept["inner_fold"] == -1) for e in before.experiments.values()) == (jobs == 9)
    divided_once = [e for e in grid.events if isinstance(e, DataFoldEvent)]
    del grid.environment["MLGYM_TEST_SLEEP"]
    grid.warm_start(MANY, num_epochs=2)
    ended = grid.run()
    assert ended.returncode == 0, ended.stderr
    assert told(grid) == uninterrupted
    assert [e for e in grid.events if isinstance(e, DataFoldEvent)] == divided_once  # the log has them
    assert all(e.changes == [] for e in grid.state.experiments.values())
    grid.gone()


def test_what_is_chosen_does_not_depend_on_what_else_is_trained(
    grid: Grid, here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Selected only, exhaustive, grown by a warm start, shrunk by another: the same choices and scores."""
    selective(grid, MAIN)
    assert here("run") == 0
    (tmp_path / "all").mkdir()
    everything = Grid(tmp_path / "all")
    selective(everything, MAIN, selected=False)
    monkeypatch.chdir(everything.folder)
    assert here("run") == 0
    assert len(everything.state.experiments) == 2 * 3 * 2
    assert judged(everything) == judged(grid)

    (tmp_path / "grown").mkdir()
    grown = Grid(tmp_path / "grown")
    selective(grown, MAIN, [2, 40, 6])
    monkeypatch.chdir(grown.folder)
    assert here("run") == 0

    monkeypatch.chdir(grid.folder)
    (grid.folder / "grown.yml").write_text((grown.folder / "gs_config.yml").read_text())
    small = judged(grid)
    grid.warm_start(MAIN, num_epochs=2, gs_config_path="grown.yml")
    capsys.readouterr()
    assert here("plan") == 0
    assert "(the grid has changed)" in capsys.readouterr().out
    assert here("run") == 0
    assert judged(grid) == judged(grown)
    assert judged(grid) != small, "the third width should be a better one, for this test to show anything"
    assert validated(grid.state).missing == []

    grid.warm_start(MAIN, num_epochs=2, gs_config_path="gs_config.yml")  # and back: what is gone does not count
    assert here("run") == 0
    assert judged(grid) == small
    assert validated(grid.state).missing == []


def test_priority_in_both_stages(grid: Grid, here: Here, capsys: pytest.CaptureFixture[str]) -> None:
    """What is to be first may be of the other stage, or have ended: that is no mistake."""
    validation = nested(2, 2, outer_only_for_selected=True)
    first = [{"outer_fold": 1, "inner_fold": -1}, {"inner_fold": 1, "outer_fold": 1}]
    write(grid, MAIN, folded({"width": sweep(2, 4)}, "test"), validation, priority=first)
    assert here("run") == 0

    def begun() -> list[tuple[int, int]]:
        experiments = grid.state.experiments
        swept = [experiments[s.experiment_id].swept for s in grid.statuses() if s.status == "RUNNING"]
        return [(values["outer_fold"], values["inner_fold"]) for values in swept]

    inner = [(1, 1), (0, 0), (0, 1), (1, 0)]
    assert begun() == [*(part for part in inner for _ in range(2)), (1, -1), (0, -1)]
    (grid.folder / "more.yml").write_text(json.dumps(folded({"width": sweep(2, 4, 8)}, "test")))
    grid.warm_start(MAIN, num_epochs=1, gs_config_path="more.yml", priority=[{"width": 4}, {"outer_fold": 1}])
    assert here("run") == 0, capsys.readouterr().err
    assert begun()[10:14] == [(1, 0), (1, 1), (0, 0), (0, 1)]


def test_a_fold_that_fails_is_named(grid: Grid, here: Here, capsys: pytest.CaptureFixture[str]) -> None:
    config = folded({"width": sweep(2, 4), "ids": injectable("id_val_fold_id"), "fails": [1]})
    write(grid, MAIN, config, cross(3))
    assert here("run") == 1
    out = report(grid, here, capsys)
    assert "this report is incomplete (2 missing):\n  fold 1 of combination 0: experiment 2 is FAILED\n" in out
    assert "best: " not in out
    assert here("report", grid.root.name, "--csv") == 0
    assert capsys.readouterr().out.startswith("rank,combination,width,mean,std,fold 0,fold 1,fold 2\n,0,2,")


# --- commands -----------------------------------------------------------------------------------------------


def test_commands_know_folds(grid: Grid, here: Here, capsys: pytest.CaptureFixture[str]) -> None:
    selective(grid, MAIN)
    assert here("plan") == 0
    planned = capsys.readouterr().out
    assert planned.splitlines()[0].split() == ["#", "width", "outer_fold", "inner_fold"]
    assert planned.endswith("of them are run: on outer folds only what the inner folds choose\n")
    assert here("check") == 0
    assert "12 experiments, nothing wrong found" in capsys.readouterr().out
    assert not (grid.folder / "event_storage").exists()
    assert here("run") == 0
    printed = capsys.readouterr().out
    assert "estimate for training chosen like this: " in printed
    assert here("status", grid.root.name) == 0
    assert "estimate for training chosen like this: " in capsys.readouterr().out
    text = report(grid, here, capsys)
    assert text.startswith("nested cross validation: test/loss (min)\n")
    assert "inner folds of outer fold 1\n" in text
    assert "incomplete" not in text
    assert here("report", grid.root.name, "--metric", "test/acuracy") == 2
    assert "did you mean 'test/accuracy'" in capsys.readouterr().err
    grid.warm_start(MAIN, num_epochs=2)
    assert here("check") == 0
    assert here("run") == 0
    assert "there is nothing left to do" in capsys.readouterr().err


Change = Callable[[dict[str, Any], dict[str, Any]], object]


def of(validation: dict[str, Any]) -> dict[str, Any]:
    (found,) = validation.values()
    return dict(found)


def with_config(values: dict[str, Any], folds: dict[str, Any] | None = None) -> dict[str, Any]:
    """A validation config with other values."""
    (name, found), *_ = (folds or cross()).items()
    return {name: {**found, "config": {**found["config"], **values}}}


@pytest.mark.parametrize(
    ("validation", "place", "words"),
    [
        (with_config({"num_folds": 200}), "num_folds", "200 folds of 150 samples"),
        (
            with_config({"num_folds": 60, "stratification": True}),
            "num_folds",
            "class 0 has 50 members, fewer than 60 folds",
        ),
        (
            with_config({"num_inner_loop_folds": 40, "inner_stratification": True}, nested(2, 2)),
            "num_inner_loop_folds",
            "fewer than 40 folds (of outer fold 0)",
        ),
        (
            {"CROSS_VALIDATION": {**of(cross()), "split_key": "trian"}},
            "split_key",
            "no split 'trian'; did you mean 'train'",
        ),
        ({"CROSS_VALIDATION": {**of(cross()), "iterator_key": "itrators"}}, "iterator_key", "did you mean 'iterators'"),
        ({"CROSS_VALIDATION": {**of(cross()), "iterator_key": "collator"}}, "iterator_key", "'collator' has no splits"),
        (
            with_config({"stratification": True, "target_pos": 3}),
            "target_pos",
            "an item has the places 0 to 2, not 3",
        ),
        (
            with_config({"stratification": True, "target_pos": 0}),
            "target_pos",
            "place 0 of an item holds no label but Tensor",
        ),
        (with_config({"groups": 0}), "groups", "place 0 of an item holds no label but Tensor"),
        (with_config({"groups": [1, 2, 3]}), "groups", "there are 3 groups for the 150 samples of 'train'"),
        (with_config({"groups": 1}), "num_folds", "5 folds of 3 groups"),
        (
            with_config({"metric": "test/los"}, nested(2, 2)),
            "metric",
            "'test/los' is not evaluated; did you mean 'test/loss'",
        ),
    ],
)
def test_mistakes_are_met_before_anything_is_written(
    grid: Grid, here: Here, validation: dict[str, Any], place: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write(grid, MAIN, regression([0.1], "test" if "NESTED_CROSS_VALIDATION" in validation else "val"), validation)
    text = (grid.folder / "validation.yml").read_text()
    line = 1 + text[: text.index(f'"{place}"')].count("\n")
    column = 1 + len(text.splitlines()[line - 1]) - len(text.splitlines()[line - 1].lstrip())
    for command in ("check", "run"):
        assert here(command) == 2
        error = capsys.readouterr().err
        assert f"validation.yml:{line}:{column}: " in error, error
        assert words in error
    assert not (grid.folder / "event_storage").exists()


def test_mistakes_in_other_processes(grid: Grid) -> None:
    write(grid, MANY, regression([0.1]), with_config({"num_folds": 200}))
    ended = grid.run()
    assert ended.returncode == 2
    assert "validation.yml:6:4: CROSS_VALIDATION.config.num_folds: 200 folds of 150 samples" in ended.stderr
    assert not (grid.folder / "event_storage").exists()


def test_data_that_differ_between_experiments(grid: Grid, here: Here, capsys: pytest.CaptureFixture[str]) -> None:
    config = regression([0.1])
    config["iterators"]["config"]["dataset_identifier"] = sweep("iris", "slow")
    write(grid, MAIN, config, cross())
    assert here("run") == 2
    assert (
        "the folds would differ between experiments, because what is swept changes the data" in capsys.readouterr().err
    )


def test_a_data_set_that_cannot_be_read(
    grid: Grid, here: Here, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: Any) -> None:
        raise OSError("the disk is on fire")

    write(grid, MAIN, folded({"width": 2}), cross(3, stratification=True))
    monkeypatch.setattr("tests.engine.folding.Slow.__getitem__", broken)
    assert here("check") == 2
    assert "iterators cannot be read:\n" in (error := capsys.readouterr().err)
    assert "the disk is on fire" in error


# --- the log of the folds -----------------------------------------------------------------------------------


def test_a_log_holds_the_indices_once(grid: Grid, tmp_path: Path) -> None:
    """10 folds x 100 combinations on 60,000 samples announced: 3.6 MB, of which 0.35 MB are indices.

    Were the indices in every configuration, they alone would be 350 MB.
    """
    config = folded({"width": sweep(*range(1, 101))})
    write(grid, MAIN, config, cross(10))
    plan = read_plan(*read_run_config(grid.folder / "run_config.yml"))
    assert plan.validation is not None
    assert plan.validation.folds is not None
    tests = split(plan.validation.folds, Data(60_000), 0)
    plan = plan._replace(folds=Folds(60_000, tests))
    specs = plan.specs("g")
    assert len(specs) == 1000
    assert len({id(spec.injected["id_split_indices"]) for spec in specs}) == 10  # nor in memory
    assert all(len(spec.injected["id_split_indices"]["train"]) == 54_000 for spec in specs)
    paths = RunPaths(tmp_path, "g")
    began = GridSearch(grid_search_id="g", status="STARTED", num_experiments=1000, validation=plan.recorded())
    with Spool(paths.spool("run"), "run") as spool:
        announce(Todo(plan, specs, {}, began), paths, spool)
    written = paths.spool("run").read_bytes()
    events = decode_lines(written)
    indices = sum(len(line) for line in written.splitlines() if b'"data_fold"' in line)
    assert indices < 500_000
    assert len(written) < 5_000_000
    assert max(map(len, written.splitlines())) < 200_000  # nothing that a batch has no room for
    state = fold_all(State(), events)
    assert recorded_folds(plan.validation, state) == plan.folds


def test_folds_that_were_cut_off_are_recorded_again(grid: Grid, tmp_path: Path) -> None:
    """A run that died while it recorded them: a warm start divides again, and what was there stays as it was."""
    write(grid, MAIN, folded({"width": 2}), cross(2))
    plan = read_plan(*read_run_config(grid.folder / "run_config.yml"))
    assert plan.validation is not None
    assert plan.validation.folds is not None
    plan = plan._replace(folds=Folds(50_000, split(plan.validation.folds, Data(50_000), 0)))
    paths = RunPaths(tmp_path, "g")
    began = GridSearch(grid_search_id="g", status="STARTED", validation=plan.recorded())
    with Spool(paths.spool("run"), "run") as spool:
        announce(Todo(plan, [], {}, began), paths, spool)
    events = decode_lines(paths.spool("run").read_bytes())
    assert sum(isinstance(event, DataFoldEvent) for event in events) == 4  # in pieces
    for upto in range(len(events)):
        state = fold_all(State(), events[:upto])
        assert recorded_folds(plan.validation, state) is None
        assert recorded_folds(plan.validation, fold_all(state, events)) == plan.folds
