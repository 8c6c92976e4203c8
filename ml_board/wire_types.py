"""The event structs as TypeScript: python -m ml_board.wire_types > ml_board/frontend/src/wire/events.ts

The page is compiled against what this prints, so that it cannot read a field that no event has; and it checks what
comes by the same rules, so that an event which does not fit its type is passed over there as it is here.
"""

from __future__ import annotations

import json
import types
import typing
from typing import Any, Literal, get_args, get_origin

import msgspec

from mlgym.record.events import EVENT_TYPES, Epoch, KnownEvent, Number

_HEAD = "// Made by `python -m ml_board.wire_types` from mlgym/record/events.py; do not edit.\n"
_PLAIN = {int: "number", float: "number", str: "string", bool: "boolean", msgspec.Raw: "unknown", Any: "unknown"}


def typescript() -> str:
    """The whole file."""
    structs: dict[str, type] = {}
    for payload in EVENT_TYPES:
        _collect(payload, structs)
    events = [(struct.__struct_config__.tag, struct.__annotations__["payload"]) for struct in get_args(KnownEvent)]
    parts = [
        _HEAD,
        f"export type Scalar = {_named(Number, spelled=True)};\n",
        *(_interface(name, struct) for name, struct in structs.items()),
        "export interface Envelope {\n  seq: number;\n  creation_ts: number;\n  source: string;\n  n: number;\n"
        "  attempt: number;\n}\n",
        "export type KnownEvent = Envelope &\n  (\n"
        + "".join(f'    | {{ event_type: "{tag}"; payload: {payload} }}\n' for tag, payload in events)
        + "  );\n",
        "/** What a value has to be: the name of a plain type or of a struct, one of some words, or a container. */\n"
        "export type Shape = string | { words: string[] } | { list: Shape } | { map: Shape } | { any: Shape[] };\n",
        "/** Field -> what it has to be; a name that ends in `?` may be left out. */\n"
        "export const STRUCTS: Record<string, Record<string, Shape>> = {\n"
        + "".join(f"  {name}: {_shapes(struct)},\n" for name, struct in structs.items())
        + "};\n",
        "export const PAYLOADS: Record<string, string> = {\n"
        + "".join(f'  {tag}: "{payload}",\n' for tag, payload in events)
        + "};\n",
    ]
    return "\n".join(parts)


def _collect(struct: type, found: dict[str, type]) -> None:
    for field in msgspec.structs.fields(struct):
        for inner in (field.type, *get_args(field.type)):
            if isinstance(inner, type) and issubclass(inner, msgspec.Struct):
                _collect(inner, found)
    found[struct.__name__] = struct


def _interface(name: str, struct: type) -> str:
    lines = "".join(
        f"  {field.encode_name}{'' if field.required else '?'}: {_named(field.type)};\n"
        for field in msgspec.structs.fields(struct)
    )
    return f"export interface {name} {{\n{lines}}}\n"


def _shapes(struct: type) -> str:
    fields = msgspec.structs.fields(struct)
    inner = ", ".join(f'"{f.encode_name}{"" if f.required else "?"}": {_shape(f.type)}' for f in fields)
    return f"{{ {inner} }}"


def _shape(kind: Any) -> str:
    origin, inner = get_origin(kind), get_args(kind)
    if origin is typing.Annotated:
        return '"count"' if kind == Epoch else _shape(inner[0])
    if origin in (typing.Union, types.UnionType):
        return f"{{ any: [{', '.join(_shape(one) for one in inner)}] }}"
    if origin is Literal:
        return f"{{ words: {json.dumps(inner)} }}"
    if origin is list:
        return f"{{ list: {_shape(inner[0])} }}"
    if origin is dict:
        return f"{{ map: {_shape(inner[1])} }}"
    names = {int: "int", float: "number", str: "string", bool: "boolean", type(None): "null"}
    return f'"{names.get(kind) or (kind.__name__ if kind not in (Any, msgspec.Raw) else "anything")}"'


def _named(kind: Any, spelled: bool = False) -> str:
    """A Python type in TypeScript."""
    if kind == Number and not spelled:
        return "Scalar"
    origin, inner = get_origin(kind), get_args(kind)
    if origin is typing.Annotated:
        return _named(inner[0])
    if origin in (typing.Union, types.UnionType):
        return " | ".join(_named(one) for one in inner)
    if origin is Literal:
        return " | ".join(f'"{value}"' for value in inner)
    if origin is list:
        return f"{_named(inner[0])}[]"
    if origin is dict:
        return f"Record<{_named(inner[0])}, {_named(inner[1])}>"
    if kind is type(None):
        return "null"
    return _PLAIN.get(kind) or kind.__name__


if __name__ == "__main__":
    print(typescript(), end="")  # noqa: T201
