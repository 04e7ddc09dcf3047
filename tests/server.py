"""A server of this machine that gives the answers it was told, one after another."""

import contextlib
import http.server
import threading
from collections.abc import Callable, Iterator

from lgd.machinery import digests

CONTENT = bytes(range(256)) * 300
SHA256 = digests.of_bytes(CONTENT)
PAGE = b"\n<!DOCTYPE html><html>Please log in</html>"


class Server(http.server.ThreadingHTTPServer):
    """answers: given in turn, the last one again and again. requests: paths asked for."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: list[Answer] = []
        self.requests: list[str] = []
        self.released = threading.Event()  # set when answers that hang may end

    @property
    def url(self) -> str:
        """Of a file, whatever its name."""
        return f"http://127.0.0.1:{self.server_address[1]}/data/file.npz"


class Handler(http.server.BaseHTTPRequestHandler):
    """Gives the next answer."""

    server: Server

    def do_GET(self) -> None:
        """Any path."""
        self.server.requests.append(self.path)
        answers = self.server.answers
        (answers.pop(0) if len(answers) > 1 else answers[0])(self)

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing."""


Answer = Callable[[Handler], None]


@contextlib.contextmanager
def serving() -> Iterator[Server]:
    """A server until the end of the context."""
    with Server() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield server
        finally:
            server.released.set()
            server.shutdown()


def sends(
    body: bytes = CONTENT,
    *,
    length: int | None = -1,
    kind: str = "application/octet-stream",
    status: int = 200,
) -> Answer:
    """An answer of these bytes. length: announced; that of the body by default, None: none."""

    def answer(handler: Handler) -> None:
        handler.send_response(status)
        handler.send_header("Content-Type", kind)
        if length is not None:
            handler.send_header("Content-Length", str(len(body) if length < 0 else length))
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def says_nothing(handler: Handler) -> None:
    """Takes the request and hangs."""
    handler.server.released.wait(10)


def stops_in_the_middle(handler: Handler) -> None:
    """Sends some bytes and hangs."""
    sends(CONTENT[:100], length=len(CONTENT))(handler)
    handler.server.released.wait(10)


def drips(handler: Handler) -> None:
    """Sends a byte now and then, so that no read times out."""
    sends(b"", length=len(CONTENT))(handler)
    while not handler.server.released.wait(0.02):
        handler.wfile.write(b"x")


def redirects(handler: Handler) -> None:
    """Sends elsewhere."""
    handler.send_response(302)
    handler.send_header("Location", "/moved")
    handler.send_header("Content-Length", "0")
    handler.end_headers()
