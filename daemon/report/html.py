"""The report as one HTML document: the chapters of the running order, each block set by the macro of its kind."""

from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from spheroidd.daemon.report.document import Block, Report, is_machine_text
from spheroidd.daemon.report.sections import chapters

TEMPLATE, BLOCKS = "report.html.j2", "blocks.html.j2"


@cache
def _environment() -> Environment:
    """One for all reports of a process: a template is compiled at its first use, which takes as long as a page."""
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.globals["is_machine_text"] = is_machine_text
    return environment


def to_html(report: Report) -> str:
    """The report as one HTML document."""
    environment = _environment()
    macros = environment.get_template(BLOCKS).module

    def render(block: Block) -> Markup:
        """A block by the macro that has the name of its class; AttributeError for a kind without one."""
        return Markup(getattr(macros, type(block).__name__)(block))

    return environment.get_template(TEMPLATE).render(report=report, chapters=chapters(report), render=render)
