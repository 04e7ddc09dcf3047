"""Download of files whose sha256 is known. Nothing is ever unpickled."""

import contextlib
import dataclasses
import http.client
import os
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, NoReturn

from lgd.machinery import digests
from lgd.machinery.progress import bar

CHUNK = 2**20  # bytes read, and one step of the progress bar
BAR_AFTER = 5.0  # seconds
STALL_BYTES = 2**14  # that arrive within the stall limit
LONGEST_WAIT = 30.0  # seconds between two attempts
TRANSIENT = (408, 425, 429)  # HTTP statuses worth another attempt, beside 5xx


class DownloadError(RuntimeError):
    """A download failed; the message says what was expected and how to provide the file by hand."""


class _AttemptError(Exception):
    """One attempt failed; ``again`` says whether another one may succeed."""

    def __init__(self, got: str, *, again: bool) -> None:
        super().__init__(got)
        self.again = again


@dataclasses.dataclass(frozen=True)
class _Pinned:
    """The file to download, and how long to wait for it."""

    url: str
    sha256: str
    size: int | None
    timeout: float
    stall: float

    def __str__(self) -> str:
        size = "a file" if self.size is None else f"{self.size} bytes"
        return f"{size} of sha256 {self.sha256}"


def fetch(
    url: str,
    destination: str | Path,
    *,
    sha256: str,
    size: int | None = None,
    timeout: float = 30.0,
    stall: float = 60.0,
    attempts: int = 4,
    wait: float = 1.0,
    progress: bool = True,
) -> Path:
    """Download a file whose sha256 is known, unless it exists already.

    The file appears at its destination whole and with the right digest, or not at all; no other
    file is left behind. Network failures, truncated answers and busy servers are retried; a file
    with another digest, a web page or "not found" is not.

    Args:
      url: an address of http or https; redirections are followed.
      destination: path of the file; missing folders are created.
      sha256: digest of the whole file, in hexadecimal.
      size: number of bytes, if known.
      timeout: seconds without any byte after which an attempt ends.
      stall: seconds within which 16 KiB must arrive.
      attempts: largest number of attempts.
      wait: seconds before the second attempt; the wait doubles with every attempt, up to 30 s.
      progress: show a progress bar once the download takes more than 5 seconds.

    Returns:
      The destination.

    Raises:
      DownloadError: no attempt delivered the file.
      OSError: the file cannot be written.
      ValueError: an argument is invalid.
    """
    destination, sha256 = Path(destination), sha256.lower()
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        raise ValueError(f"expected a URL of http or https, got {url!r}")
    if len(sha256) != 64 or set(sha256) - set("0123456789abcdef") or attempts < 1:
        raise ValueError(f"expected 64 hex digits, attempts >= 1, got {sha256!r}, {attempts}")
    if destination.is_file() and digests.of_file(destination) == sha256:
        return destination
    pinned = _Pinned(url, sha256, size, timeout, stall)
    destination.parent.mkdir(parents=True, exist_ok=True)
    for attempt in range(1, attempts + 1):
        try:
            _attempt(pinned, destination, progress)
            return destination
        except _AttemptError as error:
            if not error.again or attempt == attempts:
                _give_up(pinned, destination, error, attempt)
            time.sleep(min(wait * 2 ** (attempt - 1), LONGEST_WAIT))
    raise AssertionError("unreachable")


def _give_up(pinned: _Pinned, destination: Path, error: Exception, attempts: int) -> NoReturn:
    times = f" (attempts: {attempts})" if attempts > 1 else ""
    raise DownloadError(
        f"{pinned.url}: expected {pinned}, got {error}{times}. To do it by hand: get the file "
        f"in any other way, put it at {destination}, and start again; it is used if its sha256 is "
        "the one expected"
    ) from None


def _attempt(pinned: _Pinned, destination: Path, progress: bool) -> None:
    handle, name = tempfile.mkstemp(prefix=f".{destination.name}.", dir=destination.parent)
    partial = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            count = _receive(pinned, file, progress)
            file.flush()
            os.fsync(file.fileno())
        if (got := digests.of_file(partial)) != pinned.sha256:
            raise _AttemptError(f"{count} bytes of sha256 {got}", again=False)
        partial.chmod(0o644)  # mkstemp's are for the owner alone
        partial.replace(destination)
    finally:
        partial.unlink(missing_ok=True)


def _receive(pinned: _Pinned, file: BinaryIO, progress: bool) -> int:
    """Write the answer to the file, check that it is whole, and return its number of bytes."""
    count = 0
    with _answer(pinned) as response, _late_bar(pinned, response, progress) as show:
        announced = _announced(response)
        _check_announced(pinned, announced)
        for chunk in _chunks(response, pinned):
            if not count:
                _refuse_web_page(response, chunk)
            file.write(chunk)
            count += len(chunk)
            if pinned.size is not None and count > pinned.size:
                raise _AttemptError("more bytes than that", again=False)
            show(count)
    whole = pinned.size if announced is None else announced
    if not count or (whole is not None and count < whole):
        raise _AttemptError(f"only {count} bytes, then the end of the connection", again=True)
    return count


@contextlib.contextmanager
def _answer(pinned: _Pinned) -> Iterator[http.client.HTTPResponse]:
    request = urllib.request.Request(pinned.url, headers={"User-Agent": "lgd"})
    with _network(pinned):
        response = urllib.request.urlopen(request, timeout=pinned.timeout)
    with response:
        yield response


def _chunks(response: http.client.HTTPResponse, pinned: _Pinned) -> Iterator[bytes]:
    """The chunks of an answer, until it ends; an answer that comes too slowly is an error."""
    since, arrived = time.monotonic(), 0
    while True:
        with _network(pinned):
            chunk = response.read1(CHUNK)
        if not chunk:
            return
        yield chunk
        arrived += len(chunk)
        if arrived >= STALL_BYTES:
            since, arrived = time.monotonic(), 0
        elif time.monotonic() - since > pinned.stall:
            raise _AttemptError(f"only {arrived} bytes within {pinned.stall:g} s", again=True)


@contextlib.contextmanager
def _network(pinned: _Pinned) -> Iterator[None]:
    """Turn network failures into `_AttemptError`."""
    try:
        yield
    except urllib.error.HTTPError as error:
        error.close()
        again = error.code in TRANSIENT or error.code >= 500
        raise _AttemptError(f"HTTP status {error.code} ({error.reason})", again=again) from None
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, TimeoutError):
            raise _AttemptError(f"no answer within {pinned.timeout:g} s", again=True) from None
        raise _AttemptError(f"{type(reason).__name__}: {reason}", again=True) from None


def _announced(response: http.client.HTTPResponse) -> int | None:
    length = response.headers.get("Content-Length", "")
    return int(length) if length.isdecimal() else None


def _check_announced(pinned: _Pinned, announced: int | None) -> None:
    if None not in (pinned.size, announced) and pinned.size != announced:
        raise _AttemptError(f"an answer of {announced} bytes", again=False)


def _refuse_web_page(response: http.client.HTTPResponse, start: bytes) -> None:
    kind, head = response.headers.get_content_type(), start[:80].lstrip().lower()
    if kind == "text/html" or head.startswith((b"<!doctype html", b"<html")):
        raise _AttemptError(
            f"a web page ({kind}) that begins with {start[:60]!r}: a log-in, consent or error page",
            again=False,
        )


@contextlib.contextmanager
def _late_bar(
    pinned: _Pinned, response: http.client.HTTPResponse, progress: bool
) -> Iterator[Callable[[int], None]]:
    """Yield ``show(count)``, which moves a bar to that many bytes once some seconds have passed."""
    start, steps = time.monotonic(), 0
    total = -(-(pinned.size or _announced(response) or CHUNK) // CHUNK)
    name = Path(urllib.parse.urlsplit(pinned.url).path).name
    with contextlib.ExitStack() as stack:
        advance: Callable[[str], None] | None = None

        def show(count: int) -> None:
            nonlocal advance, steps
            if advance is None and time.monotonic() - start > BAR_AFTER:
                advance = stack.enter_context(bar(f"download {name}", total, show=progress))
            while advance is not None and steps < count // CHUNK:
                advance("MiB")
                steps += 1

        yield show
