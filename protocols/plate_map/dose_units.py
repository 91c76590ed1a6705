"""Units of doses: what a header, a cell or an option says, and what can be converted into what.

Only units of one kind are converted: a molar concentration needs a molar mass to become a mass concentration, and
nobody gave one. Letters may be of either case, as in `dose_um`; only M by itself must be a capital.
"""

import re
from dataclasses import dataclass

from spheroidd.protocols.errors import ConfigError

_PREFIXES = {"": 0, "m": -3, "u": -6, "n": -9, "p": -12, "f": -15}
_MOLAR_WORDS = {"": "", "milli": "m", "micro": "u", "nano": "n", "pico": "p", "femto": "f"}
_LOG = re.compile(
    r"(?:^|[^a-z])(?:p?log(?:10|2|e)?|ln|lg)(?:$|[^a-z]|(?=dose|dosis|conc|molar|(?:[cx]|[munpµμ]?m)(?:$|[^a-z])))",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class DoseUnit:
    """A unit as it is written in answers, what kind of amount it is of, and its size in powers of ten."""

    name: str
    kind: str
    power: int

    def convert(self, dose: float, into: "DoseUnit") -> float:
        """A dose of this unit in another one of its kind."""
        steps = self.power - into.power
        return dose * 10.0**steps if steps >= 0 else dose / 10.0**-steps


def _known() -> dict[str, DoseUnit]:
    found: dict[str, DoseUnit] = {}
    for prefix, power in _PREFIXES.items():
        molar = DoseUnit(f"{prefix}M", "molar concentration", power)
        names = [f"{prefix}mol/l"] + ([f"{prefix}m"] if prefix else [])
        names += [f"{word}molar" for word, short in _MOLAR_WORDS.items() if short == prefix]
        found |= dict.fromkeys(names, molar)
        for volume, more in (("L", 0), ("mL", 3), ("uL", 6)):
            of = DoseUnit(f"{prefix}g/{volume}", "mass concentration", power + more)
            found[of.name.casefold()] = of
        found[f"{prefix}g/kg"] = DoseUnit(f"{prefix}g/kg", "mass for body mass", power)
    found |= {"gy": DoseUnit("Gy", "radiation", 0), "cgy": DoseUnit("cGy", "radiation", -2)}
    found |= {"mgy": DoseUnit("mGy", "radiation", -3), "%": DoseUnit("%", "share", 0)}
    found |= {f"{name}/ml": DoseUnit(f"{name.upper()}/mL", f"{name.upper()}", 0) for name in ("u", "iu")}
    return found


UNITS = _known()


def read_unit(text: str) -> DoseUnit | None:
    """The unit that a text is, or None.

    >>> [read_unit(text).name for text in ("µM", "nm", "M", "umol/L", "ng per ml", "micromolar")]
    ['uM', 'nM', 'M', 'uM', 'ng/mL', 'uM']
    >>> read_unit("m"), read_unit("days")
    (None, None)
    """
    plain = text.strip().replace("µ", "u").replace("μ", "u").replace("mcg", "ug")
    if plain == "M":
        return UNITS["mol/l"]
    plain = re.sub(r"[\s_]*(?:/|\bper\b|(?<=_)per(?=_))[\s_]*", "/", plain, flags=re.IGNORECASE)
    return UNITS.get(plain.casefold())


def unit_of_header(header: str) -> DoseUnit | None:
    """The unit that a column's header names, in brackets, at its end, or after "in"; None where it names none.

    >>> [unit_of_header(text).name for text in ("dose_uM", "conc (nM)", "Dosis [µM]", "dose ng/mL", "doseNM")]
    ['uM', 'nM', 'uM', 'ng/mL', 'nM']
    >>> unit_of_header("dose"), unit_of_header("medium")
    (None, None)
    """
    for inner in re.findall(r"[(\[{]([^)\]}]*)[)\]}]", header):
        if (unit := read_unit(inner)) is not None:
            return unit
    parts = [part for part in re.split(r"[\s_,;:.\-]+", re.sub(r"[(\[{].*?[)\]}]", " ", header)) if part]
    for count in (3, 1):
        ending = " ".join(parts[-count:])
        if len(parts) > count and (unit := read_unit(ending)) is not None:
            return unit
    glued = re.fullmatch(r"(?i:dose|dosis|conc|concentration)([munpfµμ]?M)", header.strip()) or re.fullmatch(
        r"(?:dose|conc|concentration)([MUNP]M)", header.strip()
    )
    return read_unit(glued[1]) if glued else None


def split_dose(cell: str) -> tuple[str, DoseUnit | None]:
    """The number and the unit of a cell like "10 nM"; the whole cell and None where no unit is behind it.

    >>> split_dose("1e-6 M")[0], split_dose("2.5µM")[1].name, split_dose("12")
    ('1e-6', 'uM', ('12', None))
    """
    match = re.fullmatch(r"(.*?[0-9][.,]?)\s*([^\W\d_%]+(?:\s*/\s*[^\W\d_]+)?|%)", cell.strip())
    unit = read_unit(match[2]) if match else None
    return (match[1], unit) if match and unit else (cell, None)


def refuse_logarithms(header: str, where: str) -> None:
    """ConfigError where a column's header says that its doses are logarithms.

    >>> refuse_logarithms("catalog dose", "x.csv")
    """
    if _LOG.search(header):
        what = f"column {header!r} holds logarithms of doses"
        raise ConfigError(
            what, where=where, do="write the doses themselves (10^x, or e^x for ln); 0 is an untreated well"
        )
