"""Who looked through the instrument, in the audit trail: an event before the first image, and one when it is over.

Single images are not events: a live view takes hundreds. The last event counts them, with the light that fell on each
well, because that light bleaches what a run measures later.
"""

import logging
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from spheroidd.daemon.catalog.audit_chain import Action
from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.protocols.errors import SpheroiddError
from spheroidd.protocols.ports import Snapping
from spheroidd.protocols.snapshot import SnapOrder, Snapshot

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Light:
    """Of one well and channel; `exposed_ms` is None where the instrument does not say how long it exposed."""

    images: int = 0
    exposed_ms: float | None = 0.0


class ViewTrail:
    """Writes down who looks, in short transactions beside main's. One thread uses it."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._viewer: tuple[str, str] | None = None
        self._light: defaultdict[tuple[str, str], _Light] = defaultdict(_Light)

    def begin(self, who: str, plate: str) -> None:
        """Before this person's images of a plate; again is harmless. StorageError where it cannot be written down."""
        if self._viewer == (who, plate):
            return
        self.end()
        self._append(Action.VIEW_BEGUN, who, plate, None)
        self._viewer = who, plate

    def taken(self, image: Snapshot) -> None:
        """An image was taken: light fell on the sample."""
        light = self._light[str(image.well or ""), image.channel]
        light.images += 1
        if light.exposed_ms is not None:
            light.exposed_ms = None if image.exposure_ms is None else light.exposed_ms + image.exposure_ms

    def end(self) -> None:
        """Nobody looks any more. What cannot be written down is logged: the instrument is let go all the same."""
        if self._viewer is None:
            return
        (who, plate), self._viewer = self._viewer, None
        light, self._light = self._light, defaultdict(_Light)
        told = [
            {"well": well, "channel": channel, "images": one.images, "exposed_ms": one.exposed_ms}
            for (well, channel), one in light.items()
        ]
        images = sum(one.images for one in light.values())
        try:
            self._append(Action.VIEW_ENDED, who, plate, {"images": images, "light": told})
        except SpheroiddError as error:
            _log.warning("live view: the audit trail does not have what %s saw of plate %s: %s", who, plate, error)

    def _append(self, action: Action, who: str, plate: str, new: dict[str, object] | None) -> None:
        with Catalog.create_or_open(self._data_dir) as catalog:
            catalog.append_event(action, plate=plate, new=new, who=who)


class Watched:
    """A source whose single images are counted by a trail."""

    def __init__(self, source: Snapping, trail: ViewTrail) -> None:
        self._source, self._trail = source, trail

    @property
    def view_limits_um(self) -> tuple[float, float]:
        """See Snapping."""
        return self._source.view_limits_um

    def snap(self, order: SnapOrder) -> Snapshot:
        """See Snapping."""
        image = self._source.snap(order)
        self._trail.taken(image)
        return image

    def put_back(self) -> None:
        """See Snapping."""
        self._source.put_back()
