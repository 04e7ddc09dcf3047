"""Whether Inception-v3 here is that of PyTorch's ports, on equal random weights.

    pip install torch torchvision pytorch-fid torch-fidelity
    python -m experiments.benchmarks inception_agreement --name=inception-agreement

Weights are drawn in PyTorch, saved in both of its formats, and read here without PyTorch. Compared:
the resize and the logits with torch-fidelity, which reproduces TensorFlow's arithmetic; features
with both ports, for images of several sizes; Frechet distances of two sets of random images with
pytorch-fid's, each from its own features. Takes about 4 minutes on 2 cores.
"""

import importlib
import importlib.metadata
import tempfile
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from experiments.publish.markdown import number, text
from experiments.publish.study import Study
from experiments.workdir.provenance import provenance
from lgd.machinery.progress import bar
from lgd.metrics import inception
from lgd.metrics.features import extract
from lgd.metrics.frechet import frechet_distance, moments
from lgd.metrics.inception import torch_file
from lgd.metrics.moments import Moments
from lgd.types import Params

PACKAGES = ("torch", "torchvision", "pytorch-fid", "torch-fidelity")
SIZES = ((8, 8), (32, 32), (64, 48), (299, 299), (400, 300))
COUNT, BATCH = 4, 32  # images of each size; of a batch
SETS = 128  # images of a set for the Frechet distance
FEWER = 48  # features, so that covariances are of full rank

COMPARED = (
    *("resize", "features, pytorch-fid"),
    *(f"{name}, torch-fidelity" for name in inception.Outputs._fields),
)
DISTANCES = ("ours", "pytorch-fid", "pytorch-fid of our features")
NETWORKS = [
    text("size", "images") | {"format": "{0[0]}x{0[1]}"},
    *(number(f"{name}.shown", name, "") for name in COMPARED),
]
FRECHET = [
    number("features", "features", ","),
    *(number(name, name, ".6f") for name in DISTANCES),
]

State = dict[str, Any]  # PyTorch's tensors by name


def imported() -> dict[str, ModuleType]:
    """Return the packages compared with. Raises ImportError, which says what to install."""
    try:
        return {name: importlib.import_module(name.replace("-", "_")) for name in PACKAGES}
    except ImportError as error:
        raise ImportError(f"{error}; pip install {' '.join(PACKAGES)}") from None


def random_state(torch: ModuleType, torchvision: ModuleType) -> State:
    """Return weights that keep activations of one size, with all statistics different."""
    model = torchvision.models.inception_v3(
        num_classes=1008, aux_logits=False, init_weights=False, weights=None
    )
    rng, state = np.random.default_rng(0), model.state_dict()
    for name, tensor in state.items():
        if tensor.ndim == 0:
            continue
        fan_in = max(int(np.prod(tensor.shape[1:])), 1)
        if name.endswith("var") or (name.endswith("bn.weight")):
            values = rng.uniform(0.5, 1.5, tensor.shape)
        elif tensor.ndim == 1:
            values = 0.1 * rng.normal(size=tensor.shape)
        else:
            values = rng.normal(size=tensor.shape) * (2.0 / fan_in) ** 0.5
        state[name] = torch.from_numpy(values.astype(np.float32))
    return state


def saved_and_read(torch: ModuleType, state: State, folder: Path) -> tuple[Path, Params]:
    """Return a file of the weights, and what is read of it; the same of both formats."""
    states = []
    for zipped in (False, True):
        file = folder / f"zip-{zipped}.pth"
        torch.save(state, file, _use_new_zipfile_serialization=zipped)
        states.append(torch_file.read(file))
    for name, tensor in state.items():
        for read in states:
            np.testing.assert_array_equal(read[name], tensor.numpy())
    return file, inception.from_torch(states[0])


def levels(size: tuple[int, int], count: int, seed: int, contrast: float = 1.0) -> np.ndarray:
    """Return smooth random images (n, h, w, 3), uint8."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(size=(count, 5, 5, 3)).repeat(40, axis=1).repeat(40, axis=2)
    fine = rng.normal(size=(count, *size, 3))
    rows, columns = (np.linspace(0, 199, length).astype(int) for length in size)
    values = 128.0 + contrast * (50.0 * coarse[:, rows][:, :, columns] + 15.0 * fine)
    return np.clip(values, 0.0, 255.0).astype(np.uint8)


def scaled(images: np.ndarray) -> Array:
    """Return images in [-1, 1], as data sets here are, from uint8."""
    return jnp.asarray(images.astype(np.float32) / 127.5 - 1.0)


def channels_first(torch: ModuleType, images: np.ndarray) -> Any:
    """Return PyTorch's (n, 3, h, w) of images (n, h, w, 3)."""
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))


class Ports:
    """The two ports of the network to PyTorch, with these weights."""

    def __init__(self, packages: Mapping[str, ModuleType], state: State, file: Path) -> None:
        self._torch = packages["torch"]
        fid = importlib.import_module("pytorch_fid.inception")
        setattr(fid, "load_state_dict_from_url", lambda *_, **__: state)  # noqa: B010
        self._fid = fid.InceptionV3([3], resize_input=False, normalize_input=False).eval()
        fidelity = importlib.import_module("torch_fidelity.feature_extractor_inceptionv3")
        names = ["2048", "logits_unbiased", "logits"]
        self._fidelity = fidelity.FeatureExtractorInceptionV3("inception", names, str(file))
        self._resize = fidelity.interpolate_bilinear_2d_like_tensorflow1x
        self._distance = importlib.import_module("pytorch_fid.fid_score")

    def pytorch_fid(self, prepared: np.ndarray) -> np.ndarray:
        """Return features (n, 2048) of images (n, h, w, 3) that are resized and scaled."""
        with self._torch.no_grad():
            return self._fid(channels_first(self._torch, prepared))[0][:, :, 0, 0].numpy()

    def torch_fidelity(self, images: np.ndarray) -> inception.Outputs:
        """Return the outputs of uint8 images."""
        with self._torch.no_grad():
            features, score_logits, logits = (
                each.numpy() for each in self._fidelity(channels_first(self._torch, images))
            )
        return inception.Outputs(features, logits, score_logits)

    def resized(self, images: np.ndarray) -> np.ndarray:
        """Return resized uint8 images, scaled as the graph scales them."""
        values = channels_first(self._torch, images.astype(np.float32))
        resized = self._resize(values, size=(299, 299), align_corners=False)
        return ((resized - 128.0) / 128.0).numpy().transpose(0, 2, 3, 1)

    def distance(self, x: Moments, y: Moments) -> float:
        return float(self._distance.calculate_frechet_distance(*x, *y))


def difference(ours: Any, theirs: Any) -> dict[str, Any]:
    """Return the largest absolute one, and its share of the largest value, also as words."""
    ours, theirs = (np.asarray(each, np.float64) for each in (ours, theirs))
    largest = float(np.abs(ours - theirs).max())
    share = largest / float(np.abs(theirs).max())
    return {"absolute": largest, "relative": share, "shown": f"{share:.0e}" if share else "equal"}


def networks(ports: Ports, params: Params) -> list[dict[str, Any]]:
    """Return for every size: the resize, features of both ports, both kinds of logits."""
    rows = []
    with bar("sizes", len(SIZES)) as advance:
        for size in SIZES:
            images = levels(size, COUNT, seed=1)
            prepared = np.asarray(inception.prepared(scaled(images)))
            ours, theirs = inception.outputs(params, scaled(images)), ports.torch_fidelity(images)
            pairs = [
                (prepared, ports.resized(images)),
                (ours.features, ports.pytorch_fid(prepared)),
                *zip(ours, theirs, strict=True),
            ]
            differences = [difference(*pair) for pair in pairs]
            rows.append({"size": list(size), **dict(zip(COMPARED, differences, strict=True))})
            advance("")
    return rows


def distances(ports: Ports, params: Params) -> list[dict[str, Any]]:
    """Return Frechet distances of two sets, ours from our features, theirs from theirs."""
    sets = [levels((32, 32), SETS, seed=2), levels((32, 32), SETS, seed=3, contrast=0.8)]
    network = inception.feature_network(params)
    ours = [extract(network.apply, scaled(x), batch_size=BATCH) for x in sets]
    theirs = [
        np.concatenate(
            [
                ports.pytorch_fid(np.asarray(inception.prepared(scaled(part))))
                for part in np.split(x, len(x) // BATCH)
            ]
        )
        for x in sets
    ]
    rows = []
    for count in (FEWER, 2048):
        own = [moments(x[:, :count]) for x in ours]
        other = [Moments(x[:, :count].mean(0), np.cov(x[:, :count], rowvar=False)) for x in theirs]
        each = (frechet_distance(*own), ports.distance(*other), ports.distance(*own))
        entry = {"features": count, "images": SETS}
        rows.append(entry | dict(zip(DISTANCES, each, strict=True)))
    return rows


def measure(options: Namespace) -> dict[str, Any]:
    """Return differences by image size, and distances."""
    packages = imported()
    state = random_state(packages["torch"], packages["torchvision"])
    with tempfile.TemporaryDirectory() as folder:
        file, params = saved_and_read(packages["torch"], state, Path(folder))
        ports = Ports(packages, state, file)
    versions = provenance("")["versions"]
    return {
        "versions": versions | {name: importlib.metadata.version(name) for name in PACKAGES},
        "networks": networks(ports, params),
        "distances": distances(ports, params),
        "tables": {
            "networks": {"columns": NETWORKS, "rows": "networks"},
            "distances": {"columns": FRECHET, "rows": "distances"},
        },
    }


STUDY = Study(measure=measure, refused=(ImportError,))
