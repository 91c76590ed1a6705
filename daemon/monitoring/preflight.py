"""The preflight: what would stop a run, or spoil it hours later, is found before the first slice is taken."""

import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence, Sized
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

import psutil
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from spheroidd.daemon.catalog.connection import CATALOG_NAME, holds_catalog
from spheroidd.daemon.catalog.rows import stack_key
from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.daemon.config.model import Config, InferenceConfig, load_config, open_source
from spheroidd.daemon.config.named_models import chosen_regressor
from spheroidd.daemon.system.clock import SystemClock
from spheroidd.daemon.system.lock import describe_holder, is_locked
from spheroidd.inference.network.model_card import find_weights, read_card
from spheroidd.inference.segmentation.precision import CPU_WHOLE_WAY, named_precision
from spheroidd.inference.segmentation.threshold import ThresholdSegmenter, is_threshold
from spheroidd.protocols.errors import ConfigError, ModelError, SpheroiddError, StorageError, TryLaterError
from spheroidd.protocols.stack import StackPlan

# One raw byte on disk, uncompressed to be safe, a third of one for the 2x2 pyramid, and a tenth for both masks.
DISK_BYTES_PER_RAW_BYTE = 1.0 + 1 / 3 + 0.1
SLOW_SYNC_MS = 50.0  # a screen stack brings a slice every 600 ms; a slower disk eats the margin that rides out stalls
_ACKED = "SELECT plate, well, stack, 1.0 * n_acked / n_slices AS share FROM stacks WHERE n_acked > 0"
NETWORK_FILE_SYSTEMS = {"nfs", "nfs4", "cifs", "smb", "smb2", "smb3", "smbfs", "9p", "afpfs", "davfs", "fuse.sshfs"}


class Verdict(StrEnum):
    """What a check found."""

    PASS = "pass"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at: what was found and, unless it is well, what to do."""

    name: str
    verdict: Verdict
    what: str
    do: str = ""
    exit_code: int = 0  # of the error that a run would end with


def examine(config_path: Path | None) -> list[Check]:
    """All checks for a configuration file; without one, those that need none."""
    if config_path is None:
        return [
            _clock_check(None),
            _model_check("default"),
            _regressor_check(InferenceConfig()),
            _device_check("auto", None),
            _precision_check("auto"),
        ]
    try:
        config = load_config(config_path)
        config.plate_map()
    except SpheroiddError as error:
        return [_failed("configuration", error)]
    return [Check("configuration", Verdict.PASS, str(config_path)), *preflight(config)]


def preflight(config: Config, *, locked: bool = False) -> list[Check]:
    """Every check for a run of `config`. Where this process holds the data directory's lock already, say `locked`."""
    data_dir, inference = config.data.dir, config.inference
    with ThreadPoolExecutor(2, "preflight") as beside:
        catalog = beside.submit(_catalog_check, data_dir)  # a large one takes a while
        checks = [] if locked else [_lock_check(data_dir)]
        checks += [_directory_check(data_dir)]
        of_machine = beside.submit(_machine_checks, data_dir)  # which wait for the disk, and for the clock
        of_scoring = [
            _model_check(str(inference.model)),
            _regressor_check(inference),
            _device_check(inference.device, inference.threads),
            _precision_check(inference.precision),
        ]
        source, plans = _source_check(config) if exit_code(checks) == 0 else (None, None)
        checks += [catalog.result()]
    if exit_code(checks) == 0 and source is not None:
        checks += [*of_machine.result(), source]
        checks += [space_check(config, plans)] if source.verdict is Verdict.PASS else []
    return [*checks, *of_scoring]


def require(checks: Sequence[Check]) -> None:
    """Raise ConfigError, TryLaterError or StorageError for the first check that failed, naming the others."""
    failed = [check for check in checks if check.verdict is Verdict.FAIL]
    if not failed:
        return
    first, others = failed[0], ", ".join(check.name for check in failed[1:])
    kind = next((one for one in (StorageError, TryLaterError) if one.exit_code == first.exit_code), ConfigError)
    raise kind(first.what + (f" (and: {others})" if others else ""), where=first.name, do=first.do)


def exit_code(checks: Sequence[Check]) -> int:
    """1 where a check failed; a warning is none."""
    return int(any(check.verdict is Verdict.FAIL for check in checks))


def to_json(checks: Sequence[Check]) -> str:
    """A JSON list with one object for each check."""
    return json.dumps([asdict(check) for check in checks], indent=1)


def to_screen(checks: Sequence[Check]) -> RenderableType:
    """A table for a person, and one line of summary."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("check", "", "found", "what to do"):
        table.add_column(name, overflow="fold")
    styles = {Verdict.PASS: "green", Verdict.WARN: "yellow", Verdict.FAIL: "bold red"}
    for check in checks:
        table.add_row(check.name, Text(check.verdict, style=styles[check.verdict]), check.what, check.do)
    summary = "A run cannot start." if exit_code(checks) else "A run can start."
    return Group(table, Text(summary, style="bold"))


def _failed(name: str, error: SpheroiddError) -> Check:
    what = f"{error.where}: {error.what}" if error.where else error.what
    return Check(name, Verdict.FAIL, what, error.do, error.exit_code)


def _checked(name: str, look: Callable[[], str]) -> Check:
    """A check that passes with what `look` says, and fails with what it raises."""
    try:
        return Check(name, Verdict.PASS, look())
    except SpheroiddError as error:
        return _failed(name, error)


def _lock_check(data_dir: Path) -> Check:
    def look() -> str:
        if is_locked(data_dir):
            what = f"another spheroidd ({describe_holder(data_dir)}) runs on it"
            raise TryLaterError(what, where=str(data_dir), do="stop it, or use another directory")
        return "no other daemon has the directory"

    return _checked("lock", look)


def _directory_check(data_dir: Path) -> Check:
    def look() -> str:
        place = _existing(data_dir)
        try:
            with tempfile.NamedTemporaryFile(dir=place):
                pass
        except OSError as error:
            do = "choose a directory you may write to, on a disk with space"
            raise StorageError(f"cannot write there: {error.strerror}", where=str(place), do=do) from error
        return f"{data_dir} can be {'written' if place == data_dir else 'made'}"

    return _checked("data directory", look)


def _catalog_check(data_dir: Path) -> Check:
    def look() -> str:
        if not (data_dir / CATALOG_NAME).is_file():
            return "none yet: a new run"
        if not holds_catalog(data_dir):
            return "begun and never finished: it is completed"
        with Catalog.read_only(data_dir) as catalog:
            problems = catalog.verify()
            plates = ", ".join(catalog.plates())
        if problems:
            more = f" (and {len(problems) - 1} more)" if problems[1:] else ""
            do = "keep a copy of the directory before anything else; the slices in Zarr are not touched"
            raise StorageError(problems[0] + more, where=str(data_dir / CATALOG_NAME), do=do)
        return f"in order; plates: {plates or 'none'}"

    return _checked("catalog", look)


def _machine_checks(data_dir: Path) -> list[Check]:
    return [_file_system_check(data_dir), _sync_check(data_dir), _clock_check(data_dir)]


def _file_system_check(data_dir: Path) -> Check:
    place = _existing(data_dir).resolve()
    holders = [part for part in psutil.disk_partitions(all=True) if place.is_relative_to(part.mountpoint)]
    if not holders:
        return Check("file system", Verdict.PASS, "cannot be determined here")
    nearest = max(holders, key=lambda part: len(part.mountpoint))
    if nearest.fstype.lower() in NETWORK_FILE_SYSTEMS or "remote" in nearest.opts.split(","):
        what = f"{nearest.mountpoint} is a network share ({nearest.fstype}), where the catalog's log is not safe"
        return Check("file system", Verdict.WARN, what, "use a local disk, and copy the data away afterwards")
    return Check("file system", Verdict.PASS, f"{nearest.fstype} at {nearest.mountpoint}")


def _sync_check(data_dir: Path) -> Check:
    times_ms = []
    try:
        with tempfile.TemporaryFile(dir=_existing(data_dir)) as file:
            for _ in range(5):
                file.write(bytes(4096))
                file.flush()
                start = time.perf_counter()
                os.fsync(file.fileno())
                times_ms.append(1000 * (time.perf_counter() - start))
    except OSError as error:
        do = "use another disk: what it cannot flush, a power cut takes away"
        failure = StorageError(f"fsync fails: {error.strerror}", where=str(data_dir), do=do)
        return _failed("fsync", failure)
    median_ms = statistics.median(times_ms)
    if median_ms > SLOW_SYNC_MS:
        do = "use a local solid-state disk; slices may come faster than they can be made durable"
        return Check("fsync", Verdict.WARN, f"{median_ms:.0f} ms, which is slow", do)
    return Check("fsync", Verdict.PASS, f"{median_ms:.1f} ms")


def _clock_check(data_dir: Path | None) -> Check:
    wall_s, steady_s = time.time(), time.monotonic()
    time.sleep(0.05)
    drift_s = (time.time() - wall_s) - (time.monotonic() - steady_s)
    now = datetime.now(UTC)
    do = "set the computer's clock and let it be kept by NTP: times stand in every row"
    if not 2024 <= now.year < 2100:
        return Check("clock", Verdict.FAIL, f"it says {now:%Y-%m-%d}", do, ConfigError.exit_code)
    if abs(drift_s) > 0.02:
        return Check("clock", Verdict.WARN, f"it jumped by {drift_s:.2f} s while it was looked at", do)
    last_s = _last_heartbeat_s(data_dir)
    if last_s is not None and last_s > now.timestamp() + 60:
        ahead_min = (last_s - now.timestamp()) / 60
        return Check("clock", Verdict.WARN, f"the last run ended {ahead_min:.0f} min in the future", do)
    return Check("clock", Verdict.PASS, f"{now:%Y-%m-%d %H:%M} UTC")


def _last_heartbeat_s(data_dir: Path | None) -> float | None:
    if data_dir is None or not holds_catalog(data_dir):
        return None
    with Catalog.read_only(data_dir) as catalog:
        run = catalog.run_state()
    return run.heartbeat_s if run else None


def _model_check(model: str) -> Check:
    def look() -> str:
        if is_threshold(model):
            return f"{ThresholdSegmenter.named(model).sha256}: no network, a baseline"
        weights = find_weights(None if model == "default" else model)
        card = read_card(weights)
        with weights.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != card.sha256:
            what = f"the weights' sha256 is {digest[:16]}..., their card says {card.sha256[:16]}..."
            raise ModelError(what, where=str(weights), do="fetch both files again; they do not belong together")
        return f"{card.name}, sha256 {digest[:12]}"

    return _checked("model", look)


def _regressor_check(inference: InferenceConfig) -> Check:
    return _checked("regressor", lambda: f"sha256 {chosen_regressor(inference).sha256[:12]}")


def _device_check(device: str, threads: int | None) -> Check:
    """Torch is asked in a process of its own: the daemon's main process has no use for its memory."""
    if device in ("auto", "cpu", CPU_WHOLE_WAY):
        processor = f"the processor, {threads or os.cpu_count()} threads"
        return Check(
            "device", Verdict.PASS, processor if device != "auto" else f"a GPU where there is one, else {processor}"
        )
    question = f"import torch; print(torch.cuda.get_device_name({device!r}))"
    answer = subprocess.run([sys.executable, "-c", question], capture_output=True, text=True, check=False)
    if answer.returncode:
        last = answer.stderr.strip().splitlines()[-1:] or ["no answer"]
        do = 'set [inference] device = "auto" or "cpu"'
        return Check("device", Verdict.FAIL, f"{device} cannot be used: {last[0]}", do, ConfigError.exit_code)
    return Check("device", Verdict.PASS, f"{device}: {answer.stdout.strip()}")


def _precision_check(setting: str) -> Check:
    def look() -> str:
        named = named_precision(setting)
        return named.value if named else "bf16 where the hardware multiplies it, else fp32"

    return _checked("precision", look)


def _source_check(config: Config) -> tuple[Check, tuple[StackPlan, ...] | None]:
    """Whether the source answers, and what it is going to take; None where nobody knows."""
    try:
        with closing(open_source(config, SystemClock())) as source:
            source.check()
            plans = source.plans()
            known = tuple(plans) if isinstance(plans, Sized) else None
            name = source.plate_map.name
    except SpheroiddError as error:
        return _failed("source", error), None
    return Check("source", Verdict.PASS, f"{config.source_kind} answers, plate {name}"), known


def space_check(config: Config, plans: Sequence[StackPlan] | None) -> Check:
    """Whether the disk holds these stacks, less what of them is stored; None where nobody knows what will come."""
    free = shutil.disk_usage(_existing(config.data.dir)).free
    reserve = config.store.min_free_gb * 1e9
    if plans is None:
        what = f"{free / 1e9:.1f} GB free; the source does not say how much will come"
        if free < reserve:
            return Check("disk space", Verdict.FAIL, what, "make room", StorageError.exit_code)
        return Check("disk space", Verdict.PASS, what)
    need = DISK_BYTES_PER_RAW_BYTE * (sum(plan.n_bytes for plan in plans) - _stored_bytes(config.data.dir, plans))
    what = f"{free / 1e9:.1f} GB free; {need / 1e9:.1f} GB at most are to come, {reserve / 1e9:g} GB stay free"
    if free < reserve:
        return Check("disk space", Verdict.FAIL, what, "make room: no slice would be taken", StorageError.exit_code)
    if free < need + reserve:
        # The bound is for pixels that do not compress; real ones need about half.
        verdict = Verdict.FAIL if free < need / 2 + reserve else Verdict.WARN
        do = f"make room for {(need + reserve - free) / 1e9:.1f} GB, or use another disk"
        return Check("disk space", verdict, what, do, StorageError.exit_code)
    return Check("disk space", Verdict.PASS, what)


def _stored_bytes(data_dir: Path, plans: Sequence[StackPlan]) -> float:
    """Raw bytes of these plans that an earlier run has stored."""
    if not holds_catalog(data_dir):
        return 0.0
    with Catalog.read_only(data_dir) as catalog:
        acked = {stack_key(row): float(row["share"]) for row in catalog.query(_ACKED)}
    return sum(plan.n_bytes * acked.get(plan.key, 0.0) for plan in plans)


def _existing(path: Path) -> Path:
    """The path, or the nearest directory above it that is there."""
    path = path.absolute()
    while not path.is_dir() and path != path.parent:
        path = path.parent
    return path
