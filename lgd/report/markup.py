"""HTML elements whose texts and attributes are escaped, whoever wrote them."""

import html
import json
import math
from collections.abc import Mapping
from typing import Any

VOID = frozenset({"br", "col", "hr", "img", "input", "link", "meta", "wbr"})  # without an end tag


class Html(str):
    """Markup, which is put into an element as it is; any other text is escaped."""


def element(name: str, /, *children: str, **attributes: Any) -> Html:
    """An element. Children that are no `Html` are texts.

    Args:
      name: of the element.
      children: what it holds, in order.
      attributes: by name; an underscore at the end is dropped (``class_``), others are dashes.
        None and False leave an attribute out, True gives it no value.

    >>> from lgd.report import markup
    >>> markup.element("td", "1 < 2", class_="number", data_value=3)
    '<td class="number" data-value="3">1 &lt; 2</td>'
    """
    given = []
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        shown = key.removesuffix("_").replace("_", "-")
        given.append(f" {shown}" if value is True else f' {shown}="{html.escape(str(value))}"')
    start = f"<{name}{''.join(given)}>"
    return Html(start if name in VOID else f"{start}{joined(*children)}</{name}>")


def joined(*parts: str) -> Html:
    """Markup and texts one after another."""
    return Html("".join(part if isinstance(part, Html) else html.escape(part) for part in parts))


def data_block(name: str, value: Any) -> Html:
    """A value as JSON in a script element that no browser runs; NaN and inf are null.

    The letters that could end the element are written as JSON escapes.
    """
    text = json.dumps(plain(value), allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    for letter in "<>&\u2028\u2029":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return Html(f'<script type="application/json" id="{html.escape(name)}">{text}</script>')


def plain(value: Any) -> Any:
    """A tree of JSON in which numbers that are not finite are None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return value
