"""D11: IC50s of screens of 8 doses, and the words beside them. Responses are made from the curve that is named."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tests.cases.case import Case, Driven, Step, written

KIND = "D11 curves"
DOSES = (0.0025, 0.008, 0.025, 0.08, 0.25, 0.8, 2.53, 8.0)
NOISE = (3.0, -5.0, 6.0, -2.0, 4.0, -6.0, 2.0, -1.0)


def falling(ic50: float, hill: float, bottom: float = 0.0, noise: float = 1.0, top: float = 100.0) -> tuple[float, ...]:
    """A log-logistic curve at the doses, with a part of a fixed noise."""
    return tuple(
        bottom + (top - bottom) / (1 + (dose / ic50) ** hill) + noise * off
        for dose, off in zip(DOSES, NOISE, strict=True)
    )


def table(responses: Sequence[float]) -> Callable[[Path], object]:
    """A dose and a response a line."""
    lines = [f"{dose},{response:.2f}" for dose, response in zip(DOSES, responses, strict=True)]
    return written("c.csv", "\n".join(["dose_um,v", *lines, ""]))


def found(
    status: Sequence[str], ic50: tuple[float, float] | None, never: Sequence[str] = ()
) -> Callable[[Path, str], str]:
    """One of these statuses; an absolute IC50 between these, or none; and no reason that says one of these."""

    def check(_: Path, printed: str) -> str:
        (one,) = json.loads(printed)
        told = one["ic50_abs"]
        wrong = [] if one["status"] in status else [f"status {one['status']}"]
        if (ic50 is None) != (told is None) or (
            ic50 is not None and told is not None and not ic50[0] <= told <= ic50[1]
        ):
            wrong.append(f"IC50 {told}")
        wrong += [f"it says {text!r}" for text in never if text in one["reason"]]
        if one["p_effect"] is not None and one["p_effect"] < 0.001 and "no effect" in one["reason"]:
            wrong.append("no effect, over p < .001")
        if one["bottom"] is not None and one["bottom"] < -120:
            wrong.append(f"a lower plateau of {one['bottom']:.0f}")
        return "; ".join(wrong) and f"{'; '.join(wrong)} ({one['reason']})"

    return check


FIT = "fit c.csv --dose dose_um --response v --full-scale 100 --json"
NOT_ABOVE = ("above the highest dose", "no effect")
KNOWN = ("ok", "approximate")


def curve(name: str, responses: Sequence[float], check: Callable[[Path, str], str], quick: bool = False) -> Case:
    """One curve of 8 doses."""
    return Case(KIND, name, table(responses), (Step(FIT, 0, (), (), check),), quick)


DEAD = {
    "dose": (0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2),
    "dead": (18, 16, 14, 9, 4, 1, 1),
    "of": (30, 34, 36, 40, 40, 40, 38),
}


def shares(scale: float = 1.0) -> Callable[[Path], object]:
    """Survivors of groups: they fall from about 60 % to 3 %."""
    rows = zip(*DEAD.values(), strict=True)
    return written("c.csv", "\n".join(["dose_um,alive,of", *(f"{a * scale:g},{b},{c}" for a, b, c in rows), ""]))


def _doubled(folder: Path) -> None:
    path = folder / "c.csv"
    table(falling(0.3, 1.5))(folder)
    head, *rows = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join([head, *rows, *rows, ""]), encoding="utf-8")


QUANTAL = "fit c.csv --dose dose_um --response alive --total of --json"


def cases() -> Iterator[Driven]:
    """All of them."""
    for ic50 in (0.01, 0.05, 0.3, 2.0):
        for hill in (0.7, 1.5, 6.0):
            low, high = (ic50 / 1.6, ic50 * 1.6)
            yield curve(
                f"an IC50 of {ic50:g} uM, slope {hill:g}",
                falling(ic50, hill),
                found(KNOWN, (low, high)),
                quick=(ic50, hill) == (0.3, 1.5),
            )
    yield curve(
        "steep, the top dose leaves 16 %", (105, 94, 97, 110, 78, 66, 58, 16), found(KNOWN, (0.7, 8.0), NOT_ABOVE)
    )
    yield curve(
        "all of the fall at the last dose", (101, 97, 103, 99, 102, 98, 100, 22), found(KNOWN, (2.53, 8.0), NOT_ABOVE)
    )
    yield curve("the plateau runs away", (100, 103, 98, 101, 96, 92, 80, 31), found(KNOWN, (2.53, 8.0), NOT_ABOVE))
    yield curve(
        "half is passed, and nobody can say where",
        (105, 94, 97, 112, 71, 70, 60, 16),
        found(("unplaced",), None, NOT_ABOVE),
    )
    yield curve(
        "half is not reached: 70 % left",
        falling(30.0, 1.2),
        found(("censored_high", "unplaced", "inactive", "approximate"), None),
    )
    yield curve("no effect", (101, 97, 103, 99, 102, 98, 100, 101), found(("inactive", "censored_high"), None))
    yield curve(
        "a little effect of p < .001",
        falling(0.1, 1.5, bottom=80, noise=0.2),
        found(("inactive", "censored_high", "unplaced"), None, ("no effect",)),
    )
    yield curve(
        "dead at every dose", tuple(3 + n / 3 for n in NOISE), found(("all_dead",), None, ("above the highest dose",))
    )
    yield curve(
        "inhibition where viability is expected",
        tuple(100 - v for v in falling(0.3, 1.5)),
        found(("inactive",), None, ("below the lowest dose",)),
    )
    yield Case(
        KIND,
        "shares beside a full scale of 100",
        table(tuple(v / 100 for v in falling(0.3, 1.5))),
        (Step(FIT, 0, ("of shares it is --full-scale 1",), ()),),
    )
    yield Case(
        KIND,
        "percents beside a full scale of 1",
        table(falling(0.3, 1.5)),
        (Step(FIT.replace("100", "1"), 2, ("more than 20 times the full scale",)),),
    )
    yield Case(
        KIND,
        "a table that holds its rows twice",
        _doubled,
        (Step(FIT, 0, ("every observation stands twice",)),),
    )
    yield Case(
        KIND,
        "shares from 60 % to 3 %, 0 to 1 by default",
        shares(),
        (Step(QUANTAL, 0, ("does not fit", "LL.3"), ("no effect",)),),
    )
    for model in ("LL.3", "LL.4"):
        yield Case(
            KIND,
            f"shares with --model {model}",
            shares(),
            (Step(f"{QUANTAL} --model {model}", 0, (), ("no effect",), found(KNOWN, (0.2, 0.8))),),
        )
    yield Case(KIND, "shares with --model LL.5", shares(), (Step(f"{QUANTAL} --model LL.5", 2, ("LL.5",)),))
