"""Text from outside, made safe for where it goes: a terminal, a markdown page, a web page."""

from __future__ import annotations

import html as standard
import re
from urllib.parse import quote

# Control characters, those that turn or hide text, and surrogates, which no encoding can write.
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")
# An underscore within a word is no mark in GitHub's markdown, and a mark at the start makes a list or a heading.
_MARKS = re.compile(r"[\\`*\[\]~|$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|^>|^(?:#+|[+-]|\d+(?=[.)]))(?=[.)]? )")
_ENTITY = re.compile(r"&(?=#|[A-Za-z][A-Za-z0-9]*;)")


def terminal(text: str) -> str:
    """Return text that cannot steer a terminal: what is not to be seen is spelled out, line breaks and tabs stay."""
    return _UNSEEN.sub(lambda found: _spelled(found[0]), text)


def _spelled(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def one_line(text: str) -> str:
    """Return text with every run of white space replaced by one space."""
    return " ".join(text.split())


def html(text: str) -> str:
    """Return text as HTML, for the content of an element or an attribute in quotes."""
    return standard.escape(terminal(text))


def markdown(text: str) -> str:
    """Return text as one line that GitHub's markdown shows as it is, within a paragraph or a cell of a table."""
    found = terminal(one_line(text))
    found = _ENTITY.sub("&amp;", found).replace("<", "&lt;")
    found = _MARKS.sub(lambda mark: mark[0] + "\\" if mark[0].isdigit() else "\\" + mark[0], found)
    # Otherwise addresses become links by themselves.
    return re.sub(r"(?i)\bwww\.", lambda start: f"{start[0][:-1]}&#46;", found.replace("://", ":&#47;&#47;"))


def markdown_link(text: str, target: str) -> str:
    """Return a link in a markdown page.

    Args:
        text: Text from outside.
        target: Path of a file, perhaps with an anchor.
    """
    return f"[{markdown(text)}]({url(target)})"


def url(path: str) -> str:
    """Return a path, perhaps with an anchor, as a page's links have it."""
    return quote(path, safe="/#", errors="replace")
