"""What the pages say is there."""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from actor_risk.cli._main import COMMANDS
from tests.docs.pages import Page, all_pages, read_page

ROOT = Path(__file__).resolve().parents[2]
PAGES = {str(page.path.relative_to(ROOT)): page for page in all_pages(ROOT)}
TOP_FOLDERS = ("actor_risk", "bench", "docs", "feature_repo", "materialize", "models", "serving", "tests")


@pytest.fixture(params=list(PAGES.values()), ids=list(PAGES))
def page(request: pytest.FixtureRequest) -> Page:
    """Each page in turn."""
    found: Page = request.param
    return found


def test_every_link_between_pages_leads_somewhere(page: Page) -> None:
    for link in page.links:
        target, _, anchor = link.partition("#")
        if "://" in target:
            continue
        path = (page.path.parent / target).resolve() if target else page.path
        assert path.exists(), f"{link} leads nowhere"
        assert path.is_relative_to(ROOT), f"{link} leads out of the project"
        if anchor:
            assert anchor in read_page(path).anchors, f"{link}: no such heading"


def test_every_page_is_in_the_index() -> None:
    index = PAGES["docs/README.md"]
    listed = {(index.path.parent / link).resolve() for link in index.links}
    pages = {page.path for page in PAGES.values()} - {ROOT / "README.md", index.path}
    assert pages == listed


def test_every_command_of_ours_exists(page: Page) -> None:
    for command in _words_after(page, r"actor-risk"):
        assert command in COMMANDS, f"`actor-risk {command}` is no command"


def test_every_make_target_exists(page: Page) -> None:
    makefile = (ROOT / "Makefile").read_text()
    phony = set(re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[1].split())  # type: ignore[index]
    for target in _words_after(page, r"make"):
        assert target in phony, f"`make {target}` is no target"


def test_every_option_of_our_commands_exists(page: Page) -> None:
    for command in page.commands:
        words = command.split("#")[0].split()
        if words[:1] != ["actor-risk"] or len(words) < 2 or words[1] not in COMMANDS:
            continue
        source = (ROOT / "actor_risk" / "cli" / f"{COMMANDS[words[1]][0]}.py").read_text()
        for option in (word for word in words[2:] if word.startswith("--")):
            assert option == "--help" or f'"{option}' in source, f"{command}: no option {option}"


def test_every_file_of_ours_that_is_named_exists(page: Page) -> None:
    for word in page.commands:
        for path in re.findall(rf"(?<![\w/.])(?:{'|'.join(TOP_FOLDERS)})/[\w./-]*\w", word):
            made_by_the_reader = path == "feature_repo/payout_views.py"
            assert made_by_the_reader or (ROOT / path).exists(), f"{path} is not there"


def test_python_in_the_pages_compiles(page: Page) -> None:
    for fence in page.fences:
        if fence.kind == "python":
            ast.parse(textwrap.dedent(fence.body))


def _words_after(page: Page, program: str) -> Iterator[str]:
    """The first argument of each call of a program, options and placeholders aside."""
    for command in page.commands:
        found = re.match(rf"{program} ([a-z][\w-]*)", command)
        if found:
            yield found[1]
