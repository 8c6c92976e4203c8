"""Cross validation, nested cross validation and repetition under other seeds: what is trained on what. Pure.

Splitting is scikit-learn's; it is imported where something is split, so that a plan costs nothing.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import msgspec

from mlgym.errors import ConfigError, ConfigPath
from mlgym.plan.config import Document, typed
from mlgym.record.validation import FOLD, INNER_FOLD, OUTER, OUTER_FOLD

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Groups = int | list[int | str]
"""A position in the items, or one value for each sample."""


class _Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


class CrossValidationConfig(_Strict, frozen=True):
    num_folds: int
    stratification: bool = False
    target_pos: int = 1
    groups: Groups | None = None
    repeats: int = 1
    shuffle: bool = False
    seed: int | None = None


class NestedConfig(_Strict, frozen=True):
    num_outer_loop_folds: int
    num_inner_loop_folds: int
    inner_stratification: bool = False
    outer_stratification: bool = False
    target_pos: int = 1
    groups: Groups | None = None
    repeats: int = 1
    shuffle: bool = False
    seed: int | None = None
    outer_only_for_selected: bool = False
    """Train on an outer fold only the combination that its inner folds choose."""
    metric: str | None = None
    """What they choose by, as `split/tag`; default: what the report judges by."""
    mode: Literal["max", "min"] | None = None
    epoch: Literal["last", "best", "average"] = "last"
    """Which epoch's score counts, as in the report."""


class CrossValidation(_Strict, frozen=True):
    """Every combination on every fold of the split `split_key` of the component `iterator_key`."""

    iterator_key: str
    split_key: str
    config: CrossValidationConfig


class NestedCrossValidation(_Strict, frozen=True):
    """In each outer fold a cross validation of what is not its test data."""

    iterator_key: str
    split_key: str
    config: NestedConfig


class Seeds(_Strict, frozen=True):
    """Every cell once for each of these, which is mixed into all seeds but those that divide the data."""

    seeds: list[int]


class _File(_Strict, frozen=True):
    cross_validation: CrossValidation | None = msgspec.field(default=None, name="CROSS_VALIDATION")
    nested: NestedCrossValidation | None = msgspec.field(default=None, name="NESTED_CROSS_VALIDATION")
    nested_cv: NestedCrossValidation | None = msgspec.field(default=None, name="NestedCV")
    seeds: Seeds | None = msgspec.field(default=None, name="SEEDS")
    global_config: Any = None


class Validation(NamedTuple):
    """What a validation config asks for. `where` is the path of `folds` in the file."""

    folds: CrossValidation | NestedCrossValidation | None
    seeds: tuple[int, ...]
    where: ConfigPath


class Part(NamedTuple):
    """One division of the data: of cross validation (`inner` is None) or of a nested one.

    `outer` counts the folds of all repetitions. `inner` is `OUTER` where training sees all but the outer test data.
    """

    outer: int
    inner: int | None = None

    @property
    def swept(self) -> dict[str, int]:
        """As axes of the grid."""
        return {FOLD: self.outer} if self.inner is None else {OUTER_FOLD: self.outer, INNER_FOLD: self.inner}

    @property
    def ids(self) -> dict[str, int]:
        """What configurations may ask to have injected."""
        if self.inner is None:
            return {"id_val_fold_id": self.outer}
        return {"id_outer_test_fold_id": self.outer, "id_inner_test_fold_id": self.inner}

    @property
    def name(self) -> str:
        """`3`, `3/1`, `3/-1`."""
        return "/".join(map(str, self.swept.values()))


class Data(NamedTuple):
    """The facts about the split that is divided. `labels` and `groups` are given where the folds depend on them."""

    samples: int
    labels: Sequence[int | str | float] | None = None
    groups: Sequence[int | str] | None = None


# --- the file -----------------------------------------------------------------------------------------------


def validation(document: Document) -> Validation:
    """What the validation config asks for. Raises `ConfigError`, with its place."""
    if not isinstance(document.value, dict):
        raise ConfigError(
            "expected a mapping with CROSS_VALIDATION, NESTED_CROSS_VALIDATION or SEEDS", place=document.place(())
        )
    file: _File = typed(document, _File)
    try:
        given = {
            key: document.value[key]
            for key in ("CROSS_VALIDATION", "NESTED_CROSS_VALIDATION", "NestedCV")
            if document.value.get(key) is not None
        }
        if len(given) > 1:
            raise ConfigError(f"there can be one of {', '.join(given)}", (list(given)[1],))
        if not given and file.seeds is None:
            raise ConfigError("expected CROSS_VALIDATION, NESTED_CROSS_VALIDATION or SEEDS")
        where = tuple(given)
        folds = file.cross_validation or file.nested or file.nested_cv
        if folds:
            _check(folds, (*where, "config"))
        seeds = file.seeds.seeds if file.seeds else []
        if file.seeds and not seeds:
            raise ConfigError("name at least one seed", ("SEEDS", "seeds"))
        for i, seed in enumerate(seeds):
            if seed in seeds[:i]:
                raise ConfigError(f"the seed {seed} is given twice", ("SEEDS", "seeds", i))
    except ConfigError as error:
        raise error.locate(document.place) from None
    return Validation(folds, tuple(seeds), where)


def _check(folds: CrossValidation | NestedCrossValidation, where: ConfigPath) -> None:
    config = folds.config
    counts = (
        ("num_folds",)
        if isinstance(config, CrossValidationConfig)
        else ("num_outer_loop_folds", "num_inner_loop_folds")
    )
    for key in counts:
        if getattr(config, key) < 2:
            raise ConfigError(f"must be at least 2, not {getattr(config, key)}", (*where, key))
    for key, least in (("repeats", 1), ("target_pos", 0), ("seed", 0)):
        value = getattr(config, key)
        if value is not None and value < least:
            raise ConfigError(f"must be at least {least}, not {value}", (*where, key))
    if config.seed is not None and config.seed >= 1 << 32:
        raise ConfigError("must be less than 2**32", (*where, "seed"))
    if isinstance(config.groups, int) and config.groups < 0:
        raise ConfigError(f"must be at least 0, not {config.groups}", (*where, "groups"))
    if config.repeats > 1 and not config.shuffle:
        raise ConfigError("without shuffle: true, every repetition would be the same", (*where, "repeats"))


# --- which there are ----------------------------------------------------------------------------------------


def parts(folds: CrossValidation | NestedCrossValidation) -> list[Part]:
    """All divisions of the data, in the order in which they are run; the data need not be known."""
    config = folds.config
    if isinstance(config, CrossValidationConfig):
        return [Part(i) for i in range(config.num_folds * config.repeats)]
    inner = [*range(config.num_inner_loop_folds), OUTER]
    return [Part(outer, i) for outer in range(config.num_outer_loop_folds * config.repeats) for i in inner]


def split(folds: CrossValidation | NestedCrossValidation, data: Data, seed: int) -> dict[Part, list[int]]:
    """The test items of each part, by their places in the split, ascending. `seed` counts if the file gives none.

    Raises `ConfigError`, with a path in `config`, for data that cannot be divided so.
    """
    config = folds.config
    seed = seed if config.seed is None else config.seed
    if isinstance(config, CrossValidationConfig):
        divide = _Divide(config.num_folds, "num_folds", config.stratification, "stratification", config.shuffle)
        found = divide.all(data, config.repeats, seed)
        return {Part(i): test.tolist() for i, test in enumerate(found)}
    divide = _Divide(
        config.num_outer_loop_folds,
        "num_outer_loop_folds",
        config.outer_stratification,
        "outer_stratification",
        config.shuffle,
    )
    inner = _Divide(
        config.num_inner_loop_folds,
        "num_inner_loop_folds",
        config.inner_stratification,
        "inner_stratification",
        config.shuffle,
    )
    result: dict[Part, list[int]] = {}
    for outer, test in enumerate(divide.all(data, config.repeats, seed)):
        left = _others(data.samples, test)
        rest = Data(
            len(left),
            None if data.labels is None else [data.labels[i] for i in left],
            None if data.groups is None else [data.groups[i] for i in left],
        )
        for i, rows in enumerate(inner.all(rest, 1, seed, f" (of outer fold {outer})")):
            result[Part(outer, i)] = left[rows].tolist()
        result[Part(outer, OUTER)] = test.tolist()
    return result


def indices(part: Part, tests: Mapping[Part, Sequence[int]], samples: int) -> dict[str, list[int]]:
    """What a part trains on and what it is tested on, both ascending."""
    test = list(tests[part])
    out = {*test}
    if part.inner is None:
        return {"train": [i for i in range(samples) if i not in out], "val": test}
    out.update(tests[Part(part.outer, OUTER)])
    return {"train": [i for i in range(samples) if i not in out], "test": test}


def whole(folds: CrossValidation | NestedCrossValidation, tests: Mapping[Part, Sequence[int]], samples: int) -> bool:
    """Whether `tests` says of every part all that it is tested on."""
    wanted = parts(folds)
    if not tests.keys() >= {*wanted}:
        return False
    size = {part: len(tests[part]) for part in wanted}
    outer = sum(number for part, number in size.items() if part.inner in (None, OUTER))
    inner = [
        sum(number for part, number in size.items() if part.outer == one.outer) for one in wanted if one.inner == OUTER
    ]
    return outer == samples * folds.config.repeats and all(number == samples for number in inner)


def _others(samples: int, test: NDArray[np.intp]) -> NDArray[np.intp]:
    import numpy as np

    return np.setdiff1d(np.arange(samples), test, assume_unique=True)


class _Divide(NamedTuple):
    """One of scikit-learn's splitters, by what is asked of it."""

    folds: int
    folds_key: str
    stratified: bool
    stratified_key: str
    shuffle: bool

    def all(self, data: Data, repeats: int, seed: int, of: str = "") -> Iterator[NDArray[np.intp]]:
        """The test items of each fold of each repetition."""
        import numpy as np
        from sklearn import model_selection

        self._refuse(data, of)
        grouped = data.groups is not None
        name = ("Stratified" if self.stratified else "") + ("Group" if grouped else "") + "KFold"
        # One generator over all repetitions, as scikit-learn's RepeatedKFold has it.
        state: Any = None if not self.shuffle else seed if repeats == 1 else np.random.RandomState(seed)
        rows = np.zeros(data.samples)
        labels = np.asarray(data.labels) if self.stratified else None
        for _ in range(repeats):
            splitter = getattr(model_selection, name)(self.folds, shuffle=self.shuffle, random_state=state)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # a class with too few members is refused above
                try:
                    tests = [test for _, test in splitter.split(rows, labels, data.groups)]
                except ValueError as error:
                    raise ConfigError(f"{error}{of}", (self.folds_key,)) from None
            for test in tests:
                if len(test) == 0 or len(test) == data.samples:
                    raise ConfigError(f"a fold would be empty: the groups are too large{of}", ("groups",))
                yield test

    def _refuse(self, data: Data, of: str) -> None:
        if self.folds > data.samples:
            raise ConfigError(f"{self.folds} folds of {data.samples} samples{of}", (self.folds_key,))
        if data.groups is not None and self.folds > len(set(data.groups)):
            raise ConfigError(f"{self.folds} folds of {len(set(data.groups))} groups{of}", (self.folds_key,))
        if not self.stratified:
            return
        assert data.labels is not None
        count = Counter(data.labels)
        for found in count:
            if isinstance(found, float) and not found.is_integer():
                raise ConfigError(f"the label {found} is no class{of}", (self.stratified_key,))
        label, members = min(count.items(), key=lambda entry: entry[1])
        if data.groups is None and members < self.folds:
            raise ConfigError(
                f"class {label!r} has {members} members, fewer than {self.folds} folds{of}", (self.folds_key,)
            )
