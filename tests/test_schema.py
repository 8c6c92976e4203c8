from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import pytest

from mlgym.errors import ConfigError
from mlgym.plan.config import RunConfig
from mlgym.schema import bind, convert, import_path


class Thing:
    pass


def component(
    source: Thing, *, size: int, rate: float = 0.1, names: list[str] | None = None, maker: Any = None
) -> None:
    pass


@pytest.mark.parametrize(
    ("config", "path", "words"),
    [
        ({"sise": 3}, ("sise",), "unknown key 'sise'; did you mean 'size'?"),
        ({}, (), "the key 'size' is missing"),
        ({"size": "3"}, ("size",), "expected int, got str '3'"),
        ({"size": 3, "rate": "fast"}, ("rate",), "expected float, got str 'fast'"),
        ({"size": 3, "names": ["a", 1]}, ("names", 1), "expected str, got int 1"),
        ({"size": True}, ("size",), "expected int, got bool"),
    ],
)
def test_signature_is_the_schema(config: dict[str, Any], path: tuple[Any, ...], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        bind(component, config, {"source": Thing()})
    assert caught.value.path == path
    assert caught.value.message == words


def test_given_and_configured_at_once() -> None:
    with pytest.raises(ConfigError, match="given twice"):
        bind(component, {"source": 1, "size": 2}, {"source": Thing()})


def test_integers_are_floats_but_nothing_else_is_coerced() -> None:
    assert bind(component, {"size": 1, "rate": 2}, {"source": Thing()})["rate"] == 2.0
    with pytest.raises(ConfigError):
        convert(1.5, int)


def test_objects_are_checked_by_class() -> None:
    thing = Thing()
    assert convert(thing, Thing) is thing
    with pytest.raises(ConfigError, match="expected Thing, got int"):
        convert(3, Thing)
    assert convert(len, Callable[..., int]) is len
    with pytest.raises(ConfigError):
        convert("len", Callable[..., int])


def test_a_union_with_a_foreign_class_checks_its_members() -> None:
    assert convert(0.5, float | Thing) == 0.5
    with pytest.raises(ConfigError, match="expected float, got str"):
        convert("a", float | Thing)


@pytest.mark.parametrize(
    ("value", "annotation", "path"),
    [
        ({"a": ["0"]}, dict[str, list[int]], ("a", 0)),
        ({"a": {"b": 0, "c": "x"}}, dict[str, dict[str, int]], ("a", "c")),
        ([{"a": None}], list[dict[str, int]], (0, "a")),
        ({"a": "x"}, dict[str, int] | None, ("a",)),
    ],
)
def test_keys_of_mappings_are_named(value: Any, annotation: Any, path: tuple[Any, ...]) -> None:
    with pytest.raises(ConfigError) as caught:
        convert(value, annotation)
    assert caught.value.path == path


def test_literals_list_what_is_allowed() -> None:
    with pytest.raises(ConfigError, match="unknown value 'x'; there is: a, b"):
        convert("x", Literal["a", "b"])


def test_tagged_unions_propose_the_nearest_tag() -> None:
    value = {"run_configuration": {"type": "trian", "config": {"gs_config_path": "a", "num_epochs": 1}}}
    with pytest.raises(ConfigError) as caught:
        convert(value, RunConfig)
    assert "'trian'" in caught.value.message
    assert "train" in caught.value.message
    assert caught.value.path[:1] == ("run_configuration",)


def test_dotted_paths() -> None:
    assert import_path("collections:OrderedDict").__name__ == "OrderedDict"
    with pytest.raises(ConfigError, match="did you mean 'OrderedDict'"):
        import_path("collections:OrderdDict")
    with pytest.raises(ConfigError, match="cannot import"):
        import_path("no_such_module:x")
