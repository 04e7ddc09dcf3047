"""The HTML report without a browser: what it says, that it is HTML, and that nothing gets in."""

import json
import math
import re
import subprocess
import sys
import zipfile
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from lgd import evaluation, report
from lgd.report import colours, markup

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "experiments" / "results" / "fashion_mnist-middle.json"
HOSTILE = "</script><script>alert(1)</script><img src=x onerror='alert(2)'>\"&"
_ERRORS = "beyond two standard errors"


def row(method, *values, name="frechet_distance", **more):
    summary = evaluation.summary(values)
    return {"method": method, "params": {}, "metrics": {name: summary}, "nfe": 50.0, **more}


def weights(conditions=("cat", "dog"), steps=3, seeds=1, names=("constant", "learned:l2")):
    shape = (seeds, len(conditions), steps)
    axes = {
        "t": np.linspace(1.0, 0.1, steps),
        "sigma": np.linspace(1.0, 0.1, steps),
        "step": np.arange(1.0, steps + 1.0),
        "logsnr": np.append(math.nan, np.linspace(-3.0, 3.0, steps - 1)),
    }
    rng = np.random.default_rng(0)
    return report.Weights(
        axes=axes, conditions=conditions, omega={name: rng.uniform(size=shape) for name in names}
    )


def page(**changes):
    rows = [
        row("unguided", 3.0, 3.2, 3.1, nfe=25.0),
        row("constant", 2.0, 2.2, 2.1) | {"params": {"w": 0.5}},
        row("learned:l2", 1.0, 1.2, 1.1) | {"params": {"step": 20}},
    ]
    given = {"title": "a run", "rows": rows, "primary_metric": "frechet_distance"}
    return report.Page(**given | changes)


def full(name="cat", **changes):
    picture = np.linspace(0.0, 1.0, 12 * 8 * 3).reshape(12, 8, 3)
    more = {
        "weights": weights((name, "dog")),
        "samples": report.Samples(
            pictures={"unguided": picture, "learned:l2": 1.0 - picture}, rows=(name, "dog")
        ),
        "seconds": {"learned:l2": 90.0, "tune": 600.0},
        "files": {"learned:l2": "guidance/l2.safetensors"},
        "config": {"data": {"name": "shapes"}, "seed": 0},
        "command": "python -m experiments.run",
    }
    return page(**more | changes)


class Checker(HTMLParser):
    """Elements of a page, which must be closed in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.words, self.text = [], [], [], ""
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        names = [name for name, _ in attrs]
        assert len(set(names)) == len(names)
        self.elements.append((tag, dict(attrs)))
        if tag not in markup.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "script" not in self.open and "style" not in self.open:
            self.words.append(data)


def checked(text):
    """A page that is HTML, names things once, and asks for nothing from elsewhere."""
    found = Checker(text)
    ids = [attrs["id"] for _, attrs in found.elements if "id" in attrs]
    assert len(set(ids)) == len(ids)
    for tag, attrs in found.elements:
        assert not [name for name in attrs if name.startswith("on")]
        assert "href" not in attrs
        assert attrs.get("src", "data:").startswith("data:"), attrs["src"]
        assert tag not in ("link", "iframe", "object", "embed", "base", "form")
        for name in ("aria-describedby", "aria-labelledby"):
            assert name not in attrs or attrs[name] in ids
    assert not re.search(r"@import|url\(", text)
    assert len(text.encode()) < report.MAX_BYTES
    return found


def data_of(text):
    block = re.search(r'<script type="application/json" id="data">(.*?)</script>', text).group(1)
    return json.loads(block, parse_constant=lambda word: pytest.fail(word))


def lead(*rows, **changes):
    found = report.conclude(rows, metric="frechet_distance", **changes)
    return found, " ".join([found.lead, *found.sentences])


# What it says


def test_a_learned_row_that_wins_says_by_how_much_and_at_what_cost():
    rows = page().rows
    found, said = lead(*rows, seconds={"learned:l2": 90.0, "tune": 600.0})
    assert found.verdict == "learned wins"
    assert "1.100 ± 0.058 is 47.6% below that of the best hand-made row, constant" in found.lead
    assert f"a difference of 1, {_ERRORS}" in said
    assert "Against unguided sampling (3.100 ± 0.058), learned:l2 is 64.5% lower" in said
    assert "learned:l2 costs 50 network calls (constant 50, unguided 25)." in said
    assert "took 90 seconds; tuning all hand-made schedules took 10.0 minutes." in said


def test_a_tie_is_called_a_tie():
    found, said = lead(row("constant", 2.0, 2.4, 2.2), row("learned:l2", 2.1, 2.2, 2.1))
    assert found.verdict == "a tie"
    assert "cannot be told apart" in found.lead
    assert "within two standard errors" in said


def test_a_loss_names_the_hand_made_row_first():
    found, _ = lead(
        row("constant", 1.0, 1.1), row("learned:l2", 2.0, 2.1), row("unguided", 3.0, 3.1)
    )
    assert found.verdict == "hand-made wins"
    assert found.lead.startswith("The best hand-made row, constant, is ahead: ")
    assert "48.8% below that of learned:l2" in found.lead


def test_no_guidance_can_be_best():
    found, _ = lead(
        row("unguided", 1.0, 1.1), row("constant", 2.0, 2.1), row("learned:l2", 3.0, 3.1)
    )
    assert found.verdict == "unguided wins"
    assert found.lead.startswith("unguided is ahead: ")


def test_more_can_be_better():
    rows = [row("constant", 0.5, 0.51, name="accuracy"), row("mine", 0.7, 0.71, name="accuracy")]
    found = report.conclude(rows, metric="accuracy", lower_is_better=False)
    assert found.verdict == "given wins"
    assert "39.6% above" in found.lead


def test_errors_of_real_examples_count_too_and_pairs_work_both_ways():
    pair = {"metric": "frechet_distance", "mean": 1.0, "standard_error": 0.01, "real_error": 0.6}
    rows = [row("constant", 2.0, 2.0), row("learned:l2", 1.0, 1.0)]
    for names, sign in ((("constant", "learned:l2"), 1), (("learned:l2", "constant"), -1)):
        each = pair | {"method": names[0], "against": names[1], "mean": float(sign)}
        found, said = lead(*rows, comparisons=[each])
        assert found.verdict == "a tie"
        assert "within two standard errors (1.2)" in said
        found, _ = lead(*rows, comparisons=[each | {"real_error": None}])
        assert found.verdict == "learned wins"


def test_one_row_and_one_seed_claim_nothing():
    found, said = lead(row("unguided", 1.0))
    assert (found.verdict, "nothing to compare" in said) == ("one row", True)
    found, said = lead(row("constant", 2.0), row("learned:l2", 1.0))
    assert (found.verdict, "error is not known" in said) == ("undecided", True)
    found, _ = lead(row("unguided", math.nan, 1.0))
    assert found.lead == "No row has a finite Fréchet distance."


def test_rows_that_are_not_finite_are_named_and_left_out():
    found, said = lead(row("constant", 2.0, 2.1), row("learned:l2", math.nan, 1.0))
    assert (found.verdict, "left out here: learned:l2" in said) == ("one row", True)


def test_differences_by_other_metrics_are_told_apart():
    good, bad, near = (0.9, 0.91), (0.1, 0.11), (0.5, 0.6)
    metrics = ("frechet_distance", "accuracy", "recall", "precision", "mine")
    ours, theirs = (
        {"method": method, "metrics": dict(zip(metrics, map(evaluation.summary, v), strict=True))}
        for method, v in (
            ("learned:l2", (bad, good, bad, near, good)),
            ("constant", (good, bad, good, near, bad)),
        )
    )
    _, said = lead(ours, theirs)
    assert "constant: better in accuracy; worse in recall; within the errors: precision." in said


# What the page is


@pytest.mark.parametrize(
    "made",
    [
        page(),
        full(),
        page(rows=page().rows[:1]),
        page(rows=[row("unguided", math.nan, 1.0), row("learned:l2", 2.0)]),
        page(weights=weights(("all",))),
        page(weights=weights(steps=2, seeds=3)),
        page(weights=weights(tuple(map(str, range(100))))),
    ],
    ids=["plain", "full", "one row", "NaN", "one class", "seeds of training", "100 classes"],
)
def test_a_page_is_html_whatever_it_has(made):
    checked(report.render(made))
    assert report.render(made) == report.render(made)


def test_numbers_equal_those_of_the_results():
    results = json.loads(RESULTS.read_text("utf-8"))
    made = page(rows=results["rows"], comparisons=results["comparisons"])
    text = report.render(made)
    data = data_of(text)
    assert data["rows"] == results["rows"]
    assert data["comparisons"] == results["comparisons"]
    values = [e["data-value"] for tag, e in checked(text).elements if tag == "td" and len(e) == 2]
    for each in results["rows"]:
        for metric in each["metrics"].values():
            assert repr(metric["mean"]) in values
    shown = {each["key"]: each["values"] for each in data["quantities"]}
    assert [v["mean"] for v in shown["recall"]] == [
        each["metrics"]["recall"]["mean"] for each in results["rows"]
    ]


def test_bands_are_over_conditions_and_curves_over_seeds():
    omega = np.arange(24.0).reshape(3, 4, 2)
    made = page(
        weights=report.Weights(
            axes={"t": [1.0, 0.5]}, conditions=list("abcd"), omega={"learned:l2": omega}
        )
    )
    (found,) = data_of(report.render(made))["weights"]["methods"]
    np.testing.assert_allclose(found["mean"], omega.mean(axis=1))
    np.testing.assert_allclose(found["each"], omega.transpose(1, 0, 2))
    np.testing.assert_allclose(found["low"], np.quantile(omega.mean(axis=0), 0.05, axis=0))
    assert "± one standard deviation over 3 training seeds" in report.render(made)


def test_curves_of_several_directions_are_dashed_where_their_row_is_hand_made():
    names = ("constant", "constant (weak)", "learned:l2, away from weak", "constants of mine")
    found = data_of(report.render(page(weights=weights(names=names))))["weights"]["methods"]
    assert [bool(each["dashes"]) for each in found] == [True, True, False, False]
    assert [each["learned"] for each in found] == [False, False, True, True]


def test_hostile_names_are_text_and_no_markup():
    rows = [*page().rows[:2], row(HOSTILE, 1.0, 1.1)]
    rows[2]["params"] = {HOSTILE: 1.0}
    made = full(
        HOSTILE,
        title=HOSTILE,
        about=HOSTILE,
        rows=rows,
        weights=weights((HOSTILE, "dog"), names=("constant", HOSTILE)),
        files={HOSTILE: HOSTILE},
        config={HOSTILE: HOSTILE},
        command=HOSTILE,
        notes=[HOSTILE],
    )
    found, plain = checked(report.render(made)), checked(report.render(full()))
    scripts = [tag for tag, _ in found.elements if tag == "script"]
    assert len(scripts) == 2
    assert {tag for tag, _ in found.elements} <= {tag for tag, _ in plain.elements}
    assert len([t for t, _ in found.elements if t == "img"]) == 2
    assert "".join(found.words).count("<script>alert(1)</script>") > 5
    assert data_of(report.render(made))["weights"]["conditions"][0] == HOSTILE


def test_pictures_are_made_smaller_until_they_fit(monkeypatch):
    noise = np.random.default_rng(0).uniform(size=(256, 256, 3))
    pictures = dict.fromkeys(("unguided", "learned:l2"), noise)
    monkeypatch.setattr("lgd.report.page._PICTURES", 40_000)
    text = report.render(page(samples=report.Samples(pictures=pictures)))
    sources = [e["src"] for tag, e in checked(text).elements if tag == "img"]
    assert all(source.startswith("data:image/jpeg") for source in sources)
    assert sum(map(len, sources)) <= 40_000


def test_what_is_no_page_is_refused(tmp_path):
    with pytest.raises(ValueError, match="rows with a name of their own"):
        report.render(page(rows=[]))
    with pytest.raises(ValueError, match="rows with a name of their own"):
        report.render(page(rows=[row("same", 1.0), row("same", 2.0)]))
    with pytest.raises(ValueError, match="at most 5242880 bytes"):
        report.render(page(about="x" * report.MAX_BYTES))
    with pytest.raises(ValueError, match="omega of mine: expected"):
        report.Weights(axes={"t": [1.0]}, conditions=["a"], omega={"mine": [[1.0, 2.0]]})
    with pytest.raises(ValueError, match="axes: expected some of"):
        report.Weights(axes={"time": [1.0]}, conditions=["a"], omega={})
    report.write(page(), tmp_path / "new" / "page.html")
    assert (tmp_path / "new" / "page.html").read_text("utf-8").startswith("<!DOCTYPE html>")


def test_lines_can_be_seen_on_light_and_dark():
    for name in ("clamp_linear", "unguided", "learned:l2", "mine"):
        light, dark = re.findall("#[0-9a-f]{6}", colours.of_method(name))
        assert colours.contrast(light, "#ffffff") >= 3.0
        assert colours.contrast(dark, "#16181d") >= 3.0
    assert colours.contrast("#000000", "#ffffff") == pytest.approx(21.0)


def test_words_on_the_page_have_contrast():
    """WCAG 2.2, 1.4.3: 4.5 to 1, of text on everything it lies on."""
    css = (ROOT / "lgd/report/assets/style.css").read_text("utf-8")
    pairs = dict(re.findall(r"--(\w+): light-dark\((#\w{6}, #\w{6})\)", css))
    for side in (0, 1):
        of = {name: pair.split(", ")[side] for name, pair in pairs.items()}
        for text in ("text", "quiet", "accent"):
            for ground in ("ground", "card", "mark"):
                assert colours.contrast(of[text], of[ground]) >= 4.5, (text, ground, side)


@pytest.mark.slow
def test_the_wheel_has_style_and_scripts(tmp_path):
    words = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "-w",
        str(tmp_path),
        str(ROOT),
    ]
    subprocess.run(words, check=True, timeout=300)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    here = {f"lgd/report/assets/{each.name}" for each in (ROOT / "lgd/report/assets").iterdir()}
    assert here
    assert here <= set(names)
