"""The HTML report in a browser: nothing fails, the table sorts, methods switch, curves appear."""

import browser
import numpy as np
import pytest
from test_report import HOSTILE, full, row, weights

from lgd import report

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        browser.executable() is None,
        reason="needs Chromium: Debian's package chromium, or a Chrome on the path",
    ),
]


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """A tab with a page that has everything, in a light window."""
    folder = tmp_path_factory.mktemp("page")
    rows = [*full().rows[:2], row(HOSTILE, 1.0, 1.1)]
    made = full(
        rows=rows,
        weights=weights((HOSTILE, "dog", "cow"), seeds=3, names=("constant", HOSTILE)),
        files={HOSTILE: "a.safetensors"},
    )
    report.write(made, folder / "page.html")
    with browser.tab(folder / "profile") as tab:
        tab.look(prefers_color_scheme="light")
        tab.open(folder / "page.html")
        yield tab


def methods(tab):
    script = "[...document.querySelectorAll('#rows tbody .term')].map(n => n.textContent)"
    return tab.run(script)


def drawn(tab):
    script = (
        "[...document.querySelectorAll('#weights svg.plot path')].map(p => p.getAttribute('d'))"
    )
    return tab.run(script)


def choose(tab, name, value):
    tab.run(
        f"{{const n = document.querySelector('#weights select[name={name}]'); n.value = '{value}';"
        " n.dispatchEvent(new Event('change', {bubbles: true}))}"
    )


def click(tab, selector, index=0):
    tab.run(f"document.querySelectorAll({selector!r})[{index}].click()")


def test_headings_sort_the_table(shown):
    before = methods(shown)
    assert before == ["unguided", "constant", HOSTILE]
    click(shown, "#rows .sort", 1)
    assert methods(shown) == before[::-1]
    sorted_by = "document.querySelectorAll('#rows th')[1].getAttribute('aria-sort')"
    assert shown.run(sorted_by) == "ascending"
    click(shown, "#rows .sort", 1)
    assert methods(shown) == before
    assert shown.run(sorted_by) == "descending"


def test_what_a_word_means_is_shown_where_the_keyboard_or_the_mouse_is(shown):
    shown.run("document.querySelector('#rows .term').focus()")
    tip = "document.querySelector('#tip').hidden ? '' : document.querySelector('#tip').textContent"
    assert shown.run(tip).startswith("Plain conditional sampling")
    shown.run("document.activeElement.blur()")
    assert shown.run(tip) == ""


def test_curves_are_those_of_the_choice(shown):
    assert len(drawn(shown)) == 1 + 2 + 3 + 1  # axes, constant with band, conditions, their mean
    choose(shown, "condition", "mean")
    assert len(drawn(shown)) == 1 + 2 + 2  # both have a band over seeds
    choose(shown, "method", "all")
    choose(shown, "condition", "1")
    one = drawn(shown)
    assert len(one) == 5
    for axis in range(4):
        click(shown, "#weights input[name=axis]", axis)
        assert all("NaN" not in d for d in drawn(shown))
        assert drawn(shown) != one or axis == 3


def test_pictures_of_methods_switch(shown):
    script = "[...document.querySelectorAll('.panel.shown figcaption')].map(n => n.textContent)"
    assert shown.run(script) == ["learned:l2"]
    label = "document.querySelector('.switches label')"
    shown.run(f"{label}.dispatchEvent(new Event('mouseenter'))")
    assert shown.run(script) == ["unguided"]
    shown.run(f"{label}.dispatchEvent(new Event('mouseleave'))")
    assert shown.run(script) == ["learned:l2"]
    click(shown, ".switches input", 0)
    assert shown.run(script) == ["unguided"]


def test_trade_offs_have_a_point_for_every_row(shown):
    marks = "document.querySelectorAll('#tradeoff circle, #tradeoff svg rect').length"
    assert shown.run(marks) == 3


def test_the_page_is_dark_where_the_system_is_and_where_the_switch_says_so(shown):
    ground = "getComputedStyle(document.body).backgroundColor"
    assert shown.run(ground) == "rgb(255, 255, 255)"
    shown.look(prefers_color_scheme="dark")
    assert shown.run(ground) == "rgb(22, 24, 29)"
    click(shown, "#theme")
    assert shown.run(ground) == "rgb(255, 255, 255)"
    shown.look(prefers_color_scheme="light")
    click(shown, "#theme")
    assert shown.run(ground) == "rgb(22, 24, 29)"


def test_a_picture_is_taken_and_paper_shows_all_methods(shown, tmp_path):
    assert shown.picture()[:8] == b"\x89PNG\r\n\x1a\n"
    assert len(shown.pdf()) > 20_000
    shown.call("Emulation.setEmulatedMedia", media="print")
    visible = "[...document.querySelectorAll('.panel')].filter(n => n.offsetWidth).length"
    assert shown.run(visible) == 2
    assert shown.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    shown.call("Emulation.setEmulatedMedia", media="")


def test_a_window_of_a_telephone_has_no_sideways_scrolling(shown):
    shown.look(width=390)
    assert shown.run("document.documentElement.scrollWidth <= innerWidth")
    shown.look()


@pytest.mark.parametrize("steps", [1, 2])
def test_few_steps_and_one_class_are_drawn(shown, tmp_path, steps):
    omega = {"learned:l2": np.full((1, 1, steps), 0.5)}
    axes = {"t": np.linspace(1.0, 0.5, steps), "step": np.arange(1.0, steps + 1.0)}
    few = report.Weights(axes=axes, conditions=["all"], omega=omega)
    report.write(full(weights=few), tmp_path / "few.html")
    shown.open(tmp_path / "few.html")
    assert drawn(shown)
    assert all("NaN" not in d for d in drawn(shown))


def test_no_script_of_others_runs_and_nothing_is_fetched_or_complained_of(shown):
    """The last: of all that was done before."""
    assert [r for r in shown.requests if not r.startswith(("data:", "file:"))] == []
    assert shown.problems == []
