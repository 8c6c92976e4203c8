"""Named things of one kind (models, losses, metrics, ...) and building what `{key: ..., params: ...}` names."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from mlgym.errors import ConfigError, one_of
from mlgym.schema import bind, import_path, is_dotted_path


class Table(Mapping[str, Callable[..., Any]]):
    """Names to callables. A dotted path `package.module:name` is a valid name of what it points to.

    `fallback` is a library's namespace that is looked into last, whatever the case of the name.
    """

    def __init__(self, kind: str, fallback: Callable[[], Mapping[str, Any]] | None = None) -> None:
        self.kind = kind
        self._entries: dict[str, Callable[..., Any]] = {}
        self._fallback = fallback

    def add(self, name: str, builder: Callable[..., Any]) -> None:
        """Register `builder`; one of the same name is replaced."""
        if not callable(builder):
            raise TypeError(f"{self.kind} {name!r}: expected something callable, got {type(builder).__name__}")
        self._entries[name] = builder

    def __getitem__(self, name: str) -> Callable[..., Any]:
        if not isinstance(name, str):
            raise ConfigError(f"expected the name of a {self.kind}, got {type(name).__name__}")
        if name in self._entries:
            return self._entries[name]
        if is_dotted_path(name):
            found: Callable[..., Any] = import_path(name)
            return found
        offered = self._offered()
        by_folded_name = {key.lower(): entry for key, entry in offered.items()}
        if name.lower() in by_folded_name:
            fallback: Callable[..., Any] = by_folded_name[name.lower()]
            return fallback
        raise ConfigError(f"unknown {self.kind} {name!r}; {one_of(name, [*self._entries, *offered])}")

    def __contains__(self, name: object) -> bool:
        return name in self._entries or (isinstance(name, str) and is_dotted_path(name))

    def _offered(self) -> Mapping[str, Any]:
        return self._fallback() if self._fallback else {}

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def build(
        self, name: str, params: Mapping[str, Any], at: tuple[str | int, ...], name_at: tuple[str | int, ...]
    ) -> Any:
        """What `name` builds from `params`. Errors name `at`, where the parameters stand, or `name_at`."""
        try:
            builder = self[name]
        except ConfigError as error:
            raise error.inside(*name_at) from None
        try:
            return builder(**bind(builder, params))
        except ConfigError as error:
            raise error.inside(*at) from None
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{name}: {error}", at) from error

    def build_keyed(self, entry: Any, at: tuple[str | int, ...], own: tuple[str, ...] = ()) -> Any:
        """What `{key, params}` builds; parameters may stand under `params` or beside `key`.

        `own` names the keys beside it that belong to the caller.
        """
        if not isinstance(entry, dict) or "key" not in entry:
            raise ConfigError(f"expected a mapping with the key 'key' that names a {self.kind}", at)
        params = entry.get("params") or {}
        if not isinstance(params, dict):
            raise ConfigError(f"expected a mapping, got {type(params).__name__}", (*at, "params"))
        beside = {name: value for name, value in entry.items() if name not in ("key", "params", *own)}
        params_at = at if beside else (*at, "params")
        return self.build(entry["key"], {**params, **beside}, params_at, (*at, "key"))
