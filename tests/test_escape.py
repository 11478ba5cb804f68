"""Text from outside in a terminal, a markdown page and a web page."""

from __future__ import annotations

import pytest

from unlearnbench.escape import html, markdown, markdown_link, terminal, url


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ± 1\n\tnext", "plain ± 1\n\tnext"),
        ("\x1b[2J\x07\r", r"\x1b[2J\x07\x0d"),
        ("\x9b31m", r"\x9b31m"),
        ("abc\u202edef\u2066\u200b\ufeff", r"abc\u202edef\u2066\u200b\ufeff"),
        ("caf\udce9", r"caf\udce9"),
    ],
)
def test_what_steers_a_terminal_is_spelled_out(text: str, shown: str) -> None:
    assert terminal(text) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("tolnrc_kd 57.53 ± 0.63", "tolnrc_kd 57.53 ± 0.63"),
        ("<script>alert(1)</script>", "&lt;script>alert(1)&lt;/script>"),
        ("![y](http://e.x/y)", r"!\[y\](http:&#47;&#47;e.x/y)"),
        ("[x](javascript:alert(1))", r"\[x\](javascript:alert(1))"),
        ("a|b\n| c |", r"a\|b \| c \|"),
        ("*a* _b_ `c` ~~d~~ $e$", r"\*a\* \_b\_ \`c\` \~\~d\~\~ \$e\$"),
        ("a\\", "a\\\\"),
        ("www.e.x", "www&#46;e.x"),
        ("&#60;b&gt; & co", "&amp;#60;b&amp;gt; & co"),
        ("# a", r"\# a"),
        ("1. a", r"1\. a"),
        ("> a", r"\> a"),
        ("a\x1b[31m", r"a\\x1b\[31m"),
    ],
)
def test_markdown_shows_text_as_it_is(text: str, shown: str) -> None:
    assert markdown(text) == shown


def test_a_link_leads_to_its_file_alone() -> None:
    assert markdown_link("a](b", "c) d/e.md#L3") == r"[a\](b](c%29%20d/e.md#L3)"
    assert url("javascript:alert(1)") == "javascript%3Aalert%281%29"


def test_html_has_no_elements_and_attributes_end_where_they_should() -> None:
    assert html("\"><script>'&\x1b") == r"&quot;&gt;&lt;script&gt;&#x27;&amp;\x1b"
