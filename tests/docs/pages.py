"""The pages of docs/, and what stands in them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_FENCE = re.compile(r"^(?P<indent> *)```(?P<kind>\w*)\n(?P<body>.*?)^ *```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_CODE = re.compile(r"`([^`\n]+)`")
_NAMED_FILE = re.compile(r"`([\w/]+\.\w+)`[^`]*?:\n\n```\w+\n(.*?)```", re.DOTALL)
_TABLE_ROW = re.compile(r"^\| (\d+) \| `([0-9a-f ]+)` \|", re.MULTILINE)


@dataclass(frozen=True)
class Fence:
    """One fenced block."""

    kind: str
    body: str


@dataclass(frozen=True)
class Page:
    """One Markdown file."""

    path: Path
    text: str

    @property
    def fences(self) -> list[Fence]:
        return [Fence(found["kind"], found["body"]) for found in _FENCE.finditer(self.text)]

    @property
    def prose(self) -> str:
        """Everything outside of fences."""
        return _FENCE.sub("", self.text)

    @property
    def links(self) -> list[str]:
        return _LINK.findall(self.prose)

    @property
    def anchors(self) -> set[str]:
        """The anchors of its headings: lower case, words joined by hyphens, other signs left out."""
        plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in _HEADING.findall(self.prose))
        return {heading.replace(" ", "-") for heading in plain}

    @property
    def commands(self) -> list[str]:
        """What a reader may type: the lines of blocks without a language, and inline code."""
        lines = [line.strip() for fence in self.fences if not fence.kind for line in fence.body.splitlines()]
        return [*lines, *_CODE.findall(self.prose)]

    @property
    def named_files(self) -> dict[str, str]:
        """Blocks that are introduced as the content of a file."""
        return dict(_NAMED_FILE.findall(self.text))

    def bytes_of(self, name: str) -> list[tuple[int, bytes]]:
        """(offset, bytes) of the table below the mark `<!-- bytes: name -->`."""
        table = self.text.partition(f"<!-- bytes: {name} -->")[2].partition("\n#")[0].partition("```")[0]
        return [(int(offset), bytes.fromhex(written)) for offset, written in _TABLE_ROW.findall(table)]


def read_page(path: Path) -> Page:
    """The page at a path."""
    return Page(path, path.read_text())


def all_pages(root: Path) -> list[Page]:
    """The README and every page of docs/."""
    return [read_page(path) for path in [root / "README.md", *sorted((root / "docs").rglob("*.md"))]]
