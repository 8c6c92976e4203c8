"""Folds are scikit-learn's, and keep what cross validation promises; the file that asks for them says what is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn import model_selection

from mlgym.errors import ConfigError
from mlgym.plan.config import Document, read_run_config
from mlgym.plan.experiments import Folds, Plan, injected, points, read_plan, recorded_folds
from mlgym.plan.folds import (
    CrossValidation,
    CrossValidationConfig,
    Data,
    NestedConfig,
    NestedCrossValidation,
    Part,
    indices,
    parts,
    split,
    validation,
    whole,
)
from mlgym.plan.sweep import expand
from mlgym.record import fold
from mlgym.record.fold import State
from mlgym.record.validation import OUTER
from tests.conftest import ROOT, Run
from tests.engine.grids import config


def simple(**values: Any) -> CrossValidation:
    return CrossValidation("data", "train", CrossValidationConfig(**values))


def nested(outer: int, inner: int, **values: Any) -> NestedCrossValidation:
    return NestedCrossValidation("data", "train", NestedConfig(outer, inner, **values))


def data(samples: int = 60, classes: int = 3, groups: int = 12, seed: int = 0) -> Data:
    rng = np.random.default_rng(seed)
    return Data(
        samples,
        rng.permutation(np.arange(samples) % classes).tolist(),
        [f"g{i}" for i in rng.integers(groups, size=samples)],
    )


def ungrouped(found: Data) -> Data:
    return found._replace(groups=None)


# --- what scikit-learn gives --------------------------------------------------------------------------------


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("name", ["KFold", "StratifiedKFold", "GroupKFold", "StratifiedGroupKFold"])
def test_folds_are_those_of_scikit_learn(name: str, shuffle: bool) -> None:
    found = data()
    facts = found if "Group" in name else ungrouped(found)
    wanted = simple(num_folds=5, stratification="Stratified" in name, shuffle=shuffle, seed=7)
    splitter = getattr(model_selection, name)(5, shuffle=shuffle, random_state=7 if shuffle else None)
    theirs = list(splitter.split(np.zeros(60), found.labels, facts.groups))
    tests = split(wanted, facts, 0)
    ours = [indices(Part(i), tests, 60) for i in range(5)]
    assert [(o["train"], o["val"]) for o in ours] == [(train.tolist(), test.tolist()) for train, test in theirs]


@pytest.mark.parametrize("name", ["RepeatedKFold", "RepeatedStratifiedKFold"])
def test_repetitions_are_those_of_scikit_learn(name: str) -> None:
    found = ungrouped(data())
    splitter = getattr(model_selection, name)(n_splits=4, n_repeats=3, random_state=11)
    theirs = [test.tolist() for _, test in splitter.split(np.zeros(60), found.labels)]
    wanted = simple(num_folds=4, repeats=3, shuffle=True, seed=11, stratification="Stratified" in name)
    assert list(split(wanted, found, 0).values()) == theirs
    assert list(split(wanted, found, 0)) == parts(wanted) == [Part(i) for i in range(12)]


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("stratified", [(False, False), (True, True), (True, False), (False, True)])
def test_nested_folds_are_those_of_a_loop_over_scikit_learn(stratified: tuple[bool, bool], grouped: bool) -> None:
    found = data(90, groups=30) if grouped else ungrouped(data(90))
    outer_stratified, inner_stratified = stratified
    wanted = nested(
        3, 2, shuffle=True, seed=5, outer_stratification=outer_stratified, inner_stratification=inner_stratified
    )

    def splitter(stratify: bool, folds: int) -> Any:
        name = ("Stratified" if stratify else "") + ("Group" if grouped else "") + "KFold"
        return getattr(model_selection, name)(folds, shuffle=True, random_state=5)

    labels = np.asarray(found.labels)
    groups = np.asarray(found.groups) if grouped else None
    theirs = {}
    for i, (train, test) in enumerate(splitter(outer_stratified, 3).split(np.zeros(90), labels, groups)):
        here = None if groups is None else groups[train]
        for j, (fit, judge) in enumerate(splitter(inner_stratified, 2).split(train, labels[train], here)):
            theirs[Part(i, j)] = {"train": train[fit].tolist(), "test": train[judge].tolist()}
        theirs[Part(i, OUTER)] = {"train": train.tolist(), "test": test.tolist()}
    tests = split(wanted, found, 0)
    assert {part: indices(part, tests, 90) for part in parts(wanted)} == theirs


def test_the_seed_of_the_run_counts_only_without_one_of_the_file() -> None:
    found = ungrouped(data())
    assert split(simple(num_folds=3, shuffle=True), found, 4) == split(
        simple(num_folds=3, shuffle=True, seed=4), found, 9
    )
    assert split(simple(num_folds=3, shuffle=True), found, 4) != split(simple(num_folds=3, shuffle=True), found, 5)
    assert split(simple(num_folds=3), found, 4) == split(simple(num_folds=3), found, 5)


# --- laws ---------------------------------------------------------------------------------------------------


@st.composite
def _data(draw: st.DrawFn) -> Data:
    samples = draw(st.integers(4, 60))
    one = st.lists(st.integers(0, 2), min_size=samples, max_size=samples)
    groups = st.lists(st.integers(0, 9), min_size=samples, max_size=samples)
    return Data(samples, draw(one), draw(st.none() | groups))


_options: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.just({}),
    st.fixed_dictionaries({"shuffle": st.just(True), "seed": st.integers(0, 99), "repeats": st.integers(1, 3)}),
)


def divided(wanted: CrossValidation | NestedCrossValidation, found: Data) -> dict[Part, list[int]]:
    """The folds; data that cannot be divided are no case."""
    try:
        return split(wanted, found, 0)
    except ConfigError:
        assume(False)
        raise


def strata_are_kept(tests: list[list[int]], rows: list[int], labels: list[int]) -> None:
    """Of every class a fold has its share, to one member."""
    for label in {labels[i] for i in rows}:
        members = sum(labels[i] == label for i in rows)
        for test in tests:
            assert abs(sum(labels[i] == label for i in test) - members / len(tests)) <= 1


def groups_are_whole(train: list[int], test: list[int], groups: list[int] | None) -> None:
    assert groups is None or not {groups[i] for i in train} & {groups[i] for i in test}


@settings(deadline=None, max_examples=150)
@given(_data(), _options, st.integers(2, 5), st.booleans())
def test_every_sample_is_tested_once(found: Data, options: dict[str, Any], folds: int, stratified: bool) -> None:
    wanted = simple(num_folds=folds, stratification=stratified, **options)
    tests = divided(wanted, found)
    labels, groups = list(found.labels or ()), found.groups and list(found.groups)
    everything = list(range(found.samples))
    for repeat in range(wanted.config.repeats):
        here = [tests[Part(repeat * folds + i)] for i in range(folds)]
        assert sorted(i for test in here for i in test) == everything
        if not found.groups:
            assert max(map(len, here)) - min(map(len, here)) <= (len(set(labels)) if stratified else 1)
        if stratified and not found.groups:
            strata_are_kept(here, everything, labels)  # type: ignore[arg-type]
    for part in parts(wanted):
        one = indices(part, tests, found.samples)
        assert sorted(one["train"] + one["val"]) == everything
        assert one["train"] == sorted(one["train"])
        assert one["val"] == sorted(one["val"])
        groups_are_whole(one["train"], one["val"], groups)  # type: ignore[arg-type]
    assert whole(wanted, tests, found.samples)


@settings(deadline=None, max_examples=150)
@given(_data(), _options, st.integers(2, 4), st.integers(2, 4), st.booleans(), st.booleans())
def test_inner_folds_see_nothing_of_the_outer_test(
    found: Data, options: dict[str, Any], outer: int, inner: int, outer_stratified: bool, inner_stratified: bool
) -> None:
    wanted = nested(
        outer, inner, outer_stratification=outer_stratified, inner_stratification=inner_stratified, **options
    )
    tests = divided(wanted, found)
    labels, groups = list(found.labels or ()), found.groups and list(found.groups)
    everything = list(range(found.samples))
    for i in range(outer * wanted.config.repeats):
        held_out = {*tests[Part(i, OUTER)]}
        seen = indices(Part(i, OUTER), tests, found.samples)
        assert seen["train"] == [k for k in everything if k not in held_out]
        assert {*seen["test"]} == held_out
        groups_are_whole(seen["train"], seen["test"], groups)  # type: ignore[arg-type]
        inner_tests = [tests[Part(i, j)] for j in range(inner)]
        assert sorted(k for test in inner_tests for k in test) == seen["train"]
        for j in range(inner):
            one = indices(Part(i, j), tests, found.samples)
            assert not held_out & {*one["train"], *one["test"]}
            assert sorted(one["train"] + one["test"]) == seen["train"]
            groups_are_whole(one["train"], one["test"], groups)  # type: ignore[arg-type]
        if inner_stratified and not found.groups:
            strata_are_kept(inner_tests, seen["train"], labels)  # type: ignore[arg-type]
    for repeat in range(wanted.config.repeats):
        here = [tests[Part(repeat * outer + i, OUTER)] for i in range(outer)]
        assert sorted(k for test in here for k in test) == everything
    assert whole(wanted, tests, found.samples)


@settings(deadline=None, max_examples=50)
@given(_data(), st.integers(2, 3), st.integers(2, 3), st.randoms())
def test_folds_that_lack_anything_are_not_whole(found: Data, outer: int, inner: int, random: Any) -> None:
    for wanted in (simple(num_folds=outer), nested(outer, inner)):
        tests = divided(wanted, found._replace(groups=None))
        part = random.choice(list(tests))
        assert not whole(wanted, {key: test for key, test in tests.items() if key != part}, found.samples)
        assert not whole(wanted, tests | {part: tests[part][:-1]}, found.samples)  # a piece has not come yet


# --- data that cannot be divided ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "facts", "path", "words"),
    [
        (simple(num_folds=5), Data(4), ("num_folds",), "5 folds of 4 samples"),
        (simple(num_folds=5), Data(0), ("num_folds",), "5 folds of 0 samples"),
        (nested(2, 5), Data(8), ("num_inner_loop_folds",), r"5 folds of 4 samples \(of outer fold 0\)"),
        (nested(9, 2), Data(8), ("num_outer_loop_folds",), "9 folds of 8 samples"),
        (
            simple(num_folds=3, stratification=True),
            Data(7, [0, 0, 0, 0, 0, "b", "b"]),
            ("num_folds",),
            "class 'b' has 2 members, fewer than 3 folds",
        ),
        (
            nested(2, 3, inner_stratification=True),
            Data(10, [0, 0, 1, 1, 1] * 2),
            ("num_inner_loop_folds",),
            r"class 0 has 2 members, fewer than 3 folds \(of outer fold 0\)",
        ),
        (simple(num_folds=3), Data(6, None, [1, 1, 1, 2, 2, 2]), ("num_folds",), "3 folds of 2 groups"),
        (
            simple(num_folds=2, stratification=True),
            Data(4, [0.5, 1.0, 0.5, 1.0]),
            ("stratification",),
            "0.5 is no class",
        ),
        (simple(num_folds=2, stratification=True), Data(2, [float("nan")] * 2), ("stratification",), "nan is no class"),
        (
            nested(2, 2, outer_stratification=True),
            Data(8, [0.1 * i for i in range(8)]),
            ("outer_stratification",),
            "the label 0.1 is no class",
        ),
        (
            simple(num_folds=4, stratification=True),
            Data(6, [0, 0, 1, 1, 2, 2], [0, 1, 2, 3, 4, 5]),
            ("num_folds",),
            "cannot be greater than the number of members in each class",
        ),
    ],
)
def test_data_that_cannot_be_divided(
    wanted: CrossValidation | NestedCrossValidation, facts: Data, path: tuple[str, ...], words: str
) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        split(wanted, facts, 0)
    assert caught.value.path == path


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.integers(0, 3) | st.floats(-3, 3) | st.sampled_from(["a", "b"]), min_size=1, max_size=9),
    st.integers(2, 4),
    st.booleans(),
)
def test_no_data_raise_anything_else(labels: list[Any], folds: int, grouped: bool) -> None:
    groups = [i // 2 for i in range(len(labels))] if grouped else None
    facts = Data(len(labels), labels, groups)
    for wanted in (
        simple(num_folds=folds, stratification=True),
        nested(folds, 2, outer_stratification=True, inner_stratification=True),
    ):
        try:
            assert whole(wanted, split(wanted, facts, 0), len(labels))
        except ConfigError:
            pass


# --- the file -----------------------------------------------------------------------------------------------


def document(text: str) -> Document:
    return Document(Path("v.yml"), text)


CV = "CROSS_VALIDATION:\n  iterator_key: data\n  split_key: train\n  config:\n    num_folds: 3\n"
NESTED = (
    "NESTED_CROSS_VALIDATION:\n  iterator_key: data\n  split_key: train\n  config:\n"
    "    num_outer_loop_folds: 3\n    num_inner_loop_folds: 2\n"
)
SEEDS = "SEEDS:\n  seeds: [1, 2]\n"


def test_what_a_file_says() -> None:
    assert validation(document(CV)).folds == simple(num_folds=3)
    full = (
        CV
        + "    stratification: true\n    target_pos: 2\n    groups: 0\n    repeats: 2\n    shuffle: true\n    seed: 9\n"
    )
    assert validation(document(full)).folds == simple(
        num_folds=3, stratification=True, target_pos=2, groups=0, repeats=2, shuffle=True, seed=9
    )
    assert validation(document(NESTED)) == (nested(3, 2), (), ("NESTED_CROSS_VALIDATION",))
    assert validation(document(NESTED.replace("NESTED_CROSS_VALIDATION", "NestedCV"))) == (
        nested(3, 2),
        (),
        ("NestedCV",),
    )
    assert validation(document(SEEDS)) == (None, (1, 2), ())
    assert validation(document(CV + SEEDS)) == (simple(num_folds=3), (1, 2), ("CROSS_VALIDATION",))
    assert validation(document(NESTED + "CROSS_VALIDATION:\n")).folds == nested(3, 2)


def test_anchors_of_a_global_config() -> None:
    found = document(
        "global_config:\n  seed: &seed 5\n  folds: &folds {num_folds: 4, shuffle: true}\n"
        "CROSS_VALIDATION:\n  iterator_key: data\n  split_key: train\n  config: {<<: *folds, seed: *seed}\n"
    )
    assert validation(found).folds == simple(num_folds=4, shuffle=True, seed=5)


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("", "v.yml", "expected a mapping with CROSS_VALIDATION, NESTED_CROSS_VALIDATION or SEEDS"),
        ("[1]", "v.yml:1:1", "expected a mapping with"),
        ("global_config: {}", "v.yml:1:1", "expected CROSS_VALIDATION, NESTED_CROSS_VALIDATION or SEEDS"),
        (CV.replace("CROSS", "CROS"), "v.yml:1:1", "unknown key 'CROS_VALIDATION'; did you mean 'CROSS_VALIDATION'"),
        (CV + NESTED, "v.yml:6:1", "there can be one of CROSS_VALIDATION, NESTED_CROSS_VALIDATION"),
        (NESTED + NESTED.replace("NESTED_CROSS_VALIDATION", "NestedCV"), "v.yml:7:1", "there can be one of"),
        (CV.replace("num_folds: 3", "num_folds: 1"), "v.yml:5:5", "must be at least 2, not 1"),
        (CV.replace("num_folds: 3", "num_folds: x"), "v.yml:5:5", "expected int, got str 'x'"),
        (CV.replace("    num_folds: 3\n", "    shuffle: true\n"), "v.yml:4:3", "the key 'num_folds' is missing"),
        (CV.replace("  split_key: train\n", ""), "v.yml:1:1", "the key 'split_key' is missing"),
        (CV + "    suffle: true\n", "v.yml:6:5", "unknown key 'suffle'; did you mean 'shuffle'"),
        (CV + "    seed: -1\n", "v.yml:6:5", "must be at least 0, not -1"),
        (CV + "    seed: 4294967296\n", "v.yml:6:5", "must be less than 2**32"),
        (CV + "    target_pos: -1\n", "v.yml:6:5", "must be at least 0, not -1"),
        (CV + "    groups: -1\n", "v.yml:6:5", "must be at least 0, not -1"),
        (CV + "    groups: x\n", "v.yml:6:5", "groups"),
        (CV + "    repeats: 0\n", "v.yml:6:5", "must be at least 1, not 0"),
        (CV + "    repeats: 2\n", "v.yml:6:5", "without shuffle: true, every repetition would be the same"),
        (NESTED.replace("outer_loop_folds: 3", "outer_loop_folds: 0"), "v.yml:5:5", "must be at least 2, not 0"),
        (NESTED.replace("inner_loop_folds: 2", "inner_loop_folds: 1"), "v.yml:6:5", "must be at least 2, not 1"),
        (NESTED + "    epoch: first\n", "v.yml:7:5", "'first'"),
        (NESTED + "    mode: most\n", "v.yml:7:5", "'most'"),
        ("SEEDS: {seeds: []}", "v.yml:1:9", "name at least one seed"),
        ("SEEDS:\n  seeds: [1, 2, 1]", "v.yml:2:17", "the seed 1 is given twice"),
        ("SEEDS:\n  seeds: [a]", "v.yml:2:11", "expected int, got str 'a'"),
        ("SEEDS: {}", "v.yml:1:1", "the key 'seeds' is missing"),
    ],
)
def test_mistakes_have_a_place(text: str, place: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        validation(document(text))
    assert words in str(caught.value)
    assert str(caught.value).startswith(f"{place}:"), caught.value


# --- the plan -----------------------------------------------------------------------------------------------


def write(folder: Path, text: str, **train: Any) -> Path:
    grid = config({"number": {"sweep": "absolute", "values": [1, 2]}}, 0)
    (folder / "gs_config.yml").write_text(json.dumps(grid))
    (folder / "validation.yml").write_text(text)
    values = {"gs_config_path": "gs_config.yml", "num_epochs": 1, "validation_config_path": "validation.yml", **train}
    path = folder / "run_config.yml"
    path.write_text(json.dumps({"run_configuration": {"type": "train", "config": values}}))
    return path


def plan_of(folder: Path, text: str, **train: Any) -> Plan:
    return read_plan(
        *read_run_config(write(folder, text.replace("iterator_key: data", "iterator_key: iterators"), **train))
    )


NUMBER = "model.config.model_definition.number"


def test_by_fold_then_by_seed_then_by_combination(tmp_path: Path) -> None:
    specs = plan_of(tmp_path, CV + SEEDS).specs("g")
    assert [spec.swept for spec in specs] == [
        {NUMBER: number, "fold": part, "seed": seed} for part in range(3) for seed in (1, 2) for number in (1, 2)
    ]
    assert [spec.repeat_seed for spec in specs] == [1, 1, 2, 2] * 3
    assert len({spec.config_hash for spec in specs}) == 12
    assert all("id_split_indices" not in spec.injected for spec in specs)  # the data are not known


def test_each_inner_fold_and_then_the_outer_one(tmp_path: Path) -> None:
    specs = plan_of(tmp_path, NESTED).specs("g")
    assert [spec.swept for spec in specs] == [
        {NUMBER: number, "outer_fold": outer, "inner_fold": inner}
        for outer in range(3)
        for inner in (0, 1, OUTER)
        for number in (1, 2)
    ]
    assert specs[5].injected == {
        "id_experiment_id": 5,
        "id_hyper_paramater_combination_id": 1,
        "id_hyper_parameter_combination_id": 1,
        "id_outer_test_fold_id": 0,
        "id_inner_test_fold_id": -1,
    }


def test_what_is_injected(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, CV)
    plan = plan._replace(folds=Folds(6, {Part(i): [2 * i, 2 * i + 1] for i in range(3)}))
    found = plan.specs("g")
    assert found[3].injected == {
        "id_experiment_id": 3,
        "id_hyper_paramater_combination_id": 1,
        "id_hyper_parameter_combination_id": 1,
        "id_val_fold_id": 1,
        "id_split_indices": {"train": [0, 1, 4, 5], "val": [2, 3]},
    }
    assert found[2].injected["id_split_indices"] is found[3].injected["id_split_indices"]  # once in memory as well
    (cell,) = points(expand({"c": {}}), None)
    assert injected(0, cell, {}).keys() == {
        name for name in found[0].injected if "fold" not in name and "split" not in name
    }


def test_what_the_log_is_told(tmp_path: Path) -> None:
    found = plan_of(
        tmp_path, NESTED + "    outer_only_for_selected: true\n    metric: test/loss\n    epoch: average\n"
    ).recorded()
    assert found is not None
    assert (found.combinations, found.outer_folds, found.inner_folds, found.seeds) == (2, 3, 2, [])
    assert (found.selected_only, found.metric, found.mode, found.epoch) == (True, "test/loss", None, "average")
    repeated = plan_of(tmp_path, CV + "    repeats: 2\n    shuffle: true\n" + SEEDS).recorded()
    assert repeated is not None
    assert (repeated.combinations, repeated.outer_folds, repeated.inner_folds, repeated.seeds) == (2, 6, 0, [1, 2])


def test_the_same_combination_twice_is_one(tmp_path: Path) -> None:
    path = write(tmp_path, SEEDS)
    grid = config({"number": {"sweep": "absolute", "values": [1, 1, 2]}}, 0)
    (tmp_path / "gs_config.yml").write_text(json.dumps(grid))
    found = read_plan(*read_run_config(path)).recorded()
    assert found is not None
    assert found.combinations == 2


def test_folds_of_a_log_count_only_when_all_are_there(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, CV)
    assert plan.validation is not None
    state = State()
    assert recorded_folds(plan.validation, state) is None
    for i in range(3):
        assert recorded_folds(plan.validation, state) is None
        state.folds[str(i)] = fold.TestItems(6)
        state.folds[str(i)].test.extend([2 * i, 2 * i + 1])
    assert recorded_folds(plan.validation, state) == (6, {Part(i): [2 * i, 2 * i + 1] for i in range(3)})
    state.folds["1"].test.pop()
    assert recorded_folds(plan.validation, state) is None


def test_priority_knows_folds(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, CV, priority=[{"fold": 2, "number": 2}])
    assert [spec.experiment_id for spec in plan.start_order(plan.specs("g"))] == [5, 0, 1, 2, 3, 4]


def test_an_unknown_iterator(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"validation\.yml:2:3: .*no component named 'iterator'; did you mean 'iterators'"
    ):
        plan_of(tmp_path, CV.replace("iterator_key: data", "iterator_key: iterator"))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"run_config\.yml:1:\d+: .*validatoin\.yml: no such file; did you mean 'validation\.yml'"
    ):
        plan_of(tmp_path, CV, validation_config_path="validatoin.yml")


def test_a_plan_builds_nothing_and_imports_nothing(tmp_path: Path, python: Run) -> None:
    path = write(tmp_path, NESTED.replace("iterator_key: data", "iterator_key: iterators") + SEEDS)
    ended = python(
        "-c",
        "import sys\nfrom mlgym.cli import main\n"
        f"code = main(['plan', '--config_path', {str(path)!r}])\n"
        "heavy = [name for name in ('torch', 'sklearn', 'numpy', 'scipy') if name in sys.modules]\n"
        "sys.exit(str(heavy) if heavy else code)",
    )
    assert ended.returncode == 0, ended.stderr
    lines = ended.stdout.splitlines()
    assert lines[0].split() == ["#", "number", "outer_fold", "inner_fold", "seed"]
    assert lines[2].split() == ["0", "1", "0", "0", "1"]
    assert lines[-1] == "36 experiments of 1 epochs"
    ended = python("-m", "mlgym", "plan", "--config_path", path, "--json")
    rows = json.loads(ended.stdout)
    assert rows[-1]["swept"] == {NUMBER: 2, "outer_fold": 2, "inner_fold": -1, "seed": 2}
    assert rows[-1].keys() == {"experiment_id", "config_hash", "swept", "num_epochs", "seed"}  # no indices


@pytest.mark.parametrize("name", ["cross_validation", "nested_cross_validation"])
def test_the_examples_are_plans(name: str) -> None:
    plan = read_plan(*read_run_config(ROOT / "example" / name / "run_config.yml"))
    assert plan.validation is not None
    assert plan.validation.folds is not None
    assert len(plan.cells) == 4 * len(parts(plan.validation.folds))
