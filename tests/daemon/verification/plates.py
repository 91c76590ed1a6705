"""Plates that the store, the catalog and the label writer make in a second: real files, a pyramid, no model."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from spheroidd.acquisition.store.labels import LabelWriter
from spheroidd.acquisition.store.zarr_store import ZarrStackStore
from spheroidd.daemon.catalog.rows import StackState
from spheroidd.daemon.catalog.scored_from import ScoredFrom, images_digest
from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.protocols.events import BlockStored, Event, SliceDurable
from spheroidd.protocols.plate import PlateMap, PlateWell, Treatment, WellRole
from spheroidd.protocols.results import Limits, Normalisation, Precision, Related, StackMeasurement, WellStatus
from spheroidd.protocols.stack import Frame, StackKey, StackPlan
from spheroidd.protocols.well import WellId

PLATE, MODEL = "P1", "ab" * 32
WELLS = ("A01", "A02", "B01")
MAP = PlateMap(
    PLATE,
    (
        PlateWell(WellId.parse("A01"), Treatment(WellRole.NEGATIVE_CONTROL, patient="P01")),
        PlateWell(WellId.parse("A02"), Treatment(WellRole.NEGATIVE_CONTROL, patient="P01")),
        PlateWell(WellId.parse("B01"), Treatment(WellRole.SAMPLE, "C01", 5.0, "P01")),
    ),
)


def plan_of(well: str, *, n_z: int = 12, side: int = 300) -> StackPlan:
    return StackPlan(StackKey(PLATE, WellId.parse(well)), ("488", "561"), n_z, side, side, 0.25, 0.5, "uint16")


def make_plate(
    data_dir: Path, *, wells: Sequence[str] = WELLS, n_z: int = 12, side: int = 300, scored: bool = True
) -> Path:
    """A plate whose stacks are stored, sealed and scored, as a run leaves it."""
    with Catalog.create_or_open(data_dir) as catalog:
        catalog.register_plate(MAP, '{"inference": {}}')
        for number, well in enumerate(wells):
            add_stack(data_dir, catalog, plan_of(well, n_z=n_z, side=side), seed=number, scored=scored)
    return data_dir


def add_stack(data_dir: Path, catalog: Catalog, plan: StackPlan, *, seed: int, scored: bool = True) -> None:
    """One stack through the store into the ledger; its masks and its row."""
    events: list[Event] = []
    store = ZarrStackStore(data_dir, MAP, events.append, ring_slots=32)
    rng = np.random.default_rng(seed)
    light = rng.poisson(300, (plan.height, plan.width)).astype(np.uint16)
    catalog.expect(plan)
    catalog.set_stack_state(plan.key, StackState.ACQUIRING)
    try:
        store.open(plan)
        for number, index in enumerate(plan.indices()):
            pixels = np.roll(light, 7 * number, axis=1)
            pixels[0, 0] = number
            store.append(Frame(plan.key, index, pixels, 1000.0 + number, {"exposure_ms": 20.0}))
        store.seal(plan.key)
    finally:
        store.close()
    with catalog.transaction():
        for event in events:
            if isinstance(event, SliceDurable):
                catalog.acknowledge(event, 2000.0)
            elif isinstance(event, BlockStored):
                catalog.block_stored(event.block)
        catalog.set_stack_state(plan.key, StackState.STORED)
    if scored:
        score(data_dir, catalog, plan, seed)


def score(data_dir: Path, catalog: Catalog, plan: StackPlan, seed: int) -> None:
    """Masks of the right form, and the row that follows from them."""
    rng = np.random.default_rng(1000 + seed)
    volumes, digests, by_z = {}, {}, np.zeros(plan.n_z)
    for name in ("live", "dead"):
        masks = rng.random((plan.n_z, plan.height, plan.width)) < 0.1
        with LabelWriter(data_dir, plan.key, plan, name, {"model_sha256": MODEL}) as label:
            label.append(0, masks)
            label.commit()
            digests[name] = label.sha256
        volumes[name] = float(masks.sum() * plan.voxel_um3)
        by_z = masks.sum((1, 2)) * plan.voxel_um3 if name == "live" else by_z
    measurement = StackMeasurement(
        live_um3=volumes["live"],
        dead_um3=volumes["dead"],
        n_live=10,
        n_dead=5,
        live_um3_by_z=tuple(by_z.tolist()),
        limits={"488": Limits(100.0, 900.0, 300.0, 50.0)},
        normalisation=Normalisation.STACK,
        model_sha256=MODEL,
        cpu_s=1.0,
        quantiles={"488": {"0.5": 120.0}},
        precision=Precision.FP32,
    )
    catalog.record_measurement(plan.key, measurement, 1.5)
    catalog.put_origin(plan.key, MODEL, ScoredFrom(images_digest(catalog.acknowledged(plan.key)), digests))
    catalog.update_related(plan.key, MODEL, Related(WellStatus.PROVISIONAL, v_control=90.0 + seed), "related")


def image(data_dir: Path, well: str = "A01") -> Path:
    """A stack's folder."""
    return data_dir / f"{PLATE}.ome.zarr" / well[0] / well[1:] / "0"
