"""Configs: read, overridden and checked in full, before anything slow is imported.

Every mistake is collected; `load` raises one ConfigError that lists them all. What a field may
hold stands in `experiments/rules/`, its type and meaning in `configs/default.py`.
"""

import contextlib
import difflib
import re
import traceback
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from ml_collections import ConfigDict

from configs import default
from experiments import fake
from experiments.rules import ACROSS, FIELDS
from lgd.machinery.words import one_line, shown

Config: TypeAlias = ConfigDict | Mapping[str, Any]

_BOOLS = {"true": True, "false": False}
_OLDER = {"denoiser.remat": {False: "none", True: "blocks"}}  # what was once written otherwise
_SPELLING = {
    int: re.compile(r"[+-]?[0-9]+"),
    float: re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?"),
}


class ConfigError(ValueError):
    """Everything that is wrong with a config, one line each."""

    def __init__(self, errors: Sequence[str]) -> None:
        super().__init__("\n".join(errors))
        self.errors = list(errors)


class _Nothing:
    """Stands where a value is missing."""

    def __repr__(self) -> str:
        return "nothing"


def load(path: str, overrides: Sequence[str] = ()) -> ConfigDict:
    """The locked config of a file with get_config(), with overrides like "a.b=1.5".

    Of two overrides of one field the last one holds, but both must fit. With fake_data, what is not
    overridden is cut, see `experiments.fake`. Raises ConfigError.
    """
    defaults = _defaults()
    values, unread = _read(path)
    given = [_parse_override(text, defaults) for text in overrides]
    if (values | dict(given)).get("fake_data") is True:
        values |= fake.cut(values | dict(given))
    good, errors = _check(values | dict(given), defaults)
    superseded = [error for field, value in given for error in _check({field: value}, defaults)[1]]
    if errors := list(dict.fromkeys([*unread, *errors, *superseded])):
        raise ConfigError(errors)
    config = default.get_config()
    config.update_from_flattened_dict(good)
    return config.lock()


def from_dict(values: Mapping[str, Any], *, is_older: bool = False) -> ConfigDict:
    """The locked config of a config.json. Raises ConfigError.

    is_older: it may lack fields that came later, which then have their defaults, and have values as
    they were once written.
    """
    defaults, given = _defaults(), _flatten(values)
    missing = defaults if is_older else dict.fromkeys(defaults, _Nothing())
    if is_older:
        for field in _OLDER.keys() & given.keys():
            given[field] = _OLDER[field].get(given[field], given[field])
    good, errors = _check(missing | given, defaults)
    if errors:
        raise ConfigError(errors)
    config = default.get_config()
    config.update_from_flattened_dict(good)
    return config.lock()


def validate(config: Config) -> list[str]:
    """All that is wrong with a config, as lines "field: expected ..., got ..."; [] if nothing."""
    defaults = _defaults()
    _, errors = _check(dict.fromkeys(defaults, _Nothing()) | _flatten(config), defaults)
    return errors


def split_overrides(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Take `--config.a.b=v` and `--config.a.b v` out of argv: (["a.b=v", ...], the rest)."""
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
    """Lines "field: old -> new" where two configs differ; tuples equal lists, as JSON has them."""
    before, after = _flatten(old), _flatten(new)
    pairs = {f: (before.get(f, _Nothing()), after.get(f, _Nothing())) for f in before | after}
    return [
        f"{one_line(field)}: {shown(was, limit=10_000)} -> {shown(now, limit=10_000)}"
        for field, (was, now) in pairs.items()
        if _plain(was) != _plain(now)
    ]


def to_dict(config: Config) -> dict[str, Any]:
    """A nested dict for JSON, tuples as lists."""
    return {
        name: to_dict(value) if _is_group(value) else _plain(value)
        for name, value in config.items()
    }


def _defaults() -> dict[str, Any]:
    return _flatten(default.get_config())


def _read(path: str) -> tuple[dict[str, Any], list[str]]:
    """The fields of a config file; or none, and why. Not imported: no stale .pyc is ever used."""
    expected = f"{one_line(path)}: expected a Python file with get_config() -> ConfigDict, got "
    namespace: dict[str, Any] = {"__name__": "config_file", "__file__": path}
    try:
        if not Path(path).is_file():
            return {}, [expected + "no such file"]
        exec(compile(Path(path).read_bytes(), path, "exec", dont_inherit=True), namespace)
        if "get_config" not in namespace:
            return {}, [expected + "no get_config"]
        config = namespace["get_config"]()
        if not isinstance(config, ConfigDict):
            return {}, [expected + shown(config)]
        return dict.fromkeys(_defaults(), _Nothing()) | _flatten(config), []
    except (Exception, SystemExit) as error:
        return {}, [expected + one_line(f"{type(error).__name__}: {error}") + _where(error, path)]


def _where(error: BaseException, path: str) -> str:
    """The line of the file at which it failed, if it was in the file."""
    frames = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == path]
    line = error.lineno if isinstance(error, SyntaxError) else frames[-1] if frames else None
    return "" if line is None else f" (line {line})"


def _parse_override(text: str, defaults: Mapping[str, Any]) -> tuple[str, Any]:
    field, equals, value = text.partition("=")
    field = field.strip()
    return field, _parse(value, defaults.get(field)) if equals else _Nothing()


def _parse(text: str, like: Any) -> Any:
    """What a text spells for a field that looks like this; the text itself if it spells nothing."""
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
    """What an element of such a tuple looks like; one that is empty by default holds names."""
    return like[0] if like else ""


def _check(
    values: Mapping[str, Any], defaults: Mapping[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """The fields that are right, with the default's types, and what is wrong with the others."""
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
    """The value in the type of `like`; an int serves as a float, a list as a tuple."""
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
    """Values by dotted path; an empty group is one.

    A FieldReference stays one, so that it is refused: an override would not reach it.
    """
    flat: dict[str, Any] = {}
    keep = {"preserve_field_references": True} if isinstance(tree, ConfigDict) else {}
    for name, value in tree.items(**keep):
        field = f"{prefix}{name}"
        flat |= _flatten(value, f"{field}.") if _is_group(value) and len(value) else {field: value}
    return flat


def _plain(value: Any) -> Any:
    return [_plain(element) for element in value] if isinstance(value, tuple | list) else value
