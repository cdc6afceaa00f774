"""What tools/serve.py does: listen, load the network, and answer until Ctrl-C."""

import ipaddress
import logging
import secrets
import socket
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from urllib.parse import quote

import uvicorn

from nlnet.checks import positive, within
from nlnet.demo import DEMO, VIDEOS
from nlnet.errors import UsageError, UserError
from nlnet.numerics.denormals import flushed_denormals
from nlnet.recognizer.load import load_recognizer
from nlnet.serve.analysis import Analyzer
from nlnet.serve.app import Handlers, build_app
from nlnet.serve.decoder import Decoder, start_decoders
from nlnet.serve.guard import is_local_name
from nlnet.serve.limits import Limits

MIN_TOKEN = 16  # characters
MAX_CONNECTIONS = 100
GRACE = 2  # seconds that a request may need to end after Ctrl-C


@dataclass(frozen=True)
class ServeOptions:
    """Where the server listens, and what it accepts."""

    host: str
    port: int  # 0 is any free one
    token: str | None
    max_mb: float
    max_seconds: float
    window: float | None  # seconds; None is one clip
    step: float | None  # seconds; None is half of a window


class _QuietServer(uvicorn.Server):
    """A server that does not report the requests that its end interrupts."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        super().handle_exit(sig, frame)


@flushed_denormals()
def serve(checkpoint: str, experiment: str | None, device: str, options: ServeOptions) -> None:
    """Serve the page of a trained network until Ctrl-C or SIGTERM.

    Raises:
        UsageError: an option is wrong.
        UserError: the port cannot be used, or the checkpoint cannot be read.
    """
    _check(options)
    limits = Limits(upload_bytes=round(options.max_mb * 1e6), video_seconds=options.max_seconds)
    with _listen(options.host, options.port) as listener:
        token = _choose_token(options, listener)
        start_decoders()  # while the network is loaded
        recognizer = load_recognizer(checkpoint, experiment=experiment, device=device)
        decoder = Decoder(recognizer.window_views, options.window, options.step, limits)
        analyzer = Analyzer(recognizer, decoder, limits)
        samples = {path.stem: path for path in VIDEOS} if checkpoint == DEMO else {}
        app = build_app(Handlers(analyzer, limits, _shown_name(checkpoint), samples), token)
        server = _QuietServer(
            uvicorn.Config(
                app,
                http="h11",
                ws="none",
                lifespan="off",
                log_level="error",
                access_log=False,
                server_header=False,
                proxy_headers=False,
                limit_concurrency=MAX_CONNECTIONS,
                timeout_graceful_shutdown=GRACE,
            )
        )
        print(
            f"{checkpoint} at {_address(listener, options.host, token)} (Ctrl-C ends)", flush=True
        )
        try:
            with suppress(KeyboardInterrupt):  # uvicorn ends the requests, then raises it again
                server.run(sockets=[listener])
        finally:
            analyzer.close()


def _shown_name(checkpoint: str) -> str:
    """The name of a checkpoint on the page, without the folders of this machine."""
    return "/".join(Path(checkpoint).parts[-3:])


def _check(options: ServeOptions) -> None:
    positive("--max-mb", options.max_mb)
    positive("--max-seconds", options.max_seconds)
    within("--port", options.port, 0, 65535)
    for name, seconds in (("--window", options.window), ("--step", options.step)):
        if seconds is not None:
            positive(name, seconds)
    token = options.token
    if token is not None and (len(token) < MIN_TOKEN or not token.isascii() or " " in token):
        raise UsageError(
            f"--token must have {MIN_TOKEN} or more ASCII characters without spaces; leave it out, "
            "and the server makes one where it needs one"
        )


def _listen(host: str, port: int) -> socket.socket:
    """Listen at an address; raises UserError if that is impossible."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise UserError(f"--host {host}: unknown ({error.strerror}); give an address") from error
    listener = socket.socket(family, kind)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen()
    except OSError as error:
        listener.close()
        raise UserError(
            f"--host {host} --port {port}: cannot be used ({error.strerror}); give another --port, "
            "or --port 0 for any free one"
        ) from error
    return listener


def _choose_token(options: ServeOptions, listener: socket.socket) -> str | None:
    """The token that requests need; None if only this machine can ask."""
    if options.token is not None or is_local_name(listener.getsockname()[0]):
        return options.token
    return secrets.token_urlsafe(24)


def _address(listener: socket.socket, host: str, token: str | None) -> str:
    """The address to open in a browser."""
    bound, port = listener.getsockname()[:2]
    name = host
    if ipaddress.ip_address(bound).is_unspecified:
        name = socket.gethostname()
    elif is_local_name(bound):
        name = bound
    name = f"[{name}]" if ":" in name else name
    return f"http://{name}:{port}/" + ("" if token is None else f"?token={quote(token, safe='')}")
