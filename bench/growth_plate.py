"""A plate of any number of wells, nearly finished, as rows of a catalog: what `bench.growth` measures costs on.

Nothing is imaged. Stacks, measurements and what was seen of the images go in through the catalog's own door; the ledger
of slices, a million rows of a 1536-well plate, is filled by SQLite and then given its digests, which takes seconds.
"""

import contextlib
import json
import sqlite3
from pathlib import Path

import numpy as np

from spheroidd.daemon.catalog import row_digests
from spheroidd.daemon.catalog.rows import StackState
from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.daemon.config.model import Config, load_config, open_source
from spheroidd.daemon.scoring.exclusions import relating
from spheroidd.daemon.scoring.messages import Scored
from spheroidd.daemon.system.clock import SystemClock
from spheroidd.inference.network.model_card import read_card
from spheroidd.protocols.events import SliceDurable
from spheroidd.protocols.evidence import ChannelLight, MaskEvidence, MaskShape, StackLight
from spheroidd.protocols.plate import PlateMap, WellRole
from spheroidd.protocols.results import ChannelProfile, Limits, Normalisation, Precision, StackMeasurement, StackProfile
from spheroidd.protocols.stack import CHANNELS, StackKey, StackPlan
from spheroidd.protocols.well import MAX_COLUMNS, WellId

N_Z = 325  # 2 channels: 650 slices a stack, 998,400 of 1536
SIDE = 16
LIMITS = {channel: Limits(110.0, 900.0, 300.0, 200.0) for channel in CHANNELS}
SHARE_ALIVE = {WellRole.NEGATIVE_CONTROL: 1.0, WellRole.POSITIVE_CONTROL: 0.05}
_SLICES = """
INSERT INTO slices
WITH RECURSIVE depth(z) AS (SELECT 0 UNION ALL SELECT z + 1 FROM depth WHERE z < ?)
SELECT plate, well, stack, channel, z, abs(random() % 4294967296), 1000.0 + z, 1000.1 + z, ?
FROM stacks, (SELECT '488' AS channel UNION ALL SELECT '561'), depth WHERE state = 'queued' AND well NOT IN
  (SELECT value FROM json_each(?))
"""
METADATA = {"x_um": 1234.5, "y_um": 678.9, "z_um": 12.5, "exposure_ms": 30.0, "camera": "bench", "host_time_s": 1000.0}


def config_of(folder: Path, n_wells: int) -> Config:
    """The configuration of a plate of so many wells, written beside its data; one well in eight is a control."""
    wells = [WellId(*divmod(number, MAX_COLUMNS)) for number in range(n_wells)]
    lines = ["well,role,compound,dose_um,patient"]
    for number, well in enumerate(wells):
        role = {0: "negative_control,,,", 8: "positive_control,,,"}.get(number % 16)
        lines.append(f"{well},{role or f'sample,C{number % 50:02d},{1 + number % 8},'}")
    folder.mkdir(parents=True)
    (folder / "map.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    given = "".join(f"[inference.limits.{c}]\nlow = 110.0\nhigh = 900.0\nmean = 300.0\nsd = 200.0\n" for c in CHANNELS)
    path = folder / "plate.toml"
    path.write_text(
        f"[data]\ndir = {str(folder / 'data')!r}\n[plate]\nname = 'P1'\nmap = {str(folder / 'map.csv')!r}\n"
        f"[source]\nkind = 'emulator'\npreset = 'unit'\npace = 'fast'\nn_z = {N_Z}\nheight = {SIDE}\nwidth = {SIDE}\n"
        f"[store]\nmin_free_gb = 0.0\n[service]\nenabled = false\n"
        f"[inference]\nnormalisation = 'plate'\nthreads = 1\n{given}",
        encoding="utf-8",
    )
    return load_config(path)


def write(config: Config, n_left: int) -> PlateMap:
    """Write the plate down as a run left it: all but the last `n_left` wells imaged, scored and related."""
    with contextlib.closing(open_source(config, SystemClock())) as source:
        plate_map, plans = source.plate_map, list(source.plans())
    with Catalog.create_or_open(config.data.dir) as catalog, catalog.transaction():
        catalog.register_plate(plate_map, config.model_dump_json())
        for plan in plans:
            catalog.expect(plan)
        catalog.lock_limits("P1", LIMITS)
    imaged = plans[: len(plans) - n_left]
    _fill_ledger(config.data.dir, [str(plan.key.well) for plan in plans[len(imaged) :]])
    rng = np.random.default_rng(7)
    with Catalog.create_or_open(config.data.dir) as catalog, catalog.transaction():
        for plan in imaged:
            catalog.set_stack_state(plan.key, StackState.STORED)
            enter(catalog, scored(plan, plate_map[plan.key.well].treatment.role, rng))
        scheduler = relating(catalog, "P1")
        if scheduler is not None:
            scheduler.record_relations()
    return plate_map


def enter(catalog: Catalog, answer: Scored) -> None:
    """A worker's answer as rows, not yet related to anything."""
    assert answer.measurement is not None
    assert answer.masks is not None
    catalog.put_stack_light(answer.key, answer.light)
    catalog.put_stack_profile(answer.key, answer.profile)
    catalog.record_measurement(answer.key, answer.measurement, latency_s=3.0)
    catalog.put_mask_evidence(answer.key, answer.measurement.model_sha256, answer.masks)


def scored(plan: StackPlan, role: WellRole, rng: np.random.Generator, model_sha256: str | None = None) -> Scored:
    """What a worker would say of a healthy well with this role."""
    alive = SHARE_ALIVE.get(role, float(rng.uniform(0.1, 1.0)))
    n_live, n_dead = round(300 * alive * rng.normal(1, 0.05)), round(20 + 300 * (1 - alive))
    by_z = rng.dirichlet(np.full(plan.n_z, 20.0)) * 650.0 * n_live
    measurement = StackMeasurement(
        live_um3=float(by_z.sum()),
        dead_um3=280.0 * n_dead,
        n_live=n_live,
        n_dead=n_dead,
        live_um3_by_z=tuple(map(float, by_z)),
        limits=LIMITS,
        normalisation=Normalisation.PLATE,
        model_sha256=model_sha256 or read_card(None).sha256,
        cpu_s=1.0,
        quantiles={c: {"0.02": 110.0, "0.5": 300.0, "0.98": 890.0, "0.999": 1000.0} for c in CHANNELS},
        precision=Precision.FP32,
    )
    light = StackLight({c: ChannelLight(110.0, 890.0, 950.0, 0.0, 12.0) for c in CHANNELS}, 0.1, 0.3, 1.0)
    channel = ChannelProfile(
        tuple(map(float, rng.normal(300, 5, plan.n_z).round(3))), 100.0, float(rng.normal(400, 20)), 0.7, 0.0, 0.0
    )
    shapes = {c: MaskShape(9.0, 9.0, dict.fromkeys(CHANNELS, 500.0)) for c in CHANNELS}
    masks = MaskEvidence(shapes, dict.fromkeys(CHANNELS, 120.0))
    return Scored(plan.key, light, StackProfile(dict.fromkeys(CHANNELS, channel), 0.4, 0.2, 3), measurement, masks)


def fill_slices(data: Path, keys: list[StackKey]) -> None:
    """Acknowledge every slice of further stacks, through the catalog's door."""
    with Catalog.create_or_open(data) as catalog, catalog.transaction():
        for key in keys:
            for number, index in enumerate(catalog.plan(key).indices()):
                catalog.acknowledge(SliceDurable(key, index, number, 0.0), 0.0)


def _fill_ledger(data: Path, but: list[str]) -> None:
    connection = sqlite3.connect(data / "catalog.sqlite", isolation_level=None)
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute("BEGIN")
    connection.execute(_SLICES, (N_Z - 1, json.dumps(METADATA), json.dumps(but)))
    connection.execute("COMMIT")
    row_digests.seal(connection)
    connection.close()
