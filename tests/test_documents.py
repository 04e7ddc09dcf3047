"""The Python of the documents runs, and the commands, files and names in them exist."""

import importlib
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lgd
from configs import default

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted((ROOT / "docs").glob("*.md"))
GENERATED = re.compile(r"^<!-- \w+: [^\n]*-->\n(?:[^\n]*\n)*?<!-- end -->$", re.MULTILINE)
NOT_RUN = "<!-- not run: "  # and why, before a block
FENCED = re.compile(r"^(<!-- [^\n]* -->\n)?```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)

pytestmark = pytest.mark.usefixtures("quick_compilation")
by_name = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)


def text_of(document):
    """A document without the tables that are generated."""
    return GENERATED.sub("", document.read_text())


def blocks(document):
    """Code of the Python blocks that are run, each with its first line in the document."""
    text = document.read_text()
    for found in FENCED.finditer(text):
        comment, language, code = found.groups()
        if language == "python" and not (comment or "").startswith(NOT_RUN):
            yield code, text[: found.start(3)].count("\n") + 1


def my_model(params, x_t, t, c):
    """A velocity away from 0, at a pace by label; label 3 means that none is given."""
    shape = (-1,) + (1,) * (x_t.ndim - 1)
    return x_t * (params["pace"][c] / jnp.maximum(t, 0.05)).reshape(shape)


def read_pixels(number):
    return np.full((4, 5, 3), number % 256, np.uint8)


def loss(params, frozen, batch, key):
    return jnp.mean((params["mean"] - batch.x0) ** 2), {}


def mine():
    """What a reader has: a model, its data and a key."""
    rng, labels = np.random.default_rng(0), (np.arange(60) % 3).astype(np.int32)
    schedule = lgd.schedules.rectified_flow()
    images = 0.3 * rng.normal(size=(60, 4, 4, 1)) + labels[:, None, None, None]
    return {
        "key": jax.random.key(0),
        "denoiser": lgd.denoisers.from_function(
            my_model, schedule=schedule, kind="velocity", null=3
        ),
        "params": {"pace": jnp.asarray([1.0, 0.8, 0.9, 1.1]), "mean": jnp.zeros(())},
        "images": images.astype(np.float32),
        "labels": labels,
        "validation_images": images[::-1].astype(np.float32),
        "validation_labels": labels[::-1].copy(),
        "c": jnp.asarray([0, 2, 1], jnp.int32),
        **{"n": 60, "height": 4, "width": 5, "read_pixels": read_pixels},
        "loss": loss,
    }


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:score")  # nobody trained my_model
@by_name
def test_python_runs(document, tmp_path, monkeypatch):
    """In order, as one program; trainings of no given length are cut to a few steps."""
    few = lgd.training.Optimizer(num_steps=3, learning_rate=0.01)
    monkeypatch.setattr("lgd.learn.default_optimizer", lambda model: few)
    monkeypatch.chdir(tmp_path)
    names = mine()
    for code, line in blocks(document):
        exec(compile("\n" * (line - 1) + code, str(document), "exec"), names)
    for name in ("samples", "gap", "standard_error"):
        assert np.isfinite(names.get(name, 0.0)).all()


def test_blocks_that_are_not_run_say_why():
    for document in DOCUMENTS:
        marked = [found[1] for found in FENCED.finditer(document.read_text()) if found[1]]
        assert all(re.fullmatch(r"<!-- not run: [^\n]{8,} -->\n", comment) for comment in marked)
    assert sum(1 for document in DOCUMENTS for _ in blocks(document)) >= 7


def commands(document):
    """Shell commands of blocks, one line each, and those within the text."""
    text = text_of(document)
    fenced = [found[3] for found in FENCED.finditer(text) if found[2] == "bash"]
    return [*"".join(fenced).replace("\\\n", " ").splitlines(), *re.findall(r"`([^`\n]+)`", text)]


def module_exists(module):
    path = ROOT.joinpath(*module.split("."))
    return path.with_suffix(".py").is_file() or (path / "__main__.py").is_file()


@by_name
def test_commands_name_modules_configs_and_fields_that_exist(document):
    config = default.get_config()
    for command in commands(document):
        for module in re.findall(r"python3? -m (experiments[\w.]*)", command):
            assert module_exists(module), command
        for room, name in re.findall(r"-m experiments\.(studies|benchmarks) (\w+)", command):
            assert name in importlib.import_module(f"experiments.{room}.__main__").MODULES, command
        for path in re.findall(r"--config=([\w/.]+)", command):
            assert (ROOT / path).is_file(), command
        for field in re.findall(r"--config\.([\w.]+)=", command):
            value = config
            for part in field.split("."):
                assert part in value, command
                value = value[part]


def anchors(document):
    headings = re.findall(r"^#+ (.*)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@by_name
def test_links_lead_somewhere(document):
    for target in re.findall(r"\]\(([^)]+)\)", document.read_text()):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        other = document.parent / path if path else document
        assert other.exists(), target
        assert not anchor or anchor in anchors(other), target


@by_name
def test_files_and_names_of_the_library_exist(document):
    text = text_of(document)
    for path in re.findall(r"`((?:lgd|experiments|configs|tests)/[\w/.]+)`", text):
        assert (ROOT / path).exists(), path
    for name in re.findall(r"(?<![/\w'])lgd((?:\.\w+)+)(?!/)", text):
        value = lgd
        for part in name.split(".")[1:]:
            if not hasattr(value, part):
                importlib.import_module(f"{value.__name__}.{part}")
            value = getattr(value, part)
