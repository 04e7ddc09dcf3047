import socket
import time

import pytest

from lgd.machinery import download
from lgd.machinery.download import DownloadError, fetch
from tests.server import (
    CONTENT,
    PAGE,
    SHA256,
    drips,
    redirects,
    says_nothing,
    sends,
    serving,
    stops_in_the_middle,
)


@pytest.fixture
def server():
    with serving() as server:
        yield server


def got(server, destination, *answers, **settings):
    server.answers = list(answers)
    defaults = {"sha256": SHA256, "timeout": 5.0, "wait": 0.01, "attempts": 3}
    return fetch(server.url, destination, **(defaults | settings))


def refused(server, folder, *answers, requests, words, **settings):
    """The words of the error; nothing is left in the folder."""
    destination = folder / "new" / "file.npz"
    with pytest.raises(DownloadError) as refusal:
        got(server, destination, *answers, **settings)
    message = str(refusal.value)
    assert message.startswith(f"{server.url}: expected ")
    for each in (*words, SHA256, f"put it at {destination}"):
        assert each in message
    assert not list(destination.parent.iterdir())
    assert len(server.requests) == requests


@pytest.mark.parametrize(
    ("answer", "settings"),
    [
        (sends(), {"size": len(CONTENT)}),
        (sends(), {"sha256": SHA256.upper()}),
        (sends(length=None), {}),
        (sends(length=None), {"size": len(CONTENT)}),
    ],
)
def test_a_file_comes_whole_and_alone(server, tmp_path, answer, settings):
    destination = tmp_path / "new" / "file.npz"
    assert got(server, destination, answer, **settings) == destination
    assert destination.read_bytes() == CONTENT
    assert [file.name for file in destination.parent.iterdir()] == ["file.npz"]


def test_a_file_that_is_there_needs_no_network(server, tmp_path):
    (tmp_path / "file").write_bytes(CONTENT)
    fetch("http://nowhere.invalid/file", tmp_path / "file", sha256=SHA256)
    (tmp_path / "file").write_bytes(CONTENT[:-1])
    got(server, tmp_path / "file", sends())
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_another_file_stays_until_the_right_one_is_there(server, tmp_path):
    (tmp_path / "file").write_bytes(b"old")
    with pytest.raises(DownloadError):
        got(server, tmp_path / "file", sends(b"wrong"))
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("file", b"old")]


def test_redirections_are_followed(server, tmp_path):
    got(server, tmp_path / "file", redirects, sends())
    assert server.requests == ["/data/file.npz", "/moved"]
    assert (tmp_path / "file").read_bytes() == CONTENT


@pytest.mark.parametrize(
    "failure",
    [
        sends(b"busy", status=503),
        sends(b"busy", status=429),
        sends(CONTENT[:-1], length=len(CONTENT)),
        sends(CONTENT[:-1], length=None),
        lambda handler: handler.connection.shutdown(socket.SHUT_RDWR),
    ],
    ids=["503", "429", "truncated", "truncated, no length", "hangs up"],
)
def test_failing_twice_then_good(server, tmp_path, failure):
    got(server, tmp_path / "file", failure, failure, sends(), size=len(CONTENT))
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert len(server.requests) == 3


def test_waits_double(server, tmp_path, monkeypatch):
    waits = []
    monkeypatch.setattr(time, "sleep", waits.append)
    refused(server, tmp_path, sends(b"", status=500), requests=7, words=["HTTP status 500"],
            attempts=7, wait=1.0)  # fmt: skip
    assert waits == [1, 2, 4, 8, 16, 30]


TRUNCATED = sends(CONTENT[:1000], length=len(CONTENT))


@pytest.mark.parametrize(
    ("answer", "requests", "words", "settings"),
    [
        (TRUNCATED, 3, ["got only 1000 bytes", "attempts: 3"], {}),
        (sends(b""), 3, ["got only 0 bytes"], {}),
        (sends(CONTENT[::-1]), 1, ["got 76800 bytes of sha256"], {}),
        (sends(CONTENT[1:]), 1, ["76800 bytes of", "an answer of 76799 bytes"], {"size": 76800}),
        (sends(CONTENT, length=None), 1, ["got more bytes"], {"size": 100}),
        (sends(PAGE, kind="text/html; charset=utf-8"), 1, ["a web page (text/html)", "log in"], {}),
        (sends(PAGE), 1, ["a web page (application/octet-stream)"], {}),
        (sends(b"no such file", status=404), 1, ["HTTP status 404"], {}),
        (says_nothing, 2, ["no answer within 0.2 s"], {"timeout": 0.2, "attempts": 2}),
        (stops_in_the_middle, 2, ["no answer within 0.2 s"], {"timeout": 0.2, "attempts": 2}),
        (drips, 1, ["bytes within 0.3 s"], {"stall": 0.3, "attempts": 1}),
    ],
    ids=["truncated", "empty", "wrong bytes", "wrong size", "too long", "page", "page as data",
         "not found", "silent", "stops", "drips"],
)  # fmt: skip
def test_what_is_refused(server, tmp_path, answer, requests, words, settings):
    refused(server, tmp_path, answer, requests=requests, words=words, **settings)


def test_no_server(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/file"
        with pytest.raises(DownloadError, match=f"{url}: expected .*ConnectionRefusedError"):
            fetch(url, tmp_path / "new" / "file", sha256=SHA256, attempts=2, wait=0.01)
    assert not list((tmp_path / "new").iterdir())


@pytest.mark.parametrize(
    ("url", "sha256", "got"),
    [
        ("file:///etc/hosts", SHA256, "file:///etc/hosts"),
        ("data.npz", SHA256, "data.npz"),
        ("http://here/file", SHA256[1:], SHA256[1:]),
        ("http://here/file", "g" * 64, "ggg"),
    ],
)
def test_arguments_that_make_no_sense(tmp_path, url, sha256, got):
    with pytest.raises(ValueError, match=f"expected .*, got .*{got}"):
        fetch(url, tmp_path / "file", sha256=sha256)


def test_an_interruption_leaves_nothing(server, tmp_path, monkeypatch):
    def interrupt(response, chunk):
        raise KeyboardInterrupt

    monkeypatch.setattr(download, "_refuse_web_page", interrupt)
    with pytest.raises(KeyboardInterrupt):
        got(server, tmp_path / "file", sends())
    assert not list(tmp_path.iterdir())


def test_a_bar_comes_late(server, tmp_path, monkeypatch, capsys):
    got(server, tmp_path / "first", sends())
    assert "download" not in capsys.readouterr().out
    monkeypatch.setattr(download, "BAR_AFTER", -1.0)
    got(server, tmp_path / "second", sends())
    assert "download file.npz" in capsys.readouterr().out
