"""A type, or a callable's signature, is the schema of the configuration it takes. Imports errors only.

`convert` checks plain YAML data against a type and `bind` against a signature; both raise `ConfigError` with
the path of the value at fault inside what they were given.
"""

from __future__ import annotations

import importlib
import inspect
import re
import types
import typing
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import msgspec

from mlgym.errors import ConfigError, ConfigPath, one_of

_STEP = re.compile(r"\.([A-Za-z_]\w*)|\[(\d+)\]")
_UNKNOWN_FIELD = re.compile(r"Object contains unknown field `(.+)`")
_MISSING_FIELD = re.compile(r"Object missing required field `(.+)`")


def convert(value: Any, annotation: Any) -> Any:
    """`value`, plain YAML data, as an instance of `annotation`.

    Lists become tuples or sets and mappings become structs where the type asks for it; nothing else is
    coerced, except that an integer is taken where a float is expected. A type that is not YAML data
    (a class of ours, a callable) accepts instances of it.
    """
    if annotation is Any or annotation is inspect.Parameter.empty:
        return value
    try:
        return msgspec.convert(value, annotation, dec_hook=_instance)
    except msgspec.ValidationError as error:
        if "[...]" in str(error):  # msgspec does not say which key of a mapping it was
            _convert_one_by_one(value, annotation)
        raise _config_error(error, value, annotation) from None
    except TypeError:
        if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
            raise  # a type of ours that msgspec does not take is our bug
        return _convert_union(value, annotation)


def _convert_one_by_one(value: Any, annotation: Any) -> None:
    """Convert what mappings and lists hold, for an error that names the key."""
    for member in _types_at(annotation, ()):
        origin, inner = typing.get_origin(member), typing.get_args(member)[-1:]
        items: list[tuple[Any, Any]] = []
        if origin is dict and isinstance(value, dict):
            items = list(value.items())
        elif origin is list and isinstance(value, list):
            items = list(enumerate(value))
        for key, entry in items:
            try:
                convert(entry, inner[0])
            except ConfigError as error:
                raise error.inside(key) from None


def _convert_union(value: Any, annotation: Any) -> Any:
    """Types that msgspec does not take: try the members of a union one by one, let anything else pass."""
    if typing.get_origin(annotation) not in (typing.Union, types.UnionType):
        return value
    first: ConfigError | None = None
    for member in typing.get_args(annotation):
        try:
            return convert(value, member)
        except ConfigError as error:
            first = first or error
    assert first is not None
    raise first


def _instance(expected: type, value: Any) -> Any:
    """msgspec asks here about every type it does not know."""
    origin = typing.get_origin(expected) or expected
    if origin is Callable or origin is typing.get_origin(Callable[..., Any]):
        if callable(value):
            return value
    elif not isinstance(origin, type) or getattr(origin, "_is_protocol", False) or isinstance(value, origin):
        return value
    raise ValueError(f"Expected `{getattr(origin, '__name__', origin)}`, got `{type(value).__name__}`")


def _config_error(error: msgspec.ValidationError, value: Any, annotation: Any) -> ConfigError:
    text, _, where = str(error).partition(" - at `")
    path = tuple(int(index) if index else key for key, index in _STEP.findall(where))
    found_types = _types_at(annotation, path)
    structs = [found for found in found_types if isinstance(found, type) and issubclass(found, msgspec.Struct)]
    if found := _UNKNOWN_FIELD.match(text):
        key = found[1]
        fields = {name for struct in structs for name in _yaml_names(struct)}
        return ConfigError(f"unknown key {key!r}; {one_of(key, fields - {key})}", (*path, key))
    if found := _MISSING_FIELD.match(text):
        return ConfigError(f"the key {found[1]!r} is missing", path)
    got = _at(value, path)
    choices = [choice for found in found_types for choice in typing.get_args(found) if _is_literal(found)]
    if path and not choices:  # a tag is found below the union of structs that it chooses from
        choices = [
            struct.__struct_config__.tag
            for struct in _types_at(annotation, path[:-1])
            if hasattr(struct, "__struct_config__") and struct.__struct_config__.tag_field == path[-1]
        ]
    if choices:
        return ConfigError(f"unknown value {got!r}; {one_of(got, choices)}", path)
    shown = f" {got!r}" if isinstance(got, str | int | float) and not isinstance(got, bool) else ""
    return ConfigError(text[:1].lower() + text[1:].replace("`", "") + shown, path)


def _is_literal(annotation: Any) -> bool:
    return typing.get_origin(annotation) is typing.Literal


def _types_at(annotation: Any, path: ConfigPath) -> list[Any]:
    """What may stand at `path` below a value of type `annotation`: the members of a union one by one."""
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        return [found for member in typing.get_args(annotation) for found in _types_at(member, path)]
    if not path:
        return [annotation]
    inner: list[Any] = []
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
        inner = [field.type for field in msgspec.structs.fields(annotation) if field.encode_name == path[0]]
    elif origin is not None:
        inner = list(typing.get_args(annotation))[-1:]
    return [found for member in inner for found in _types_at(member, path[1:])]


def _at(value: Any, path: ConfigPath) -> Any:
    try:
        for step in path:
            value = value[step]
    except (KeyError, IndexError, TypeError):
        return None
    return value


def _yaml_names(struct: type) -> set[str]:
    config = struct.__struct_config__  # type: ignore[attr-defined]
    return {field.encode_name for field in msgspec.structs.fields(struct)} | (
        {config.tag_field} if config.tag_field else set()
    )


@lru_cache(maxsize=4096)
def parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The parameters of `function` with resolved annotations (`Any` where one cannot be resolved)."""
    try:
        signature = inspect.signature(function)
    except (ValueError, TypeError):  # some C functions have none: they take anything
        return {"kwargs": inspect.Parameter("kwargs", inspect.Parameter.VAR_KEYWORD, annotation=Any)}
    try:
        annotated: Any = function
        hints = typing.get_type_hints(annotated.__init__ if isinstance(function, type) else annotated)
    except Exception:  # a user's annotation may name anything; then it checks nothing
        hints = {}
    return {
        name: parameter.replace(annotation=hints.get(name, Any)) for name, parameter in signature.parameters.items()
    }


def bind(
    function: Callable[..., Any],
    config: Mapping[str, Any],
    given: Mapping[str, Any] | None = None,
    positional: int = 0,
) -> dict[str, Any]:
    """Keyword arguments for `function`: `config` checked against the signature, and `given` as it is.

    The first `positional` parameters are left to the caller. Raises `ConfigError` for a key that the
    signature does not know, that is missing, or whose value has the wrong type.
    """
    given = given or {}
    known = dict(list(parameters(function).items())[positional:])
    named = {name: p for name, p in known.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    anything = any(p.kind is p.VAR_KEYWORD for p in known.values())
    arguments: dict[str, Any] = dict(given)
    for key, value in config.items():
        if key in given:
            raise ConfigError(f"{key!r} is given twice: as a requirement and under config", (key,))
        if key in named:
            try:
                arguments[key] = convert(value, named[key].annotation)
            except ConfigError as error:
                raise error.inside(key) from None
        elif anything and isinstance(key, str):
            arguments[key] = value
        else:
            raise ConfigError(f"unknown key {key!r}; {one_of(key, set(named) - set(given))}", (key,))
    for name, parameter in named.items():
        if parameter.default is parameter.empty and name not in arguments:
            raise ConfigError(f"the key {name!r} is missing")
    return arguments


def import_path(path: str) -> Any:
    """The object that `package.module:name` names. Raises `ConfigError` when there is none."""
    module_name, _, attribute = path.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # a user's module may do anything
        raise ConfigError(f"cannot import {path!r}: {type(error).__name__}: {error}") from error
    for step in attribute.split("."):
        if not hasattr(found, step):
            raise ConfigError(f"{module_name!r} has no {attribute!r}; {one_of(step, dir(found))}")
        found = getattr(found, step)
    return found


def is_dotted_path(name: str) -> bool:
    return bool(re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*", name))
