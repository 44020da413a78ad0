"""The web service: photos in, labels out, and the page that shows them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import ValidationError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

import tailorset
from tailorset.inference.uploads import MEDIA_TYPES, Refusal, file_bytes, row_named
from tailorset.serving.admission import Admission, refused
from tailorset.serving.answers import (
    Answer,
    Invocation,
    Models,
    Predictions,
    Problem,
    Status,
    describe_model,
)
from tailorset.serving.service import Service

PAGE = Path(__file__).parent / "page"
RAW_TYPES = (*MEDIA_TYPES, "application/octet-stream")
REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": text}
    for status, text in {
        400: "damaged image, or body that cannot be read",
        413: "body, picture or batch too large",
        415: "not a kind of file or body that is taken",
        422: "request that cannot be answered",
        429: "too many requests wait; Retry-After tells when to try again",
        503: "no answer now; Retry-After tells when to try again",
    }.items()
}
NO_SUCH = {"model": Problem, "description": "no example of that number"}
BINARY = {"schema": {"type": "string", "format": "binary"}}
FORM = {"schema": {"type": "object", "required": ["image"], "properties": {"image": BINARY["schema"]}}}
PHOTO = {"required": True, "content": {"multipart/form-data": FORM} | dict.fromkeys(RAW_TYPES, BINARY)}
ROWS = {"required": True, "content": {"application/json": {"schema": Invocation.model_json_schema()}}}


def create_app(service: Service) -> FastAPI:
    """Return the app with the routes of a service, which starts and ends with the app."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        task = asyncio.create_task(service.run())
        await asyncio.sleep(0)
        yield
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    app = FastAPI(
        title="tailorset", version=tailorset.__version__, lifespan=lifespan, docs_url=None, redoc_url=None
    )  # both documentation pages come from a CDN
    app.add_middleware(Admission, measures=service.measures, max_in_flight=service.load.max_waiting)
    _add_answers(app, service)
    _add_facts(app, service)
    add_page(app, "index.html", ("page.css", "page.js"))
    answer_errors(app)
    return app


def answer_errors(app: FastAPI) -> None:
    """Answer refusals and errors with a `Problem`."""
    app.exception_handler(Refusal)(_refusal)
    app.exception_handler(RequestValidationError)(_invalid)
    app.exception_handler(HTTPException)(_http)
    app.exception_handler(ClientDisconnect)(_gone)
    app.exception_handler(Exception)(_failure)


def _add_answers(app: FastAPI, service: Service) -> None:
    @app.post("/predict", responses=REFUSALS, openapi_extra={"requestBody": PHOTO})
    async def predict(
        request: Request,
        label: Annotated[
            str | None, Query(alias="map", description="a label: where the classifier looks for it")
        ] = None,
        compare: Annotated[bool, Query(description="ask the second model as well")] = False,
    ) -> Answer:
        """Return the labels of a photo: a JPEG, PNG or WebP as the body, or as the file of a form."""
        return await service.answer(await _photo(request), label, compare)

    @app.post("/invocations", responses=REFUSALS, openapi_extra={"requestBody": ROWS})
    async def invocations(request: Request) -> Predictions:
        """Answer MLflow's scoring protocol: base64 photos in a column `image`, the registered model's columns out."""
        return Predictions(predictions=await service.rows(await _rows(request)))


def _add_facts(app: FastAPI, service: Service) -> None:
    @app.head("/health", include_in_schema=False)
    @app.get("/health")
    async def health() -> Status:
        """Tell that the process answers."""
        return Status(status="ok")

    @app.head("/ready", include_in_schema=False)
    @app.get("/ready", responses={503: REFUSALS[503]})
    async def ready() -> Status:
        """Tell whether photos are answered."""
        if not service.is_ready:
            raise Refusal(503, "No photos are answered now.", retry_after_s=1)
        return Status(status="ready")

    @app.head("/model", include_in_schema=False)
    @app.get("/model")
    async def model() -> Models:
        """Return the origin of the models, and their labels."""
        challenger = service.challenger and describe_model(service.challenger.predictor)
        return Models(**dict(describe_model(service.champion.predictor)), challenger=challenger)

    @app.head("/examples/{number}", include_in_schema=False)
    @app.get("/examples/{number}", response_class=Response, responses={404: NO_SUCH})
    async def example(number: int) -> Response:
        """Return a photo to try, which the model was neither trained nor fitted on."""
        examples = service.champion.predictor.examples
        if not 0 <= number < len(examples):
            raise Refusal(404, f"There is no example {number}: this model has {len(examples)}.")
        return Response(examples[number], media_type="image/png")

    @app.head("/metrics", include_in_schema=False)
    @app.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        """Return the measures in Prometheus' text format."""
        return Response(service.measures.text(), media_type=CONTENT_TYPE_LATEST)


def add_page(app: FastAPI, name: str, files: Sequence[str]) -> None:
    """Serve a page at /, after the head that all pages begin with, and the files that it loads under their names."""
    html = "".join((PAGE / part).read_text(encoding="utf-8") for part in ("head.html", name))
    app.add_route("/", partial(_page, html), include_in_schema=False)
    for file in files:
        app.add_route(f"/{file}", partial(_file, PAGE / file), include_in_schema=False)


async def _page(html: str, _: Request) -> HTMLResponse:
    return HTMLResponse(html)


async def _file(path: Path, _: Request) -> FileResponse:
    return FileResponse(path)


async def _photo(request: Request) -> bytes:
    kind = media_type(request)
    if kind in RAW_TYPES:
        return await request.body()
    if kind != "multipart/form-data":
        raise Refusal(415, f"Content-Type {kind!r}: send one of {', '.join(RAW_TYPES)}, or a form with a file.")
    async with request.form(max_files=1, max_fields=9) as form:
        file = next((value for value in form.values() if isinstance(value, UploadFile)), None)
        if file is None:
            raise Refusal(422, "The form has no file: `curl -F image=@photo.jpg` sends one.")
        return await file.read()


async def _rows(request: Request) -> list[bytes]:
    if (kind := media_type(request)) != "application/json":
        raise Refusal(415, f"Content-Type {kind!r}: send application/json.")
    content = await request.body()
    try:
        return list(_files(Invocation.model_validate_json(content).images()))
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        raise Refusal(400 if fault["type"] == "json_invalid" else 422, _line(fault)) from None
    except ValueError as error:
        raise Refusal(422, str(error)) from None


def _files(images: Iterable[object]) -> Iterator[bytes]:
    for number, image in enumerate(images):
        with row_named(number):
            yield file_bytes(image)


def media_type(request: Request) -> str:
    """Return the media type of a request's body, without its parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _line(fault: Any) -> str:
    where = ".".join(str(part) for part in fault["loc"] if part not in ("query", "body"))
    return f"{where or 'The body'}: {fault['msg'].removeprefix('Value error, ')}"


async def _refusal(_: Request, refusal: Refusal) -> JSONResponse:
    return refused(refusal)


async def _invalid(_: Request, error: RequestValidationError) -> JSONResponse:
    return refused(Refusal(422, _line(error.errors()[0])))


async def _http(_: Request, error: HTTPException) -> JSONResponse:
    return JSONResponse(Problem(error=str(error.detail)).model_dump(), error.status_code, error.headers)


async def _gone(_: Request, __: Exception) -> JSONResponse:
    return refused(Refusal(400, "The connection was closed before the body had arrived."))


async def _failure(_: Request, __: Exception) -> JSONResponse:
    return refused(Refusal(500, "The service failed; its log says where."))
