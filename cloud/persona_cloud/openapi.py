"""The OpenAPI 3.1 document, made from the routes of the app and what each says of itself.

Schemas come from the dataclasses that are sent and read (docs/decisions/0001-openapi.md).
"""

import inspect
import json
import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from types import UnionType
from typing import Any, TypeVar, get_args

from flask import Flask
from pydantic import TypeAdapter
from pydantic.json_schema import JsonSchemaMode

import persona
from persona.formats.strict_json import MAX_WHOLE
from persona_cloud.problems import KINDS, MEDIA_TYPE, ProblemDocument

Schema = type | UnionType | dict[str, Any]
"""A dataclass, several told apart by their `kind`, or a JSON schema."""

View = TypeVar("View", bound=Callable[..., Any])

PAGES = "/dashboard"
"""Routes below are pages for people, and no part of the API."""

BINARY: dict[str, Any] = {}
"""Raw bytes: OpenAPI 3.1 says nothing of them but their media type."""

_TOKEN, _OPERATOR = "device-token", "operator-key"
_COMPONENTS = "#/components/schemas/"


@dataclass(frozen=True)
class Answer:
    """A response. content: media type -> schema. headers: name -> what it says."""

    description: str
    content: Mapping[str, Schema] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Body:
    """A request body. content: media type -> schema."""

    content: Mapping[str, Schema]
    required: bool = True


@dataclass(frozen=True)
class Parameter:
    """A query parameter or header."""

    where: str
    name: str
    description: str
    schema: dict[str, Any] = field(default_factory=lambda: {"type": "string"})


@dataclass(frozen=True)
class Operation:
    """What a route does. problems: codes that it may answer with, beside the server's own.

    token: whether a device must show its token. scope: that an operator's key must have.
    """

    tag: str
    answers: Mapping[int, Answer]
    problems: tuple[str, ...] = ()
    body: Body | None = None
    parameters: tuple[Parameter, ...] = ()
    token: bool = False
    scope: str | None = None


_TOKEN_PROBLEMS = (
    "token.missing",
    "token.unknown",
    "token.expired",
    "token.revoked",
    "server.store",
)
_OPERATOR_PROBLEMS = ("operator.missing", "operator.unknown", "operator.scope", "server.store")
_ALWAYS = {"X-Request-ID": "The client's own, or one that was made: names the request in the log"}
_COME_AGAIN = {"Retry-After": "Seconds to wait"}
_operations: dict[Callable[..., Any], Operation] = {}


def operation(described: Operation) -> Callable[[View], View]:
    """Decorator: describe a view. Its docstring becomes summary and description."""

    def describe(view: View) -> View:
        _operations[view] = described
        return view

    return describe


def openapi(app: Flask, schemas: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """The document for `app`. schemas: those that depend on its model, by name."""
    components = _Components(schemas)
    paths: dict[str, dict[str, Any]] = defaultdict(dict)
    for rule in app.url_map.iter_rules():
        if rule.rule.startswith(PAGES):
            continue
        view = app.view_functions[rule.endpoint]
        path = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule)
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
            paths[path][method.lower()] = _operation(
                rule.endpoint, view, re.findall(r"{(\w+)}", path), components
            )
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Persona cloud adapter",
            "version": persona.__version__,
            "description": "Observations of a device's window in, signed parameter edits out.",
        },
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": dict(sorted(components.schemas().items())),
            "securitySchemes": {
                name: {"type": "http", "scheme": "bearer"} for name in (_TOKEN, _OPERATOR)
            },
        },
    }


class _Components:
    """Collects the dataclasses that operations name.

    What is read allows no unknown field; what is answered may gain fields in a later version.
    """

    def __init__(self, schemas: Mapping[str, dict[str, Any]]) -> None:
        self._given = dict(schemas)
        self._kinds: dict[str, type] = {}
        self._read: set[str] = set()

    def content(self, content: Mapping[str, Schema], *, read: bool) -> dict[str, Any]:
        return {media: {"schema": self._schema(kind, read)} for media, kind in content.items()}

    def _schema(self, schema: Schema, read: bool) -> dict[str, Any]:
        if isinstance(schema, dict):
            return schema
        if isinstance(schema, UnionType):
            return {"oneOf": [self._schema(kind, read) for kind in get_args(schema)]}
        self._kinds[schema.__name__] = schema
        if read:
            self._read.add(schema.__name__)
        return {"$ref": _COMPONENTS + schema.__name__}

    def schemas(self) -> dict[str, Any]:
        adapters: list[tuple[str, JsonSchemaMode, TypeAdapter[Any]]] = [
            (name, "validation", TypeAdapter(kind)) for name, kind in self._kinds.items()
        ]
        _, made = TypeAdapter.json_schemas(adapters, ref_template=_COMPONENTS + "{model}")
        for name in self._read:
            _forbid_other_fields(name, made["$defs"])
        schemas = self._given | made["$defs"]
        _limit_whole_numbers(schemas)
        return schemas


def _limit_whole_numbers(schema: Any) -> None:
    """What is read as a whole number is one that every language holds exactly."""
    if isinstance(schema, dict):
        if schema.get("type") == "integer":
            schema.setdefault("minimum", -MAX_WHOLE)
            schema.setdefault("maximum", MAX_WHOLE)
        for part in schema.values():
            _limit_whole_numbers(part)
    elif isinstance(schema, list):
        for part in schema:
            _limit_whole_numbers(part)


def _forbid_other_fields(name: str, schemas: dict[str, Any]) -> None:
    """In a dataclass's schema and in those that it refers to."""
    schemas[name]["additionalProperties"] = False
    for referred in re.findall(f'"{_COMPONENTS}(\\w+)"', json.dumps(schemas[name])):
        _forbid_other_fields(referred, schemas)


def _operation(
    endpoint: str, view: Callable[..., Any], path_names: list[str], components: _Components
) -> dict[str, Any]:
    described = _operations[view]
    summary, _, description = inspect.cleandoc(view.__doc__ or "").partition("\n\n")
    path_parameters = [
        {"in": "path", "name": name, "required": True, "schema": {"type": "string"}}
        for name in path_names
    ]
    others = [
        {"in": p.where, "name": p.name, "description": p.description, "schema": p.schema}
        for p in described.parameters
    ]
    made: dict[str, Any] = {
        "operationId": endpoint.replace(".", "-"),
        "tags": [described.tag],
        "summary": " ".join(summary.split()),
        "description": " ".join(description.split()),
        "parameters": path_parameters + others,
        "responses": _responses(described, components),
    }
    if described.body is not None:
        made["requestBody"] = {
            "required": described.body.required,
            "content": components.content(described.body.content, read=True),
        }
    if described.token:
        made["security"] = [{_TOKEN: []}]
    if described.scope is not None:
        made["security"] = [{_OPERATOR: [described.scope]}]
    return made


def _responses(described: Operation, components: _Components) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    for status, answer in described.answers.items():
        responses[str(status)] = {
            "description": answer.description,
            "headers": _headers(answer.headers),
            "content": components.content(answer.content, read=False),
        }
    codes: dict[int, list[str]] = defaultdict(list)
    identity = _TOKEN_PROBLEMS if described.token else _OPERATOR_PROBLEMS if described.scope else ()
    counted = () if described.tag == "health" and described.scope is None else ("request.too_many",)
    for code in dict.fromkeys(described.problems + identity + counted):
        codes[KINDS[code].status].append(code)
    problem = components.content({MEDIA_TYPE: ProblemDocument}, read=False)
    for status, of_status in sorted(codes.items()):
        said = f"{HTTPStatus(status).phrase}: {', '.join(of_status)}"
        later = _COME_AGAIN if status in (429, 503) else {}
        responses[str(status)] = {
            "description": said,
            "headers": _headers(later),
            "content": problem,
        }
    responses["default"] = {
        "description": "Any other error",
        "headers": _headers({}),
        "content": problem,
    }
    return responses


def _headers(said: Mapping[str, str]) -> dict[str, Any]:
    return {
        name: {"description": text, "schema": {"type": "string"}}
        for name, text in {**_ALWAYS, **said}.items()
    }
