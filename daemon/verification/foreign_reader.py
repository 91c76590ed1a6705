"""A stack as other programs see it: decoded by zarr-python, which knows nothing of this program's headers."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from spheroidd.acquisition.store import ngff
from spheroidd.acquisition.store.shard import crc32c
from spheroidd.acquisition.store.stack_files import open_image
from spheroidd.daemon.verification.findings import Kind
from spheroidd.daemon.verification.stack_check import Checked, finding_of
from spheroidd.protocols.stack import RawIndex, SliceIndex, StackKey


def read_as_others_do(data_dir: Path, key: StackKey, ledger: Mapping[SliceIndex, int]) -> Checked:
    """Compare what zarr-python gives with the ledger, plane by plane."""
    found = Checked()
    image = ngff.image_path(data_dir, key)
    if any(isinstance(index, RawIndex) for index in ledger):
        return found  # the image is computed; its raw frames are checked against the ledger shard by shard
    try:
        plan_channels = list(ngff.read_attributes(image)[ngff.OWN]["channels"])
        array = open_image(data_dir, key)
        depth = array.shards[1]
        for channel, name in enumerate(plan_channels):
            for start in range(0, array.shape[1], depth):
                zs = [z for z in range(start, min(start + depth, array.shape[1])) if (name, z) in ledger]
                if not zs:
                    continue
                planes = np.asarray(array[channel, start : start + depth])
                wrong = [z for z in zs if crc32c(planes[z - start]) != ledger[SliceIndex(name, z)]]
                if wrong:
                    what = "zarr-python reads other pixels than were acknowledged"
                    place = {"channel": name, "z": (wrong[0], wrong[-1]), "level": 0}
                    found.findings.append(finding_of(key, data_dir, Kind.OTHER_PIXELS, what, image, **place))
    except (OSError, KeyError, IndexError, TypeError, ValueError, RuntimeError, ArithmeticError) as error:
        what = f"zarr-python cannot read it: {type(error).__name__}: {error}"
        found.findings.append(finding_of(key, data_dir, Kind.DAMAGED_SHARD, what, image))
    return found
