"""The OpenAPI description, made from the table of picture options, and a page to read it."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

from starlette.responses import HTMLResponse

from bgx import __version__
from bgx.options import OPTIONS
from bgx.presets import load_presets
from bgx.serve.making import MEDIA

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from bgx.options import Option

_BINARY = {"type": "string", "format": "binary"}
_IMAGES = {media: {"schema": _BINARY} for media in MEDIA.values()}
_SIZES = ["preview", "small", "regular", "medium", "hd", "full", "4k", "50MP", "auto"]


def describe_api(models: list[str]) -> dict[str, Any]:
    """The document. models: names that a request may ask for."""
    fields = {option.name: _describe_option(option) for option in OPTIONS.values()}
    fields["model"] = _text("The network.", models)
    fields["preset"] = _text("Options that a marketplace asks for.", sorted(load_presets()))
    fields["url"] = _text("Where to fetch the photo, if this server fetches addresses.")
    query = [
        {"name": name, "in": "query", "schema": schema, "description": schema["description"]}
        for name, schema in fields.items()
    ]
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "bgx",
            "version": __version__,
            "description": "Removes the backgrounds of photos.",
        },
        "components": {
            "securitySchemes": {
                "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
                "bearer": {"type": "http", "scheme": "bearer"},
            }
        },
        "security": [{}, {"key": []}, {"bearer": []}],
        "paths": {
            "/cutouts": {"post": _describe_native(query, fields)},
            "/cutouts/{key}": {"get": _describe_cutout()},
            "/v1.0/removebg": {"post": _describe_removebg()},
            "/v1.0/account": {"get": _operation("remove.bg's account; nothing is charged", {})},
            "/api/remove": _describe_rembg(models),
            "/livez": {"get": _operation("Whether the process answers", {}, text=True)},
            "/readyz": {
                "get": _operation(
                    "Whether pictures are taken", {"503": "Starting or shutting down"}, text=True
                )
            },
            "/metrics": {"get": _operation("Figures for Prometheus", {}, text=True)},
        },
    }


def _text(description: str, choices: list[str] | None = None) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string", "description": description}
    return schema | {"enum": choices} if choices else schema


def _describe_option(option: Option) -> dict[str, Any]:
    kinds = {bool: "boolean", int: "integer", str: "string"}
    schema: dict[str, Any] = {"type": kinds[option.kind], "description": option.help}
    if option.metavar:
        schema["description"] += f" Form: {option.metavar}."
    if option.fallback:
        schema["description"] += f" Left out: {option.fallback}."
    if option.choices:
        schema["enum"] = list(option.choices)
    if option.bounds:
        schema["minimum"], schema["maximum"] = option.bounds
    if option.default is not None:
        schema["default"] = option.default
    return schema


def _operation(
    summary: str, responses: dict[str, str], *, text: bool = False, **more: Any
) -> dict[str, Any]:
    """responses: what statuses other than 200 mean."""
    media = "text/plain" if text else "application/json"
    answers: dict[str, Any] = {"200": {"description": "OK", "content": {media: {"schema": {}}}}}
    if text:
        answers["200"]["content"] = {media: {"schema": {"type": "string"}}}
    answers |= {status: {"description": meaning} for status, meaning in responses.items()}
    return {"summary": summary, "responses": answers, **more}


_REFUSED = {
    "400": "Something is wrong with the request",
    "429": "Too many requests are waiting; Retry-After says when to come again",
    "500": "A fault of the server",
    "503": "Shutting down, or the picture's turn did not come in time",
}
_REFUSED_NATIVE = _REFUSED | {
    "401": "A valid API key is needed",
    "408": "The body did not arrive in time",
    "413": "Too many bytes or pixels",
    "415": "A content type or encoding that is not taken",
    "422": "No picture, damaged, or nothing to frame in it",
}


def _describe_native(query: list[dict[str, Any]], fields: dict[str, Any]) -> dict[str, Any]:
    photo = {"image": _BINARY | {"description": "The photo."}}
    behind = {"background": _BINARY | {"description": "An image behind the subject, or a text."}}
    form = {"type": "object", "properties": fields | photo | behind, "required": ["image"]}
    operation = _operation(
        "Cut out a photo",
        _REFUSED_NATIVE,
        parameters=query,
        requestBody={
            "required": True,
            "content": {
                "multipart/form-data": {"schema": form},
                **{f"image/{kind}": {"schema": _BINARY} for kind in ("jpeg", "png", "webp")},
            },
        },
    )
    operation["responses"]["200"]["content"] |= _IMAGES
    return operation


def _describe_cutout() -> dict[str, Any]:
    operation = _operation(
        "A finished picture, by the address that Content-Location told",
        {"304": "Not modified", "404": "There is none, or no more"},
        parameters=[
            {"name": "key", "in": "path", "required": True, "schema": {"type": "string"}},
        ],
        security=[{}],
    )
    operation["responses"]["200"]["content"] = dict(_IMAGES)
    return operation


def _describe_removebg() -> dict[str, Any]:
    fields = {
        "image_file_b64": _text("The photo in base64."),
        "image_url": _text("Where to fetch it."),
        "size": _text("The largest result.", _SIZES),
        "type": _text("A hint that changes nothing here."),
        "format": _text("Of the result.", ["auto", "png", "jpg", "webp", "zip"]),
        "roi": _text("x1 y1 x2 y2 in px or %."),
        "crop": {"type": "boolean", "description": "Show the subject alone."},
        "crop_margin": _text("One, two or four lengths in px or %."),
        "scale": _text("10% to 100%, or original."),
        "position": _text("original, center, or one or two percentages."),
        "channels": _text("What is written.", ["rgba", "alpha"]),
        "shadow_type": _text("Below the subject.", ["none", "auto", "drop"]),
        "shadow_opacity": _text("0 to 100, or auto."),
        "add_shadow": {"type": "boolean", "description": "As shadow_type=auto."},
        "semitransparency": {"type": "boolean", "description": "Keep half-transparent parts."},
        "bg_color": _text("A hex colour or a name."),
        "bg_image_url": _text("Where to fetch an image that goes behind the subject."),
    }
    files = {"image_file": dict(_BINARY), "bg_image_file": dict(_BINARY)}
    operation = _operation(
        "remove.bg's API, version 1.0",
        _REFUSED | {"403": "A valid API key is needed"},
        requestBody={
            "required": True,
            "content": {
                "multipart/form-data": {"schema": {"type": "object", "properties": fields | files}},
                "application/x-www-form-urlencoded": {
                    "schema": {"type": "object", "properties": fields}
                },
                "application/json": {"schema": {"type": "object", "properties": fields}},
            },
        },
    )
    operation["responses"]["200"]["content"] |= _IMAGES | {"application/zip": {"schema": _BINARY}}
    return operation


def _describe_rembg(models: list[str]) -> dict[str, Any]:
    switches = {
        "a": "Refine the edges.",
        "om": "The matte alone.",
        "ppm": "Take specks out of the matte.",
        "dc": "Refine the edges.",
    }
    fields: dict[str, Any] = {
        name: {"type": "boolean", "description": help_text} for name, help_text in switches.items()
    } | {"model": _text("The network.", models)}
    colour = {"name": "bgc", "in": "query", "schema": _text("Background: r,g,b,a.")}
    query = [{"name": name, "in": "query", "schema": field} for name, field in fields.items()]
    url = {"name": "url", "in": "query", "required": True, "schema": _text("Where to fetch it.")}
    refused = _REFUSED_NATIVE
    get = _operation("rembg's server, by address", refused, parameters=[url, colour, *query])
    post = _operation(
        "rembg's server",
        refused,
        parameters=[colour],
        requestBody={
            "required": True,
            "content": {
                "multipart/form-data": {
                    "schema": {
                        "type": "object",
                        "properties": fields | {"file": dict(_BINARY)},
                        "required": ["file"],
                    }
                }
            },
        },
    )
    for operation in (get, post):
        operation["responses"]["200"]["content"] = {"image/png": {"schema": _BINARY}}
    return {"get": get, "post": post}


async def show_api(request: Request) -> Response:
    """The description as a page, without a script."""
    document = describe_api(request.app.state.models())
    return HTMLResponse(render_api(document), headers=PAGE_HEADERS)


PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def render_api(document: dict[str, Any]) -> str:
    """HTML of an OpenAPI document of ours."""
    sections = [
        _render_operation(method, path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<title>bgx: API</title><link rel="stylesheet" href="/page/style.css"></head>'
        '<body><main class="api"><h1>bgx: API</h1>'
        f"<p>Version {_escape(document['info']['version'])}. The same for programs: "
        '<a href="/openapi.json">openapi.json</a>.</p>'
        + "".join(sections)
        + "</main></body></html>"
    )


def _render_operation(method: str, path: str, operation: dict[str, Any]) -> str:
    fields = {one["name"]: one["schema"] for one in operation.get("parameters", [])}
    for media in operation.get("requestBody", {}).get("content", {}).values():
        fields |= media["schema"].get("properties", {})
    rows = "".join(
        f"<tr><td><code>{_escape(name)}</code></td><td>{_escape(_show_schema(schema))}</td></tr>"
        for name, schema in fields.items()
    )
    answers = "".join(
        f"<tr><td><code>{status}</code></td><td>{_escape(answer['description'])}</td></tr>"
        for status, answer in operation["responses"].items()
    )
    return (
        f"<h2><code>{method.upper()} {_escape(path)}</code></h2>"
        f"<p>{_escape(operation['summary'])}.</p>"
        + (f"<table>{rows}</table>" if rows else "")
        + f"<table>{answers}</table>"
    )


def _show_schema(schema: dict[str, Any]) -> str:
    text: str = schema.get("description", "")
    if "enum" in schema:
        text += f" One of {', '.join(schema['enum'])}."
    if schema.get("format") == "binary":
        text += " A file."
    return text


def _escape(text: str) -> str:
    return html.escape(str(text))
