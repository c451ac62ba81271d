"""The description of the service, in OpenAPI 3.1 (https://spec.openapis.org/oas/v3.1.1)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib.metadata import version
from typing import Any

from lucency.core.manifest import Preparation
from lucency.deploy.guard import ServiceSettings
from lucency.deploy.problems import PROBLEM_TYPE, PROBLEMS
from lucency.deploy.received import MULTIPART, RAW
from lucency.evaluation.conformal import SET_WORDS
from lucency.pipeline.similar_films import PATIENTS

Document = dict[str, Any]

EXPLAIN_METHODS = ("cam", "grad-cam", "grad-cam++", "hires-cam", "layer-cam", "x-grad-cam")
AUTO = "auto"  # cam where the network has such maps, else grad-cam
MOST_SIMILAR = 100
EVERYWHERE = (
    "bad-path", "host-absent", "malformed-request", "parameter-invalid", "upgrade-refused",
    "origin-foreign", "not-found", "method-not-allowed", "host-foreign", "body-too-large",
    "internal", "stopping", "busy",
)  # fmt: skip
BEHIND_TOKEN = ("token-absent", "token-wrong")
OF_BODIES = (
    "body-incomplete", "multipart-invalid", "no-film", "body-slow", "too-many-films", "media-type",
)  # fmt: skip
OF_FILMS = tuple(code for code, (status, _) in PROBLEMS.items() if status == 422)


def openapi_document(settings: ServiceSettings, findings: Sequence[str]) -> Document:
    """Return the description of a service whose model predicts these findings."""
    schemas = _schemas(findings)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Lucency",
            "version": version("lucency"),
            "summary": "Findings of chest films. For research only, not a medical device.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"bearer": []}, {"cookie": []}],
        "paths": _paths(settings, findings),
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "cookie": {"type": "apiKey", "in": "cookie", "name": settings.cookie},
            },
        },
    }


def _paths(settings: ServiceSettings, findings: Sequence[str]) -> Document:
    """Return every route of `lucency.deploy.service.ROUTES`."""
    token = _parameter(
        "token", {"type": "string"}, "Sets the cookie; the answer is a page that leads to /."
    )
    finding = _parameter("finding", {"enum": list(findings)}, "A finding.", required=True)
    method = _parameter(
        "method",
        _enum((AUTO, *EXPLAIN_METHODS)),
        "How the heat map is made; auto: cam if it can be.",
    )
    form = _parameter("as", _enum(("png", "array")), "A picture, or JSON.")
    count = {"type": "integer", "minimum": 1, "maximum": MOST_SIMILAR, "default": 10}
    top = _parameter("top", count, "Films to find.")
    patients = _parameter("patients", _enum(PATIENTS), "all: films of the same patient too.")
    heatmap = {"image/png": {}, **_json("Explanation")}
    many, one = (_body(settings, films) for films in (settings.films, 1))
    sent = (*BEHIND_TOKEN, *OF_BODIES, *OF_FILMS)
    return {
        "/": {"get": _operation("index", {"text/html": {}, **_json("Index")}, parameters=[token])},
        "/health": {"get": {**_operation("health", _json("Health"), codes=()), "security": []}},
        "/metrics": {"get": _operation("metrics", {"text/plain": {"schema": {"type": "string"}}})},
        "/openapi.json": {
            "get": _operation("openapi", {"application/json": {"schema": {"type": "object"}}})
        },
        "/v1/model": {"get": _operation("model", _json("Model"))},
        "/v1/predict": {"post": _operation("predict", _json("Prediction"), body=many, codes=sent)},
        "/v1/explain": {
            "post": _operation(
                "explain", heatmap, parameters=[finding, method, form], body=one, codes=sent
            )
        },
        "/v1/similar": {
            "post": _operation(
                "similar",
                _json("Similar"),
                parameters=[top, patients],
                body=one,
                codes=(*sent, "no-index"),
            )
        },
    }


def _operation(
    name: str,
    content: Document,
    *,
    parameters: Sequence[Document] = (),
    body: Document | None = None,
    codes: Sequence[str] = BEHIND_TOKEN,
    more: Document | None = None,
) -> Document:
    """Return an operation, with the problems that it answers by their statuses."""
    operation: Document = {
        "operationId": name,
        "summary": SUMMARIES[name],
        "parameters": list(parameters),
        "responses": {
            "200": {"description": "Done.", "content": content},
            **(more or {}),
            **_problems((*EVERYWHERE, *codes)),
        },
    }
    return {**operation, "requestBody": body} if body else operation


def _problems(codes: Iterable[str]) -> Document:
    """Return a response for each status, whose description lists its codes."""
    statuses = sorted({PROBLEMS[code][0] for code in codes})
    by_status = {s: [c for c in PROBLEMS if c in codes and PROBLEMS[c][0] == s] for s in statuses}
    return {
        str(status): {
            "description": "; ".join(f"{code}: {PROBLEMS[code][1]}" for code in several),
            "content": {
                PROBLEM_TYPE: {
                    "schema": {
                        "allOf": [
                            {"$ref": "#/components/schemas/Problem"},
                            {"properties": {"code": {"enum": several}}},
                        ]
                    }
                }
            },
        }
        for status, several in by_status.items()
    }


def _body(settings: ServiceSettings, films: int) -> Document:
    file = {"type": "array", "items": {"type": "string", "format": "binary"}, "maxItems": films}
    parts = {"schema": {"type": "object", "properties": {"film": file}, "required": ["film"]}}
    return {
        "required": True,
        "description": f"PNG, JPEG or DICOM, {settings.body_bytes:,} bytes at most.",
        "content": {MULTIPART: parts, **{kind: {} for kind in RAW}},
    }


def _schemas(findings: Sequence[str]) -> Document:
    """Return the schemas of all answers."""
    each = _object(
        probability=_share(),
        threshold=_share(),
        present={"type": "boolean"},
        logit={"type": "number"},
    )
    each["properties"] |= {"set": _enum(SET_WORDS), "possible": {"type": "boolean"}}
    read = _object(
        film=TEXT,
        findings=_object(**_each(findings, REFERRED)),
        quality=_list(TEXT),
    )
    read["properties"] |= {"unfamiliarity": _share(), "note": TEXT}  # where a distance is stored
    lost = _object(film=TEXT, code=_enum(OF_FILMS), reason=TEXT)
    box = _object(left=_share(), top=_share(), right=_share(), bottom=_share())
    found = _object(image=TEXT, patient=NAME, similarity={"type": "number"}, findings=TEXT)
    notice, model = {"notice": TEXT}, {"model": _object(name=TEXT, kind=TEXT, fingerprint=TEXT)}
    problem = _object(
        type=TEXT, title=TEXT, status={"type": "integer"}, detail=TEXT, code=_enum(PROBLEMS)
    )
    return {
        "Finding": each,
        "Prediction": _object(**model, films=_list({"anyOf": [read, lost]}), **notice),
        "Explanation": _object(
            **model,
            film=TEXT,
            network=TEXT,
            finding=_enum(findings),
            method=_enum(EXPLAIN_METHODS),
            map=_list(_list({"type": "number"})),
            rows=_list(_share()),
            columns=_list(_share()),
            boxes=_list(box),
            level=_share(),
            **notice,
        ),
        "Similar": _object(
            **model,
            film=TEXT,
            network=TEXT,
            patients=_enum(PATIENTS),
            left_out={"type": ["string", "integer", "null"]},
            similar=_list(found),
            vote=_object(**_each(findings, _share())),
            **notice,
        ),
        "Model": _object(
            **model,
            findings=_list(_enum(findings)),
            thresholds=_object(**_each(findings, _share())),
            sets={"type": ["object", "null"]},
            preparation=_preparation(),
            card={"type": ["string", "null"]},
            **notice,
        ),
        "Index": _object(**model, routes=_list(TEXT), **notice),
        "Health": _object(status=_enum(("ok",)), **notice),
        "Problem": {**problem, "properties": {**problem["properties"], "film": TEXT}},
    }


def _preparation() -> Document:
    """Return the schema of a preparation as it is written: a chain of one filter is its name."""
    schema = Preparation.model_json_schema()
    chain = schema["properties"]["denoise"]
    either = {"anyOf": [{"type": "string"}, {key: chain[key] for key in ("type", "items")}]}
    return {**schema, "properties": {**schema["properties"], "denoise": either}}


def _object(**properties: Document) -> Document:
    """Return the schema of an object with these properties, all of them required."""
    return {"type": "object", "properties": properties, "required": list(properties)}


def _each(findings: Sequence[str], schema: Document) -> Document:
    return dict.fromkeys(findings, schema)


def _list(items: Document) -> Document:
    return {"type": "array", "items": items}


def _share() -> Document:
    return {"type": "number", "minimum": 0, "maximum": 1}


def _enum(values: Iterable[str]) -> Document:
    several = list(values)
    return {"type": "string", "enum": several}


def _parameter(name: str, schema: Document, about: str, *, required: bool = False) -> Document:
    found = {"name": name, "in": "query", "required": required, "description": about}
    return {**found, "schema": schema}


def _json(schema: str) -> Document:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}


REFERRED: Document = {"$ref": "#/components/schemas/Finding"}
TEXT: Document = {"type": "string"}
NAME: Document = {"type": ["string", "integer"]}
SUMMARIES = {
    "index": "What the service is",
    "health": "Whether it works; needs no token",
    "metrics": "What was counted, for Prometheus",
    "openapi": "This description",
    "model": "Findings, thresholds, preparation and card of the model",
    "predict": "Findings of films",
    "explain": "The heat map of one finding of one film",
    "similar": "Films of the model's run that look most like one film",
}
