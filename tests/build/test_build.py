"""Registry and graph: signatures as schemas, one instance each, errors with the path of what is wrong."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch

from mlgym.build.catalog import built_in
from mlgym.build.graph import Graph
from mlgym.build.registry import Registry
from mlgym.errors import ConfigError
from mlgym.parts.table import Table
from mlgym.schema import convert
from mlgym.specs import ComponentSpec


class Source:
    def __init__(self, *, values: dict[str, int], seed: int = 0) -> None:
        self.values = values
        self.seed = seed
        self.drawn = (random.random(), float(np.random.rand()), float(torch.rand(())))

    def __getitem__(self, key: str) -> int:
        return self.values[key]


class User:
    def __init__(self, source: Any, *, scale: float = 1.0, extra: Any = None) -> None:
        self.source = source
        self.scale = scale
        self.extra = extra


def registry() -> Registry:
    found = Registry()
    found.component("SOURCE", "DEFAULT", Source)
    found.component("USER", "DEFAULT", User)
    found.component("BAG", "DEFAULT", dict)
    return found


def spec(
    type_key: str, config: dict[str, Any] | None = None, *requirements: dict[str, Any], variant: str = "DEFAULT"
) -> ComponentSpec:
    built: ComponentSpec = convert(
        {
            "component_type_key": type_key,
            "variant_key": variant,
            "config": config or {},
            "requirements": list(requirements),
        },
        ComponentSpec,
    )
    return built


def needs(component: str, subscription: Any = None) -> dict[str, Any]:
    return {"name": "source", "component_name": component, "subscription": subscription}


BAG = spec("BAG", {"a": 1, "b": 2})
SOURCE = spec("SOURCE", {"values": {"a": 1, "b": 2}})


def test_one_instance_of_each() -> None:
    graph = Graph({"s": SOURCE, "u": spec("USER", {}, needs("s")), "v": spec("USER", {}, needs("s"))}, registry(), 0)
    assert graph["u"] is graph["u"]
    assert graph["u"].source is graph["v"].source is graph["s"]
    assert graph.name_of(graph["u"]) == "u"
    assert "u" in graph
    assert "x" not in graph


@pytest.mark.parametrize(("subscription", "expected"), [("a", 1), (["b", "a"], {"b": 2, "a": 1}), ([], [])])
def test_subscriptions(subscription: Any, expected: Any) -> None:
    graph = Graph({"s": SOURCE, "u": spec("USER", {}, needs("s", subscription))}, registry(), 0)
    assert graph["u"].source == expected


def test_names_of_the_container_are_free_for_components() -> None:
    names = ["providers", "override", "wire", "parent", "__self__"]
    graph = Graph(dict.fromkeys(names, SOURCE), registry(), 0)
    assert all(isinstance(graph[name], Source) for name in names)


@pytest.mark.parametrize(
    ("changed", "path", "words"),
    [
        (spec("USR", {}, needs("s")), ("u", "component_type_key"), "unknown component type 'USR'; did you mean 'USER'"),
        (spec("USER", {}, needs("s"), variant="DEFALT"), ("u", "variant_key"), "did you mean 'DEFAULT'"),
        (spec("USER", {}, needs("s"), variant="nowhere:Thing"), ("u", "variant_key"), "cannot import"),
        (spec("USER", {"scal": 1}, needs("s")), ("u", "config", "scal"), "did you mean 'scale'"),
        (spec("USER", {"scale": "x"}, needs("s")), ("u", "config", "scale"), "expected float, got str 'x'"),
        (spec("USER"), ("u", "requirements"), "the requirement 'source' is missing"),
        (
            spec("USER", {}, {"name": "sorce", "component_name": "s"}),
            ("u", "requirements", 0, "name"),
            "takes no requirement 'sorce'; did you mean 'source'",
        ),
        (spec("USER", {}, needs("s", "c")), ("u", "requirements", 0, "subscription"), "has no 'c'"),
        (spec("USER", {}, needs("s", ["a", "c"])), ("u", "requirements", 0, "subscription", 1), "has no 'c'"),
        (
            spec("USER", {"extra": [{"injectable": {"id": "ide"}}]}, needs("s")),
            ("u", "config", "extra", 0, "injectable", "id"),
            "nothing is registered as 'ide'; did you mean 'id'",
        ),
        (spec("USER", {"extra": {"injectable": 3}}, needs("s")), ("u", "config", "extra", "injectable"), "expected"),
    ],
)
def test_errors_say_where(changed: ComponentSpec, path: tuple[Any, ...], words: str) -> None:
    found = registry()
    found.injectable("id", 7)
    with pytest.raises(ConfigError, match=words) as caught:
        Graph({"s": BAG, "u": changed}, found, 0)["u"]
    assert caught.value.path == path


def test_injectables_are_found_at_any_depth() -> None:
    found = registry()
    thing = object()
    found.injectable("id", thing)
    config = {"extra": {"deep": [{"injectable": {"id": "id"}}]}}
    graph = Graph({"s": SOURCE, "u": spec("USER", config, needs("s"))}, found, 0)
    assert graph["u"].extra["deep"][0] is thing


def test_dotted_variants() -> None:
    graph = Graph({"u": spec("ANY", {"a": 1}, variant="builtins:dict")}, registry(), 0)
    assert graph["u"] == {"a": 1}


def test_seeds_follow_from_the_run_and_the_name_alone() -> None:
    def built(name: str, seed: int, others: tuple[str, ...] = (), own: int | None = None) -> Source:
        config: dict[str, Any] = {"values": {}} | ({} if own is None else {"seed": own})
        graph = Graph({**dict.fromkeys(others, SOURCE), name: spec("SOURCE", config)}, registry(), seed)
        for other in others:
            graph[other]
        source: Source = graph[name]
        return source

    one = built("s", 1)
    assert one.drawn == built("s", 1, ("x", "y")).drawn
    assert one.seed == built("s", 1, ("x", "y")).seed
    assert one.drawn != built("s", 2).drawn
    assert one.drawn != built("t", 1).drawn
    assert built("s", 1, own=5).seed == 5


def test_registry_components_need_no_requirement() -> None:
    found = Registry()
    found.component("USER", "DEFAULT", lambda metric_registry, *, size=1: (metric_registry, size))
    graph = Graph({"u": spec("USER")}, found, 0)
    assert graph["u"] == (found.tables["metric_registry"], 1)


def test_a_users_registration_replaces_a_built_in() -> None:
    found = built_in()
    found.component("TRAINER", "DEFAULT", dict)
    found.metric("ACCURACY", list)
    assert found.builder("TRAINER", "DEFAULT") is dict
    assert found.tables["metric_registry"]["ACCURACY"] is list


def test_tables() -> None:
    table = Table("thing", lambda: {"Adam": int, "LBFGS": float})
    table.add("own", str)
    assert table["own"] is str
    assert table["ADAM"] is int
    assert table["lbfgs"] is float
    assert table["collections:Counter"]([1])[1] == 1
    with pytest.raises(ConfigError, match="unknown thing 'Adm'; did you mean 'Adam'"):
        table["Adm"]
    with pytest.raises(TypeError, match="expected something callable"):
        table.add("x", 3)  # type: ignore[arg-type]
    assert table.build_keyed({"key": "own", "params": {}}, ()) == ""
    for entry, path, words in (
        ({"params": {}}, (), "expected a mapping with the key 'key'"),
        ({"key": "onw"}, ("key",), "did you mean 'own'"),
        ({"key": "own", "params": 3}, ("params",), "expected a mapping, got int"),
    ):
        with pytest.raises(ConfigError, match=words) as caught:
            table.build_keyed(entry, ("at",))
        assert caught.value.path == ("at", *path)


def test_every_table_is_a_component() -> None:
    found = built_in()
    for name, table in found.tables.items():
        assert found.builder(name.upper(), "DEFAULT")() is table
