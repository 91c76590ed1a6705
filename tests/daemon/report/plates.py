"""Plates whose every figure is known, written into a catalog without a microscope or a model."""

import math
import statistics
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from spheroidd.acquisition.store.labels import LabelWriter
from spheroidd.acquisition.store.zarr_store import ZarrStackStore
from spheroidd.daemon.catalog.writer import Catalog, StackState
from spheroidd.protocols.events import Event, SliceDurable
from spheroidd.protocols.plate import PlateMap, PlateWell, Treatment, WellRole
from spheroidd.protocols.results import Limits, Normalisation, Precision, Related, StackMeasurement, WellStatus
from spheroidd.protocols.sim_pattern import SliceModulation
from spheroidd.protocols.stack import CHANNELS, Frame, SliceIndex, StackKey, StackPlan
from spheroidd.protocols.stack_end import Ending, StackEnd
from spheroidd.protocols.well import WellId

MODEL = "5f" * 32
FULL_UM3 = 300_000.0
UNTREATED, KILLED = Treatment(WellRole.NEGATIVE_CONTROL), Treatment(WellRole.POSITIVE_CONTROL)
DOSES_UM = tuple(0.05 * 10 ** (n / 2) for n in range(8))  # 0.05 to 158
Figures = Mapping[WellId, float]


def sample(compound: str, dose_um: float, patient: str | None = None) -> Treatment:
    return Treatment(WellRole.SAMPLE, compound, dose_um, patient)


def plate_map(name: str, treatments: Mapping[WellId, Treatment]) -> PlateMap:
    return PlateMap(name, tuple(PlateWell(well, of) for well, of in treatments.items()))


def share_alive(dose_um: float, ic50_um: float, hill: float = 1.5, bottom: float = 0.05) -> float:
    return bottom + (1 - bottom) / (1 + (dose_um / ic50_um) ** hill)


def plan_of(key: StackKey, n_z: int = 8, side: int = 48, channels: Sequence[str] = CHANNELS) -> StackPlan:
    return StackPlan(key, tuple(channels), n_z, side, side, 0.5, 1.0)


def measurement(live_um3: float, n_z: int = 8) -> StackMeasurement:
    live = live_um3 / FULL_UM3
    quantiles = {"488": {"0.02": 110.0, "0.5": 300.0, "0.98": 900.0, "0.999": 1000.0}}
    quantiles["561"] = {**quantiles["488"], "0.999": 800.0}
    limits = {channel: Limits(110.0, 900.0, 300.0, 200.0) for channel in CHANNELS}
    n_live = round(300 * live)
    return StackMeasurement(
        live_um3=live_um3,
        dead_um3=FULL_UM3 / 5 * max(0.0, 1.05 - live),
        n_live=n_live,
        n_dead=max(0, 310 - n_live),
        live_um3_by_z=(live_um3 / n_z,) * n_z,
        limits=limits,
        normalisation=Normalisation.PLATE,
        model_sha256=MODEL,
        cpu_s=1.0,
        quantiles=quantiles,
        precision=Precision.BF16,
    )


def register(data: Path, wells: PlateMap, *, plan: Callable[[StackKey], StackPlan] = plan_of) -> None:
    """The plate and its promised stacks, nothing imaged."""
    with Catalog.create_or_open(data) as catalog, catalog.transaction():
        catalog.register_plate(wells, '{"source":{"kind":"emulator"},"inference":{"normalisation":"plate"}}')
        for entry in wells.imaged():
            catalog.expect(plan(StackKey(wells.name, entry.well)))


def score(
    data: Path, wells: PlateMap, live_um3: Figures, *, final: bool = True, control_um3: float | None = None
) -> None:
    """Image and score the wells that `live_um3` names, and relate them to its untreated ones, or to `control_um3`."""
    untreated = [
        live_um3[e.well] for e in wells if e.treatment.role is WellRole.NEGATIVE_CONTROL and e.well in live_um3
    ]
    control = statistics.median(untreated) if untreated else control_um3
    status = WellStatus.FINAL if final else WellStatus.PROVISIONAL
    with Catalog.create_or_open(data) as catalog, catalog.transaction():
        for well, live in live_um3.items():
            key = StackKey(wells.name, well)
            plan = catalog.plan(key)
            for number, index in enumerate(plan.indices()):
                crc = zlib.crc32(f"{key} {index}".encode())  # no two slices have the same bytes
                catalog.acknowledge(SliceDurable(key, index, crc, 1000.0 + number), 1000.0 + number)
            catalog.set_stack_state(key, StackState.STORED)
            catalog.record_measurement(key, measurement(live, plan.n_z), 2.0)
            v_control = None if control is None else 100 * live / control
            reason = None if control is not None else "the plate has no untreated control"
            catalog.update_related(key, MODEL, Related(status, reason, v_control), "controls")


def set_state(data: Path, plate: str, well: WellId, state: StackState) -> None:
    with Catalog.create_or_open(data) as catalog:
        catalog.set_stack_state(StackKey(plate, well), state)


def end_stack(data: Path, plate: str, well: WellId, how: StackEnd, what: str) -> None:
    with Catalog.create_or_open(data) as catalog:
        catalog.end_stack(StackKey(plate, well), Ending(how, what))


def store_images(data: Path, wells: PlateMap, plan: StackPlan, live: float, seed: int = 0) -> None:
    """A stack of round cells and its two labels, as a run would leave them in the OME-Zarr plate."""
    numbers = zip(CHANNELS, (round(24 * live), round(24 * (1 - live))), strict=True)
    masks = {channel: _cells(plan, n, seed + place) for place, (channel, n) in enumerate(numbers)}
    events: list[Event] = []
    store = ZarrStackStore(data, wells, events.append)
    store.open(plan)
    noise = np.random.default_rng(seed)
    for z in range(plan.n_z):
        for channel in plan.channels:
            shape = (plan.height, plan.width)
            pixels = noise.normal(120, 12, shape) + masks[channel][z] * noise.normal(620, 60, shape)
            store.append(Frame(plan.key, SliceIndex(channel, z), pixels.clip(0, 65535).astype(np.uint16), 0.0))
    store.seal(plan.key)
    store.close()
    _acknowledge_instead(data, plan, [event for event in events if isinstance(event, SliceDurable)])
    for channel, name in zip(CHANNELS, ("live", "dead"), strict=True):
        if channel in plan.channels:
            with LabelWriter(data, plan.key, plan, name) as label:
                label.append(0, masks[channel])
                label.commit()


def _acknowledge_instead(data: Path, plan: StackPlan, slices: Sequence[SliceDurable]) -> None:
    """A stack that was scored before it had images gets the ledger that these images have."""
    with Catalog.create_or_open(data) as catalog, catalog.transaction():
        if catalog.acknowledged(plan.key):
            where = (plan.key.plate, str(plan.key.well), plan.key.stack)
            catalog.connection.execute("DELETE FROM slices WHERE plate = ? AND well = ? AND stack = ?", where)
            for event in slices:
                catalog.acknowledge(event, event.acquired_s)


def _cells(plan: StackPlan, n: int, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    z, y, x = np.ogrid[: plan.n_z, : plan.height, : plan.width]
    mask = np.zeros((plan.n_z, plan.height, plan.width), bool)
    for _ in range(n):
        cz, cy, cx = random.uniform(0, 1, 3) * mask.shape
        mask |= ((z - cz) * plan.z_step_um) ** 2 + (((y - cy) ** 2) + (x - cx) ** 2) * plan.pixel_um**2 < 36
    return mask


def screen_plate(
    name: str, rows: int, columns: int, ic50_um: Mapping[str, float], *, noise: float = 0.05, seed: int = 0
) -> tuple[PlateMap, dict[WellId, float]]:
    """A plate with controls in its outer columns and in scattered inner wells, compounds over all the others.

    Each compound runs through DOSES_UM as often as there is room. Returns the map and the live volume of each well.
    """
    random = np.random.default_rng(seed)
    wells = [WellId(row, column) for row in range(rows) for column in range(columns)]
    outer = [w for w in wells if w.column in (0, columns - 1)]
    inner = [w for w in wells if w.column not in (0, columns - 1)]
    chosen = [inner[i] for i in random.permutation(len(inner))[: len(outer) // 2]]
    treatments: dict[WellId, Treatment] = {}
    for place, well in enumerate([*outer, *chosen]):
        treatments[well] = UNTREATED if place % 2 else KILLED
    doses = [sample(compound, dose) for compound in ic50_um for dose in DOSES_UM]
    free = [well for well in inner if well not in treatments]
    treatments |= {well: doses[place % len(doses)] for place, well in enumerate(free)}
    alive = {well: _alive(of, ic50_um) * math.exp(random.normal(0, noise)) for well, of in treatments.items()}
    ordered = sorted(treatments)
    return plate_map(name, {w: treatments[w] for w in ordered}), {w: FULL_UM3 * alive[w] for w in ordered}


def _alive(treatment: Treatment, ic50_um: Mapping[str, float]) -> float:
    if treatment.role is not WellRole.SAMPLE:
        return 1.0 if treatment.role is WellRole.NEGATIVE_CONTROL else 0.03
    assert treatment.compound is not None
    assert treatment.dose_um is not None
    return share_alive(treatment.dose_um, ic50_um[treatment.compound])


def wells_of(names: Iterable[str]) -> list[WellId]:
    return [WellId.parse(name) for name in names]


def fading(n_z: int, channel: str = "488") -> list[SliceModulation]:
    """Slices whose stripes die: alive in three angles, then in one, then in none."""
    made = []
    for z in range(n_z):
        alive = tuple((z < n_z * share,) for share in (0.5, 0.5, 0.75))
        strength, contrast = 0.8 * math.exp(-z / n_z), 30.0 * math.exp(-4 * z / n_z)
        modulation = tuple((strength if live else 0.0,) for (live,) in alive)
        made.append(SliceModulation(channel, z, modulation, ((contrast,),) * 3, alive))
    return made


def store_stripes(data: Path, key: StackKey, n_z: int = 8) -> None:
    """Say of a stack that its slices were made of raw frames."""
    with Catalog.create_or_open(data) as catalog, catalog.transaction():
        catalog.put_sim_slices(key, [one for channel in CHANNELS for one in fading(n_z, channel)])
