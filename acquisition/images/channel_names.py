"""Which channel of a file is which, by the names that the file gives them."""

import re
from pathlib import Path

from spheroidd.acquisition.images.layout import FileLayout
from spheroidd.protocols.errors import StackError
from spheroidd.protocols.stack import CHANNELS, DEAD_CHANNEL, LIVE_CHANNEL

_NAMED = {
    LIVE_CHANNEL: re.compile(r"(?<!\d)488(?!\d)|calcein|\blive\b", re.IGNORECASE),
    DEAD_CHANNEL: re.compile(r"(?<!\d)561(?!\d)|propidium|\bdead\b", re.IGNORECASE),
}


def tell_apart(path: Path, layout: FileLayout) -> tuple[dict[str, int], str]:
    """Which channel of one file is which, and how that was told: by name, else live first and dead second."""
    named = {channel: at[0] for channel, at in _named(layout).items() if len(at) == 1}
    if len(named) == min(layout.n_channels, len(CHANNELS)) == len(set(named.values())):
        return named, "by the channels' names in the file"
    if layout.n_channels <= len(CHANNELS):
        order = dict(zip(CHANNELS, range(layout.n_channels), strict=False))
        return order, "by their order, live (488) first: the file does not name them"
    what = f"it holds {layout.n_channels} channels, and their names do not say which are 488 and 561"
    raise StackError(what, where=str(path), do="give one file for each channel under path_488 and path_561")


def _named(layout: FileLayout) -> dict[str, list[int]]:
    return {
        channel: [at for at, name in enumerate(layout.channel_names) if pattern.search(name)]
        for channel, pattern in _NAMED.items()
    }
