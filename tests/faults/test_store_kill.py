"""A writer killed without warning, again and again: whatever it said to be durable is there."""

import random
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
import zarr

from spheroidd.acquisition.store import ngff
from spheroidd.acquisition.store.stack_files import read_stack
from spheroidd.acquisition.store.zarr_store import ZarrStackStore
from spheroidd.protocols.stack import SliceIndex
from spheroidd.testing.store_contract import PLATE_MAP, append_all, crc_of, pixels_of
from tests.faults.store_writer import PLAN
from tests.warm_start import talking


def write_and_kill(root: Path, after: int) -> dict[SliceIndex, int]:
    """Start a writer, kill it once it has reported `after` slices; everything it reported before it was gone."""
    with talking("from tests.faults.store_writer import main; main()", str(root)) as (writer, said):
        lines = []
        for line in said:
            lines.append(line)
            if len(lines) == after:
                writer.kill()
    whole = [line.split() for line in lines if line.endswith("\n")]
    return {SliceIndex(channel, int(z)): int(crc) for channel, z, crc in whole}


@pytest.mark.parametrize("seed", range(2))
def test_every_reported_slice_survives_kills(tmp_path, seed):
    rng = random.Random(seed)
    reported: dict[SliceIndex, int] = {}
    for _ in range(4):
        reported |= write_and_kill(tmp_path, after=rng.randint(1, 30))
    assert len(reported) >= 4

    store = ZarrStackStore(tmp_path, PLATE_MAP, lambda event: None, ring_slots=32)
    found = store.open(PLAN)
    assert reported.items() <= found.items()
    slices = pixels_of(PLAN)
    assert all(found[index] == crc_of(slices[index]) for index in found)

    store.seal(PLAN.key)  # what there is, read by someone else
    array = zarr.open_array(ngff.image_path(tmp_path, PLAN.key) / "0", mode="r")[:]
    for index, crc in reported.items():
        plane = array[PLAN.channels.index(index.channel), index.z]
        assert google_crc32c.value(plane.tobytes()) == crc

    store.open(PLAN)
    append_all(store, PLAN, slices)
    store.seal(PLAN.key)
    store.close()
    expected = np.stack([[slices[SliceIndex(c, z)] for z in range(PLAN.n_z)] for c in PLAN.channels])
    np.testing.assert_array_equal(read_stack(tmp_path, PLAN.key), expected)
