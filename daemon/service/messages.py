"""The nouns as messages of the wire contract. What is None stays unset, so that it is left out of JSON."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from spheroidd.daemon.catalog.plate_queue import QueuedPlate, QueueRun
from spheroidd.daemon.catalog.reader import CatalogReader
from spheroidd.daemon.catalog.rows import Fault, ResultRow, StackRow
from spheroidd.daemon.catalog.rows import stack_key as key_of
from spheroidd.daemon.monitoring.status import Status
from spheroidd.daemon.service.pattern_messages import raw_pattern, sim_pattern
from spheroidd.inference.network.model_card import DEFAULT_MODEL, WEIGHTS_FOLDER, read_card
from spheroidd.protocols import spheroidd_pb2 as wire
from spheroidd.protocols.errors import ConfigError, ModelError
from spheroidd.protocols.plate import check_plate_name
from spheroidd.protocols.result_columns import ROW, from_stored
from spheroidd.protocols.results import WellResult
from spheroidd.protocols.stack import RawIndex, SliceIndex, StackKey, StackPlan
from spheroidd.protocols.well import WellId

MAX_N_Z = 10_000
MAX_PLANE_BYTES = 31 << 20  # a message of the service holds one, and no more than 32 MB


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def status_message(status: Status) -> wire.Status:
    """A status, without what only the service knows."""
    run = status.run
    message = wire.Status(
        data_dir=status.data_dir,
        state=run.state if run else "starting",
        wells=status.wells,
        faults=[_fault(fault) for fault in status.faults],
        disk_free_gb=status.disk_free_gb,
        verdict=status.exit_code,
    )
    message.failed.extend(map(_without_value, status.failed))
    message.left_out.extend(map(_without_value, status.left_out))
    for one in status.doubtful:
        flags = list(one.trust_flags or ())
        message.doubtful.add(
            plate=one.plate, well=one.well, stack=one.stack, status=one.status, trust=one.trust, trust_flags=flags
        )
    if run:
        names = {field.name for field in wire.Status.DESCRIPTOR.fields} & set(run.__slots__)
        message.MergeFrom(wire.Status(**_given(**{name: getattr(run, name) for name in names})))
    if status.scrub:
        message.scrub.CopyFrom(wire.Scrub(**_given(**asdict(status.scrub))))
    if status.slice:
        message.stack_slices_done, message.stack_slices_total = status.slice
    return message


def queue_message(plates: Iterable[QueuedPlate], run: QueueRun) -> wire.ListQueueResponse:
    """The queue, and whether the daemon goes on by itself."""
    return wire.ListQueueResponse(
        plates=[wire.QueuedPlate(**_given(**asdict(one))) for one in plates], goes_on=run.goes_on, why=run.why
    )


def _without_value(result: WellResult) -> wire.WellFault:
    names = ("plate", "well", "stack", "reason")
    return wire.WellFault(**_given(**{name: getattr(result, name) for name in names}), status=result.status.value)


def _fault(fault: Fault) -> wire.Fault:
    names = ("code", "key", "kind", "what", "where", "do", "raised_s")
    return wire.Fault(**{name: getattr(fault, name) for name in names})


def result_message(row: ResultRow) -> wire.Result:
    """One line of the results."""
    return wire.Result(**_given(**row.values()))


def last_change(catalog: CatalogReader) -> int:
    """The sequence number of the newest change of a result."""
    return int(catalog.query("SELECT coalesce(max(id), 0) AS newest FROM result_changes")[0]["newest"])


def changes_after(catalog: CatalogReader, after: int, most: int) -> list[wire.ResultChange]:
    """The next changes of results, each with the figures after it."""
    sql = "SELECT * FROM result_changes WHERE id > :after ORDER BY id LIMIT :most"
    kinds = {column.name: column.kind for column in ROW}
    messages = []
    for row in catalog.query(sql, {"after": after, "most": most}):
        key = key_of(row)
        new = json.loads(row["new_json"])
        figures = {name: from_stored(kinds[name], value) for name, value in new.items() if name in kinds}
        figures |= {"plate": key.plate, "well": str(key.well), "stack": key.stack}
        result = wire.Result(**_given(**figures))
        messages.append(
            wire.ResultChange(sequence=row["id"], changed_s=row["changed_s"], why=row["reason"], result=result)
        )
    return messages


def progress_message(row: StackRow | None, ledger: Mapping[SliceIndex, int]) -> wire.PushProgress:
    """What of a stack is durable; nothing where it was never opened."""
    message = wire.PushProgress()
    if row is not None:
        message.status = row.state.value
        for channel in row.plan.channels:
            planes = row.plan.n_planes
            missing = [n for n in range(planes) if row.plan.index_at(channel, n) not in ledger]
            message.channels.add(
                channel=channel,
                n_acknowledged=planes - len(missing),
                next_z=missing[0] if missing else planes,
                missing=missing,
            )
    return message


def acknowledgement(slices: Iterable[tuple[SliceIndex, int]]) -> wire.PushSlicesResponse:
    """Slices that are durable."""
    acknowledged = [_acknowledged(index, crc) for index, crc in slices]
    return wire.PushSlicesResponse(acknowledged=wire.PushAcknowledgement(slices=acknowledged))


def _acknowledged(index: SliceIndex, crc: int) -> wire.AcknowledgedSlice:
    message = wire.AcknowledgedSlice(channel=index.channel, z=index.z, crc32c=crc)
    if isinstance(index, RawIndex):
        message.angle, message.phase = index.angle, index.phase
    return message


def slice_index(given: wire.PushedSlice | wire.AcknowledgedSlice) -> SliceIndex:
    """Which image a message is about; ConfigError where it names an angle without a phase, or the other way round."""
    if given.HasField("angle") != given.HasField("phase"):
        raise ConfigError("a raw frame has an angle and a phase", where=given.channel, do="give both, or none")
    if given.HasField("angle"):
        return RawIndex(given.channel, given.z, given.angle, given.phase)
    return SliceIndex(given.channel, given.z)


def stack_plan(plan: wire.PushPlan) -> StackPlan:
    """The plan that a program promises; ConfigError for one that cannot be, or that lacks a number."""
    key = stack_key(plan.plate, plan.well, plan.stack)
    for name in ("n_z", "height", "width", "pixel_um", "z_step_um"):
        if not plan.HasField(name):
            raise ConfigError(f"{name} is missing", where=str(key), do=f"give {name} in `open`")
    if plan.n_z > MAX_N_Z or plan.height * plan.width * 2 > MAX_PLANE_BYTES:
        what = f"{plan.n_z} slices of {plan.height} x {plan.width}"
        do = f"push at most {MAX_N_Z} slices of {MAX_PLANE_BYTES >> 20} MB"
        raise ConfigError(what, where=str(key), do=do)
    return StackPlan(
        key,
        tuple(plan.channels),
        plan.n_z,
        plan.height,
        plan.width,
        plan.pixel_um,
        plan.z_step_um,
        plan.dtype or "uint16",
        plan.slice_period_s if plan.HasField("slice_period_s") else None,
        sim_pattern(plan.raw, str(key)) if plan.HasField("raw") else None,
    )


def push_plan(plan: StackPlan, lease: str = "") -> wire.PushPlan:
    """The same the other way round: a program's promise."""
    key = plan.key
    message = wire.PushPlan(
        plate=key.plate, well=str(key.well), stack=key.stack, channels=plan.channels, n_z=plan.n_z, lease=lease
    )
    message.height, message.width, message.dtype = plan.height, plan.width, plan.dtype
    message.pixel_um, message.z_step_um = plan.pixel_um, plan.z_step_um
    if plan.slice_period_s is not None:
        message.slice_period_s = plan.slice_period_s
    if plan.raw is not None:
        message.raw.CopyFrom(raw_pattern(plan.raw))
    return message


def stack_key(plate: str, well: str, stack: int) -> StackKey:
    """A stack's key; ConfigError for a name that is none, such as one with ".." in it."""
    if not 0 <= stack < 10_000:
        raise ConfigError(f"stack {stack} is out of range", do="count a well's stacks from 0")
    return StackKey(check_plate_name(plate), WellId.parse(well), stack)


def known_models(catalog: CatalogReader) -> list[wire.Model]:
    """The models that ship, the default first, then those known only from their rows."""
    counts = {row["model_sha256"]: row["n"] for row in catalog.query(_COUNTS)}
    names = sorted(
        (path.stem for path in WEIGHTS_FOLDER.glob("*.json")), key=lambda name: (name != DEFAULT_MODEL, name)
    )
    models = []
    for name in names:
        try:
            card = read_card(name)
        except ModelError:
            continue  # the regressor's file is no card of a network
        n_results = counts.pop(card.sha256, 0)
        models.append(wire.Model(name=name, sha256=card.sha256, description=card.description, n_results=n_results))
    return [*models, *(wire.Model(sha256=sha256, n_results=n) for sha256, n in counts.items())]


_COUNTS = "SELECT model_sha256, count(*) AS n FROM results GROUP BY model_sha256 ORDER BY model_sha256"
