"""C7 to C10: numbers changed by hands: a demonstration over a plate, controls imaged twice, maps that were wrong, names."""

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.cases.case import PROGRAM, Case, Driven, Outcome, Step, one_line, spheroidd, write_map
from tests.cases.files import ome
from tests.cases.plates import as_is

DEMO, TWICE, LABELS, NAMES = "C7 demo", "C8 a well imaged twice", "C9 relabel", "C10 names"
WELLS = ("A01", "A02", "A03", "A04", "B02", "B03")


def plate(**roles: str) -> Callable[[Path], None]:
    """A plate of six wells, with the roles of some of them otherwise than they are; `right.csv` is the right map."""

    def make(folder: Path) -> None:
        rows = [{"well": well, **as_is(well)(folder, well)} for well in WELLS]
        write_map(folder / "right.csv", rows)
        wrong = [row if row["well"] not in roles else {**row, "role": roles[str(row["well"])]} for row in rows]
        for row in wrong:
            if row["role"] == "sample":
                row |= {"compound": row.get("compound", "X"), "dose_um": row.get("dose_um", 1.0)}
            else:
                row |= {"compound": "", "dose_um": ""}
        write_map(folder / "map.csv", wrong)

    return make


def tiny(folder: Path) -> None:
    """Two small wells, and a map that names their files the other way round."""
    for name, files in (("map", ("A01", "A02")), ("turned", ("A02", "A01"))):
        rows = [
            {"well": well, "role": "negative_control", **ome()(folder, file)}
            for well, file in zip(("A01", "A02"), files, strict=True)
        ]
        write_map(folder / f"{name}.csv", rows)


def kept(name: str) -> Callable[[Path, str], str]:
    """A plate of this name is still there, with its rows."""

    def check(folder: Path, _: str) -> str:
        rows = json.loads(spheroidd(folder, "results d --json").stdout or "[]")
        return (
            "" if {row["plate"] for row in rows} == {name} and len(rows) == len(WELLS) else f"{len(rows)} rows are left"
        )

    return check


def beside(folder: Path) -> None:
    """A folder that holds something else."""
    (folder / "d").mkdir()
    (folder / "d" / "thesis.txt").write_text("three years")


def thesis(folder: Path, _: str) -> str:
    """The file is still there."""
    return "" if (folder / "d" / "thesis.txt").exists() else "it is gone"


def related(**expected: tuple[float, float]) -> Callable[[Path, str], str]:
    """V control of wells lies between these, percent, and each row is final and of one set of limits."""

    def check(folder: Path, _: str) -> str:
        rows = {row["well"]: row for row in json.loads(spheroidd(folder, "results d --json").stdout)}
        wrong = [
            f"{well} {rows[well]['v_control']}"
            for well, (low, high) in expected.items()
            if not low <= (rows[well]["v_control"] or -1) <= high
        ]
        wrong += [f"{well} {row['status']}" for well, row in rows.items() if row["status"] != "final"]
        return ", ".join(wrong)

    return check


RUN = Step("replay map.csv d --name p")
AS_IT_IS = related(A01=(85, 115), A02=(85, 115), A03=(85, 115), A04=(0, 15))
EXCHANGED = {"A01": "positive_control", "A04": "negative_control"}
RELABEL = "relabel d right.csv --reason 'the map was turned'"


SEALED = ("stored", "scoring", "provisional", "final")


class Repeated:
    """A run in which a control is imaged a second time, then the plate is aborted; from outside, as an operator does."""

    kind, name = TWICE, "repeat"

    def outcomes(self, folder: Path) -> Iterator[Outcome]:
        """What counts after the repeat, after the second was excluded, and after the abort."""
        (folder / "c.toml").write_text(
            '[data]\ndir = "d"\n[plate]\nname = "p"\n[service]\nhttp = false\n[store]\nmin_free_gb = 0.0\n[source]\nkind = "emulator"\n'
            'preset = "unit"\npace = "real"\nslice_period_s = 0.04\ncompounds = 2\ndoses = 4\nnegative_controls = 2\npositive_controls = 1\n'
        )
        with (folder / "log").open("wb") as log:
            run = subprocess.Popen([*PROGRAM, "run", "c.toml", "--plain"], cwd=folder, stdout=log, stderr=log)
            try:
                self._until(folder, run, lambda rows: rows.get("A02", "") in SEALED)
                ordered = [spheroidd(folder, command) for command in ("repeat A01 d", "next A01 d")]
                self._until(folder, run, lambda rows: False, stacks=2)
                aborted = spheroidd(folder, "abort d --reason 'the lid is off'")
                code = run.wait(timeout=120)
            finally:
                run.kill()
                run.wait()
        said = one_line(" ".join(one.stdout + one.stderr for one in (*ordered, aborted)))
        rows = [row for row in self._rows(folder) if row["well"] == "A01"]
        every = [row for row in self._rows(folder, "--all-stacks") if row["well"] == "A01"]
        ok = len(rows) == 1 and len(every) == 2 and rows[0]["stack"] == 1
        yield Outcome(
            TWICE,
            "a control imaged twice",
            f"{len(every)} stacks, stack {rows[0]['stack'] if rows else '-'} counts"
            + ("" if ok else f": {said[-300:]}"),
            ok,
        )
        yield Outcome(TWICE, "an aborted plate: `run`", f"exit code {code}", code == 1)
        left = [row for row in self._rows(folder) if row["status"] == "aborted"]
        without = all(row["v_count"] is None and row["v_control"] is None for row in left)
        yield Outcome(
            TWICE, "an aborted plate: wells not imaged", f"{len(left)} wells aborted, no number", bool(left) and without
        )
        out = spheroidd(folder, "exclude d --well A01 --stack 1 --reason 'the wrong focus'")
        rows = [row for row in self._rows(folder) if row["well"] == "A01"]
        yield Outcome(
            TWICE,
            "its second stack excluded",
            one_line(out.stdout + out.stderr)[-160:],
            len(rows) == 1 and rows[0]["stack"] == 0,
        )

    @staticmethod
    def _rows(folder: Path, options: str = "") -> list[dict[str, object]]:
        found = spheroidd(folder, f"results d --json {options}").stdout
        return list(json.loads(found)) if found.startswith("[") else []

    def _until(
        self, folder: Path, run: subprocess.Popen[bytes], ready: Callable[[dict[str, str]], bool], stacks: int = 0
    ) -> None:
        end_s = time.monotonic() + 120
        while time.monotonic() < end_s and run.poll() is None:
            rows = self._rows(folder, "--all-stacks" if stacks else "")
            whole = [row for row in rows if row["well"] == "A01" and row["n_slices_acked"] == row["n_slices_expected"]]
            if ready({str(row["well"]): str(row["status"]) for row in rows}) or (stacks and len(whole) >= stacks):
                return
            time.sleep(0.2)


def cases() -> Iterator[Driven]:
    """All of them."""
    yield Case(
        DEMO,
        "over a plate",
        plate(),
        (
            RUN,
            Step("demo d", 2, ("what is there is kept",), (), kept("p")),
            Step("demo d --force", 2, ("plates: p",), (), kept("p")),
        ),
    )
    yield Case(
        DEMO,
        "over somebody's files",
        beside,
        (
            Step("demo d", 2, ("something else",), (), thesis),
            Step("demo d --force", 2, ("something else",), (), thesis),
        ),
        quick=True,
    )
    yield Repeated()
    yield Case(
        TWICE,
        "a well twice in a map",
        lambda at: write_map(
            at / "map.csv",
            [{"well": "A01", "role": "sample", "path": "a.tif"}, {"well": "a1", "role": "sample", "path": "b.tif"}],
        ),
        (Step("replay map.csv d", 2, ("A01 stands twice",)),),
    )
    yield Case(
        TWICE,
        "one file for two wells",
        lambda at: write_map(
            at / "map.csv",
            [{"well": well, "role": "sample", **ome()(at, "A01")} for well in ("A01", "A02")],
        ),
        (Step("replay map.csv d", 2, ("A01 and A02 name the same file",)),),
        quick=True,
    )
    yield Case(
        LABELS,
        "untreated and killed exchanged",
        plate(**EXCHANGED),
        (
            RUN,
            Step("results d", 1),
            Step(RELABEL, 0, ("limits follow",)),
            Step("score d"),
            Step("results d", 0, (), (), AS_IT_IS),
            Step("audit show d --well A01", 0, ("well relabelled", "the map was turned")),
            Step("verify d"),
        ),
    )
    yield Case(
        LABELS,
        "a treated well was called untreated",
        plate(B03="negative_control"),
        (
            RUN,
            Step(f"{RELABEL} --dry-run", 0, ("nothing is changed",)),
            Step(RELABEL),
            Step("score d"),
            Step("results d", 0, (), (), AS_IT_IS),
            Step("verify d"),
        ),
    )
    yield Case(LABELS, "a map that changes nothing", plate(), (RUN, Step(RELABEL, 2, ("nothing was changed",))))
    yield Case(
        NAMES,
        "taken up with other files, channels or limits",
        tiny,
        (
            Step("replay map.csv d --name p", 1),  # its pixels are noise
            Step("replay turned.csv d --name p", 2, ("its images are from", "another name")),
            Step("relabel d turned.csv --reason x", 2, ("was imaged from",)),
            Step("replay map.csv d --name p --channel-order 561,488", 2, ("its images were read with channel_order",)),
            Step("replay map.csv d --name p --normalisation stack", 2, ("its rows rest on normalisation",)),
            Step("replay map.csv d --name p", 1),
        ),
    )
    yield Case(
        NAMES,
        "names that differ in case only",
        plate(),
        (RUN, Step("replay map.csv d --name P", 2, ("plate P differs from plate p",), (), kept("p"))),
    )
    yield Case(
        NAMES,
        "a second plate in a directory",
        plate(),
        (RUN, Step("replay map.csv d --name q", 0, ("d holds p already",))),
    )
    yield Case(
        NAMES,
        "the same name with another map",
        plate(),
        (RUN, Step("replay right2.csv d --name p", 2), Step("results d", 0, (), (), kept("p"))),
    )
    yield Case(
        "A3 trust in curves",
        "a way to take limits that is none",
        plate(),
        (
            RUN,
            Step("score d --normalisation nonsense", 2, ("normalisation",)),
            Step("score d --threads 0", 2, ("threads",)),
        ),
    )
