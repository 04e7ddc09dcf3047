import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from ml_collections import ConfigDict, FrozenConfigDict

from configs import default
from experiments import config as configs
from experiments.rules import ACROSS, FIELDS
from experiments.rules.denoiser import NO_SIGNAL_AT_1
from lgd import diffusion, schedules

ROOT = Path(__file__).resolve().parent.parent
DEFAULT = str(ROOT / "configs" / "default.py")

G, ONE, TRAJ, EVAL = "guidance.", "guidance.one_step.", "guidance.trajectory.", "evaluation."


def mistakes(*overrides, path=DEFAULT):
    with pytest.raises(configs.ConfigError) as caught:
        configs.load(path, overrides)
    assert str(caught.value) == "\n".join(caught.value.errors)
    assert all(error.isprintable() for error in caught.value.errors)
    return caught.value.errors


def leaves(tree, prefix=""):
    for name, value in tree.items():
        if isinstance(value, ConfigDict):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


DEFAULTS = dict(leaves(default.get_config()))


@pytest.fixture
def config_file(tmp_path):
    def write(*lines, text=None):
        body = "".join(f"    {line}\n" for line in lines)
        path = tmp_path / "some_config.py"
        head = "from ml_collections import ConfigDict\nfrom configs import default\n"
        own = f"def get_config():\n    config = default.get_config()\n{body}    return config\n"
        path.write_text(head + own if text is None else text)
        return str(path)

    return write


# The table of rules and the defaults


def test_every_field_has_a_rule_and_every_rule_a_field():
    assert sorted(FIELDS) == sorted(DEFAULTS)


def test_rules_across_fields_name_fields():
    assert {field for rule in ACROSS for field in rule.fields} <= set(DEFAULTS)


def test_defaults_have_types_that_an_override_can_spell():
    for field, value in DEFAULTS.items():
        assert type(value) in {bool, int, float, str, tuple}, field
        if isinstance(value, tuple):
            kinds = {type(element) for element in value} or {str}  # none by default: of names
            assert kinds in ({int}, {float}, {str}), field


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("[!_]*.py")), ids=lambda p: p.stem)
def test_shipped_configs_are_valid(path):
    needed = ["evaluation.inception_path=a", f"evaluation.inception_sha256={64 * '0'}"]
    given = needed if path.stem in ("imagenet64", "celeba64") else []
    assert configs.validate(configs.load(str(path), given)) == []


# Mistakes: overrides, the field named first, what is expected, what was got

FASHION = "data.name=fashion_mnist data.path=a.npz"
NO_FIELD = "expected a field of configs/default.py"
MISTAKES = [
    # names
    ("sede=1", "sede", f"{NO_FIELD} (did you mean seed?)", "got an unknown one"),
    (ONE + "betta=1", ONE + "betta", f"did you mean {ONE}beta", "got an unknown one"),
    ("sampling.beta=1", "sampling.beta", f"{ONE}beta or {TRAJ}beta", "got an unknown one"),
    ("gidance.methods=()", "gidance.methods", "did you mean guidance.methods?", "an unknown one"),
    ("qqqq=1", "qqqq", NO_FIELD, "got an unknown one"),
    ("=1", "''", NO_FIELD, "got an unknown one"),
    ("a\nb=1", "a b", NO_FIELD, "got an unknown one"),
    ("seed.seed=1", "seed.seed", "did you mean seed?", "got an unknown one"),
    ("guidance=1", "guidance", "expected a group of fields (guidance.methods, ...)", "got '1'"),
    # types and spelling
    ("seed", "seed", "expected an integer >= 0", "got nothing"),
    ("seed=", "seed", "expected an integer >= 0", "got ''"),
    ("seed=abc", "seed", "expected an integer >= 0", "got 'abc'"),
    ("seed=1e3", "seed", "expected an integer >= 0", "got '1e3'"),
    ("seed=1.0", "seed", "expected an integer >= 0", "got '1.0'"),
    ("seed=True", "seed", "expected an integer >= 0", "got 'True'"),
    ("seed=1_0", "seed", "expected an integer >= 0", "got '1_0'"),
    ("seed=" + "9" * 5000, "seed", "expected an integer >= 0", "got '999"),
    ("training.clip=fast", "training.clip", "expected a number in [0, 1e9]", "got 'fast'"),
    ("training.clip=1,5", "training.clip", "expected a number in [0, 1e9]", "got '1,5'"),
    ("training.clip=nan", "training.clip", "expected a number in [0, 1e9]", "got 'nan'"),
    ("training.clip=inf", "training.clip", "expected a number in [0, 1e9]", "got 'inf'"),
    ("training.clip=1e999", "training.clip", "expected a number in [0, 1e9]", "got inf"),
    ("sampling.churn=-inf", "sampling.churn", "expected a number in [0, 1]", "got '-inf'"),
    (EVAL + "interval_lower=", EVAL + "interval_lower", "1 or more increasing", "got ('',)"),
    (EVAL + "interval_lower=(0,x)", EVAL + "interval_lower", "in [0, 1]", "got (0.0, 'x')"),
    (EVAL + "interval_lower=(0,,1)", EVAL + "interval_lower", "in [0, 1]", "got (0.0, '', 1.0)"),
    (EVAL + "interval_lower=(0,nan)", EVAL + "interval_lower", "in [0, 1]", "got (0.0, 'nan')"),
    # ranges
    ("seed=-1", "seed", "expected an integer >= 0", "got -1"),
    ("seed=2147483648", "seed", "(and < 2^31)", "got 2147483648"),
    ("data.num_train=0", "data.num_train", "expected an integer >= 16", "got 0"),
    ("classifier.width=-4", "classifier.width", "expected an integer >= 1", "got -4"),
    ("training.save_every=0", "training.save_every", "expected an integer >= 1", "got 0"),
    ("training.clip=-1", "training.clip", "expected a number in [0, 1e9]", "got -1.0"),
    ("denoiser.learning_rate=0", "denoiser.learning_rate", "in (0, 1e9]", "got 0.0"),
    ("denoiser.learning_rate=1e-60", "denoiser.learning_rate", "in (0, 1e9]", "got 1e-60"),
    ("denoiser.ema_decay=1", "denoiser.ema_decay", "expected a number in [0, 1)", "got 1.0"),
    (TRAJ + "ema_decay=.999999999", TRAJ + "ema_decay", "in [0, 1)", "got 0.999999999"),
    ("denoiser.label_dropout=1.0", "denoiser.label_dropout", "in [0, 1)", "got 1.0"),
    ("sampling.churn=1.5", "sampling.churn", "expected a number in [0, 1]", "got 1.5"),
    (ONE + "beta=0", ONE + "beta", "expected a number in (0, 2]", "got 0.0"),
    (ONE + "beta=2.5", ONE + "beta", "expected a number in (0, 2]", "got 2.5"),
    (TRAJ + "lam=-.5", TRAJ + "lam", "expected a number in [0, 1]", "got -0.5"),
    (ONE + "delta=0", ONE + "delta", "expected a number in (0, 1)", "got 0.0"),
    (ONE + "s_min=-.1", ONE + "s_min", "expected a number in [0, 1)", "got -0.1"),
    (EVAL + "test_seeds=1", EVAL + "test_seeds", "expected an integer >= 2", "got 1"),
    (EVAL + "validation_seeds=0", EVAL + "validation_seeds", "an integer >= 1", "got 0"),
    (EVAL + "num_finalists=0", EVAL + "num_finalists", "expected an integer >= 1", "got 0"),
    # names of things
    ("schedule=vp", "schedule", "expected one of rectified_flow, cosine,", "got 'vp'"),
    ("data.name=Digits", "data.name", "one of digits, mixture, mnist, ", "got 'Digits'"),
    ("denoiser.level=good", "denoiser.level", "one of under, middle, well, exact", "got 'good'"),
    ("denoiser.kind=V", "denoiser.kind", "one of x0, eps, v, velocity, score", "got 'V'"),
    ("denoiser.times=normal", "denoiser.times", "uniform, logit_normal", "got 'normal'"),
    ("sampling.grid=karras", "sampling.grid", "one of uniform, logsnr, edm", "got 'karras'"),
    (
        "sampling.solver=euler",
        "sampling.solver",
        "one of ddim, heun, heun_edm, dpmpp_2m",
        "got 'euler'",
    ),
    (ONE + "coupling=none", ONE + "coupling", "one of independent, shared", "got 'none'"),
    (G + "omega.output=tanh", G + "omega.output", "relu, softplus", "got 'tanh'"),
    (G + "methods=l3", G + "methods", "different names of self_consistency, l2", "got ('l3',)"),
    ("training.loggers=disk", "training.loggers", "names of tensorboard, wandb", "got ('disk',)"),
    (G + "methods=l2,l2", G + "methods", "expected a tuple of different", "got ('l2', 'l2')"),
    # tuples
    (EVAL + "constant_weights=0,1", EVAL + "constant_weights", "3 or more", "got (0.0, 1.0)"),
    (EVAL + "constant_weights=1,2,3", EVAL + "constant_weights", "the first of them 0.0", "(1.0, "),
    (EVAL + "constant_weights=0,2,1", EVAL + "constant_weights", "increasing", "(0.0, 2.0, 1.0)"),
    (EVAL + "constant_weights=0,1,1", EVAL + "constant_weights", "increasing", "(0.0, 1.0, 1.0)"),
    (EVAL + "interval_weights=()", EVAL + "interval_weights", "1 or more", "got ()"),
    (EVAL + "interval_weights=0,1", EVAL + "interval_weights", "in (0, 1e9]", "got (0.0, 1.0)"),
    (EVAL + "interval_lower=-1,0", EVAL + "interval_lower", "in [0, 1]", "got (-1.0, 0.0)"),
    (EVAL + "interval_upper=.9,1.1", EVAL + "interval_upper", "in [0, 1]", "got (0.9, 1.1)"),
    # fields that do not go together
    (ONE + "delta=.99", ONE + "s_min", "s_min < 1 - zeta - delta = 0.0", "got 0.01"),
    (f"{ONE}s_min=.6 {ONE}delta=.3 {ONE}zeta=.1", ONE + "s_min", "delta = 0.6", "got 0.6"),
    (EVAL + "interval_lower=0,1", EVAL + "interval_lower", "every end < 1.0", "got [1.0]"),
    (
        f"{EVAL}interval_lower=.5,.6 {EVAL}interval_upper=.4,.5,.7",
        EVAL + "interval_upper",
        "every end > 0.5, the least lower end",
        "got [0.4, 0.5]",
    ),
    (G + "omega.init=10", G + "omega.init", "expected init < guidance.omega.max = 10.0", "got 10"),
    ("denoiser.level=exact", "denoiser.level", "well for data digits", "got 'exact'"),
    ("sampling.churn=.5 sampling.solver=heun", "sampling.churn", "solver heun", "got 0.5"),
    ("sampling.num_steps=1", "sampling.num_steps", "expected an integer >= 3", "got 1"),
    (EVAL + "num_screening=5000", EVAL + "num_screening", "at most evaluation.num_samples", "5000"),
    ("data.num_train=901", "data.num_train", "num_test <= 1797 digits", "got 1798"),
    ("data.path=\t", "data.path", "a path in printable characters", "got '\\t'"),
    ("data.path=a.npz", "data.path", "'' for data digits, which reads no file", "got 'a.npz'"),
    ("data.name=tfds", "data.path", "a file or a folder for data tfds", "got ''"),
    ("data.size=8", "data.size", "0 for data digits", "got 8"),
    ("data.size=-1", "data.size", "an integer >= 0", "got -1"),
    ("data.name=images data.path=a", "data.size", "1 or more for data images", "got 0"),
    (
        "data.name=npz data.path=a reward.name=tanh",
        "reward.name",
        "none or classifier for data npz",
        "got 'tanh'",
    ),
    ("data.name=fashion_mnist", "data.path", "a file or a folder for data fashion_mnist", "got ''"),
    (
        f"{FASHION} data.num_train=59000 data.num_validation=1001",
        "data.num_train",
        "num_train + num_validation <= 60000 training images",
        "got 60001",
    ),
    (f"{FASHION} data.num_test=10001", "data.num_test", "at most 10000", "got 10001"),
    (f"{FASHION} denoiser.level=exact", "denoiser.level", "data fashion_mnist", "got 'exact'"),
    (ONE + "num_particles=1", ONE + "num_particles", "2 or more for lam = 1.0 > 0", "got 1"),
    (ONE + "group_size=1", ONE + "group_size", "2", "got 1"),
    (TRAJ + "num_particles=1", TRAJ + "num_particles", "2 or more for lam = 1.0 > 0", "got 1"),
    (TRAJ + "grid_scales=2,1", TRAJ + "grid_scales", "the first of them 1.0", "got (2.0, 1.0)"),
    (TRAJ + "num_targets=1", TRAJ + "num_targets", "2 or more for lam = 1.0 > 0", "got 1"),
    (G + "num_snapshots=201", G + "num_snapshots", "at most 200, the steps of", "got 201"),
    (
        f"{G}methods=marginal {ONE}group_size=6",
        ONE + "batch_size",
        "a multiple of guidance.one_step.group_size = 6",
        "got 256",
    ),
]


@pytest.mark.parametrize(("overrides", "field", "expected", "got"), MISTAKES)
def test_mistake_is_the_one_thing_reported(overrides, field, expected, got):
    (error,) = mistakes(*overrides.split(" "))
    assert error.startswith(f"{field}: expected ")
    before, after = error.rsplit(", got ", 1) if ", got " in error else (error, "")
    assert expected in before
    assert got.removeprefix("got ") in after
    assert len(error) < 500


@pytest.mark.parametrize("field", sorted(DEFAULTS))
def test_every_field_refuses_nan_negatives_and_other_names(field):
    coordinates = field in ("reward.direction", "reward.centre", "denoiser.times_location")
    for value in ("nan", "-1e10" if coordinates else "-1", "other"):
        errors = mistakes(f"{field}={value}")
        assert errors[0].startswith(f"{field}: expected ")
        got = errors[0].split(", got ")[1]
        assert (value if value != "-1e10" else "-10000000000.0") in got


def test_all_mistakes_at_once():
    wrong = ["seed=x", "sampling.churn=2", "schedule=vp", ONE + "betta=1", EVAL + "test_seeds=1"]
    wrong += [ONE + "s_min=.95", "data.num_test=5000", G + "methods=l3"]
    fields = {override.split("=")[0] for override in wrong} - {"data.num_test"}
    errors = mistakes(*wrong)
    assert {error.split(":")[0] for error in errors} == fields | {"data.num_train"}
    assert len(errors) == len(wrong)


def test_rules_across_fields_keep_quiet_about_fields_that_are_wrong_by_themselves():
    (error,) = mistakes(ONE + "s_min=abc", ONE + "delta=.995")
    assert error.startswith(ONE + "s_min: expected a number in [0, 1), got 'abc'")


# Overrides that fit


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("seed=+7", 7),
        ("seed= 7 ", 7),
        ("training.clip=2", 2.0),
        ("training.clip=1e-3", 1e-3),
        ("training.clip=.5", 0.5),
        ("sampling.grid=logsnr", "logsnr"),
        ("guidance.methods=()", ()),
        ("guidance.methods=l2", ("l2",)),
        ("training.loggers=wandb,tensorboard", ("wandb", "tensorboard")),
        ("guidance.methods=('l2', \"trajectory\")", ("l2", "trajectory")),
        ("evaluation.interval_lower=[0, .25]", (0.0, 0.25)),
        ("evaluation.interval_lower=(0,)", (0.0,)),
        ("evaluation.interval_lower=0,.5,", (0.0, 0.5)),
    ],
)
def test_override(override, value):
    config = configs.load(DEFAULT, [override])
    field = override.split("=")[0]
    got = dict(leaves(config))[field]
    assert got == value
    assert type(got) is type(value)
    assert configs.diff(default.get_config(), config)[0].startswith(f"{field}: ")


def test_booleans_are_spelled_true_and_false():
    like = {"flag": False}
    assert configs._parse_override("flag=True", like) == ("flag", True)
    assert configs._parse_override("flag=false", like) == ("flag", False)
    assert configs._parse_override("flag=1", like) == ("flag", "1")


def test_last_override_of_a_field_holds():
    assert configs.load(DEFAULT, ["seed=1", "seed=2"]).seed == 2
    (error,) = mistakes("seed=x", "seed=2")
    assert error.startswith("seed: expected an integer >= 0")


def test_limits_that_are_allowed():
    overrides = ["sampling.churn=1", ONE + "beta=2", ONE + "s_min=0", ONE + "zeta=0", "seed=0"]
    overrides += [ONE + "num_particles=1", ONE + "lam=0", "training.clip=0", "data.num_train=900"]
    overrides += ["evaluation.num_screening=2000", "evaluation.interval_upper=.5,1"]
    assert configs.load(DEFAULT, overrides).sampling.churn == 1.0


def test_exact_denoiser_and_more_examples_for_the_mixture():
    overrides = ["data.name=mixture", "denoiser.level=exact", "data.num_train=100000"]
    assert configs.load(DEFAULT, overrides).denoiser.level == "exact"


def test_fashion_mnist_up_to_all_of_its_images():
    overrides = [*FASHION.split(" "), "data.num_train=59984", "data.num_validation=16"]
    overrides += ["data.num_test=10000", "reward.name=classifier"]
    assert configs.load(DEFAULT, overrides).data.path == "a.npz"


def test_config_is_locked_at_every_level():
    config = configs.load(DEFAULT)
    with pytest.raises(AttributeError):
        config.something = 1
    with pytest.raises(AttributeError):
        config.guidance.one_step.betta = 1.0


def test_split_overrides():
    argv = ["run.py", "--config=c.py", "--config.a.b=1=2", "--config.a.c", "-1", "--workdir", "w"]
    argv += ["-config.d=", "--configs.e=1", "--config.f", "--stages=x", "--", "--config.g=1"]
    overrides, rest = configs.split_overrides(argv)
    assert overrides == ["a.b=1=2", "a.c=-1", "d=", "f"]
    assert rest == [
        *("run.py", "--config=c.py", "--workdir", "w", "--configs.e=1", "--stages=x"),
        *("--", "--config.g=1"),
    ]
    assert configs.split_overrides(["--config.seed"]) == (["seed"], [])


# Config files


def test_file_with_differences(config_file):
    path = config_file("config.seed = 3", "config.evaluation.interval_lower = [0, 1/4]")
    config = configs.load(path, ["sampling.num_steps=5"])
    assert configs.diff(default.get_config(), config) == [
        "evaluation.interval_lower: (0.0, 0.1, 0.2, 0.3, 0.45) -> (0.0, 0.25)",
        "sampling.num_steps: 25 -> 5",
        "seed: 0 -> 3",
    ]


@pytest.mark.parametrize(
    ("line", "field", "expected", "got"),
    [
        ("config.sede = 1", "sede", "did you mean seed?", "an unknown one"),
        ("config.data.sizes = 8", "data.sizes", NO_FIELD, "an unknown one"),
        ("config.extra = ConfigDict()", "extra", NO_FIELD, "an unknown one"),
        ("config.seed = None", "seed", "an integer >= 0", "None"),
        ("config.seed = True", "seed", "an integer >= 0", "True"),
        ("config.seed = 10**5000", "seed", "an integer >= 0", "a value of type int"),
        ("config.training.clip = float('nan')", "training.clip", "[0, 1e9]", "nan"),
        ("config.schedule = None", "schedule", "one of rectified_flow", "None"),
        (
            "config.evaluation.interval_lower = (True,)",
            EVAL + "interval_lower",
            "[0, 1]",
            "(True,)",
        ),
        ("config.guidance.methods = (('l2',),)", G + "methods", "different names", "(('l2',),)"),
        ("del config.seed", "seed", "an integer >= 0", "nothing"),
    ],
)
def test_mistake_in_a_file(config_file, line, field, expected, got):
    path = config_file("with config.ignore_type():", f"    {line}")
    (error,) = mistakes(path=path)
    assert error.startswith(f"{field}: expected ")
    assert expected in error
    assert got in error.split(", got ")[1]


def test_references_are_refused_because_an_override_would_not_reach_them(config_file):
    errors = mistakes(path=config_file("config.seed = config.data.get_ref('num_test')"))
    assert [error.split(":")[0] for error in errors] == ["data.num_test", "seed"]
    assert all("FieldReference" in error for error in errors)


def test_group_replaced_by_a_value_names_every_field_lost(config_file):
    errors = mistakes(path=config_file("with config.ignore_type():", "    config.data = 3"))
    assert errors[-1] == "data: expected a group of fields (data.attributes, ...), got 3"
    assert sorted(error.split(":")[0] for error in errors[:-1]) == [
        field for field in sorted(DEFAULTS) if field.startswith("data.")
    ]


@pytest.mark.parametrize(
    ("text", "got"),
    [
        ("x = 1", "no get_config"),
        ("def get_config(): return {}", "{}"),
        ("def get_config(n): return n", "TypeError"),
        ("x = 1\nraise KeyError('lost')", "KeyError: 'lost' (line 2)"),
        ("import sys\nsys.exit(3)", "SystemExit: 3 (line 2)"),
        ("\n\ndef get_config(:", "SyntaxError"),
        ("import no_such_module_at_all", "ModuleNotFoundError"),
        ("x = 1\0", "null bytes"),
        ("def get_config(): return get_config()", "RecursionError"),
        ("raise ValueError('one\\ntwo')", "ValueError: one two (line 1)"),
        (
            "from configs import default\n"
            "def get_config():\n"
            "    config = default.get_config()\n"
            "    config.seed = 'x'\n"
            "    return config",
            "TypeError",
        ),
    ],
)
def test_file_that_cannot_be_used_is_named_beside_wrong_overrides(config_file, text, got):
    path = config_file(text=text)
    first, second = mistakes("seed=x", ONE + "delta=.995", path=path)
    assert first.startswith(f"{path}: expected a Python file with get_config()")
    assert got in first
    assert second.startswith("seed: expected an integer")


@pytest.mark.parametrize("path", ["no/such.py", "", "\0", "x" * 5000, str(ROOT)])
def test_missing_file(path):
    (error,) = mistakes(path=path)
    assert ": expected a Python file" in error


def test_frozen_config_is_taken(config_file):
    text = "from ml_collections import FrozenConfigDict\nfrom configs import default\n"
    text += "def get_config(): return FrozenConfigDict(default.get_config())"
    config = configs.load(config_file(text=text), ["seed=4"])
    assert type(config) is ConfigDict
    assert config.seed == 4


def test_file_edited_within_the_second_is_read_anew(config_file):
    assert configs.load(config_file("config.seed = 3")).seed == 3
    assert configs.load(config_file("config.seed = 4")).seed == 4


def test_validate_takes_dicts_and_frozen_configs():
    config = default.get_config()
    assert configs.validate(configs.to_dict(config)) == []
    assert configs.validate(FrozenConfigDict(config)) == []
    assert {error.split(":")[0] for error in configs.validate({})} == set(DEFAULTS)
    (error,) = configs.validate(configs.to_dict(config) | {"seed": 1.0})
    assert error == "seed: expected an integer >= 0 (and < 2^31), got 1.0"


def test_integer_that_no_float_holds():
    config = configs.to_dict(default.get_config())
    config["sampling"]["churn"] = 10**5000
    (error,) = configs.validate(config)
    assert error == "sampling.churn: expected a number in [0, 1], got a value of type int"


# Before jax

DRIVER = """
import sys
from experiments import config
try:
    config.load("configs/default.py", config.split_overrides(sys.argv[1:])[0])
except config.ConfigError as error:
    print(error)
    slow = {"jax", "jaxlib", "flax", "numpy", "optax", "orbax"} & set(sys.modules)
    sys.exit(f"imported {slow}" if slow else 2)
"""


def test_bad_config_ends_soon_without_jax():
    argv = ["--config.seed=x", "--config.sampling.churn", "2", "--config.schedul=edm"]
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, *argv], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert time.monotonic() - start < 3.0
    assert (done.returncode, done.stderr) == (2, "")
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == [
        *("sampling.churn", "seed", "schedul"),
    ]


# Anything at all

FUZZ = settings(
    max_examples=100,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
SCALARS = st.one_of(st.integers(), st.floats(), st.booleans(), st.none(), st.text(max_size=20))
VALUES = SCALARS | st.lists(SCALARS, max_size=5).map(tuple) | st.lists(SCALARS, max_size=5)
FIELD_NAMES = st.sampled_from(sorted(DEFAULTS))
ANY_TEXT = st.text(st.characters(), max_size=40)  # lone surrogates as well, as argv may hold them


def load_or_refuse(overrides):
    """A config that is valid, or a ConfigError of printable lines; anything else is a bug."""
    try:
        config = configs.load(DEFAULT, overrides)
    except configs.ConfigError as refusal:
        errors = refusal.errors
        assert errors
        assert all(error.isprintable() for error in errors)
        return None
    assert configs.validate(config) == []
    assert {f: type(v) for f, v in leaves(config)} == {f: type(v) for f, v in DEFAULTS.items()}
    return config


def copy_through_json(config):
    return json.loads(json.dumps(configs.to_dict(config), allow_nan=False))


@FUZZ
@given(st.lists(ANY_TEXT | st.builds("{}={}".format, FIELD_NAMES, ANY_TEXT), max_size=4))
@example(["\udcff=1", "seed=\udcff", "seed=\u0661", "=", "==", ".", "seed.=1"])
def test_any_text(overrides):
    load_or_refuse(overrides)


@FUZZ
@given(st.lists(st.tuples(FIELD_NAMES, VALUES), max_size=4))
def test_any_value_for_any_field(pairs):
    config = load_or_refuse([f"{field}={value}" for field, value in pairs])
    if config is not None:
        assert configs.diff(copy_through_json(config), config) == []


@FUZZ
@given(st.data())
def test_value_near_the_default_is_taken_as_it_is(data):
    field = data.draw(FIELD_NAMES)
    like = DEFAULTS[field]
    if isinstance(like, bool | str | tuple):
        value = like
    else:
        value = type(like)(data.draw(st.floats(0.25, 4.0)) * like)
    config = load_or_refuse([f"{field}={value}"])
    if config is not None:
        assert dict(leaves(config))[field] == value


@FUZZ
@given(st.dictionaries(FIELD_NAMES | ANY_TEXT, VALUES, max_size=4))
def test_validate_takes_any_values(values):
    tree = configs.to_dict(default.get_config())
    for field, value in values.items():
        *groups, leaf = field.split(".")
        node = tree
        for group in groups:
            node = node.setdefault(group, {}) if isinstance(node, dict) else {}
        if isinstance(node, dict):
            node[leaf] = value
    assert all(error.isprintable() for error in configs.validate(tree))


# What a workdir remembers


def test_json_round_trip_keeps_every_value():
    config = configs.load(DEFAULT, ["guidance.methods=l2"])
    again = copy_through_json(config)
    assert again == configs.to_dict(config)
    assert again["guidance"]["methods"] == ["l2"]
    assert configs.diff(again, config) == configs.diff(config, again) == []
    assert configs.validate(again) == []
    assert configs.from_dict(again).to_dict() == config.to_dict()


def test_dict_that_is_no_config_is_refused_with_every_mistake():
    values = copy_through_json(configs.load(DEFAULT)) | {"seed": -1, "more": 1}
    with pytest.raises(configs.ConfigError) as refusal:
        configs.from_dict(values)
    assert [error.split(":")[0] for error in refusal.value.errors] == ["seed", "more"]


def test_diff_names_fields_old_and_new():
    old = {"a": 1, "b": {"c": [1, 2], "gone": "x"}, "same": 1}
    new = {"a": 2, "b": {"c": (1, 3)}, "same": 1.0, "new": {"d": None}}
    assert configs.diff(old, new) == [
        "a: 1 -> 2",
        "b.c: [1, 2] -> (1, 3)",
        "b.gone: 'x' -> nothing",
        "new.d: nothing -> None",
    ]


def test_the_kinds_without_x0_at_the_start_are_those_that_the_library_refuses():
    """The names stand in the rules so that a bad config ends without JAX."""
    refused = {
        name for name, make in schedules.BY_NAME.items() if diffusion.latest_time(make(), "eps") < 1
    }
    assert set(NO_SIGNAL_AT_1) == refused
