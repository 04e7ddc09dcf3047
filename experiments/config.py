"""Reading, overriding and checking of configs, before anything slow is imported.

`load` raises one ConfigError that lists all mistakes. `experiments/rules/` says which values a
field may have, `configs/default.py` its type and meaning.
"""

import contextlib
import difflib
import re
import traceback
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from ml_collections import ConfigDict

from configs import default
from experiments import fake
from experiments.rules import ACROSS, FIELDS
from lgd.machinery import files
from lgd.machinery.words import one_line, shown

Config: TypeAlias = ConfigDict | Mapping[str, Any]

_LARGEST = 2**24  # bytes of a config file
_BOOLS = {"true": True, "false": False}
_OLDER = {"denoiser.remat": {False: "none", True: "blocks"}}  # values of older versions
_SPELLING = {
    int: re.compile(r"[+-]?[0-9]+"),
    float: re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?"),
}


class ConfigError(ValueError):
    """A config has mistakes; ``errors`` has a line for each of them."""

    def __init__(self, errors: Sequence[str]) -> None:
        super().__init__("\n".join(errors))
        self.errors = list(errors)


class _Nothing:
    """Placeholder for a missing value."""

    def __repr__(self) -> str:
        return "nothing"


def load(path: str, overrides: Sequence[str] = ()) -> ConfigDict:
    """Return the locked config of a file with get_config(), with overrides like "a.b=1.5".

    The last of several overrides of a field holds, but all must be valid. With fake_data, fields
    that are not overridden are cut, see `experiments.fake`.

    Raises:
      ConfigError: listing all mistakes.
    """
    defaults = _defaults()
    values, unread = _read(path)
    parsed = [_parse_override(text, defaults) for text in overrides]
    if (values | dict(parsed)).get("fake_data") is True:
        values |= fake.cut(values | dict(parsed))
    good, errors = _check(values | dict(parsed), defaults)
    superseded = [error for field, value in parsed for error in _check({field: value}, defaults)[1]]
    if errors := list(dict.fromkeys([*unread, *errors, *superseded])):
        raise ConfigError(errors)
    config = default.get_config()
    config.update_from_flattened_dict(good)
    return config.lock()


def from_dict(values: Mapping[str, Any], *, is_older: bool = False) -> ConfigDict:
    """Return the locked config of a config.json.

    Args:
      values: the content of the file.
      is_older: whether an older version may have written it. Then missing fields have their
        defaults, and values of older versions are translated.

    Raises:
      ConfigError: listing all mistakes.
    """
    defaults, flat = _defaults(), _flatten(values)
    missing = defaults if is_older else dict.fromkeys(defaults, _Nothing())
    if is_older:
        for field in _OLDER.keys() & flat.keys():
            flat[field] = _OLDER[field].get(flat[field], flat[field])
    good, errors = _check(missing | flat, defaults)
    if errors:
        raise ConfigError(errors)
    config = default.get_config()
    config.update_from_flattened_dict(good)
    return config.lock()


def validate(config: Config) -> list[str]:
    """Return the mistakes in a config, as lines "field: expected ..., got ..."."""
    defaults = _defaults()
    _, errors = _check(dict.fromkeys(defaults, _Nothing()) | _flatten(config), defaults)
    return errors


def split_overrides(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split argv into the overrides ["a.b=v", ...] and the rest.

    Overrides are spelled ``--config.a.b=v`` or ``--config.a.b v``.
    """
    overrides: list[str] = []
    rest: list[str] = []
    queue = list(argv)
    while queue:
        word = queue.pop(0)
        if word == "--":
            return overrides, [*rest, word, *queue]
        if not word.startswith(("--config.", "-config.")):
            rest.append(word)
            continue
        override = word.partition("config.")[2]
        if "=" not in override and queue and not queue[0].startswith("--"):
            override = f"{override}={queue.pop(0)}"
        overrides.append(override)
    return overrides, rest


def diff(old: Config, new: Config) -> list[str]:
    """Return lines "field: old -> new" where two configs differ; tuples equal lists, as in JSON."""
    before, after = _flatten(old), _flatten(new)
    pairs = {f: (before.get(f, _Nothing()), after.get(f, _Nothing())) for f in before | after}
    return [
        f"{one_line(field)}: {shown(was, limit=10_000)} -> {shown(now, limit=10_000)}"
        for field, (was, now) in pairs.items()
        if _plain(was) != _plain(now)
    ]


def to_dict(config: Config) -> dict[str, Any]:
    """Return a config as a nested dict for JSON, with tuples as lists."""
    return {
        name: to_dict(value) if _is_group(value) else _plain(value)
        for name, value in config.items()
    }


def _defaults() -> dict[str, Any]:
    return _flatten(default.get_config())


def _read(path: str) -> tuple[dict[str, Any], list[str]]:
    """Return the fields of a config file, or none and the reasons.

    The file is executed, not imported, so that no stale .pyc is used.
    """
    expected = f"{one_line(path)}: expected a Python file with get_config() -> ConfigDict, got "
    namespace: dict[str, Any] = {"__name__": "config_file", "__file__": path}
    try:
        code = files.read(path, "a Python file", max_bytes=_LARGEST)
    except FileNotFoundError:
        return {}, [expected + "no such file"]
    except files.InputFileError as error:
        reason = str(error).removeprefix(f"{one_line(path)}: ")
        return {}, [f"{expected.removesuffix(', got ')}: {reason}"]
    try:
        exec(compile(code, path, "exec", dont_inherit=True), namespace)
        if "get_config" not in namespace:
            return {}, [expected + "no get_config"]
        config = namespace["get_config"]()
        if not isinstance(config, ConfigDict):
            return {}, [expected + shown(config)]
        return dict.fromkeys(_defaults(), _Nothing()) | _flatten(config), []
    except (Exception, SystemExit) as error:
        return {}, [expected + one_line(f"{type(error).__name__}: {error}") + _where(error, path)]


def _where(error: BaseException, path: str) -> str:
    """Return the line of the file at which an error occurred, as " (line N)", or ""."""
    frames = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == path]
    line = error.lineno if isinstance(error, SyntaxError) else frames[-1] if frames else None
    return "" if line is None else f" (line {line})"


def _parse_override(text: str, defaults: Mapping[str, Any]) -> tuple[str, Any]:
    field, equals, value = text.partition("=")
    field = field.strip()
    return field, _parse(value, defaults.get(field)) if equals else _Nothing()


def _parse(text: str, like: Any) -> Any:
    """Return the value that a text spells, of the type of ``like``, or else the text itself."""
    if isinstance(like, tuple):
        return _parse_tuple(text.strip(), like)
    if isinstance(like, bool):
        return _BOOLS.get(text.strip().lower(), text)
    if isinstance(like, int | float) and _SPELLING[type(like)].fullmatch(text.strip()):
        with contextlib.suppress(ValueError):  # integers of more than 4,300 digits
            return type(like)(text.strip())
    return text


def _parse_tuple(text: str, like: tuple[Any, ...]) -> tuple[Any, ...]:
    if text[:1] + text[-1:] in ("()", "[]"):
        text = text[1:-1].strip()
        if not text:
            return ()
    parts = (part.strip() for part in text.removesuffix(",").split(","))
    return tuple(_parse(part.strip("'\""), _element(like)) for part in parts)


def _element(like: tuple[Any, ...]) -> Any:
    """Return an example of an element; tuples that are empty by default contain names."""
    return like[0] if like else ""


def _check(
    values: Mapping[str, Any], defaults: Mapping[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """Return the valid fields, with the types of the defaults, and the mistakes in the others."""
    good: dict[str, Any] = {}
    errors = []
    for field, value in values.items():
        if field not in defaults:
            errors.append(_unknown(field, value, defaults))
            continue
        try:
            good[field] = _fitting(value, field, defaults[field])
        except ValueError:
            errors.append(f"{field}: expected {FIELDS[field].expected}, got {shown(value)}")
    return good, errors + _check_across(good)


def _check_across(good: Mapping[str, Any]) -> list[str]:
    errors = []
    for fields, wrong in ACROSS:
        if not good.keys() >= set(fields):
            continue
        if message := wrong(*(good[field] for field in fields)):
            errors.append(f"{fields[0]}: {message}")
    return errors


def _fitting(value: Any, field: str, like: Any) -> Any:
    value = _cast(value, like)
    if not FIELDS[field].holds(value):
        raise ValueError(value)
    return value


def _cast(value: Any, like: Any) -> Any:
    """Return a value in the type of ``like``; an int serves as a float, a list as a tuple.

    Raises:
      ValueError: for a value of another type, and for floats that are not finite.
    """
    if isinstance(like, tuple) and isinstance(value, tuple | list):
        return tuple(_cast(element, _element(like)) for element in value)
    kind = type(like)
    fits = isinstance(value, int | float if kind is float else kind)
    if not fits or isinstance(value, bool) is not (kind is bool):
        raise ValueError(value)
    if kind is float and not abs(value) < 1e300:  # NaN, inf, integers that no float holds
        raise ValueError(value)
    return kind(value)


def _unknown(field: str, value: Any, known: Iterable[str]) -> str:
    inside = [name for name in known if name.startswith(f"{field}.")]
    if inside:
        return f"{field}: expected a group of fields ({inside[0]}, ...), got {shown(value)}"
    leaf = _leaf(field)
    leaves = difflib.get_close_matches(leaf, sorted({_leaf(name) for name in known}), n=1)
    alike = [name for name in known if _leaf(name) in leaves]
    near = difflib.get_close_matches(field, alike or list(known), n=2, cutoff=0.0 if alike else 0.7)
    hint = f" (did you mean {' or '.join(near)}?)" if near else ""
    return f"{one_line(field)}: expected a field of configs/default.py{hint}, got an unknown one"


def _leaf(field: str) -> str:
    return field.rpartition(".")[2]


def _is_group(value: Any) -> bool:
    return isinstance(value, Mapping | ConfigDict)


def _flatten(tree: Config, prefix: str = "") -> dict[str, Any]:
    """Return values by dotted path, empty groups included.

    A FieldReference is kept, and refused later, because overrides would not reach it.
    """
    flat: dict[str, Any] = {}
    keep = {"preserve_field_references": True} if isinstance(tree, ConfigDict) else {}
    for name, value in tree.items(**keep):
        field = f"{prefix}{name}"
        flat |= _flatten(value, f"{field}.") if _is_group(value) and len(value) else {field: value}
    return flat


def _plain(value: Any) -> Any:
    return [_plain(element) for element in value] if isinstance(value, tuple | list) else value
