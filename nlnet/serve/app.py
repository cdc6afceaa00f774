"""The addresses of the server: the page, and an API in JSON, whose errors are {"error": text}."""

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from nlnet.errors import UserError
from nlnet.model.non_local.rows import Position
from nlnet.recognizer.attention import AUTO
from nlnet.recognizer.methods import ROWS
from nlnet.serve.analysis import FAILED, Analyzer
from nlnet.serve.answers import attention_answer, clip_answer, network_answer, video_answer
from nlnet.serve.guard import Guard, Lingering
from nlnet.serve.limits import Limits, Refusal
from nlnet.serve.upload import store

PAGE = Path(__file__).parent / "page.html"
NONCE = "NONCE"  # in the page, where each answer has its own
POLICY = (
    f"default-src 'none'; script-src 'nonce-{NONCE}'; style-src 'nonce-{NONCE}'; img-src data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@dataclass(frozen=True)
class Handlers:
    """What the server answers. `samples` are trusted videos by their names."""

    analyzer: Analyzer
    limits: Limits
    name: str  # of the checkpoint
    samples: Mapping[str, Path]

    async def page(self, request: Request) -> Response:
        """The page, which asks the API for everything else."""
        nonce = secrets.token_urlsafe(16)
        policy = {"Content-Security-Policy": POLICY.replace(NONCE, nonce)}
        return HTMLResponse(PAGE.read_text().replace(NONCE, nonce), headers=policy)

    def network(self, request: Request) -> Response:
        """The classes, the blocks and the limits."""
        return JSONResponse(
            network_answer(self.name, self.analyzer.recognizer, self.limits, self.samples)
        )

    async def upload(self, request: Request) -> Response:
        """Store the body and queue it. A place in the queue is taken before the body is read."""
        if request.headers.get("content-type", "").startswith("multipart/"):
            raise Refusal(415, "send the content of the video alone, as curl --data-binary does")
        self.analyzer.reserve()
        try:
            body = request.stream()
            stored = await store(body, request.headers.get("content-length"), self.limits)
        except ClientDisconnect as error:
            self.analyzer.release()
            raise Refusal(400, "the upload ended early; upload the video again") from error
        except BaseException:
            self.analyzer.release()
            raise
        return self._queued(self.analyzer.submit(stored).key)

    def sample(self, request: Request) -> Response:
        """Queue a sample video."""
        name = request.path_params["name"]
        if name not in self.samples:
            raise Refusal(404, f"sample={name}: there is no such video")
        self.analyzer.reserve()
        return self._queued(self.analyzer.submit_file(str(self.samples[name])).key)

    def video(self, request: Request) -> Response:
        """The state of a video, and its predictions from the window `from` on."""
        video = self.analyzer.video(request.path_params["key"])
        first = _number(request, "from", 0)
        answer = video_answer(video, self.analyzer.num_before(video), first)
        if answer["state"] == FAILED:
            raise Refusal(422, video.error)
        return JSONResponse(answer)

    def clip(self, request: Request) -> Response:
        """The frames of the clip of a window."""
        video = self.analyzer.video(request.path_params["key"])
        return JSONResponse(clip_answer(self.analyzer.clip(video, _number(request, "window"))))

    def attention(self, request: Request) -> Response:
        """Heat maps: what a query (`t`, `y`, `x`; or auto) of the clip of a window attends to."""
        video = self.analyzer.video(request.path_params["key"])
        clip = self.analyzer.clip(video, _number(request, "window"))
        query: Position | str = request.query_params.get("query", AUTO)
        if "t" in request.query_params:
            query = _number(request, "t"), _number(request, "y"), _number(request, "x")
        block = request.query_params.get("block") or None
        method = request.query_params.get("method", ROWS)
        return JSONResponse(attention_answer(self.analyzer.attention(clip, query, block, method)))

    def _queued(self, key: str) -> Response:
        return JSONResponse({"id": key}, status_code=202)


def build_app(handlers: Handlers, token: str | None) -> ASGIApp:
    """The application of the server. With a token, every request needs it."""
    routes = [
        Route("/", handlers.page),
        Route("/api/network", handlers.network),
        Route("/api/videos", handlers.upload, methods=["POST"]),
        Route("/api/samples/{name}", handlers.sample, methods=["POST"]),
        Route("/api/videos/{key}", handlers.video),
        Route("/api/videos/{key}/clip", handlers.clip),
        Route("/api/videos/{key}/attention", handlers.attention),
    ]
    errors: dict[type[Exception], Callable[[Request, Exception], Response]] = {
        UserError: _user_error,
        HTTPException: _http_error,
        Exception: _failure,
    }
    app = Starlette(routes=routes, exception_handlers=errors)
    return Lingering(Guard(app, token))


def _number(request: Request, name: str, default: int | None = None) -> int:
    """An integer of the address; raises Refusal (400) for another text."""
    text = request.query_params.get(name, "" if default is None else str(default))
    try:
        return int(text)
    except ValueError as error:
        raise Refusal(400, f"{name}={text} must be a whole number") from error


def _user_error(request: Request, error: Exception) -> Response:
    status = error.status if isinstance(error, Refusal) else 422
    headers = {"Retry-After": "5"} if status == 503 else None
    return JSONResponse({"error": str(error)}, status_code=status, headers=headers)


def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    text = f"{request.method} {request.url.path}: {error.detail}"
    return JSONResponse({"error": text}, status_code=error.status_code)


def _failure(request: Request, error: Exception) -> Response:
    """The answer after an error of the program, which the server also prints."""
    return JSONResponse({"error": "the server failed; its output says why"}, status_code=500)
