"""Weights that come with the repository: use them, or measure their rows of a table again.

    python -m experiments.studies pretrained --workdir=runs/pretrained [--data=FOLDER_OR_NPZ]

Puts a denoiser, the guidance learned for it and the classifier that measures into a workdir, draws
the samples of the rows "unguided" and learned again, without any training, and prints both beside
what the repository publishes.
"""

from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

import lgd
from experiments import build
from experiments import config as configs
from experiments.console import local_path
from experiments.publish import tables, weights
from experiments.publish.study import Add, Study
from experiments.stages import evaluate
from experiments.stages.select import Row, unguided
from experiments.workdir import Workdir, WorkdirError, lock, read_json
from lgd import omega
from lgd.data.dataset import fingerprint
from lgd.data.image_files import DataFileError
from lgd.evaluation import Selected
from lgd.machinery import digests, files, storage
from lgd.types import Denoiser, Params

DEFAULT = "fashion_mnist"


class Pretrained(NamedTuple):
    """A denoiser, and the guidance learned for it on the sampling grid ``times``."""

    denoiser: Denoiser
    params: Params
    guidance: omega.Guidance
    times: jax.Array
    shape: tuple[int, ...]
    class_names: tuple[str, ...]


def load(name: str = DEFAULT) -> Pretrained:
    """Read the weights of a folder of experiments/weights/; needs no data.

    Raises FileNotFoundError or ValueError where a file is missing or not the one published.
    """
    manifest = read_manifest(name)
    config = _config(manifest)
    shape, class_names = tuple(manifest["shape"]), tuple(manifest["class_names"])
    denoiser = build.network_denoiser(config, len(class_names))
    like = jax.eval_shape(lambda: denoiser.init(jax.random.key(0), shape))
    file = _published(name, manifest, "denoiser")
    params = jax.device_put(storage.load_params(file, like))
    guidance = lgd.load(_published(name, manifest, "guidance"))
    return Pretrained(denoiser, params, guidance, build.times(config), shape, class_names)


def _published(name: str, manifest: Mapping, part: str) -> Path:
    """A file of a folder of weights. Raises ValueError where it is not the one published."""
    file = weights.WEIGHTS / name / f"{part}.safetensors"
    if digests.of_bytes(files.read(file, "published weights")) != manifest["sha256"][part]:
        raise ValueError(f"{name}/{part}.safetensors: expected the published file, got another")
    return file


def read_manifest(name: str) -> dict[str, Any]:
    """Return what a folder says of its files. Raises FileNotFoundError with the names there are."""
    file = weights.WEIGHTS / name / "manifest.json"
    if not file.is_file():
        known = ", ".join(
            sorted(each.parent.name for each in weights.WEIGHTS.glob("*/manifest.json"))
        )
        raise FileNotFoundError(f"expected one of {known or 'no weights'}, got {name!r}")
    return read_json(file)


def _config(manifest: Mapping, data_path: str | None = None) -> ConfigDict:
    """The config of the published run, with the path of the data here."""
    name = manifest["results"]
    values = read_json(tables.RESULTS / f"{name}.json")["config"]
    if data_path is None:
        file = tables.ROOT / "configs" / f"{name.partition('-')[0]}.py"
        data_path = configs.load(str(file)).data.path
    values["data"]["path"] = data_path
    return configs.from_dict(values, is_older=True)


def measure(options: Namespace) -> dict[str, Any]:
    """Return the tables "here", of rows drawn and measured again in a workdir, and "published".

    Raises WorkdirError, DataFileError, FileNotFoundError or ValueError.
    """
    with lock.held(options.workdir):
        here, published = _rows(options.workdir, options.weights, options.data)
    columns = tables.columns_of_run(published)
    both = {"here": here, "published": published}
    named = {name: {"title": name, "columns": columns, "rows": rows} for name, rows in both.items()}
    return {"tables": named}


def _rows(path: Path, name: str, data_path: str | None) -> tuple[list[dict], list[dict]]:
    manifest = read_manifest(name)
    published = read_json(tables.RESULTS / f"{manifest['results']}.json")
    config = _config(manifest, data_path)
    dataset = build.dataset(config)
    if fingerprint(dataset.test) != manifest["test_sha256"]:
        raise WorkdirError(
            f"{config.data.path}: expected the test images of the published table, got others"
        )
    workdir, row = Workdir(path, config), weights.learned_row(published, manifest["method"])
    learned = lgd.load(_published(name, manifest, "guidance"))
    for part in weights.NETWORKS:
        _install(workdir, part, files.read(_published(name, manifest, part), "published weights"))
    selected = [
        unguided(),
        Row(row["method"], None, Selected(row["params"], learned, float("nan"))),
    ]
    generator = evaluate.make_generator(config, workdir, dataset)
    rows, _ = evaluate.measure_rows(
        config,
        dataset,
        evaluate.final_generator(config, generator, dataset),
        evaluate.make_measure(config, workdir, dataset),
        selected,
        workdir.journal("measured", generator.params),
    )
    names = [each.method for each in selected]
    return rows, [each for each in published["rows"] if each["method"] in names]


def _install(workdir: Workdir, part: str, content: bytes) -> None:
    """Parameters where a run has its own; those already there must be the same."""
    target = workdir.params_file(part)
    if target.exists() and files.read(target, "parameters of the run") != content:
        raise WorkdirError(f"{target}: expected no parameters of another run; use an empty folder")
    workdir.put_params(part, content)


def arguments(add: Add) -> None:
    """Add the arguments of this study."""
    add("--workdir", type=local_path, required=True, help="a new folder")
    add("--weights", default=DEFAULT, help="a folder of experiments/weights")
    add("--data", help="where the images lie, if not where the config says")


STUDY = Study(
    measure=measure,
    arguments=arguments,
    refused=(DataFileError, FileNotFoundError, ValueError),
    is_published=False,
)
