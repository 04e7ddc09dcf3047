"""What the README says to run, runs."""

import contextlib
import re
import subprocess
from importlib.util import find_spec
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

import lgd
from experiments.faults.catalogue import FAULTS

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
CI = (ROOT / ".ci" / "run").read_text()


def my_model(params, x_t, t, c):
    """A velocity towards the class's own corner; label 10 knows no corner."""
    corners = jnp.concatenate([params["corners"], jnp.zeros((8, 4))])
    return (x_t - corners[c]) / jnp.maximum(t, 0.04)[:, None]


@pytest.fixture(scope="module")
def after_the_example(tmp_path_factory):
    """Everything the README's Python defines, for a model and data of one's own."""
    (code,) = re.findall(r"^```python\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    rng = np.random.default_rng(0)
    labels = np.arange(90) % 3
    corners = np.eye(3, 4, dtype=np.float32)
    names = {
        "my_model": my_model,
        "params": {"corners": corners},
        "images": (corners[labels] + 0.1 * rng.normal(size=(90, 4))).astype(np.float32),
        "labels": labels,
        "c": jnp.asarray([0, 2, 2, 1, 0], jnp.int32),
    }
    with contextlib.chdir(tmp_path_factory.mktemp("example")):
        exec(compile(code, "README.md", "exec"), names)
        return names | {"read": lgd.load("guidance.safetensors")}


@pytest.mark.slow
def test_python_example_learns_and_samples(after_the_example):
    names = after_the_example
    assert isinstance(names["guidance"], lgd.Guidance)
    np.testing.assert_array_equal(names["read"](t=0.5, c=1), names["guidance"](t=0.5, c=1))
    assert names["samples"].shape == (5, 4)
    assert np.isfinite(names["samples"]).all()
    assert (np.asarray(names["samples"])[:, :3].argmax(axis=1) == names["c"]).all()


def test_python_example_is_short():
    (code,) = re.findall(r"^```python\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    compile(code, "README.md", "exec")
    assert len([line for line in code.splitlines() if line and not line.startswith("import")]) <= 12


def command(name):
    """What .ci/run takes from the README under this name, by its own function."""
    function = re.search(r"^readme_command\(\) \{$.*?^\}$", CI, re.DOTALL | re.MULTILINE)
    done = subprocess.run(
        ["bash", "-euc", f"{function[0]}\nreadme_command {name}"],
        cwd=ROOT, capture_output=True, text=True, timeout=20, check=True,
    )  # fmt: skip
    return done.stdout


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("test", ["pip install", "'.[test]'", "bin/pytest"]),
        ("main", ["pip install", "-m experiments.run", "--config=configs/digits.py"]),
    ],
)
def test_command_is_found_by_its_marker(name, parts):
    found = command(name)
    assert f"<!-- command: {name} -->\n```bash\n{found}```\n" in README
    assert all(part in found for part in parts)
    assert found.count("\n") == 1  # one line to copy


def test_every_command_that_ci_runs_is_in_the_readme():
    names = re.findall(r"readme_command (\w+)", CI)
    assert {"test", "main"} <= set(names)
    assert all(f"<!-- command: {name} -->" in README for name in names)
    assert command("none_of_this_name") == ""


def test_configs_and_modules_that_are_named_exist():
    configs = re.findall(r"--config=([\w/.]+)", README + command("main").replace("digits", "smoke"))
    assert {"configs/digits.py", "configs/smoke.py"} <= set(configs)
    assert not [path for path in configs if not (ROOT / path).is_file()]
    modules = re.findall(r"python3? -m ([\w.]+)", README)
    assert "experiments.run" in modules
    assert not [module for module in modules if find_spec(module) is None]


def test_links_and_pictures_exist():
    targets = re.findall(r"\]\(([^)#]+)", README)
    local = [target for target in targets if "://" not in target]
    assert not [target for target in local if not (ROOT / target).exists()]


def test_names_of_the_library_exist():
    """Every lgd.a.b of the README is there."""
    for name in set(re.findall(r"(?<![/\w])lgd((?:\.\w+)+)", README)):
        found = lgd
        for part in name.split(".")[1:]:
            found = getattr(found, part)


def test_tests_that_are_named_exist():
    """Files, functions in them, and the beginnings of names of faults."""
    promises = README.partition("## Promises")[2].partition("## Citation")[0]
    for path in re.findall(r"`(tests/\w+\.py)", promises):
        assert (ROOT / path).is_file(), path
    source = "".join(path.read_text() for path in (ROOT / "tests").glob("test_*.py"))
    functions = re.findall(r"::(test_\w+)", promises)
    assert len(functions) > 5
    assert not [name for name in functions if f"def {name}(" not in source]
    names = [fault.name for fault in FAULTS]
    for listed in re.findall(r"`tests/test_faults.py`: ([^|`;]*)", promises):
        for prefix in re.sub(r"SIGTERM, SIGINT during", "SIGINT during", listed).split(","):
            start = prefix.strip().removesuffix("...").strip()
            assert any(name.startswith(start) for name in names), start
