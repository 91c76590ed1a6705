"""Which channel of a file is which, by the names that the file gives them.

A name is read from its strongest word to its weakest: a dye, "live" or "dead", a fluorescent protein or another dye of
the same colour, a wavelength, a colour. A word that says both ("Live/Dead Green") says nothing. Of two channels one
that is recognised settles the other. Names that are there and not understood are never passed over in silence.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from spheroidd.acquisition.images.layout import FileLayout
from spheroidd.protocols.errors import StackError
from spheroidd.protocols.stack import CHANNELS, DEAD_CHANNEL, LIVE_CHANNEL

UNUSED = "-"  # in an order of channels: one that is neither
OTHER = "other"
_NOT = r"(?<![a-z])"  # not within a word
_FAMILY = r"(alexa|af|atto|dylight|cf)[a-z ]*-?"  # dyes that are numbered by their wavelength
_DYES = (
    (LIVE_CHANNEL, r"calcein|fluorescein ?di-?acetate|\bc?fda\b|\bcfse\b|cellmask green|syto ?-?9\b|syto ?1[36]\b"),
    (LIVE_CHANNEL, r"cell ?tracker|\bcm-?fda\b|\bcm-?tpx\b"),
    (
        DEAD_CHANNEL,
        r"propidium|(?<![a-z0-9])pi(?![a-z0-9])|ethidium|ethd|\beth-?d|7-?aad|sytox|draq ?-?7",
    ),
    (DEAD_CHANNEL, r"nucgreen dead|to-?pro-?[13]|yo-?pro|trypan|zombie"),
    (OTHER, r"dapi|hoechst|draq ?-?5|bright ?-?field|(?<![a-z])(bf|dic|phase)(?![a-z])|(?<![a-z])(pc|tl)(?![a-z0-9])"),
    # Stains of apoptosis, of one organelle or of fixed cells tell neither who lives nor who is dead.
    (
        OTHER,
        r"annexin|caspase|apopto|(mito|lyso|er-?) ?-?tracker|\btmr[me]\b|cell ?rox|phalloidin|(?<![a-z])wga(?![a-z])",
    ),
    (OTHER, r"phase ?contrast|trans(mi(tted|ssion))?(?![a-z])|(?<![a-z])t-?pmt"),
)
_STATES = (
    (LIVE_CHANNEL, rf"{_NOT}(?<!non-)(?<!non )(live|living|viable|alive)(?![a-z])"),
    (DEAD_CHANNEL, rf"{_NOT}(dead|dying|non-?viable|killed|necrotic)(?![a-z])"),
)
_ALIKE = (  # what has the same colour
    (
        LIVE_CHANNEL,
        rf"{_NOT}(e|em|mem|s?f|az)?gfp|fitc|fluorescein|fluo-?[48]|oregon green|bodipy ?-?fl\b|{_FAMILY}488",
    ),
    (LIVE_CHANNEL, rf"{_NOT}cy2(?!\d)|mneongreen|zsgreen|{_NOT}(e|m)?yfp"),
    (DEAD_CHANNEL, rf"tritc|rhodamine|{_NOT}rhod|texas ?-?red|{_NOT}(mr|t|tag|e)?rfp|m?cherry|ds-?red|td-?tomato"),
    (DEAD_CHANNEL, rf"mscarlet|{_NOT}cy3(?!\d)|{_FAMILY}(532|546|550|555|561|565|568|590|594|610|620)"),
    (OTHER, r"(far|deep|near|infra)[- ]?(infra)?[- ]?red|(?<![a-z])nir(?![a-z])"),
    (OTHER, rf"{_NOT}cy[57](?!\d)|{_FAMILY}(350|405|633|635|647|660|680|700|750)"),
)
_COLOURS = ((LIVE_CHANNEL, rf"{_NOT}(green|grn)(?![a-z])"), (DEAD_CHANNEL, rf"{_NOT}(red|orange)(?![a-z])"))
_WAVELENGTH = re.compile(r"(?<![\d.])(\d{3})(?:\.\d+)?(?!\d|\s*m?sec|\s*ms\b|\s*um\b|\s*x)", re.IGNORECASE)
_LIVE_NM = range(460, 531)  # blue light in, green light out
_DEAD_NM = (532, 543, *range(546, 633))  # green or yellow light in, orange or red light out; 533 to 545 may be both
_OTHER_NM = (*range(340, 446), *range(633, 660), *range(730, 800))
_BETWEEN = re.compile(r"[\W_]+|(?<=[a-z])(?=\d)|(?<=\d)(?=[a-z])")
_PLACEHOLDERS = {"", "default", "image", "img", "slice", "series", "track", "wavelength", "camera", "cam", "channel"}
_PLACEHOLDERS |= {
    "chan",
    "chn",
    "ch",
    "c",
    "t",
    "w",
    "s",
    "x",
    "xy",
    *map(str, range(100)),
    *map("0{}".format, range(10)),
}


@dataclass(frozen=True, slots=True)
class Assignment:
    """Which channel of a file is which: "488" or "561" -> its number in the file; how that was told, in words.

    `doubt` is what a person should look at; "" where the names said it all, or there were none.
    """

    channels: dict[str, int]
    how: str
    doubt: str = ""


def tell_apart(path: Path, layout: FileLayout, order: Sequence[str] | None = None) -> Assignment:
    """Which channel of one file is which: as the user says, by their names, else live first and dead second.

    `order` is the user's word, one of "488", "561" and "-" (unused) for each channel of the file. StackError where the
    names contradict each other, or say that a channel is neither and nothing tells the others apart.
    """
    if order is not None:
        return _as_told(path, layout, order)
    names = layout.channel_names if any(_is_name(name) for name in layout.channel_names) else ()
    if names and len(names) != layout.n_channels:
        what = f"it holds {layout.n_channels} channels and names {len(names)}: {', '.join(map(repr, names))}"
        raise StackError(what, where=str(path), do='write channel_order, such as ["488", "561"], into the settings')
    means = [meaning(name) for name in names]
    means += [None] * (layout.n_channels - len(means))
    named = _once(path, layout, means)
    if len(named) == len(CHANNELS) or (layout.n_channels == 1 and named):
        unused = [name for name, means_of in zip(names, means, strict=False) if means_of not in named]
        how = "by the channels' names in the file"
        return Assignment(named, f"{how}; not used: {', '.join(unused)}" if unused else how)
    listed = ", ".join(repr(name) for name in names)
    candidates = [at for at, said in enumerate(means) if said != OTHER]
    if len(candidates) == len(CHANNELS) and len(named) == 1:
        (channel, at), *_ = named.items()
        other = DEAD_CHANNEL if channel == LIVE_CHANNEL else LIVE_CHANNEL
        rest = next(one for one in candidates if one != at)
        called = names[rest] if rest < len(names) else ""
        how = f"by the name {names[at]!r}: it is {channel}, so the other one ({called!r}) is {other}"
        return Assignment({channel: at, other: rest}, how, how if _is_name(called) else "")
    if layout.n_channels <= len(CHANNELS) and not named and OTHER not in means:
        by_order = dict(zip(CHANNELS, range(layout.n_channels), strict=False))
        if not names and layout.n_channels == 1:
            how = "as live (488): it holds one channel, and does not say which"
            return Assignment(by_order, how, how)
        if not names:
            return Assignment(by_order, "by their order, live (488) first: the file does not name them")
        how = f"by their order, live (488) first: the names in the file, {listed}, are not understood"
        return Assignment(by_order, how, how)
    what = f"it holds {layout.n_channels} channels, and their names do not say which are 488 and 561"
    what += f": {listed}" if listed else ""
    do = 'write channel_order, such as ["488", "561"] ("-" for one that is not used), into the source\'s settings, or '
    raise StackError(what, where=str(path), do=f"{do}give one file for each channel under path_488 and path_561")


def meaning(name: str) -> str | None:
    """ "488" for what shows live cells, "561" for dead ones, "other" for neither; None where it says nothing.

    >>> [meaning(name) for name in ("Calcein AM", "EthD-1", "Live/Dead Red", "488/525", "DAPI", "Ch1")]
    ['488', '561', '561', '488', 'other', None]
    """
    for level in (_DYES, _STATES, _ALIKE, None, _COLOURS):
        found = set(_lights(name)) if level is None else {m for m, p in level if re.search(p, name, re.IGNORECASE)}
        if len(found) == 1:
            return found.pop()
    return None


def only_channel(path: Path, layout: FileLayout, channel: str) -> int:
    """Which plane of a file that was given for one channel; StackError where its name says that it is the other one."""
    means = [meaning(name) for name in layout.channel_names[: layout.n_channels]]
    alone = (0,) if layout.n_channels == 1 else layout.own_channels or ()
    if len(alone) == 1:  # of a set with a file for each channel the one that was named
        said = means[alone[0]] if alone[0] < len(means) else None
        if said in CHANNELS and said != channel:
            name = layout.channel_names[alone[0]]
            what = f"it is given for {channel}, and its channel's name {name!r} means {said}"
            raise StackError(what, where=str(path), do="give the files the other way round, or put it under path")
        return alone[0]
    found = [at for at, means_of in enumerate(means) if means_of == channel]
    if len(found) == 1:
        return found[0]
    assigned = tell_apart(path, layout).channels if layout.n_channels <= len(CHANNELS) and any(means) else {}
    if channel in assigned:
        return assigned[channel]
    what = f"it holds {layout.n_channels} channels, and none or several say {channel}"
    raise StackError(what, where=str(path), do="give a file with one channel, or put the file under path")


def _as_told(path: Path, layout: FileLayout, order: Sequence[str]) -> Assignment:
    channels = {channel: at for at, channel in enumerate(order) if channel != UNUSED}
    if len(order) != layout.n_channels:
        what = f"it holds {layout.n_channels} channels, and channel_order says {len(order)}: {', '.join(order)}"
        raise StackError(what, where=str(path), do='name every channel of the file, "-" for one that is not used')
    return Assignment(channels, "as channel_order says")


def _once(path: Path, layout: FileLayout, means: Sequence[str | None]) -> dict[str, int]:
    """The channels that one name each says; StackError where two names of a file with two channels say the same."""
    named = {channel: [at for at, said in enumerate(means) if said == channel] for channel in CHANNELS}
    for channel, at in named.items():
        if len(at) > 1:
            what = f"{len(at)} of its channels are called what means {channel}: "
            what += ", ".join(repr(layout.channel_names[one]) for one in at)
            do = 'write channel_order, such as ["488", "561"], into the source\'s settings'
            raise StackError(what, where=str(path), do=do)
    return {channel: at[0] for channel, at in named.items() if at}


def _lights(name: str) -> Iterator[str]:
    """What its wavelengths say; of excitation and emission ("488/525") both must say the same."""
    for digits in _WAVELENGTH.findall(name):
        nm = int(digits)
        if nm in _LIVE_NM:
            yield LIVE_CHANNEL
        elif nm in _DEAD_NM:
            yield DEAD_CHANNEL
        elif nm in _OTHER_NM:
            yield OTHER


def _is_name(name: str) -> bool:
    """Whether it is more than what a program calls a channel that nobody named ("Channel 0", "C1", "Ch1-T2")."""
    return meaning(name) is not None or not _PLACEHOLDERS.issuperset(_BETWEEN.split(name.lower()))
