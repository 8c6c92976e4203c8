from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlgym.errors import ConfigError
from mlgym.plan.sweep import Cell, config_hash, expand


def sweep(*values: Any) -> dict[str, Any]:
    return {"sweep": "absolute", "values": list(values)}


def configs(config: Any) -> list[Any]:
    return [cell.config["c"]["config"] for cell in expand({"c": {"config": config}})]


def test_product_in_the_order_written_last_fastest() -> None:
    cells = expand({"b": {"config": {"y": sweep(1, 2)}}, "a": {"config": {"z": sweep(3, 4), "k": [sweep(5, 6)]}}})
    found = [tuple(cell.swept.values()) for cell in cells]
    assert found == list(itertools.product([1, 2], [3, 4], [5, 6]))
    assert list(cells[0].swept) == [("b", "config", "y"), ("a", "config", "z"), ("a", "config", "k", 0)]
    assert cells[-1].config == {"b": {"config": {"y": 2}}, "a": {"config": {"z": 4, "k": [6]}}}


def test_whole_sub_trees_and_lists_are_values() -> None:
    assert configs({"x": sweep({"a": 1}, [1, 2], None)}) == [{"x": {"a": 1}}, {"x": [1, 2]}, {"x": None}]


def test_a_sweep_inside_a_value_adds_its_cells_to_the_list() -> None:
    assert configs(sweep({"a": sweep(1, 2)}, {"b": 3})) == [{"a": 1}, {"a": 2}, {"b": 3}]
    cells = expand({"c": {"config": {"x": sweep({"a": sweep(1, 2)}, {"b": 3}), "y": sweep(7, 8)}}})
    assert len(cells) == 6
    assert list(cells[0].swept) == [("c", "config", "x"), ("c", "config", "y")]  # one axis each


def test_errors_find_the_value_in_the_file() -> None:
    cells = expand({"c": {"config": {"x": sweep({"a": sweep(1, 2)}, {"b": 3})}}})
    assert cells[1].source(("c", "config", "x", "a")) == (*("c", "config", "x", "values", 0, "a", "values", 1),)
    assert cells[2].source(("c", "config", "x", "b")) == ("c", "config", "x", "values", 1, "b")
    assert Cell({}, {}, {}).source(("a", "b")) == ("a", "b")


@pytest.mark.parametrize(
    ("node", "values"),
    [
        ({"sweep": "range", "stop": 3}, [0, 1, 2]),
        ({"sweep": "range", "start": 1, "stop": 8, "step": 3}, [1, 4, 7]),
        ({"sweep": "range", "start": 3, "stop": 0, "step": -1}, [3, 2, 1]),
        ({"sweep": "range", "start": 0.1, "stop": 0.45, "step": 0.1}, [0.1, 0.2, 0.3, 0.4]),
        ({"sweep": "linspace", "start": 0, "stop": 1, "num": 5}, [0, 0.25, 0.5, 0.75, 1]),
        ({"sweep": "linspace", "start": 2, "stop": 9, "num": 1}, [2]),
        ({"sweep": "logspace", "start": -4, "stop": -1, "num": 4}, [1e-4, 1e-3, 1e-2, 1e-1]),
        ({"sweep": "logspace", "start": 3, "stop": 5, "num": 3, "base": 2}, [8, 16, 32]),
    ],
)
def test_kinds(node: dict[str, Any], values: list[float]) -> None:
    found = [config["x"] for config in configs({"x": node})]
    assert found == values


def test_a_range_of_integers_stays_integer() -> None:
    assert [type(config["x"]) for config in configs({"x": {"sweep": "range", "stop": 3, "step": 1}})] == [int] * 3


@pytest.mark.parametrize(
    ("node", "words", "path"),
    [
        ({"sweep": "absolut", "values": [1]}, "unknown sweep 'absolut'; did you mean 'absolute'", ("sweep",)),
        ({"sweep": "absolute", "value": [1]}, "unknown key 'value'; did you mean 'values'", ("value",)),
        ({"sweep": "absolute"}, "the key 'values' is missing", ()),
        ({"sweep": "absolute", "values": []}, "the sweep has no values", ("values",)),
        ({"sweep": "absolute", "values": 3}, "expected array, got int 3", ("values",)),
        ({"sweep": "range", "stop": 0}, "the sweep has no values", ()),
        ({"sweep": "range", "stop": 5, "step": 0}, "must not be 0", ("step",)),
        ({"sweep": "range", "stop": 1e9}, "at most 100,000", ("step",)),
        ({"sweep": "linspace", "start": 0, "stop": float("inf"), "num": 2}, "must be finite", ("stop",)),
        ({"sweep": "logspace", "start": 0, "stop": 999, "num": 2}, "not all numbers", ()),
        ({"sweep": "range", "start": -1.7e308, "stop": 1.7e308}, "too far apart|not all", ()),
        ({"sweep": "linspace", "start": -1.7e308, "stop": 1.7e308, "num": 3}, "not all its values are finite", ()),
        ({"sweep": ["absolute"], "values": [1]}, "unknown sweep", ("sweep",)),
    ],
)
def test_sweeps_that_are_wrong(node: dict[str, Any], words: str, path: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        expand({"c": {"config": {"x": node}}})
    assert caught.value.path == ("c", "config", "x", *path)


def test_a_grid_too_large_is_refused_before_it_is_made() -> None:
    with pytest.raises(ConfigError, match="1,000,000,000 experiments"):
        expand({f"c{i}": {"config": {"x": {"sweep": "range", "stop": 1000}}} for i in range(3)})


_leaf = st.integers(0, 3) | st.text(max_size=2) | st.none()
_tree = st.recursive(
    _leaf,
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from("abcd"), inner, max_size=2)
        | st.builds(lambda values: {"sweep": "absolute", "values": values}, st.lists(inner, min_size=1, max_size=2))
    ),
    max_leaves=8,
)


def count(node: Any) -> int:
    if isinstance(node, dict) and "sweep" in node:
        return sum(map(count, node["values"]))
    children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else []
    total = 1
    for child in children:
        total *= count(child)
    return total


@settings(deadline=None)
@given(_tree)
def test_laws_of_expansion(tree: Any) -> None:
    """As many cells as the rule says, none with a sweep left, and each value where its source says it is."""
    config = {"c": {"config": {"t": tree}}}
    cells = expand(config)
    assert len(cells) == count(tree)
    for cell in cells:
        assert "'sweep'" not in repr(cell.config)
        for path, value in cell.swept.items():
            here: Any = cell.config
            for step in path:
                here = here[step]
            assert here == value
            there: Any = config
            for step in cell.source(path):
                there = there[step]
            assert there == value or "sweep" in repr(there)


def test_hash_depends_on_the_config_alone() -> None:
    first = expand({"c": {"config": {"x": sweep(1, 2), "y": 1.0}}})
    wider = expand({"c": {"config": {"y": 1.0, "x": sweep(5, 2)}}, "global_config": {"z": 1}})
    assert config_hash(first[1].config) == config_hash(wider[1].config)
    assert len({config_hash(cell.config) for cell in first + wider}) == 3
    assert config_hash({"a": float("nan")}) == config_hash({"a": float("nan")})
    # A hash must never change between versions: warm start finds experiments by it.
    assert config_hash({"c": {"config": {"x": [1, 0.5, None, "ä"]}}}) == "895fdeec40649c64"
