"""The local page on which a person labels images one by one: photos to annotate, generated images to review.

It writes files, so it answers only requests of its own page: by the names of this machine, from no other site.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from fastapi import FastAPI, Request
from fastapi.responses import Response
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from tailorset.inference.uploads import Refusal
from tailorset.messages import Strict, cause_of, reason_of
from tailorset.serving.admission import Admission, refused
from tailorset.serving.app import add_page, answer_errors, media_type
from tailorset.serving.measures import Measures

LOCAL_NAMES = ("127.0.0.1", "localhost", "[::1]")
OWN_SITES = ("same-origin", "none")  # none: typed into the address bar
MAX_IN_FLIGHT = 8
Ticks = Mapping[str, int | None]  # label: 1 shown, 0 not shown, None left open
Shown = tuple[str, list[str], dict[str, int | None]]  # name of an image, notes below it, and its ticks at first


class Desk(Protocol):
    """Images that a person labels, and the file that the labels are saved to.

    title: of the page. help: a sentence below it. labels: in the order of their keys. ids: of the images, in order.
    may_leave_open: a label may be neither shown nor not shown. nothing: the words for an image without a label.
    """

    title: str
    help: str
    may_leave_open: bool
    nothing: str

    @property
    def labels(self) -> Sequence[str]: ...

    @property
    def ids(self) -> Sequence[str]: ...

    def saved(self) -> set[str]:
        """Return the ids of the images that are saved."""
        ...

    def show(self, image_id: str) -> Shown:
        """Return an image's name, notes and ticks: those saved, else a suggestion.

        Raises:
            ValueError: it cannot be read.
        """
        ...

    def png(self, image_id: str) -> bytes:
        """Return the picture.

        Raises:
            ValueError: it cannot be read.
        """
        ...

    def save(self, image_id: str, ticks: Ticks) -> None:
        """Save the labels of an image at once.

        Raises:
            ValueError: the file to save to can no longer be used.
        """
        ...


class SaveRequest(Strict):
    """Body of a request to save; image_id guards against a page that is older than the server."""

    image_id: str
    ticks: dict[str, int | None]


class DeskState:
    """State of the work: what is saved, and what cannot be read, which a thread finds out in the background."""

    def __init__(self, desk: Desk) -> None:
        self.desk, self.unread = desk, dict[str, str]()
        self._lock, self._saving = threading.Lock(), threading.Lock()
        threading.Thread(target=self._look_ahead, daemon=True).start()

    def show(self, image_id: str) -> Shown | None:
        """Return an image as it is shown; None if it cannot be read, which is noted with the reason."""
        with self._lock:
            try:
                return self.desk.show(image_id)
            except (OSError, ValueError) as error:
                self.unread[image_id] = cause_of(error)
                return None

    def save(self, image_id: str, ticks: Ticks) -> None:
        """Save the labels of an image; of several pages, one at a time.

        Raises:
            Refusal: the file to save to cannot be used.
        """
        with self._saving:
            try:
                self.desk.save(image_id, ticks)
            except (OSError, ValueError) as error:
                raise Refusal(409, f"Not saved: {reason_of(error)}") from None

    def summary(self) -> dict[str, Any]:
        saved = self.desk.saved()
        numbers = [number for number, image_id in enumerate(self.desk.ids) if image_id in saved]
        reasons = self.unread.copy()  # another request may take one out meanwhile
        unread = [[number, reasons[key]] for number, key in enumerate(self.desk.ids) if key in reasons]
        return {"saved": numbers, "unread": unread}

    def _look_ahead(self) -> None:
        for image_id in self.desk.ids:
            self.show(image_id)


class LocalOnly:
    """ASGI middleware that refuses requests by another name of this machine, or from another site's page."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        problem = _foreign(Headers(scope=scope), scope["path"]) if scope["type"] == "http" else ""
        await (refused(Refusal(403, problem)) if problem else self.app)(scope, receive, send)


def _foreign(headers: Headers, path: str) -> str:
    host, origin = headers.get("host", ""), headers.get("origin")
    name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
    if name not in LOCAL_NAMES:
        return f"This page is for this machine only: open it as http://127.0.0.1:PORT, not as {host!r}."
    if origin not in (None, f"http://{host}"):
        return f"Requests from {origin!r} are not answered."
    if path != "/" and headers.get("sec-fetch-site", "none") not in OWN_SITES:
        return "Requests from the pages of other sites are not answered."
    return ""


def create_review_app(desk: Desk) -> FastAPI:
    """Return the app of a desk."""
    app = FastAPI(title="tailorset", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(Admission, measures=Measures(), max_in_flight=MAX_IN_FLIGHT)
    app.add_middleware(LocalOnly)
    answer_errors(app)
    add_page(app, "review.html", ("page.css", "review.css", "review.js"))
    _add_images(app, desk, DeskState(desk))
    return app


def _add_images(app: FastAPI, desk: Desk, state: DeskState) -> None:
    @app.get("/desk")
    def start() -> dict[str, Any]:
        words = {key: getattr(desk, key) for key in ("title", "help", "labels", "may_leave_open", "nothing")}
        return words | {"total": len(desk.ids)} | state.summary()

    @app.get("/images/{number}")
    def image(number: int) -> dict[str, Any]:
        image_id = _id(desk, number)
        name, notes, ticks = state.show(image_id) or (image_id, [], {})
        return {"image_id": image_id, "name": name, "notes": notes, "ticks": ticks} | state.summary()

    @app.get("/pictures/{number}")
    def picture(number: int) -> Response:
        image_id = _id(desk, number)
        try:
            content = desk.png(image_id)
        except (OSError, ValueError) as error:
            state.unread[image_id] = cause_of(error)
            raise Refusal(404, cause_of(error)) from None
        state.unread.pop(image_id, None)
        return Response(content, media_type="image/png", headers={"cache-control": "no-store"})

    @app.post("/images/{number}")
    def save(request: Request, number: int, body: SaveRequest) -> dict[str, Any]:
        if media_type(request) != "application/json":
            raise Refusal(415, "Send application/json.")
        if body.image_id != _id(desk, number):
            raise Refusal(409, "The images have changed since this page was loaded: reload it.")
        if body.image_id in state.unread:
            raise Refusal(422, "An image that cannot be read is not labelled.")
        _check_ticks(body.ticks, desk)
        state.save(body.image_id, body.ticks)
        return state.summary()


def _check_ticks(ticks: Ticks, desk: Desk) -> None:
    choices = (0, 1, None) if desk.may_leave_open else (0, 1)
    if set(ticks) != set(desk.labels) or not set(ticks.values()) <= set(choices):
        raise Refusal(422, f"Give one of {list(choices)} for each of the labels {list(desk.labels)}.")


def _id(desk: Desk, number: int) -> str:
    if not 0 <= number < len(desk.ids):
        raise Refusal(404, f"There is no image {number}: there are {len(desk.ids)}.")
    return desk.ids[number]
