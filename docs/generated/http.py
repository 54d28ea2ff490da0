"""The HTTP interface, from the OpenAPI document that the API makes of itself, and its table of errors."""

from __future__ import annotations

import re
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

import errors
from api.app import create_app
from api.docs import openapi
from api.problems import STATUS
from generated.cell import cell
from settings import Settings

_SCHEMA = "#/components/schemas/"


def markdown() -> str:
    """The routes by resource, then the shapes of what they take and answer, then the errors."""
    document = _document()
    shapes = _shapes(document)
    by_tag: dict[str, list[str]] = defaultdict(list)
    for path, operations in sorted(document["paths"].items()):
        for method, operation in operations.items():
            by_tag[operation["tags"][0]].append(_operation(f"{method.upper()} {path}", operation))
    parts = [f"## {tag[:1].upper()}{tag[1:]}\n\n" + "\n\n".join(found) for tag, found in by_tag.items()]
    parts += ["## Shapes", *(_shape(name, shapes[name]) for name in sorted(shapes))]
    return "\n\n".join([*parts, _errors()])


def _document() -> dict[str, Any]:
    """Of an API that is never asked anything: it needs a key to start, and connects to nothing."""
    with tempfile.TemporaryDirectory() as folder:
        key = Path(folder) / "jwt.key"
        key.write_text("k" * 64)
        app = create_app(
            Settings(data_dir=Path(folder), jwt_key_file=key, database_url="postgresql://unused", log_level="ERROR")
        )
        found = openapi(app)
        app.extensions["scorehouse"].close()
    return found


def _shapes(document: Mapping[str, Any]) -> dict[str, Any]:
    """Every named schema, also those that stand within the body of one operation."""
    found = dict(document["components"]["schemas"])
    for operations in document["paths"].values():
        for operation in operations.values():
            for content in operation.get("requestBody", {}).get("content", {}).values():
                found |= content["schema"].get("$defs", {})
                if "properties" in content["schema"] and "title" in content["schema"]:
                    found[content["schema"]["title"]] = content["schema"]
    return {name: schema for name, schema in found.items() if "properties" in schema or "enum" in schema}


def _operation(route: str, operation: Mapping[str, Any]) -> str:
    scopes = [scope for each in operation["security"] for scope in each["bearer"]]
    parts = [
        f"### {route}",
        operation["summary"] + ("" if operation["summary"].endswith(".") else "."),
        " ".join(operation.get("description", "").replace("<br/>", " ").split()),
        f"Scope: `{scopes[0]}`" if scopes else "No token is needed.",
    ]
    if operation.get("parameters"):
        parts.append(
            "\n".join(
                ["| parameter | in | type | meaning |", "| --- | --- | --- | --- |"]
                + [_parameter(each) for each in operation["parameters"]]
            )
        )
    body = operation.get("requestBody", {}).get("content", {})
    if body:
        parts.append("Body:\n\n" + "\n".join(f"- `{kind}`{_of(content['schema'])}" for kind, content in body.items()))
    parts.append("Answers:\n\n" + "\n".join(_answers(operation["responses"])))
    return "\n\n".join(part for part in parts if part)


def _parameter(parameter: Mapping[str, Any]) -> str:
    schema = parameter["schema"]
    needed = ", required" if parameter.get("required") and parameter["in"] != "path" else ""
    return (
        f"| `{parameter['name']}` | {parameter['in']} | {_type(schema)}{needed} | {_meaning({**schema, **parameter})} |"
    )


def _answers(responses: Mapping[str, Any]) -> Iterator[str]:
    for status, answer in responses.items():
        content = answer.get("content", {})
        if status == "default":
            continue
        kinds = ", ".join(f"`{kind}`{_of(each.get('schema', {}))}" for kind, each in content.items())
        yield f"- {status}{': ' + kinds if kinds else ''}"
    yield "- else a [problem](#errors)"


def _of(schema: Mapping[str, Any]) -> str:
    """Which shape stands in a body; nothing for bytes."""
    if "$ref" in schema or "properties" in schema or schema.get("type") == "array":
        named = {"$ref": _SCHEMA + schema["title"]} if "properties" in schema and "title" in schema else schema
        return f", {_type(named)}"
    return ""


def _shape(name: str, schema: Mapping[str, Any]) -> str:
    parts = [f"(shape-{name.lower()})=\n### {name}", " ".join(schema.get("description", "").split())]
    if "enum" in schema:
        parts.append(_type(schema))
    else:
        needed = set(schema.get("required", ()))
        rows = [
            f"| `{member}` | {_type(each)}{', required' if member in needed else ''} | {_meaning(each)} |"
            for member, each in schema["properties"].items()
        ]
        parts.append("\n".join(["| member | type | meaning |", "| --- | --- | --- |", *rows]))
    return "\n\n".join(part for part in parts if part)


def _type(schema: Mapping[str, Any]) -> str:
    """A schema in a few words, with its bounds and links to the shapes that it names."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#shape-{name.lower()})"
    for several in ("anyOf", "oneOf", "allOf"):
        if several in schema:
            return " or ".join(dict.fromkeys(_type(each) for each in schema[several]))
    if "const" in schema or "enum" in schema:
        return " or ".join(f"`{each}`" for each in schema.get("enum", [schema.get("const")]))
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    if schema.get("type") == "object" and isinstance(schema.get("additionalProperties"), Mapping):
        return f"object of {_type(schema['additionalProperties'])}"
    word = schema.get("format") or schema.get("type") or "any JSON"
    return str(word) + "".join(
        f", {sign} {schema[bound]:,}"
        for bound, sign in (
            ("minimum", "≥"),
            ("exclusiveMinimum", "more than"),
            ("maximum", "≤"),
            ("maxLength", "length ≤"),
            ("maxItems", "entries ≤"),
        )
        if bound in schema
    )


def _meaning(schema: Mapping[str, Any]) -> str:
    """The description, of one of its alternatives if need be, and the default."""
    said = [each.get("description") for each in (schema, *schema.get("anyOf", ()))]
    default = schema.get("default")
    told = [cell(text) for text in said if text][:1] + ([] if default in (None, {}, []) else [f"Default: `{default}`."])
    return " ".join(told)


def _errors() -> str:
    """Of each status what it means, as the tree in the docstring of `errors` has it, or the error's own docstring."""
    told = dict(re.findall(r"[├└]── (\w+) +(.+)", errors.__doc__ or ""))
    when: dict[HTTPStatus, list[str]] = defaultdict(list)
    for error, status in STATUS.items():
        when[status].append(told.get(error.__name__) or (error.__doc__ or "").partition("\n")[0].rstrip("."))
    rows = [f"| {status.value} {status.phrase} | {cell('; '.join(texts))} |" for status, texts in sorted(when.items())]
    return "\n".join(["## Errors", "", "| status | when |", "| --- | --- |", *rows])
