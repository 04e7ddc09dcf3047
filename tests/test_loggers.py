import struct
import sys
import types
from importlib.machinery import ModuleSpec

import pytest
from tensorboardX.proto import event_pb2

from configs import default
from experiments import config as configs
from experiments import pipeline
from experiments.workdir import Workdir, loggers, read_lines
from lgd.machinery import processes


def config(*names, **fields):
    changed = default.get_config()
    changed.training.loggers = names
    changed.update_from_flattened_dict({k.replace("__", "."): v for k, v in fields.items()})
    return changed.lock()


def log_steps(workdir, name, *steps, run=0):
    log = workdir.metrics(name)
    for step in steps:
        log(step, {"loss": step / 8, "run": float(run)})


def killed(workdir):
    """Another process takes over; what this one had in memory never reaches the disk."""
    workdir._loggers.clear()


# TensorBoard


def events(folder):
    """The records of all event files of a folder, older files first."""
    for file in sorted(folder.iterdir()):
        raw = file.read_bytes()
        while raw:
            (size,) = struct.unpack("<Q", raw[:8])
            yield event_pb2.Event.FromString(raw[12 : 12 + size])
            raw = raw[16 + size :]


def shown(folder):
    """{tag: [(step, value), ...]} as TensorBoard shows it: a session forgets later steps."""
    curves = {}
    for event in events(folder):
        if event.HasField("session_log"):
            curves = {
                tag: [point for point in points if point[0] < event.step]
                for tag, points in curves.items()
            }
        for value in event.summary.value:
            curves.setdefault(value.tag, []).append((event.step, value.simple_value))
    return curves


def test_tensorboard_has_the_steps_and_values_of_every_training(tmp_path):
    workdir = Workdir(tmp_path, config("tensorboard"))
    log_steps(workdir, "denoiser", 10, 20)
    log_steps(workdir, "guidance/l2", 5)
    workdir.close()
    assert shown(tmp_path / "tensorboard" / "denoiser") == {
        "loss": [(10, 1.25), (20, 2.5)],
        "run": [(10, 0.0), (20, 0.0)],
    }
    assert shown(tmp_path / "tensorboard" / "guidance" / "l2")["loss"] == [(5, 0.625)]
    assert workdir.curve("denoiser", "loss") == ([10, 20], [1.25, 2.5])


@pytest.mark.parametrize("end", [Workdir.close, killed, lambda workdir: None])
def test_resumed_training_has_every_step_once(tmp_path, end):
    first = Workdir(tmp_path, config("tensorboard"))
    log_steps(first, "l2", 10, 20, 30, 40)
    end(first)
    for run, steps in enumerate(([30, 40, 50], [60], [20, 30]), start=1):
        again = Workdir(tmp_path, config("tensorboard"))
        log_steps(again, "l2", *steps, run=run)
        again.close()
        curves = shown(tmp_path / "tensorboard" / "l2")
        assert curves["run"] == list(zip(*again.curve("l2", "run"), strict=True))
        assert curves["loss"] == list(zip(*again.curve("l2", "loss"), strict=True))


def test_training_resumed_in_the_same_process_has_every_step_once(tmp_path):
    workdir = Workdir(tmp_path, config("tensorboard"))
    log_steps(workdir, "l2", 10, 20, 30)
    log_steps(workdir, "l2", 20, 30, run=1)
    workdir.close()
    assert shown(tmp_path / "tensorboard" / "l2")["run"] == [(10, 0.0), (20, 1.0), (30, 1.0)]


def test_close_can_be_called_twice_and_without_a_step(tmp_path):
    logger = loggers.TensorBoard(tmp_path)
    logger.close()
    logger("l2", 1, {"loss": 1.0})
    logger.close()
    logger.close()
    logger("l2", 2, {"loss": 2.0})
    logger.close()
    assert shown(tmp_path / "l2") == {"loss": [(1, 1.0), (2, 2.0)]}


def test_metrics_are_the_same_with_and_without_loggers(tmp_path):
    with_it = Workdir(tmp_path / "a", config("tensorboard"))
    without = Workdir(tmp_path / "b", config())
    for workdir in (with_it, without):
        log_steps(workdir, "l2", 10, 20, 30)
        log_steps(workdir, "l2", 20, 30, run=1)
        workdir.close()
    lines = [(w.path / "metrics.jsonl").read_bytes() for w in (with_it, without)]
    assert lines[0] == lines[1]
    assert not (without.path / "tensorboard").exists()


# Weights & Biases, by a stand-in for its server


class Server(types.ModuleType):
    """What wandb does with ids and steps: a run goes on after its last step, earlier ones warn."""

    def __init__(self):
        super().__init__("wandb")
        self.__spec__ = ModuleSpec("wandb", None)
        self.runs, self.active, self.offline = {}, None, False

    def Settings(self, **settings):
        return settings

    def init(self, *, project, group, name, id, resume, dir, config, settings):
        assert self.active is None, "the run before was not finished"
        assert resume == "allow"
        if self.offline or id not in self.runs:
            step, history = 0, []
        else:
            history = self.runs[id].history
            step = history[-1][0] + 1
        self.active = self.runs[id] = Run(self, project, group, name, config, history, step)
        return self.active


class Run:
    def __init__(self, server, project, group, name, config, history, step):
        self.server, self.history, self.step = server, history, step
        self.about = {"project": project, "group": group, "name": name, "config": config}

    def log(self, values, *, step):
        assert self.server.active is self
        assert step >= self.step, "steps must rise"
        self.step = step
        self.history.append((step, values))

    def finish(self):
        self.server.active = None


@pytest.fixture
def wandb(monkeypatch):
    server = Server()
    monkeypatch.setitem(sys.modules, "wandb", server)
    return server


def test_wandb_has_a_run_for_each_training(tmp_path, wandb):
    workdir = Workdir(tmp_path / "one", config("wandb", seed=3))
    log_steps(workdir, "denoiser", 10, 20)
    log_steps(workdir, "guidance/l2", 5)
    workdir.close()
    assert wandb.active is None
    runs = list(wandb.runs.values())
    assert [run.about["name"] for run in runs] == ["denoiser", "guidance/l2"]
    assert runs[0].history == [(10, {"loss": 1.25, "run": 0.0}), (20, {"loss": 2.5, "run": 0.0})]
    assert runs[1].history == [(5, {"loss": 0.625, "run": 0.0})]
    assert runs[0].about["group"] == "one"
    assert runs[0].about["config"] == configs.to_dict(config("wandb", seed=3))


@pytest.mark.parametrize("offline", [False, True])
def test_wandb_run_goes_on_where_a_training_was_resumed(tmp_path, wandb, offline):
    wandb.offline = offline
    log_steps(Workdir(tmp_path, config("wandb")), "l2", 10, 20, 30)
    wandb.active = None  # killed
    again = Workdir(tmp_path, config("wandb"))
    log_steps(again, "l2", 20, 30, 40)
    again.close()
    (run,) = wandb.runs.values()  # the same id, also from another process
    assert [step for step, _ in run.history] == [10, 20, 30, 40]
    assert [values["loss"] for _, values in run.history] == again.curve("l2", "loss")[1]


def test_both_at_once(tmp_path, wandb):
    workdir = Workdir(tmp_path, config("wandb", "tensorboard"))
    log_steps(workdir, "l2", 10)
    workdir.close()
    assert [len(run.history) for run in wandb.runs.values()] == [1]
    assert shown(tmp_path / "tensorboard" / "l2")["loss"] == [(10, 1.25)]


# Packages that are missing


def test_a_logger_whose_package_is_missing_is_left_out_by_name(tmp_path, monkeypatch, caplog):
    """The other one and metrics.jsonl have every step."""
    monkeypatch.setitem(sys.modules, "wandb", None)
    workdir = Workdir(tmp_path, config("wandb", "tensorboard"))
    log_steps(workdir, "l2", 10)
    workdir.close()
    (warning,) = caplog.messages
    assert warning.startswith("training.loggers: wandb is left out: expected the package wandb")
    assert "pip install 'lgd[logging]'" in warning
    assert shown(tmp_path / "tensorboard" / "l2")["loss"] == [(10, 1.25)]
    assert [line["step"] for line in read_lines(tmp_path / "metrics.jsonl")] == [10]


def test_no_logger_needs_no_package(tmp_path, monkeypatch):
    for package in loggers.PACKAGES.values():
        monkeypatch.setitem(sys.modules, package, None)
    workdir = Workdir(tmp_path, config())
    log_steps(workdir, "l2", 10)
    workdir.close()
    assert read_lines(tmp_path / "metrics.jsonl") == [
        {"training": "l2", "step": 10, "loss": 1.25, "run": 0.0}
    ]


def test_of_several_processes_only_the_first_one_logs(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "from_main", lambda compute: None)  # as in the other ones
    workdir = Workdir(tmp_path / "run", config("tensorboard"))
    log_steps(workdir, "l2", 10)
    workdir.close()
    assert not (tmp_path / "run").exists()


def test_pipeline_closes_the_loggers_of_a_stage_that_fails(tmp_path, monkeypatch):
    def stage(config, workdir, dataset):
        log_steps(workdir, "denoiser", 10)
        raise KeyError("stage")

    monkeypatch.setitem(pipeline._RUN, "denoiser", stage)
    with pytest.raises(KeyError, match="stage"):
        pipeline.run(config("tensorboard"), str(tmp_path), ["denoiser"])
    assert shown(tmp_path / "tensorboard" / "denoiser")["loss"] == [(10, 1.25)]
