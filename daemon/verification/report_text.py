"""A report of a pass for a person: what is wrong, kind by kind, with what to do, and how fast it went."""

from itertools import groupby
from typing import TYPE_CHECKING

from spheroidd.daemon.verification.findings import DAMAGED, INTACT, Finding, Report

if TYPE_CHECKING:
    from rich.console import Group
    from rich.text import Text

MOST_SHOWN = 25  # findings of a kind on the screen; --json has them all


def to_screen(report: Report) -> "Group":
    """The report in lines."""
    from rich.console import Group
    from rich.text import Text

    lines = [Text(_counted(report), overflow="fold")]
    ordered = sorted(report.findings, key=lambda finding: (not finding.kind.is_damage, finding.kind.value))
    for kind, group in groupby(ordered, key=lambda finding: finding.kind):
        found = list(group)
        style = "red" if kind.is_damage else "yellow"
        lines.append(Text(f"{kind.value}: {len(found)}", style=f"bold {style}"))
        lines += [Text(f"  {_line(finding)}", style=style, overflow="fold") for finding in found[:MOST_SHOWN]]
        if found[MOST_SHOWN:]:
            lines.append(Text(f"  and {len(found) - MOST_SHOWN} more: --json lists them", style=style))
        lines.append(Text(f"  To do: {kind.do}.", overflow="fold"))
    lines += [Text(f"Note: {note}.", overflow="fold") for note in report.notes]
    lines.append(_verdict(report))
    return Group(*lines)


def _line(finding: Finding) -> str:
    return f"{finding} ({finding.path})" if finding.path else str(finding)


def _counted(report: Report) -> str:
    speed = f", {report.mb_per_s:.0f} MB/s of pixels" if report.mb_per_s is not None else ""
    resumed = f" ({report.resumed} of them by the pass before)" if report.resumed else ""
    return (
        f"{report.data_dir}: {report.rows} rows, {report.events} events, {report.stacks} stacks{resumed}, "
        f"{report.slices} slices, {report.shards} files of {report.file_bytes / 1e6:.1f} MB in {report.seconds:.1f} s"
        f"{speed}"
    )


def _verdict(report: Report) -> "Text":
    from rich.text import Text

    if report.exit_code == INTACT:
        return Text("Everything is as it was written.", style="green")
    if report.exit_code == DAMAGED:
        return Text(f"DAMAGED: {report.damage} findings. Change nothing before there is a copy.", style="bold red")
    return Text("Nothing is damaged; look at the above.", style="yellow")
