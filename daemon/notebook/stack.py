"""One stack of a plate: its image and labels as lazy arrays with micrometres on their axes, MIPs, and what is true."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from spheroidd.acquisition.store import ngff
from spheroidd.acquisition.store.computed_image import is_computed
from spheroidd.acquisition.store.shard import read_header
from spheroidd.daemon.catalog.reader import CatalogReader
from spheroidd.daemon.notebook.frames import missing_package
from spheroidd.daemon.notebook.stored_planes import Held, StoredPlanes
from spheroidd.protocols.errors import ConfigError, StackError, StorageError
from spheroidd.protocols.stack import SliceIndex, StackKey, StackPlan

if TYPE_CHECKING:
    import xarray as xr

Missing = Literal["refuse", "drop", "nan"]
"""What an image says of slices that are not committed: an error when they are computed, no such z at all, or NaN."""
LABELS = ("live", "dead")


@dataclass(frozen=True)
class Stack:
    """A stack as its ledger was when the plate was opened or refreshed; `plate["B03"]` gives it.

    `acknowledged` is that ledger, {slice: crc32c}. Of raw frames it says nothing of the slices that are made of them.
    """

    data_dir: Path
    key: StackKey
    plan: StackPlan
    acknowledged: Mapping[SliceIndex, int]

    def __repr__(self) -> str:
        n = min(self.committed.values())
        return f"<stack {self.key}: {n} of {self.plan.n_z} slices of {', '.join(self.plan.channels)} committed>"

    @cached_property
    def committed(self) -> dict[str, int]:
        """How many slices of each channel can be read: in the ledger, and in the shards that it was stored in."""
        held = self._held(0)
        return {channel: len(held[number]) for number, channel in enumerate(self.plan.channels)}

    @property
    def complete(self) -> bool:
        """Every promised slice of every channel is committed."""
        return min(self.committed.values()) == self.plan.n_z

    def image(self, level: int = 0, *, missing: Missing = "refuse") -> "xr.DataArray":
        """The image (channel, z, y, x), lazy: nothing is read until it is computed.

        uint8 or uint16 as the camera gave it; float32 with `missing="nan"`. z, y and x are micrometres, of a coarser
        pyramid `level` too. A slice that is not committed is never 0: with "refuse" it raises StackError when it is
        computed, with "drop" z has the slices that every channel has, with "nan" it is NaN. ConfigError for a level
        or a word there is not, and where dask or xarray is not installed.
        """
        if missing not in get_args(Missing):
            raise ConfigError(f"there is no missing={missing!r}", do=f"use one of {', '.join(get_args(Missing))}")
        array, held = self._level(self._image, level), self._held(level)
        z = range(self.plan.n_z)
        shown = [n for n in z if all(n in of for of in held)] if missing == "drop" else list(z)
        lead = tuple((number,) for number in range(len(self.plan.channels)))
        planes = StoredPlanes(array, ngff.grid_from(array), level, lead, self.plan.channels, tuple(shown), held,
                              missing == "nan", str(self.key))  # fmt: skip
        return self._lazy(planes, "image", {"n_slices_committed": self.committed})

    def label(self, name: str = "live", level: int = 0) -> "xr.DataArray":
        """A stored mask (z, y, x), lazy, 0 for the background: `live` or `dead`.

        `attrs["model_sha256"]` names the network that made it. StackError where the stack has none yet: it was not
        scored, or lacks the channel.
        """
        folder = ngff.label_path(self.data_dir, self.key, name)
        if not (folder / "zarr.json").is_file():
            has = [one for one in LABELS if ngff.label_path(self.data_dir, self.key, one).is_dir()]
            do = f"choose of {', '.join(has)}" if has else "wait until it is scored, or call plate.score()"
            raise StackError(f"there is no label {name!r}", where=str(self.key), do=do)
        array = self._level(folder, level)
        held = _planes_of(array, (), self.plan.n_z, ngff.grid_from(array).depth)
        planes = StoredPlanes(array, ngff.grid_from(array), level, ((),), ("",), tuple(range(self.plan.n_z)), (held,),
                              False, f"{self.key}, label {name}")  # fmt: skip
        return self._lazy(planes, name, ngff.read_attributes(folder).get(ngff.OWN, {}))[0].drop_vars("channel")

    def mip(self, level: int = 0, *, missing: Missing = "refuse") -> "xr.DataArray":
        """The brightest of all slices (channel, y, x), lazy; with "drop" or "nan" of those that are committed.

        StackError when it is computed where a slice is not committed, unless `missing` says otherwise.
        """
        image = self.image(level, missing=missing)
        if not image.sizes["z"]:
            raise StackError("no slice is committed in every channel", where=str(self.key), do="refresh the plate")
        brightest: xr.DataArray = image.max("z", skipna=missing == "nan", keep_attrs=True)
        return brightest

    def truth(self) -> "dict[str, xr.DataArray]":
        """True masks (z, y, x), bool, by "live" and "dead", at the image's sampling.

        The plate's emulator knows them, or the folder of truths beside the recording that it replays; ConfigError
        where nobody does.
        """
        from spheroidd.daemon.evaluation.truth import plate_truth

        with CatalogReader.read_only(self.data_dir) as catalog:
            masks = plate_truth(catalog, self.key.plate, None, None).masks(self.key, self.plan)
        xarray = _xarray()
        coords = {axis: self._axis(axis, 0, range(n)) for axis, n in zip("zyx", self._shape, strict=True)}
        return {name: xarray.DataArray(mask, coords, name=name, dims=tuple("zyx")) for name, mask in masks.items()}

    @property
    def _shape(self) -> tuple[int, int, int]:
        return self.plan.n_z, self.plan.height, self.plan.width

    @property
    def _image(self) -> Path:
        return ngff.image_path(self.data_dir, self.key)

    def _level(self, folder: Path, level: int) -> Path:
        n = len(ngff.level_shapes(self.plan.height, self.plan.width))
        if level not in range(n):
            raise ConfigError(f"there is no level {level}", where=str(self.key), do=f"choose 0 to {n - 1}")
        if not (folder / str(level)).is_dir():
            raise StackError("no slice of it was stored yet", where=str(self.key), do="refresh the plate later")
        return folder / str(level)

    def _held(self, level: int) -> tuple[Held, ...]:
        """Of each channel, what may be read: the slices of the ledger that stand in the shards of this level."""
        array, channels = self._image / str(level), self.plan.channels
        if not array.is_dir() or (self.plan.raw is not None and not is_computed(self.data_dir, self.key)):
            return ({},) * len(channels)
        depth = ngff.grid_from(array).depth
        stored = [_planes_of(array, (number,), self.plan.n_z, depth) for number in range(len(channels))]
        if self.plan.raw is not None:  # it is made of frames, and whole: the ledger is of those
            return tuple(stored)
        both = []
        for channel, planes in zip(channels, stored, strict=True):
            ledger = {z: self.acknowledged.get(SliceIndex(channel, z)) for z in planes}
            others = [z for z, crc in ledger.items() if crc not in (None, planes[z])]
            if others:
                what = f"channel {channel} z {others[0]} is another image than the one that was acknowledged"
                do = "`spheroidd verify` says what is damaged; restore it from a backup"
                raise StackError(what, where=str(self.key), do=do)
            both.append({z: crc for z, crc in planes.items() if ledger[z] is not None})
        return tuple(both)

    def _lazy(self, planes: StoredPlanes, name: str, own: Mapping[str, Any]) -> "xr.DataArray":
        try:
            import dask.array as da
        except ImportError as error:
            raise missing_package("dask") from error
        xarray = _xarray()
        _, n_z, height, width = planes.shape
        chunks = (1, min(planes.grid.depth, max(n_z, 1)), height, width)
        meta = np.empty((0,) * 4, planes.dtype)
        lazy = da.from_array(planes, chunks=chunks, name=False, meta=meta)  # type: ignore[no-untyped-call]
        coords = {
            "channel": list(planes.names),
            "z": self._axis("z", planes.level, planes.z),
            "y": self._axis("y", planes.level, range(height)),
            "x": self._axis("x", planes.level, range(width)),
        }
        facts = {
            "plate": self.key.plate,
            "well": str(self.key.well),
            "stack": self.key.stack,
            "pixel_um": self.plan.pixel_um * 2**planes.level,
            "z_step_um": self.plan.z_step_um,
            **own,
        }
        found: xr.DataArray = xarray.DataArray(lazy, coords, ("channel", "z", "y", "x"), name, facts)
        return found

    def _axis(self, name: str, level: int, places: "range | tuple[int, ...]") -> Any:
        """Where the pixels' centres are, in micrometres from the centre of the first one at full resolution."""
        step, shift = self.plan.z_step_um, 0.0
        if name != "z":
            step, shift = self.plan.pixel_um * 2**level, self.plan.pixel_um * (2**level - 1) / 2
        return _xarray().Variable((name,), np.array(places, np.float64) * step + shift, {"units": "um"})


def _planes_of(array: Path, lead: tuple[int, ...], n_z: int, depth: int) -> dict[int, int]:
    """{z: crc32c} of the planes that the shards of a channel say they hold."""
    found: dict[int, int] = {}
    for shard in range(-(-n_z // depth)):
        path = ngff.shard_path(array, *lead, shard)
        try:
            header = read_header(path)
        except OSError as error:
            raise StorageError(f"cannot be read: {error}", where=str(path), do="check the disk") from error
        found |= header.crcs if header else {}
    return found


def _xarray() -> Any:
    try:
        import xarray
    except ImportError as error:
        raise missing_package("xarray") from error
    return xarray
