"""What labs call a well's role, and which of the four roles it is."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.plate import WellRole

_WORDS: dict[WellRole, str] = {
    WellRole.SAMPLE: "sample, samples, treated, treatment, compound, drug, test, test compound, unknown, smpl, spl",
    WellRole.NEGATIVE_CONTROL: (
        "negative control, neg control, neg ctrl, negative, neg, nc, untreated, untreated control, dmso, dmso control, "
        "vehicle, vehicle control, solvent, solvent control, mock, no drug, no treatment, no compound, cells only"
    ),
    WellRole.POSITIVE_CONTROL: (
        "positive control, pos control, pos ctrl, positive, pos, pc, killed, kill, kill control, dead, max kill, "
        "100 % kill, lysed, lysis, triton, triton x 100, digitonin"
    ),
    WellRole.EMPTY: (
        "empty, blank, blanks, blk, no cells, background, medium only, media only, unused, not used, none, -, skip"
    ),
}
_AMBIGUOUS = {
    "control": "untreated or killed wells",
    "controls": "untreated or killed wells",
    "ctrl": "untreated or killed wells",
    "ctl": "untreated or killed wells",
    "medium": "untreated cells or wells without cells",
    "media": "untreated cells or wells without cells",
    "pbs": "untreated cells or wells without cells",
    "water": "untreated cells or wells without cells",
}
_KNOWN = {word: role for role, words in _WORDS.items() for word in words.split(", ")}


def _plain(word: str) -> str:
    """Case, hyphens, underscores and blanks make no difference."""
    return re.sub(r"[\s_-]+", " ", word.casefold()).strip() or word.strip()


@dataclass(frozen=True, slots=True)
class RoleWords:
    """The words of the field, and before them those that a lab maps itself: {"staurosporine": POSITIVE_CONTROL}.

    >>> words = RoleWords({"Staurosporine": WellRole.POSITIVE_CONTROL})
    >>> words.find("DMSO").value, words.find("staurosporine").value, words.find("Drug A")
    ('negative_control', 'positive_control', None)
    """

    own: Mapping[str, WellRole] = field(default_factory=lambda: MappingProxyType({}))

    def find(self, word: str) -> WellRole | None:
        """The role that a word stands for; None for a word that stands for none, or could stand for two."""
        plain = _plain(word)
        own = {_plain(name): role for name, role in self.own.items()}
        return own.get(plain) or _KNOWN.get(plain)

    def role(self, word: str) -> WellRole:
        """The same of a word that must be one; ConfigError says what could be meant."""
        found = self.find(word)
        if found is not None:
            return found
        mapped = "or map the word"
        if word:
            mapped = (
                f'or say what it means, in the configuration: [plate.roles] "{word}" = ROLE (or --role "{word}=ROLE")'
            )
        if _plain(word) in _AMBIGUOUS:
            what = f"role is {word!r}, which could be {_AMBIGUOUS[_plain(word)]}"
            raise ConfigError(what, do=f"write one of {', '.join(WellRole)}, {mapped}")
        raise ConfigError(f"role is {word!r}", do=f"write one of {', '.join(WellRole)}, {mapped}")
