"""Components and what they require, as dependency-injector's singletons.

Each component is built once, under generators seeded from the run's seed and its name: neither the order of
building nor which others are built changes what it draws.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping
from typing import Any

from dependency_injector import providers  # its containers import whatever web framework is installed

from mlgym.build.registry import Registry
from mlgym.errors import ConfigError, ConfigPath, one_of
from mlgym.parts.seeds import derive, repeated, seed_everything
from mlgym.schema import bind, parameters
from mlgym.specs import ComponentSpec, Requirement

_DATA = "ITERATOR"
"""In the types of components that give splits of data: folds count on these, and on what they are made from, being the
same in every repetition."""


class Graph:
    """The components of one experiment: `graph["model"]` builds it with all that it requires, once.

    `specs` holds each component after those that it requires. `injected` is what injectables stand for besides those of
    the registry. `repeat` is mixed into every seed, but not where the data are made.
    """

    def __init__(
        self,
        specs: Mapping[str, ComponentSpec],
        registry: Registry,
        seed: int,
        injected: Mapping[str, Any] | None = None,
        repeat: int | None = None,
    ) -> None:
        self._specs = specs
        self._registry = registry
        self._seed = seed
        self._injectables = {**registry.injectables, **(injected or {})}
        self._repeat = repeat
        self._data = _data(specs)
        self._names: dict[int, str] = {}
        self._components: dict[str, providers.Singleton[Any]] = {}
        for name, spec in specs.items():
            requirements = {
                requirement.name: providers.Callable(
                    _subscribe,
                    self._components[requirement.component_name],
                    requirement,
                    (name, "requirements", i, "subscription"),
                )
                for i, requirement in enumerate(spec.requirements)
            }
            self._components[name] = providers.Singleton(self._build, name, **requirements)

    def __contains__(self, name: str) -> bool:
        return name in self._specs

    def __getitem__(self, name: str) -> Any:
        return self._components[name]()

    def built(self) -> dict[str, Any]:
        """The components that have been built so far, by name."""
        return {name: self[name] for name in self._names.values()}

    def name_of(self, component: object) -> str:
        """The name of a component that this graph has built."""
        return self._names.get(id(component), "")

    def _build(self, name: str, /, **requirements: Any) -> Any:
        spec = self._specs[name]
        try:
            builder = self._registry.builder(spec.component_type_key, spec.variant_key)
            self._check_requirements(spec, builder)
            repeat = None if name in self._data else self._repeat
            config = _repeated(self._injected(spec.config, ("config",)), repeat)
        except ConfigError as error:
            raise error.inside(name) from None
        known = parameters(builder)
        for i, requirement in enumerate(spec.requirements):
            if requirement.name in known:
                _check_kind(
                    requirements[requirement.name], known[requirement.name].annotation, (name, "requirements", i)
                )
        for table_name, table in self._registry.tables.items():
            if table_name in known:
                requirements.setdefault(table_name, table)
        seed = derive(repeated(self._seed, repeat), name)
        if "seed" in known and config.get("seed") is None and "seed" not in requirements:
            config = {**config, "seed": seed}
        seed_everything(seed)
        try:
            component = builder(**bind(builder, config, requirements))
        except ConfigError as error:
            raise error.inside(name, "config") from None
        self._names[id(component)] = name
        return component

    def _check_requirements(self, spec: ComponentSpec, builder: Any) -> None:
        known = parameters(builder)
        named = [n for n, p in known.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        given = {requirement.name for requirement in spec.requirements}
        if not any(p.kind is p.VAR_KEYWORD for p in known.values()):
            for i, requirement in enumerate(spec.requirements):
                if requirement.name not in named:
                    raise ConfigError(
                        f"{spec.component_type_key} takes no requirement {requirement.name!r}; "
                        + one_of(requirement.name, [n for n in named if known[n].kind is not known[n].KEYWORD_ONLY]),
                        ("requirements", i, "name"),
                    )
        for name in named:
            parameter = known[name]
            if (
                parameter.kind is parameter.POSITIONAL_OR_KEYWORD
                and parameter.default is parameter.empty
                and name not in given
                and name not in spec.config
                and name not in self._registry.tables
            ):
                raise ConfigError(f"the requirement {name!r} is missing", ("requirements",))

    def _injected(self, value: Any, path: ConfigPath) -> Any:
        """`value` with every `{injectable: {id: X}}` replaced by what is registered as X."""
        if isinstance(value, list):
            return [self._injected(entry, (*path, i)) for i, entry in enumerate(value)]
        if not isinstance(value, dict):
            return value
        if set(value) == {"injectable"}:
            inner = value["injectable"]
            if not isinstance(inner, dict) or set(inner) != {"id"}:
                raise ConfigError("expected `injectable: {id: NAME}`", (*path, "injectable"))
            if not isinstance(inner["id"], str) or inner["id"] not in self._injectables:
                raise ConfigError(
                    f"nothing is registered as {inner['id']!r}; {one_of(inner['id'], self._injectables)}",
                    (*path, "injectable", "id"),
                )
            return self._injectables[inner["id"]]
        return {key: self._injected(entry, (*path, key)) for key, entry in value.items()}


def _repeated(value: Any, repeat: int | None) -> Any:
    """`value` with `repeat` mixed into every `seed` and all `seeds` in it."""
    if repeat is None:
        return value
    if isinstance(value, list):
        return [_repeated(entry, repeat) for entry in value]
    if not isinstance(value, dict):
        return value
    return {
        key: _mixed(entry, repeat) if key in ("seed", "seeds") else _repeated(entry, repeat)
        for key, entry in value.items()
    }


def _mixed(value: Any, repeat: int) -> Any:
    """A seed, or a list or a mapping of seeds."""
    if isinstance(value, list):
        return [_mixed(entry, repeat) for entry in value]
    if isinstance(value, dict):
        return {key: _mixed(entry, repeat) for key, entry in value.items()}
    return repeated(value, repeat) if type(value) is int else value


def _data(specs: Mapping[str, ComponentSpec]) -> set[str]:
    """The components that data come from; each of `specs` stands after those that it requires."""
    found: set[str] = set()
    for name, spec in reversed(list(specs.items())):
        if name in found or _DATA in spec.component_type_key:
            found |= {name, *(requirement.component_name for requirement in spec.requirements)}
    return found


def _check_kind(component: Any, expected: Any, where: ConfigPath) -> None:
    """Refuse a component that is not what the builder's annotation says; protocols are not checked."""
    kind = typing.get_origin(expected) or expected
    if kind is Any or not isinstance(kind, type) or getattr(kind, "_is_protocol", False) or isinstance(component, kind):
        return
    hint = ""
    if isinstance(component, Mapping):
        hint = f"; subscribe to one of its items: {', '.join(map(str, component))}"
    raise ConfigError(f"expected {kind.__name__}, got {type(component).__name__}{hint}", where)


def _subscribe(component: Any, requirement: Requirement, where: ConfigPath) -> Any:
    """What a requirement's subscription takes from the component: all of it, an item, or several."""
    wanted = requirement.subscription
    if wanted is None:
        return component
    if isinstance(wanted, list):
        items = [_item(component, key, requirement, (*where, i)) for i, key in enumerate(wanted)]
        return dict(zip(wanted, items, strict=True)) if wanted and isinstance(wanted[0], str) else items
    return _item(component, wanted, requirement, where)


def _item(component: Any, key: Any, requirement: Requirement, where: ConfigPath) -> Any:
    try:
        return component[key]
    except ConfigError as error:
        raise error.inside(*where) from None
    except (KeyError, IndexError):
        known = component if isinstance(component, Mapping) else range(len(component))
        raise ConfigError(
            f"component {requirement.component_name!r} has no {key!r}; {one_of(key, known)}", where
        ) from None
    except TypeError:
        raise ConfigError(
            f"component {requirement.component_name!r} is one thing, there is nothing in it to subscribe to", where
        ) from None
