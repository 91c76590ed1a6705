"""What a terminal of 80 and of 160 columns shows of a run, captured: docs/terminal.md is that of today's code."""

import re

import pytest

from tests.daemon.cli.terminal_document import PATH, WIDTHS, terminal_page


@pytest.fixture(scope="module")
def page() -> str:
    return terminal_page()


def test_the_page_is_that_of_todays_screens(page: str) -> None:
    assert PATH.read_text(encoding="utf-8") == page, "docs/terminal.md is old: run `make docs`"


@pytest.mark.parametrize("width", WIDTHS)
def test_a_screen_fits_the_terminal_and_has_one_line_for_each_well(page: str, width: int) -> None:
    table, found = re.findall(rf"in {width} columns\n\n```text\n(.+?)\n```", page, re.DOTALL)
    assert max(map(len, (*table.splitlines(), *found.splitlines()))) <= width
    names = [line.split()[0] for line in table.splitlines()[5:]]
    assert names == [f"{row}0{column}" for row in "AB" for column in range(1, 7)]
    assert "open the shutter and repeat the well" in found
