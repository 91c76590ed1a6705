"""README and docs keep their word: commands run, options exist, the generated pages are those of today's code."""

import os
import re
import shutil
import subprocess
import sys
from contextlib import nullcontext
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer

from spheroidd.daemon.cli.console import app
from tests.daemon.cli.command_document import PATH as COMMAND_PAGE
from tests.daemon.cli.command_document import command_page
from tests.documentation import PAGES, Fence, commands, fences
from tests.places import DOCS, EXAMPLES, ROOT
from tests.warm_start import on_the_path

_LANGUAGES = {"sh", "toml", "csv", "text", "python", "json", "sql"}
_MAX_README_LINES = 150


def _name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def _executed(page: Path, *, slow: bool) -> list[Fence]:
    wanted = {"", "slow"} if slow else {""}
    return [fence for fence in fences(page) if fence.language == "sh" and fence.mark in wanted]


def _run_page(page: Path, folder: Path, *, slow: bool) -> None:
    """Write the page's files and run its commands in their order, in a folder with the examples beside it."""
    shutil.copytree(EXAMPLES, folder / "examples")
    for fence in fences(page):
        if fence.title:
            (folder / fence.title).write_text(fence.text, encoding="utf-8")
    installed = Path(sys.executable).parent
    # Slow commands are those that are installed; of the others each would import the same anew.
    with nullcontext(installed) if slow else on_the_path() as first:
        environment = {**os.environ, "PATH": os.pathsep.join(map(str, (first, installed, os.environ["PATH"])))}
        for fence in _executed(page, slow=slow):
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", fence.text],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=280,
            )
            assert done.returncode == 0, f"{fence} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"


@pytest.mark.skipif(shutil.which("bash") is None, reason="the pages' commands are written for a POSIX shell")
@pytest.mark.parametrize("page", [page for page in PAGES if _executed(page, slow=False)], ids=_name)
def test_the_commands_of_a_page_run_in_their_order(page: Path, tmp_path: Path) -> None:
    _run_page(page, tmp_path, slow=False)


def test_the_installed_command_is_the_one_that_the_pages_run() -> None:
    installed = shutil.which("spheroidd", path=str(Path(sys.executable).parent))
    assert installed is not None
    with on_the_path() as first:
        both = [(installed, "--version"), (shutil.which("spheroidd", path=str(first)) or "", "--version")]
        cold, warm = (subprocess.run(one, capture_output=True, text=True, check=True).stdout for one in both)
    assert cold == warm


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [page for page in PAGES if any(f.mark == "slow" for f in _executed(page, slow=True))], ids=_name
)
def test_the_slow_commands_of_a_page_run_too(page: Path, tmp_path: Path) -> None:
    _run_page(page, tmp_path, slow=True)


def _options(command: Any) -> set[str]:
    return {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}


@cache
def _commands() -> Any:
    return typer.main.get_command(app)


def _unknown(words: list[str]) -> str:
    """What a documented command line says that the command does not know; empty where all of it exists."""
    command = _commands()
    words = [word.strip("[]`\"'") for word in words]
    while words and hasattr(command, "commands") and not words[0].startswith("-"):
        if words[0] not in command.commands:
            return f"there is no command {words[0]}"
        command = command.commands[words[0]]
        words = words[1:]
    known = _options(command) | {"--help", "-h"}
    given = [word.split("=", 1)[0] for word in words if re.fullmatch(r"--?[a-z][a-z-]*(=.*)?", word)]
    return ", ".join(f"there is no option {option}" for option in given if option not in known)


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_every_command_that_a_page_shows_exists_with_its_options(page: Path) -> None:
    shown = [words for fence in fences(page) if fence.language == "sh" for words in commands(fence.text)]
    inline = re.findall(r"`spheroidd ([a-z][^`\n]*)`", page.read_text(encoding="utf-8"))
    for words in [*shown, *(re.split(r"\s|\|", text) for text in inline if "/" not in text)]:
        assert not _unknown(words), f"{_name(page)}: spheroidd {' '.join(words)}: {_unknown(words)}"


def test_a_documented_option_that_does_not_exist_is_found() -> None:
    assert _unknown(["run", "CONFIG", "--fast"]) == "there is no option --fast"
    assert _unknown(["fly"]) == "there is no command fly"


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_every_block_of_a_page_says_its_language(page: Path) -> None:
    for fence in fences(page):
        assert fence.language in _LANGUAGES, f"{fence}: write one of {sorted(_LANGUAGES)}"


def test_the_command_page_is_that_of_todays_commands() -> None:
    assert COMMAND_PAGE.read_text(encoding="utf-8") == command_page(), "docs/cli.md is old: run `make docs`"


def test_the_readme_is_one_page_that_begins_with_the_demo_and_the_tests() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= _MAX_README_LINES
    assert any("make demo" in line for line in lines[:20])
    assert any("make test" in line for line in lines[:20])


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_every_link_between_pages_leads_to_a_file(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{_name(page)} links to {target}"


def test_the_site_holds_every_page() -> None:
    site = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert [name for page in DOCS.rglob("*.md") if (name := page.relative_to(DOCS).as_posix()) not in site] == []


@pytest.mark.parametrize("page", sorted((DOCS / "decisions").glob("0*.md")), ids=lambda page: page.stem[:4])
def test_a_decision_has_its_number_date_context_choice_and_consequence(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    number = int(page.name[:4])
    assert text.startswith(f"# {number} ")
    assert re.search(r"^\d{4}-\d\d-\d\d, (accepted|replaced)", text, re.MULTILINE)
    assert [part for part in ("Context", "Choice", "Consequence") if f"\n**{part}.** " not in text] == []
    assert f"| {number} | [{text.splitlines()[0].removeprefix(f'# {number} ')}]({page.name})" in (
        page.parent / "index.md"
    ).read_text(encoding="utf-8")
