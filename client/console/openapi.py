"""The API's description, made exact: what the framework would say of its own habits is replaced by what is true here.

The framework describes a wrong request as its 422; here it is a 400 of the API's own shape, like every refusal.
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from redfs.client.console.errors import MEANINGS
from redfs.client.console.models import Error

Responses = dict[int | str, dict[str, Any]]

ABOUT = """\
Everything that the console shows and does. Replies are the messages of the coordinator as plain data, the same that
`redfs --json` prints. A refusal is `{"error": {"code", "message"}}` with the status of its class.

Requests that change something need the header `X-RedFS-Console: 1`. Paths in a volume are percent-encoded bytes, in
URLs and in JSON alike: what a reply says as `path` can be put behind `?path=` as it is.
"""
FRAMEWORK_WORDS = "Successful Response"
HEADER = {
    "name": "X-RedFS-Console",
    "in": "header",
    "required": True,
    "description": "must be 1: other sites' pages cannot send it",
    "schema": {"type": "string", "const": "1"},
}


def refusals(*statuses: int) -> Responses:
    """The refusals of an operation, beside those that all have."""
    found: Responses = {}
    for status in sorted({400, 403, 500, 503, *statuses}):
        found[status] = {"model": Error, "description": MEANINGS[status]}
    return found


def install(app: FastAPI) -> None:
    """Makes the application describe itself so."""

    def describe() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = get_openapi(title=app.title, version=app.version, description=ABOUT, routes=app.routes)
            _correct(schema)
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = describe  # type: ignore[method-assign]


def _correct(schema: dict[str, Any]) -> None:
    for operations in schema["paths"].values():
        for method, operation in operations.items():
            operation["responses"].pop("422", None)
            done = operation["responses"]["200"]
            if done["description"] == FRAMEWORK_WORDS:
                done["description"] = "done"
            if method not in ("get", "head"):
                operation.setdefault("parameters", []).append(HEADER)
            if method == "head":
                for response in operation["responses"].values():
                    response.pop("content", None)
            if "requestBody" in operation:
                operation["responses"]["413"] = _refusal(413)
    for name in ("HTTPValidationError", "ValidationError"):
        schema["components"]["schemas"].pop(name, None)


def _refusal(status: int) -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    return {"description": MEANINGS[status], "content": content}
