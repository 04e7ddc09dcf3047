"""Servers that fail: a pinned file arrives as a whole, or nothing does and the error says why."""

import socket
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from experiments.faults import server
from experiments.faults.bench import Bench
from experiments.faults.server import CONTENT, SHA256, Answer, sends
from lgd.machinery.download import DownloadError, fetch


class Case(NamedTuple):
    """What a server answers, and the words of the error; none: the file must arrive."""

    answers: list[Answer]
    words: str = ""
    settings: Mapping[str, Any] = MappingProxyType({})


_TRUNCATED = sends(CONTENT[:1000], length=len(CONTENT))
_SOON: dict[str, Any] = {"timeout": 0.3, "attempts": 2}

CASES: dict[str, Case] = {
    "truncated": Case([_TRUNCATED], "got only 1000 bytes"),
    "truncated without a length": Case([sends(CONTENT[:-1], length=None)], "of sha256"),
    "one byte flipped": Case([sends(CONTENT[:-1] + b"\0")], "bytes of sha256"),
    "another file": Case([sends(CONTENT[::-1])], "bytes of sha256"),
    "a web page": Case([sends(server.PAGE, kind="text/html")], "a web page"),
    "a web page said to be data": Case([sends(server.PAGE)], "a web page"),
    "not found": Case([sends(b"", status=404)], "HTTP status 404"),
    "busy for ever": Case([sends(b"", status=503)], "HTTP status 503"),
    "silent": Case([server.says_nothing], "no answer within", _SOON),
    "silent in the middle": Case([server.stops_in_the_middle], "no answer within", _SOON),
    "a byte now and then": Case([server.drips], "bytes within", {"stall": 0.3, "attempts": 1}),
    "failing twice, then good": Case([sends(b"", status=500), _TRUNCATED, sends()]),
    "moved": Case([server.redirects, sends()]),
}


def answered(bench: Bench, name: str) -> Iterator[str]:
    """The answers of one case, into an empty folder and over a file of before."""
    case = CASES[name]
    for before in (None, b"before"):
        with server.serving() as serving, tempfile.TemporaryDirectory(dir=bench.folder) as folder:
            serving.answers = list(case.answers)
            yield _outcome(serving.url, Path(folder), case, before)


def no_server(bench: Bench) -> Iterator[str]:
    """Nobody listens."""
    with socket.socket() as taken, tempfile.TemporaryDirectory(dir=bench.folder) as folder:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/file"
        yield _outcome(url, Path(folder), Case([], "ConnectionRefusedError"), None)


def _outcome(url: str, folder: Path, case: Case, before: bytes | None) -> str:
    """Nothing where the file is the right one, or that of before and the error names the cause."""
    file = folder / "file"
    if before is not None:
        file.write_bytes(before)
    said = ""
    try:
        fetch(url, file, sha256=SHA256, **{"attempts": 3, "wait": 0.01, **case.settings})
    except DownloadError as error:
        said = str(error)
    expected = before if case.words else CONTENT
    left = {each.name: each.read_bytes() for each in folder.iterdir()}
    if left != ({} if expected is None else {"file": expected}):
        return f"expected {'the file' if not case.words else 'nothing new'}, got {sorted(left)}"
    named = url in said and case.words in said if case.words else not said
    return "" if named else f"expected {case.words or 'no error'!r}, got {said!r}"
