"""What the service refuses, as problem documents (RFC 9457) with stable codes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

PROBLEM_TYPE = "application/problem+json"
RETRY_SECONDS = 1
PROBLEMS: dict[str, tuple[int, str]] = {  # code -> HTTP status, title
    "bad-path": (400, "The path holds what no path of this service holds"),
    "body-incomplete": (400, "The connection ended before the body did"),
    "host-absent": (400, "The request has no Host header, or several"),
    "malformed-request": (400, "The request is not valid HTTP"),
    "multipart-invalid": (400, "The multipart body cannot be parsed"),
    "no-film": (400, "The body holds no film"),
    "parameter-invalid": (400, "A parameter has a value that is not possible"),
    "upgrade-refused": (400, "The service does not upgrade connections"),
    "token-absent": (401, "The request has no token"),
    "token-wrong": (401, "The token is wrong"),
    "origin-foreign": (403, "The request comes from a page of another origin"),
    "not-found": (404, "There is nothing at this path"),
    "no-index": (404, "The model is not of a run whose films can be searched"),
    "method-not-allowed": (405, "The path does not take this method"),
    "body-slow": (408, "The body did not arrive in time"),
    "body-too-large": (413, "The body is larger than the service takes"),
    "too-many-films": (413, "The body holds more films than the service takes at once"),
    "media-type": (415, "The content type is none that the service takes"),
    "host-foreign": (421, "The service was not started for the name in the Host header"),
    "film-empty": (422, "The film has no bytes"),
    "film-unknown-format": (422, "The film is neither PNG, JPEG nor DICOM"),
    "film-truncated": (422, "The film's file ends early"),
    "film-damaged": (422, "The film's file is damaged"),
    "film-absurd-size": (422, "The film's sides are not those of a chest film"),
    "film-unreadable": (422, "The film cannot be read"),
    "film-decoder-ended": (422, "The film's decoder ended: it failed, or took too much"),
    "film-decoder-slow": (422, "The film was not decoded in time"),
    "dicom-unsupported": (422, "The service was installed without what reads DICOM films"),
    "dicom-refused": (422, "The DICOM file is not one plain grey chest film for presentation"),
    "internal": (500, "The service failed"),
    "busy": (503, "The service has as many films waiting as it takes"),
    "stopping": (503, "The service is stopping"),
}  # fmt: skip


class Problem(HTTPException):
    """A refusal by its code among PROBLEMS; `detail` is one sentence for people."""

    def __init__(self, code: str, detail: str = "", *, headers: Mapping[str, str] | None = None):
        status, title = PROBLEMS[code]
        super().__init__(status, detail=detail or title, headers=headers)
        self.code = code


class AsciiJSONResponse(JSONResponse):
    """JSON that can hold names of files that are no UTF-8, in escapes."""

    def render(self, content: Any) -> bytes:
        """Return the text as it is sent; ValueError for NaN."""
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode("ascii")


def problem_document(code: str, detail: str, **more: object) -> dict[str, Any]:
    """Return the problem document of a code, with further members."""
    status, title = PROBLEMS[code]
    about = {"type": f"urn:lucency:problem:{code}", "title": title, "status": status}
    return {**about, "detail": detail, "code": code, **more}


def problem_response(problem: Problem, **more: object) -> JSONResponse:
    """Return a problem as the response that carries it."""
    headers = dict(problem.headers or {})
    if problem.status_code == 503:
        headers["retry-after"] = str(RETRY_SECONDS)
    if problem.status_code == 401:
        headers["www-authenticate"] = 'Bearer realm="lucency"'
    document = problem_document(problem.code, problem.detail, **more)
    return AsciiJSONResponse(
        document, status_code=problem.status_code, headers=headers, media_type=PROBLEM_TYPE
    )
