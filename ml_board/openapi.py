"""The routes as an OpenAPI description, so that there is no second list to keep in step. Pure."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Literal, NamedTuple

from aiohttp import web


class Parameter(NamedTuple):
    name: str
    where: Literal["path", "query"]
    schema: dict[str, Any]
    description: str


class Body(NamedTuple):
    content_type: str
    schema: dict[str, Any]


class Route(NamedTuple):
    """One operation. `also`: statuses that it can answer beside 200 and those that all can."""

    method: Literal["GET", "PUT", "POST", "DELETE"]
    path: str
    handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    summary: str
    parameters: tuple[Parameter, ...] = ()
    body: Body | None = None
    answer: str = "application/json"
    also: tuple[int, ...] = ()


_STATUSES = {
    206: "the range",
    304: "what the client has already",
    400: "malformed; says what was expected",
    401: "without the token",
    403: "another host name, a page that may not, or a link",
    404: "not there",
    409: "a conflict with what is there",
    413: "too large",
    415: "another content type than expected",
    416: "no such range",
    429: "too many requests",
    507: "the disk does not take it",
}


def description(routes: list[Route], protected: bool) -> dict[str, Any]:
    """The OpenAPI 3.1 document of `routes`; `protected`: with a token."""
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, protected)
    return {
        "openapi": "3.1.0",
        "info": {"title": "ml_board", "version": "1", "description": "What docs/protocol.md says, for machines."},
        "paths": paths,
        "components": {
            "schemas": {
                "Error": {
                    "type": "object",
                    "required": ["error"],
                    "properties": {
                        "error": {
                            "type": "object",
                            "required": ["status", "message"],
                            "properties": {"status": {"type": "integer"}, "message": {"type": "string"}},
                        }
                    },
                },
                "Config": {
                    "type": "object",
                    "required": ["file_format", "content"],
                    "additionalProperties": False,
                    "properties": {
                        "file_format": {"type": "string", "enum": ["YAML", "YML", "JSON"]},
                        "content": {"type": ["string", "object"], "description": "the file's text, or what is in it"},
                    },
                },
            },
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(route: Route, protected: bool) -> dict[str, Any]:
    statuses = {400, 403, 404, 429, *([401] if protected else []), *route.also}
    responses = {str(status): _response(status, route.answer) for status in sorted(statuses)}
    operation: dict[str, Any] = {
        "summary": route.summary,
        "parameters": [
            {
                "name": parameter.name,
                "in": parameter.where,
                "required": parameter.where == "path",
                "schema": parameter.schema,
                "description": parameter.description,
            }
            for parameter in route.parameters
        ],
        "responses": {"200": _response(200, route.answer), **responses},
    }
    if protected:
        operation["security"] = [{"token": []}]
    if route.body:
        content = {route.body.content_type: {"schema": route.body.schema}}
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _response(status: int, answer: str) -> dict[str, Any]:
    if status in (200, 206):
        schema: dict[str, Any] = {} if answer == "application/json" else {"type": "string"}
        return {"description": _STATUSES.get(status, "done"), "content": {answer: {"schema": schema}}}
    if status == 304:
        return {"description": _STATUSES[status]}
    schema = {"$ref": "#/components/schemas/Error"}
    return {"description": _STATUSES[status], "content": {"application/json": {"schema": schema}}}
