"""Texts from a repository, made fit for Markdown: whatever they hold, they show as themselves and do nothing.

GitHub reads a comment as Markdown, then as HTML, then looks for @mentions, #numbers and addresses. Signs that mean
something to the first two become character references, which are never structure; the others are broken by an
invisible sign.
"""

from __future__ import annotations

import re
from html import escape

from actor_risk.reporting.words import lines, one_line

_PLAIN_CODE = re.compile(r"[\w :./,→=+%()\-–…'\"@#]+")
"""What may stand between backticks as it is, in a table too."""
_MEANT = re.compile(r"[&<>|`*\[\]~\\$]|_(?![0-9A-Za-z])|(?<![0-9A-Za-z])_")
_MENTION = re.compile(r"(?<=[@#])(?=\w)")
_ADDRESS = re.compile(r"(?i)://|(?<=\bwww)\.|(?<=\bgh)-")
_INVISIBLE = "&#8203;"


def prose(text: str, length_max: int = 600) -> str:
    """A text on one line; what it has between backticks is shown as code."""
    parts = one_line(text, length_max).split("`")
    if len(parts) % 2 == 0:
        return _words("`".join(parts))
    return "".join(code(part) if place % 2 and part.strip() else _words(part) for place, part in enumerate(parts))


def code(text: str, length_max: int = 200) -> str:
    """A name as code on one line; GitHub looks for no mention in it."""
    name = one_line(text, length_max)
    if _PLAIN_CODE.fullmatch(name):
        return f"`{name}`"
    return f"<code>{_references(name)}</code>" if name else ""


def block(text: str, length_max: int = 2_000) -> str:
    """Lines of code as they are."""
    return f"<pre>{escape(lines(text, length_max), quote=False)}</pre>"


def _words(text: str) -> str:
    broken = _MENTION.sub("\N{ZERO WIDTH SPACE}", text)
    escaped = _MEANT.sub(lambda found: f"&#{ord(found[0])};", broken)
    return _ADDRESS.sub(lambda found: _reference(found[0]), escaped).replace("\N{ZERO WIDTH SPACE}", _INVISIBLE)


def _references(text: str) -> str:
    return "".join(sign if sign.isalnum() or sign == " " else f"&#{ord(sign)};" for sign in text)


def _reference(text: str) -> str:
    return "".join(f"&#{ord(sign)};" for sign in text)
