"""A stack that this program stored, read again: every plane is checked against the crc32c that it was stored with.

Other people's OME-Zarr is `zarr_file`: there a plane with other bytes than were written looks like a sound one.
"""

from pathlib import Path

from spheroidd.acquisition.images.file_kind import check_metadata_files, check_regular
from spheroidd.acquisition.images.layout import FileLayout
from spheroidd.acquisition.images.metadata.image_metadata import Facts
from spheroidd.acquisition.images.stored_ledger import Recorded, read_ledger
from spheroidd.acquisition.store import ngff
from spheroidd.acquisition.store.shard import ShardCodec, ShardHeader, check_planes, read_header
from spheroidd.acquisition.store.stack_files import StackFiles
from spheroidd.protocols.errors import SpheroiddError, StackError, StorageError
from spheroidd.protocols.pixels import Pixels
from spheroidd.protocols.stack import SliceIndex, StackKey
from spheroidd.protocols.well import WellId

_NOBODY = StackKey("recorded", WellId(0, 0))  # the plate it is replayed as has its own name for it


def is_own(image: Path) -> bool:
    """Whether a folder is an image that this program wrote."""
    try:
        return "stack_id" in ngff.read_attributes(image).get(ngff.OWN, {})
    except (OSError, SpheroiddError):
        return False


class OwnZarrFile:
    """A whole stack of ours. Opening raises StackError where a slice of it was never stored.

    Of raw frames each counts as a slice, as `StackPlan.plane_of` numbers them.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._headers: dict[tuple[int, int], ShardHeader] = {}
        check_metadata_files(path / "0")
        try:
            self._files = StackFiles.existing(path, _NOBODY, ShardCodec())
            self.plan = plan = self._files.plan
            lacking = [index for index in plan.indices() if not self._holds(index)]
        except (OSError, KeyError, ValueError, StorageError) as error:
            raise StackError(f"its metadata are damaged: {error}", where=str(path), do="copy it again") from error
        if lacking:
            what = f"{len(lacking)} of {plan.n_slices} slices were never stored, the first is {lacking[0]}"
            raise StackError(what, where=str(path), do="take a stack that was stored whole")
        self._recorded: Recorded | None = None
        self._shard: tuple[tuple[int, int], ShardHeader, Pixels] | None = None
        self.layout = FileLayout(
            len(plan.channels),
            plan.n_planes,
            *plan.frame_shape,
            plan.dtype,
            plan.channels,
            plan.frame_pixel_um,
            plan.z_step_um,
        )

    def plane(self, channel: int, z: int) -> Pixels:
        """Read the pixels (y, x) of one plane; StackError where they are not those that were stored."""
        place = channel, z // self._files.depth
        path = self._files.shard(0, *place)
        try:
            if self._shard is None or self._shard[0] != place:
                self._shard = (place, *self._files.read_shard(*place))
            _, header, planes = self._shard
            at = z - header.z_start
            check_planes(header, planes[at : at + 1], at, path)
        except (OSError, StorageError) as error:
            what = f"channel {self.layout.channel_names[channel]} z {z} is not as it was stored: {error}"
            raise StackError(what, where=str(self._path), do="restore the recording from a copy") from error
        pixels: Pixels = planes[at]
        return pixels

    def metadata(self, channel: int, z: int) -> Facts:
        """What was said of a plane when it was stored, where the ledger of that run is still there."""
        return self._ledger().facts.get((self.layout.channel_names[channel], z), {})

    def unread(self) -> StackError | None:
        """Why nothing is known of its images but their pixels, where the ledger of that run cannot be read."""
        return self._ledger().unread

    def crc32c(self, channel: int, z: int) -> int:
        """The checksum that a plane was stored with, as the ledger has it."""
        return self._header(channel, z // self._files.depth).crcs[z]

    def close(self) -> None:
        """Let the shard in hand go; may be called twice."""
        self._shard = None

    def _ledger(self) -> Recorded:
        if self._recorded is None:
            self._recorded = read_ledger(self._path)
        return self._recorded

    def _holds(self, index: SliceIndex) -> bool:
        channel, plane = self.plan.channels.index(index.channel), self.plan.plane_of(index)
        return plane in self._header(channel, plane // self._files.depth).crcs

    def _header(self, channel: int, shard: int) -> ShardHeader:
        """A shard's header; one that was never written holds nothing."""
        if (channel, shard) not in self._headers:
            path = self._files.shard(0, channel, shard)
            found = ShardHeader(self._files.stack_id, shard * self._files.depth, self._files.depth, {})
            if path.exists():
                check_regular(path)
                found = read_header(path) or found
            self._headers[channel, shard] = found
        return self._headers[channel, shard]
