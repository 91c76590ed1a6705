"""Appends one stack's slices and prints each one that became durable; to be killed at any moment.

Its argument is a data directory: it takes up what is there and goes on.
"""

import os
import sys
from pathlib import Path

from spheroidd.acquisition.store.zarr_store import ZarrStackStore
from spheroidd.protocols.events import Event, SliceDurable
from spheroidd.testing.store_contract import PLATE_MAP, frame_of, pixels_of, plan_of

PLAN = plan_of(n_z=60, height=120, width=90)


def tell(event: Event) -> None:
    if isinstance(event, SliceDurable):
        os.write(1, f"{event.index.channel} {event.index.z} {event.crc32c}\n".encode())


def main() -> None:
    store = ZarrStackStore(Path(sys.argv[1]), PLATE_MAP, tell, ring_slots=32)
    held = store.open(PLAN)
    for index, pixels in pixels_of(PLAN).items():
        if index not in held:
            store.append(frame_of(PLAN, index, pixels))
    store.seal(PLAN.key)
    store.close()
