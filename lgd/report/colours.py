"""Colours of methods and conditions that can be seen on white and on black."""

import colorsys
from collections.abc import Sequence

from matplotlib import colors

from lgd.plots import theme

_GROUNDS = ("#ffffff", "#16181d")  # of the page, light and dark, as in assets/style.css
_LEAST_CONTRAST = 3.2  # of lines and marks; WCAG 2.2 asks for 3


def of_method(name: str) -> str:
    """The colour of a method in all figures, as CSS for light and dark pages."""
    return _both(theme.method_color(name))


def of_conditions(count: int) -> list[str]:
    """Colours of conditions, as CSS for light and dark pages."""
    return [_both(colors.to_hex(each)) for each in theme.class_colors(count)]


def dashes(name: str) -> Sequence[float]:
    """The dashes of a method's line; (): solid."""
    style = theme.method_line(name, linewidth=1.0)["linestyle"]
    return () if style == "-" else style[1]


def contrast(one: str, other: str) -> float:
    """The contrast ratio of two colours, 1 to 21, as WCAG 2.2 defines it."""
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


def _both(colour: str) -> str:
    light, dark = (_seen(colour, ground) for ground in _GROUNDS)
    return f"light-dark({light}, {dark})"


def _seen(colour: str, ground: str) -> str:
    """The colour, made darker or lighter until it stands out from the ground."""
    hue, lightness, saturation = colorsys.rgb_to_hls(*colors.to_rgb(colour))
    step = -0.02 if _luminance(ground) > 0.5 else 0.02
    while contrast(colour, ground) < _LEAST_CONTRAST:
        lightness = min(max(lightness + step, 0.0), 1.0)
        colour = colors.to_hex(colorsys.hls_to_rgb(hue, lightness, saturation))
    return colour


def _luminance(colour: str) -> float:
    """Relative luminance, 0 of black to 1 of white."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
              for c in colors.to_rgb(colour)]  # fmt: skip
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
