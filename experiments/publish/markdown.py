"""Markdown tables: rows of values, and columns that say how they are shown.

A table is JSON: ``{"columns": [...], "rows": [...]}``, perhaps with a ``title`` above and a
``note`` below. Its rows may be named by their place in the results around it; ``only`` lists the
methods that are shown. A column has

key     where a row has the value: dots lead into objects; without a key it is the row itself
title   its heading
align   "left" or "right"
format  of a number, or of the mean and the standard error in an object: ".4f"; or a template that
        an object fills: "{low:.2f} to {high:.2f}"

and perhaps

best    what is in bold: the first "least" or "most", among rows that are equal ``within`` another
        key; or what has another key that is true in its row, which "decisive" is beyond two
        standard errors
missing what stands where a row has no value
unit    what numbers are divided by
"""

from collections.abc import Mapping, Sequence
from typing import Any

from lgd.machinery.words import cell

Column = Mapping[str, Any]


def text(key: str, title: str) -> dict[str, Any]:
    """Return a column of words."""
    return {"key": key, "title": title, "align": "left"}


def number(key: str, title: str, form: str) -> dict[str, Any]:
    """Return a column of numbers."""
    return {"key": key, "title": title, "align": "right", "format": form}


def everything(results: Mapping[str, Any]) -> str:
    """Return the table of some results, and the further ones that they hold."""
    first = [table(results)] if "columns" in results else []
    return "\n".join(first + [table(results, name) for name in results.get("tables", {})])


def table(results: Mapping[str, Any], name: str = "") -> str:
    """Return one table of some results: that of their own rows, or a further one by name."""
    spec = results["tables"][name] if name else results
    title = f"{spec['title']}:\n\n" if "title" in spec else ""
    columns, rows = spec["columns"], _rows(spec, results)
    cells = [_cells(column, rows) for column in columns]
    marks = ["---:" if column.get("align") == "right" else "---" for column in columns]
    lines = [" | ".join(cell(column["title"]) for column in columns).join(("| ", " |"))]
    lines += ["|".join(marks).join("||")]
    lines += [" | ".join(line).join(("| ", " |")) for line in zip(*cells, strict=True)]
    note = [f"\n{spec['note']}"] if "note" in spec else []
    return title + "\n".join(lines + note) + "\n"


def _rows(table: Mapping[str, Any], results: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    rows = table["rows"]
    rows = results[rows] if isinstance(rows, str) else rows
    if "only" not in table:
        return rows
    by_method = {row["method"]: row for row in rows}
    return [by_method[method] for method in table["only"]]


def _cells(column: Column, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    values = [_value(row, column["key"]) for row in rows]
    shown = [_shown(value, column) for value in values]
    bold = _bold(column, rows, values)
    return [f"**{each}**" if i in bold else each for i, each in enumerate(shown)]


def _value(row: Any, key: str) -> Any:
    """Value of a row at a key, None where it has none; a key with dots may name one value."""
    if not key or key in row:
        return row[key] if key else row
    head, _, rest = key.partition(".")
    return _value(row.get(head, {}), rest) if rest else None


def _shown(value: Any, column: Column) -> str:
    form, missing = column.get("format", ""), column.get("missing", "")
    if value is None or isinstance(value, str):
        return cell(value or missing)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if "{" in form:
        try:
            fields = value if isinstance(value, Mapping) else {}
            return form.format(
                value, **{k: cell(v) if isinstance(v, str) else v for k, v in fields.items()}
            )
        except KeyError:  # an object without what the template shows
            return missing
    if not isinstance(value, Mapping):
        return format(value / column["unit"] if "unit" in column else value, form)
    if "mean" in value:
        return f"{value['mean']:{form}} ± {_error(value):{form.lstrip('+')}}"
    if any(isinstance(each, list) for each in value.values()):
        return "one interval for each class"
    return ", ".join(f"{cell(name)} {each:g}" for name, each in value.items()) or "none"


def _error(summary: Mapping[str, Any]) -> float:
    """The standard error of a mean over seeds."""
    if "standard_error" in summary:
        return summary["standard_error"]
    return summary["std"] / len(summary["values"]) ** 0.5


def _bold(column: Column, rows: Sequence[Mapping[str, Any]], values: Sequence[Any]) -> set[int]:
    """Places of the cells in bold."""
    rule, within = column.get("best", ""), column.get("within")
    if rule not in ("least", "most"):
        return {i for i, row in enumerate(rows) if rule and _holds(rule, row)}
    groups: dict[Any, dict[int, float]] = {}
    for i, (row, value) in enumerate(zip(rows, values, strict=True)):
        if value is not None and not isinstance(value, str):
            mean = value["mean"] if isinstance(value, Mapping) else value
            groups.setdefault(_value(row, within) if within else None, {})[i] = mean
    pick = min if rule == "least" else max
    return {pick(group, key=group.__getitem__) for group in groups.values()}


def _holds(rule: str, row: Mapping[str, Any]) -> bool:
    if rule in row or rule != "decisive":
        return bool(row[rule])
    return abs(row["mean"]) > 2.0 * row["standard_error"]
