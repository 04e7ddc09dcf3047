"""Files of a workdir that its functions wrote: kept, changed, exchanged, redone, and killed."""

import contextlib
import json
import os
import shutil
from pathlib import Path

import jax.numpy as jnp
import ledger_cases as cases
import numpy as np
import pytest

from configs import default
from experiments.workdir import Workdir, WorkdirError, write_text
from experiments.workdir.ledger import FileLedger
from lgd.data import Dataset, labelled
from lgd.evaluation import JournalError
from lgd.evaluation.journal import Journal
from lgd.machinery import storage

METHODS = ("l2", "trajectory")


def config(**fields):
    """The defaults with fields changed, "a.b" written a__b."""
    changed = default.get_config()
    values = {"guidance.methods": METHODS} | {k.replace("__", "."): v for k, v in fields.items()}
    changed.update_from_flattened_dict(values)
    return changed.lock()


def dataset(seed=0):
    x = np.arange(6, dtype=np.float32).reshape(3, 2) + seed
    return Dataset(*(labelled(x + i, np.arange(3, dtype=np.int32)) for i in range(3)), ("a", "b"))


def params(seed, *purpose):
    return {"w": np.random.default_rng([seed, *purpose]).normal(size=(3, 2)).astype(np.float32)}


def fill(workdir, seed=0):
    """Write what the stages of a run write, in their order, by the functions they use."""
    workdir.bind_data(dataset())
    for number, name in enumerate(("denoiser", "guidance/l2")):
        with workdir.timed(name), workdir.checkpoints(name) as store:
            log, restored = workdir.metrics(name), store.restore(params(seed))
            done = 0 if restored is None else restored.step
            for step in range(done + 10, 40, 10):
                log(step, {"loss": 1.0 / (step + seed)})
                store.save(step, params(seed, step), {"fingerprint": f"{name} {seed}"})
        workdir.save_params("denoiser" if name == "denoiser" else "guidance/l2-000030",
                            params(seed, number))  # fmt: skip
    folder = workdir.path / "statistics" / "held_out"
    folder.mkdir(parents=True, exist_ok=True)
    storage.write(folder / "shard", bytes([seed] * 20))
    workdir.note_folder(folder)
    workdir.save_params("guidance/l2-000020", params(seed, 3))
    journal = workdir.journal("measured", params(seed, 0))
    for key in ("one", "two", "three"):
        journal(key, lambda: {"metrics": [0.125 + seed, 1.0]})
    config = json.loads((workdir.path / "config.json").read_text())
    workdir.write_json(workdir.path / "results.json", {"config": config, "rows": [seed]})
    text = f"# report {seed}\n"
    workdir.write(workdir.path / "report" / "report.md", lambda file: write_text(file, text))
    workdir.close()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Runs of two seeds."""
    runs = [tmp_path_factory.mktemp(f"seed{seed}") / "run" for seed in range(2)]
    for seed, run in enumerate(runs):
        fill(Workdir(run, config(seed=seed)), seed)
    return runs


@pytest.fixture
def run(finished, tmp_path):
    """A copy of the first one."""
    return Path(shutil.copytree(finished[0], tmp_path / "run"))


def refusal(path, **settings):
    """What a start says, "" if it is not refused."""
    settings.setdefault("config", config())
    try:
        Workdir(path, **settings).bind_data(dataset())
    except WorkdirError as error:
        return str(error)
    return ""


# Changed and exchanged


@pytest.mark.slow
def test_every_file_is_refused_by_name_when_it_changed_or_is_another_ones(finished, run):
    assert {"LEDGER", "config.json", "data.json", "metrics.jsonl", "timings.jsonl"} <= {
        *cases.files(run)
    }
    assert list(cases.silent(run, finished[1], lambda: refusal(run))) == []


@pytest.mark.parametrize("folder", ["params", "checkpoints/denoiser", "statistics", "checkpoints"])
def test_folders_of_another_run_are_refused(finished, run, folder):
    for _ in cases.exchanged_folders(run, finished[1], [folder]):
        assert f"{run / folder}" in refusal(run)


def test_the_folder_of_another_training_is_refused(run):
    shutil.rmtree(run / "checkpoints" / "denoiser")
    shutil.copytree(run / "checkpoints" / "guidance" / "l2", run / "checkpoints" / "denoiser")
    assert "checkpoints/denoiser/LEDGER" in refusal(run)


def test_all_of_another_run_is_refused_by_the_config(finished, run):
    shutil.rmtree(run)
    shutil.copytree(finished[1], run)
    assert "seed: 1 -> 0" in refusal(run)
    shutil.copyfile(finished[0] / "config.json", run / "config.json")
    assert f"{run / 'LEDGER'}: expected the ledger of this run" in refusal(run)


def test_every_damaged_file_is_named_at_once_with_what_to_do(run):
    names = ("params/denoiser.safetensors", "results.json", "metrics.jsonl")
    for name in names:
        (run / name).write_bytes(cases.flipped((run / name).read_bytes(), 5))
    message = refusal(run)
    assert all(f"{run / name}: expected " in message for name in names)
    assert "--redo=STAGE" in message
    assert "--adopt" in message


@pytest.mark.parametrize("name", ["denoiser", "guidance/trajectory-000200", "features"])
def test_parameters_that_the_run_did_not_write_are_refused(run, name):
    storage.save_params(run / "params" / f"{name}.safetensors", params(5))
    assert f"params/{name}.safetensors: expected" in refusal(run)


@pytest.mark.parametrize("place", ["LEDGER", "results.json", "params/denoiser.safetensors"])
def test_a_folder_in_the_place_of_a_file_is_refused(run, place):
    (run / place).unlink()
    (run / place).mkdir()
    assert place.rpartition("/")[2] in refusal(run)


# Gone


@pytest.mark.parametrize(
    "name", ["config.json", "data.json", "params/denoiser.safetensors", "metrics.jsonl", "LEDGER"]
)
def test_a_file_that_is_gone_is_named(run, name):
    (run / name).unlink()
    assert name.rpartition("/")[2] in refusal(run)


@pytest.mark.parametrize("name", ["results.json", "measured.jsonl", "report"])
def test_what_is_made_again_may_be_deleted(run, name):
    shutil.rmtree(run / name) if (run / name).is_dir() else (run / name).unlink()
    assert refusal(run) == ""


def test_checkpoints_of_a_training_that_is_done_may_be_deleted_but_it_does_not_start_over(run):
    shutil.rmtree(run / "checkpoints" / "denoiser")
    workdir = Workdir(run, config())
    expected = "denoiser: expected the checkpoints that this run saved, found none"
    with pytest.raises(WorkdirError, match=expected), workdir.checkpoints("denoiser"):
        pass
    again = Workdir(run, config(), restart_damaged=True)
    with again.checkpoints("denoiser") as store:
        assert store.restore(params(0)) is None
        store.save(1, params(1))
    assert refusal(run) == ""


@pytest.mark.parametrize("emptied", [True, False])
def test_a_training_that_was_interrupted_does_not_start_over(tmp_path, emptied):
    run = tmp_path / "run"
    workdir = Workdir(run, config())
    with contextlib.suppress(KeyboardInterrupt), workdir.checkpoints("denoiser") as store:
        store.save(1, params(1))
        raise KeyboardInterrupt
    shutil.rmtree(run / "checkpoints" / "denoiser")
    if emptied:
        (run / "checkpoints" / "denoiser").mkdir()
    opened = contextlib.ExitStack()
    with pytest.raises(WorkdirError, match=r"checkpoints/denoiser"):
        opened.enter_context(Workdir(run, config()).checkpoints("denoiser"))


# Another config


def test_a_method_may_be_added_and_the_results_are_made_again(run):
    assert Workdir(run, config()).is_evaluated()
    longer = config(guidance__methods=("self_consistency", *METHODS))
    workdir = Workdir(run, longer)
    assert not workdir.is_evaluated()
    assert cases.files(run) == sorted({*cases.files(run), "results.json"})
    assert workdir.journal("measured", params(0, 0))("two", lambda: None) is not None
    assert "guidance.methods: " in refusal(run)  # taken away again
    assert refusal(run, config=longer) == ""


def test_a_family_may_be_added(run):
    families = (*default.get_config().evaluation.families, "linear")
    workdir = Workdir(run, config(evaluation__families=families))
    assert workdir.journal("measured", params(0, 0))("two", lambda: None) is not None


@pytest.mark.parametrize(
    ("fields", "redo"),
    [
        ({"guidance__one_step__num_steps": 600}, "guidance"),
        ({"guidance__one_step__num_steps": 600, "evaluation__test_seeds": 7}, "guidance"),
        ({"sampling__num_steps": 30}, "guidance"),
        ({"statistics__num_examples": 512}, "collect"),
        ({"evaluation__num_samples": 500}, "evaluate"),
    ],
)
def test_a_stage_is_redone_with_other_settings_and_what_comes_before_is_kept(run, fields, redo):
    changed = config(**fields)
    assert f"or --redo={redo}, which keeps what comes before" in refusal(run, config=changed)
    before = {*cases.files(run)}
    workdir = Workdir(run, changed, redo=redo)
    gone = before - {*cases.files(run)}
    assert "results.json" in gone
    assert ("params/guidance/l2-000030.safetensors" in gone) == (redo != "evaluate")
    assert ("statistics/held_out/shard" in gone) == (redo == "collect")
    shaped = any(field.startswith(("sampling", "evaluation")) for field in fields)
    assert ("measured.jsonl" in gone) == shaped
    assert (run / "params" / "denoiser.safetensors").exists()
    workdir.journal("measured", params(0, 0))
    assert refusal(run, config=changed) == ""


@pytest.mark.parametrize("fields", [{"seed": 1}, {"denoiser__width": 9}, {"schedule": "cosine"}])
def test_another_denoiser_is_another_run(run, fields):
    message = refusal(run, config=config(**fields), redo="denoiser")
    assert f"{next(iter(fields)).replace('__', '.')}: " in message
    assert "--redo" not in message


def test_a_damaged_stage_is_redone(run):
    name = "params/guidance/l2-000030.safetensors"
    (run / name).write_bytes(b"damaged")
    assert name in refusal(run)
    assert refusal(run, redo="guidance") == ""
    assert not (run / name).exists()
    assert refusal(run) == ""


# Taken as they are


def test_all_files_are_taken_as_they_are_and_named(run, caplog):
    storage.save_params(run / "params" / "classifier.safetensors", params(5))
    storage.save_params(run / "params" / "denoiser.safetensors", params(6))
    (run / "metrics.jsonl").unlink()
    assert "classifier" in refusal(run)
    assert refusal(run, adopt=True) == ""
    taken = [record.getMessage() for record in caplog.records if "as it is" in record.getMessage()]
    assert [Path(line.split()[0]).name for line in taken] == [
        *("classifier.safetensors", "denoiser.safetensors")
    ]
    assert refusal(run) == ""


def test_the_folder_of_an_older_version_is_taken_as_it_is(run):
    (run / "LEDGER").unlink()
    assert "LEDGER is missing" in refusal(run)
    assert refusal(run, adopt=True) == ""
    assert refusal(run) == ""
    assert Workdir(run, config()).is_evaluated()


# Kills


class Kill(BaseException):
    """Stands for the death of the process."""


@pytest.mark.slow
@pytest.mark.parametrize(
    "every",
    [40, pytest.param(9, marks=pytest.mark.slow), pytest.param(1, marks=pytest.mark.hour)],
)
def test_a_kill_at_every_write_and_rename_is_resumed(tmp_path, monkeypatch, every):
    """Whatever was begun, the same functions end with the same files, and no start is refused."""
    whole = tmp_path / "whole"
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # takes most of the time
    fill(Workdir(whole, config()))
    kept = [name for name in cases.files(whole) if _is_compared(name)]
    points = 0
    for limit in range(0, 10_000, every):
        run = tmp_path / "run"
        shutil.rmtree(run, ignore_errors=True)
        with monkeypatch.context() as patch:
            died = _dying(patch, limit)
            try:
                fill(Workdir(run, config()))
            except Kill:
                assert died
        if not died:
            break
        points += 1
        assert refusal(run) == ""
        fill(Workdir(run, config()))
        assert all((run / n).read_bytes() == (whole / n).read_bytes() for n in kept)
        assert refusal(run) == ""
    assert points > 100 / every


def _is_compared(name):
    return name not in ("LEDGER", "timings.jsonl") and "checkpoints" not in name


def _dying(patch, limit):
    """Let the process die at its ``limit``-th fsync or rename; whether it has."""
    died, left = [], iter(range(limit))

    def dying(function):
        def call(*args, **kwargs):
            if died or next(left, None) is None:
                died.append(True)
                raise Kill
            return function(*args, **kwargs)

        return call

    patch.setattr(os, "fsync", dying(os.fsync))
    patch.setattr(Path, "replace", dying(Path.replace))
    return died


# Journals


def lines_of(file):
    return file.read_text().splitlines(keepends=True)


@pytest.fixture
def journal(tmp_path):
    """A file of three measurements."""
    file = tmp_path / "measured.jsonl"
    kept = Journal(file, binding="mine")
    for key in ("one", "two", "three"):
        kept(key, lambda: 0.123456789)
    return file


def other_lines(tmp_path):
    other = Journal(tmp_path / "other.jsonl", binding="another")
    for key in ("one", "two", "three"):
        other(key, lambda: 0.5)
    return lines_of(tmp_path / "other.jsonl")


CHANGES = {
    "a digit": lambda own, other: [own[0], own[1].replace("1234", "1235"), own[2]],
    "the last digit": lambda own, other: [own[0].replace("789", "788"), *own[1:]],
    "a key": lambda own, other: [own[0].replace("one", "ono"), *own[1:]],
    "a space": lambda own, other: [own[0].replace(": ", ":  ", 1), *own[1:]],
    "lines exchanged": lambda own, other: [own[1], own[0], own[2]],
    "a line gone": lambda own, other: [own[0], own[2]],
    "the first line gone": lambda own, other: own[1:],
    "a line twice": lambda own, other: [own[0], own[0], *own[1:]],
    "a line of another denoiser": lambda own, other: [own[0], other[1], own[2]],
    "all of another denoiser": lambda own, other: other,
    "a line added by hand": lambda own, other: [*own, '{"key": "four", "value": 1}\n'],
    "a line of another denoiser added": lambda own, other: [*own, other[2]],
    "the last line break": lambda own, other: [*own[:2], own[2][:-1] + "\x0b"],
    "the last line break into a return": lambda own, other: [*own[:2], own[2][:-1] + "\r"],
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_line_that_changed_moved_or_belongs_to_others_is_refused_by_number(
    journal, tmp_path, change
):
    changed = "".join(CHANGES[change](lines_of(journal), other_lines(tmp_path)))
    assert changed != journal.read_text()
    journal.write_bytes(changed.encode())
    with pytest.raises(JournalError, match=r"measured.jsonl:\d: expected"):
        Journal(journal, binding="mine")
    assert journal.read_bytes() == changed.encode()


def test_any_cut_of_the_last_line_is_recovered(journal):
    whole = journal.read_bytes()
    start = whole.rindex(b"\n", 0, -1) + 1
    for end in range(start, len(whole)):
        journal.write_bytes(whole[:end])
        again = Journal(journal, binding="mine")
        assert ("three" in again, "two" in again) == (False, True)
        again("three", lambda: 0.123456789)
        assert journal.read_bytes() == whole


@pytest.mark.parametrize(
    "changed", [{"denoiser": 1}, {"sampling__num_steps": 9}, {"evaluation__num_samples": 9}]
)
def test_a_journal_is_of_one_denoiser_and_one_setting(tmp_path, changed):
    seed = changed.pop("denoiser", 0)
    path = tmp_path / "run"
    Workdir(path, config()).journal("transfer", params(0))("one", lambda: 1)
    workdir = Workdir(tmp_path / "other", config(**changed))
    shutil.copyfile(path / "transfer.jsonl", workdir.path / "transfer.jsonl")
    with pytest.raises(WorkdirError, match=r"transfer.jsonl:1: expected .*; or delete it"):
        workdir.journal("transfer", params(seed))


def test_params_on_devices_name_the_same_denoiser(run):
    on_device = {"w": jnp.asarray(params(0, 0)["w"])}
    assert "one" in Workdir(run, config()).journal("measured", on_device)


def test_a_file_is_safe_on_disk_before_the_ledger_knows_it_and_after(tmp_path, monkeypatch):
    """Whatever was not flushed since it changed may be lost with the power."""
    fsync, flushed = os.fsync, []

    def recorded(handle):
        path = Path(os.readlink(f"/proc/self/fd/{handle}"))
        flushed.append((path.relative_to(tmp_path).as_posix(), (tmp_path / "a/file").exists()))
        fsync(handle)

    ledger = FileLedger(tmp_path, "run")
    monkeypatch.setattr(os, "fsync", recorded)
    with ledger.writing(tmp_path / "a" / "file") as draft:
        draft.write_bytes(b"content")
    names = [name for name, _ in flushed]
    before = [name for name, is_there in flushed if not is_there]
    assert before[0] == "drafts/file"  # what is written, then the ledger that knows of it
    assert before[-1] == "."
    assert any(name.startswith("LEDGER") for name in before)
    assert names[len(before)] == "a"  # the folder, in which the file took its place
