"""Texts of any origin in Markdown, compared with what a renderer makes of them."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from lgd.machinery.words import cell, code, one_line

MARKDOWN = MarkdownIt("commonmark").enable(["table", "strikethrough"])
PIECES = st.sampled_from(
    [
        *("a", "_", "*", "**", "`", "|", "\\", "<b>", "&amp;", "[a](b)", "![a](b)", "~~", "$x$"),
        *(
            "\n",
            " ",
            "<!--",
            "http://a.b",
            "#",
            "-",
            "1.",
            ":",
            "&lt;",
            "\\|",
            "<script>",
            "]",
            "é",
        ),
    ]
)
TEXTS = st.lists(PIECES, min_size=1, max_size=12).map("".join) | st.text(min_size=1, max_size=20)
FUZZ = settings(max_examples=300, deadline=None, database=None)


def rows(text):
    """The texts of the cells of a table, row by row; markup in a cell fails."""
    found = []
    for token in MARKDOWN.parse(text):
        if token.type == "tr_open":
            found.append([])
        elif token.type == "inline":
            assert {child.type for child in token.children} <= {"text", "text_special"}, text
            found[-1].append("".join(child.content for child in token.children))
        else:
            assert token.type.startswith(("table", "thead", "tbody", "tr", "th", "td")), text
    return found


@FUZZ
@given(TEXTS)
@example("a|b")
@example("a\\|b")
@example("*a* _b_ <i>c</i> `d` [e](f)")
def test_a_cell_shows_the_text_and_nothing_else(text):
    shown = one_line(text)
    table = f"| a | b |\n| --- | --- |\n| {cell(text)} | end |\n"
    assert rows(table) == [["a", "b"], [shown, "end"]]


@pytest.mark.parametrize("text", ["limited_interval(2, 0, 0.4)", "learned:self_consistency"])
def test_usual_names_stay_as_they_are(text):
    assert cell(text) == text


@FUZZ
@given(TEXTS)
@example("a `b` ``c``")
@example("`")
def test_code_shows_the_text_and_nothing_else(text):
    line = one_line(text)
    (paragraph,) = (
        token for token in MARKDOWN.parse(f"By {code(text)}.") if token.type == "inline"
    )
    kinds = [child.type for child in paragraph.children]
    assert kinds == ["text", "code_inline", "text"]
    assert paragraph.children[1].content == line
