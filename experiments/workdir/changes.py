"""What may change between two starts of a run, and what each stage leaves behind."""

from collections.abc import Iterator, Mapping
from typing import Any

from experiments import config as configs
from lgd.machinery import digests

MAY_CHANGE = (  # between two starts of a run, for they change nothing that it computes
    "training.save_every",
    "training.loggers",
    "training.max_skipped",
    "training.stall_seconds",
    "data.path",  # data.json tells whether the data are the same
    "denoiser.pipeline",  # the file of its digest tells whether it is the same
    "evaluation.inception_path",  # inception_sha256 tells whether it is the same
    "mesh.data",  # up to rounding
    "mesh.fsdp",
)
MAY_GROW = ("guidance.methods", "evaluation.families")  # each entry stands for rows of its own
STAGES = ("denoiser", "collect", "guidance", "evaluate", "report")
_FIRST_STAGE = {  # that a group of fields shapes; all other fields shape the denoiser
    "statistics": "collect",
    "guidance": "guidance",
    "sampling": "guidance",
    "evaluation": "evaluate",
}
_FILES = {  # that a stage makes, as beginnings of their names
    "denoiser": ("params/", "checkpoints/"),
    "collect": ("statistics/",),
    "guidance": ("params/guidance/", "checkpoints/guidance/"),
    "evaluate": ("results.json", "guidance/", "reference/"),
    "report": ("report/",),
}
_MEASURED = "measured.jsonl"
MADE_AGAIN = (*_FILES["evaluate"], *_FILES["report"], _MEASURED, "non_finite.json")
# Files that may be deleted: the same start makes them again, with the same content.


def identity(config: Mapping[str, Any]) -> str:
    """The sha256 of all fields that no later start may change."""
    fields = _flat(config)
    return digests.of_json({f: fields[f] for f in sorted(fields) if _is_kept(f)})


def of_samples(config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields, by name, that shape what is measured of given guidance."""
    fields, groups = _flat(config), ("sampling", "evaluation")
    free = {*MAY_CHANGE, *MAY_GROW}
    return {f: fields[f] for f in sorted(fields) if f.partition(".")[0] in groups and f not in free}


def harmless(field: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Whether a field may change as it does, with all files kept."""
    was, now = _flat(old).get(field), _flat(new).get(field)
    if field in MAY_GROW and isinstance(was, list) and isinstance(now, list):
        return all(each in now for each in was)
    return field in MAY_CHANGE


def first_stage(field: str) -> str:
    """The first stage that a field shapes."""
    return _FIRST_STAGE.get(field.partition(".")[0], STAGES[0])


def is_redone(field: str, redo: str) -> bool:
    """Whether what a field shapes is made anew by a start that redoes a stage, "" for none."""
    if not redo or first_stage(field) == STAGES[0]:
        return False  # another denoiser is another run
    return STAGES.index(redo) <= STAGES.index(first_stage(field))


def files_from(redo: str, changed: Mapping[str, Any] | set[str]) -> tuple[str, ...]:
    """Beginnings of the names of files that a redone stage and those after it made.

    What was measured is kept if nothing that ``changed`` shapes it: it is named by what it is of.
    """
    stages = STAGES[STAGES.index(redo) :]
    measured = {field.partition(".")[0] for field in changed} & {"sampling", "evaluation"}
    again = redo in ("denoiser", "evaluate") or measured
    return tuple(name for stage in stages for name in _FILES[stage]) + (_MEASURED,) * bool(again)


def _is_kept(field: str) -> bool:
    return field not in MAY_CHANGE and first_stage(field) == STAGES[0]


def _flat(config: Mapping[str, Any]) -> dict[str, Any]:
    return dict(_pairs(configs.to_dict(config)))


def _pairs(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _pairs(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
