"""The whole page: its parts in order, with style, script and data inside."""

import base64
import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from importlib import resources

import lgd
from lgd.machinery import files, storage
from lgd.report import colours, curves, pictures, table, tradeoff
from lgd.report.conclusion import Conclusion, conclude
from lgd.report.content import Page, Samples
from lgd.report.markup import Html, data_block, element, joined

MAX_BYTES = 5 * 2**20  # of a page
_PICTURES = 3 * 2**20  # of all its pictures together
_SCRIPTS = ("core", "table", "chart", "weights", "tradeoff", "samples")


def write(page: Page, path: str | os.PathLike[str]) -> None:
    """Write a page to a file, as a whole or not at all.

    Raises:
      ValueError: for a page without rows, rows of one name, or more than `MAX_BYTES`.
      OSError: where the disk does not take it.
    """
    storage.write(files.output(path), render(page).encode())


def render(page: Page) -> str:
    """The page as HTML; the same page gives the same text. Raises ValueError as `write` does."""
    names = [row["method"] for row in page.rows]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"expected rows with a name of their own each, got {names}")
    variables = {name: f"--method-{place}" for place, name in enumerate(names)}
    text = "<!DOCTYPE html>\n" + element(
        "html", _head(page, variables), _body(page, variables), lang="en"
    )
    if len(text.encode()) > MAX_BYTES:
        raise ValueError(f"expected a page of at most {MAX_BYTES} bytes, got {len(text.encode())}")
    return text + "\n"


def _asset(name: str) -> str:
    return resources.files("lgd.report").joinpath("assets", name).read_text(encoding="utf-8")


def _script() -> Html:
    parts = [_asset(f"{name}.js") for name in _SCRIPTS]
    return Html("\n" + "\n".join(['(() => {\n"use strict";', *parts, "})();"]) + "\n")


def _head(page: Page, variables: Mapping[str, str]) -> Html:
    digest = base64.b64encode(hashlib.sha256(_script().encode()).digest()).decode()
    allowed = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
    allowed += f"script-src 'sha256-{digest}'"  # of this page alone: no other script can run
    return element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=allowed),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="generator", content=f"lgd {lgd.__version__}"),
        element("title", page.title),
        element("style", Html(_asset("style.css") + _palette(page, variables))),
    )


def _palette(page: Page, variables: Mapping[str, str]) -> str:
    """A CSS variable for the colour of every method and condition."""
    of = {variable: colours.of_method(name) for name, variable in variables.items()}
    of |= {variable: colours.of_method(name) for name, variable in curves.names(page).items()}
    count = len(curves.shown_conditions(page.weights))
    for place, colour in enumerate(colours.of_conditions(count) if count else []):
        of[f"--condition-{place}"] = colour
    return f":root {{ {' '.join(f'{name}: {colour};' for name, colour in of.items())} }}\n"


def _body(page: Page, variables: Mapping[str, str]) -> Html:
    parts = [
        _header(page),
        _conclusions(page),
        element("h2", "All rows"),
        table.table(page, variables),
        *(element("p", note, class_="hint") for note in page.notes),
        table.glossary(page),
        curves.section(page),
        _samples(page.samples) if page.samples else joined(),
        tradeoff.section(page),
        _use(page),
        _again(page),
    ]
    data = {
        "rows": list(page.rows),
        "comparisons": list(page.comparisons),
        "primary_metric": page.primary_metric,
        "lower_is_better": page.lower_is_better,
        "methods": curves.methods(page, variables),
        "quantities": tradeoff.quantities(page),
        "weights": curves.data(page),
    }
    namespace = element("svg", id="namespace", hidden=True, aria_hidden="true")
    return element(
        "body",
        element("main", *parts),
        namespace,
        element("div", id="tip", role="tooltip", hidden=True),
        data_block("data", data),
        element("script", _script()),
    )


def _header(page: Page) -> Html:
    about = [element("p", page.about, class_="about")] if page.about else []
    switch = element(
        "button", "Dark", id="theme", type="button", class_="scripted",
        aria_label="Switch between a light and a dark page",
    )  # fmt: skip
    return element("header", element("div", element("h1", page.title), *about), switch)


def _conclusions(page: Page) -> Html:
    found = page.conclusions or (
        conclude(
            page.rows,
            metric=page.primary_metric,
            lower_is_better=page.lower_is_better,
            comparisons=page.comparisons,
            seconds=page.seconds,
        ),
    )
    return joined(element("h2", "Conclusion"), *map(_conclusion, found))


def _conclusion(found: Conclusion) -> Html:
    return element(
        "section",
        element("span", found.verdict, class_="verdict"),
        element("p", found.lead, class_="lead"),
        table.listed(found.sentences),
        class_="conclusion",
    )


def _samples(samples: Samples) -> Html:
    """A panel for each method; the script shows one at a time."""
    uris = pictures.data_uris(samples.pictures, max_bytes=_PICTURES)
    switches, panels = [], []
    for place, (name, uri) in enumerate(uris.items()):
        chosen = element(
            "input", type="radio", name="picture", value=place, checked=place == len(uris) - 1
        )
        switches.append(element("label", chosen, f" {name}"))
        alt = f"Samples of {name}" + (f", rows {', '.join(samples.rows)}" if samples.rows else "")
        image = element("img", src=uri, alt=alt, class_=None if samples.smooth else "crisp")
        rows = element("ol", *(element("li", row) for row in samples.rows), aria_hidden="true")
        picture = element("div", *([rows] if samples.rows else []), image, class_="picture")
        caption = element("figcaption", name)
        panels.append(element("figure", picture, caption, class_="panel"))
    legend = element("legend", "Method (hover to look, click to keep)")
    return element(
        "section",
        element("h2", "Samples"),
        element("p", samples.caption, class_="hint"),
        element(
            "div",
            element("fieldset", legend, *switches, class_="switches"),
            class_="controls scripted",
        ),
        element("div", *panels, class_="panels"),
        id="samples",
    )


def _use(page: Page) -> Html:
    """Three lines of Python for every file."""
    if not page.files:
        return joined()
    parts = []
    for method, name in page.files.items():
        code = (
            "import lgd\n"
            f"guidance = lgd.load({json.dumps(name, ensure_ascii=False)})\n"
            "samples = lgd.sample(key, denoiser, params, c, guidance=guidance, shape=shape).x0"
        )
        parts.append(element("div", element("h3", method), _code(code)))
    said = (
        "key, denoiser, params, c and shape are your own: a key of JAX, the model with its "
        "parameters, the conditions, and the shape of one example."
    )
    return element(
        "section",
        element("h2", "Use this guidance"),
        *parts[:1],
        *([_further(parts[1:])] if parts[1:] else []),
        element("p", f"{page.place} {said}".strip(), class_="hint"),
    )


def _further(parts: Sequence[Html]) -> Html:
    return element("details", element("summary", "The other files"), *parts)


def _code(text: str) -> Html:
    """Code with a button that copies it."""
    copy = element("button", "Copy", type="button", class_="copy scripted")
    words = [
        part if part.isspace() else element("span", part, class_="word")
        for part in re.split(r"(\s+)", text)
    ]
    return element("div", element("pre", element("code", *words)), copy, class_="code")


def _again(page: Page) -> Html:
    parts = []
    if page.command:
        parts.append(_code(page.command))
    if page.config:
        parts.append(table.config_table(page.config))
    return element("section", element("h2", "Make it again"), *parts) if parts else joined()
