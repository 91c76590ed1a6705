"""The matrix of faults: each one on plates in real processes, and a table of what was lost and what was wrong.

    python -m tests.faults.matrix [--only WORD] [--share 0.1] [--minutes 50] [--jobs 3] [--seed N] [--out FILE.md]

It prints a line for every fault as soon as it is done. All lines advance together, so that a run that ends early, by
--minutes or by Ctrl-C (after the trials under way), has had each fault. Exit code 1 where anything was lost or wrong,
or a daemon hung.
"""

import argparse
import contextlib
import datetime
import json
import math
import os
import random
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil

from spheroidd.daemon.catalog.schema import MIGRATIONS
from tests.daemon.catalog.older import make_older
from tests.faults.campaign import END_S, HUNG, WHOLE, Trial, Verdict, told
from tests.faults.disks import Disk, NoDiskError, small_disk
from tests.faults.hostile import FILES, PUSHES, VICTIM, hostile_file, hostile_push, killed_program
from tests.faults.interposed import POINTS
from tests.faults.plate_runs import kill, ledger, run, spheroidd, write_config
from tests.faults.test_damaged_stacks import DAMAGES, shard_of
from tests.faults.test_plate_faults import in_hand, workers

SLOW = {"pace": "real", "slice_period_s": 0.08}  # two seconds a stack: a fault hits each stage of it
MOST_KILLS = 12  # of one plate
PACED = {"pace": "real", "slice_period_s": 0.02}


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the matrix: the fault, how often it is to happen, and one trial of it."""

    kind: str
    name: str
    times: int
    trial: Callable[[Trial], Verdict]


def killed_at_random(trial: Trial, *, group: bool = False) -> Verdict:
    """Kill -9 again and again until the plate is whole all the same."""
    trial.source = SLOW
    config, kills = trial.config(), 0
    while True:
        process = trial.start(config)
        # Short lives hit the start and the acquisition, long ones the scoring and the last commits.
        life_s = trial.chance.choice([trial.chance.uniform(0.3, 3.0), trial.chance.uniform(3.0, 12.0)])
        if kills >= MOST_KILLS:  # on a busy computer no life would be long enough for the last stack
            life_s = END_S
        if trial.until(lambda process=process: process.poll() is not None, life_s):
            return trial.verdict(config, kills, "the next run goes on")
        if kills >= MOST_KILLS:
            return Verdict(kills, 0, 1, HUNG)
        for one in psutil.Process(process.pid).children(recursive=True) if group else ():
            one.kill()
        kill(process)
        kills += 1
        trial.look(config)


def interposed(trial: Trial, point: str, what: str, *, where: str = "daemon", latest: int = 40) -> Verdict:
    """One call goes wrong; then the plate is run to its end with nothing going wrong."""
    trial.source = PACED
    first = trial.chance.randint(1, latest)
    config = trial.config()
    code = trial.end(trial.start(config, f"{where}:{point}:{what}:{first}:{trial.chance.choice([1, 3])}"))
    words = told(config)
    if code is not None and code > 1 and "To do:" in config.with_suffix(".log").read_text(encoding="utf-8"):
        words += "; the terminal says what to do"
    trial.look(config)
    sees = HUNG if code is None else f"exit code {code}; {words}"
    if code != 0:
        code = trial.end(trial.start(config))
        sees += HUNG if code is None else "; the next run goes on"
    return trial.verdict(config, int(trial.fired), sees)


def worker_ends(trial: Trial, *, hangs: bool) -> Verdict:
    """The model's process is killed, or stopped for good."""
    trial.source = PACED
    config = trial.config(patience_s=5.0)
    process = trial.start(config)
    reached = trial.until(lambda: in_hand(config))
    time.sleep(trial.chance.uniform(0, 0.5))
    for worker in workers(process.pid) if reached else ():
        worker.suspend() if hangs else worker.kill()
    code = trial.end(process)
    return trial.verdict(config, int(reached), HUNG if code is None else f"exit code {code}; {told(config)}")


def power_cut(trial: Trial) -> Verdict:
    """The file system under the data directory stops dead, and what was not synced is gone."""
    trial.source = SLOW
    disk = Disk(trial.folder)
    trial.folder = disk.mount
    config = trial.config()
    try:
        process = trial.start(config)
        trial.until(lambda: process.poll() is not None, trial.chance.uniform(1.0, 14.0))
        trial.look(config)
        others = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        disk.cut_power()
        kill(process)
        for one in others:  # nothing goes on without power
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        psutil.wait_procs(others, timeout=30)
        disk.unplug()
        disk.plug_in()
        config = trial.config()  # it may not have been synced either
        code = trial.end(trial.start(config))
        return trial.verdict(config, 1, HUNG if code is None else f"the next run goes on (exit code {code})")
    finally:
        for one in trial.running:
            kill(one)
        disk.discard()


def full_disk(trial: Trial) -> Verdict:
    """The disk is full for some seconds."""
    trial.source = SLOW
    with small_disk(trial.folder) as disk:
        trial.folder = disk
        config = trial.config()
        process = trial.start(config)
        trial.until(lambda: len(ledger(config).slices) > trial.chance.randint(1, 100))
        ballast = disk / "ballast"
        with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(bytes(4096)):
                pass
        time.sleep(4.0)
        words = told(config)
        trial.look(config)
        ballast.unlink()
        code = trial.end(process)
        try:
            return trial.verdict(config, 1, HUNG if code is None else f"{words}; the run goes on (exit code {code})")
        finally:
            kill(process)


def no_files(trial: Trial) -> Verdict:
    """The daemon may open no further file for some seconds."""
    if sys.platform != "linux":
        raise NoDiskError("only Linux lets another process's limits be set")
    import resource

    trial.source = SLOW
    config = trial.config()
    process = trial.start(config)
    trial.until(lambda: len(ledger(config).slices) > trial.chance.randint(1, 60))
    before = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (psutil.Process(process.pid).num_fds(), before[1]))
    time.sleep(15.0)
    words = told(config)
    trial.look(config)
    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, before)
    code = trial.end(process)
    sees = HUNG if code is None else f"{words}; exit code {code}"
    if code != 0:
        sees += "; the next run goes on" if trial.end(trial.start(config)) == 0 else HUNG
    return trial.verdict(config, 1, sees)


def instrument(trial: Trial, kind: str) -> Verdict:
    """The instrument does something wrong in one well."""
    trial.source = {"faults": [{"well": "B01", "kind": kind, "z": 9, "times": 2, "seconds": 1.0}]}
    config = trial.config()
    code = trial.end(trial.start(config))
    sees = HUNG if code is None else f"exit code {code}; {told(config)}"
    if code == 3:
        code = trial.end(trial.start(config))
        sees += HUNG if code is None else "; the next run goes on"
    picture = frozenset({"B01"}) if kind not in ("duplicate", "stall") else frozenset()
    return trial.verdict(config, 1, sees, failed=picture)


def damaged_before_scoring(trial: Trial, damage: str) -> Verdict:
    """A file of images is damaged between the moment it is stored and the moment it is scored."""
    config, well = trial.config(), VICTIM
    process = trial.start(config)
    reached = trial.until(lambda: ledger(config).states.get(well, ("", None))[0] == "stored")
    kill(process)
    if not reached or well in ledger(config).results:
        return Verdict(0, 0, 0, "not reached")
    trial.look(config)
    DAMAGES[damage](shard_of(config, well))
    code = trial.end(trial.start(config))
    sees = HUNG if code is None else f"exit code {code}; {told(config)}"
    verdict = trial.verdict(config, 1, sees, failed={well}, damaged={well})
    return Verdict(1, verdict.lost, verdict.wrong + int(code == 0), verdict.sees)


def damaged_after_final(trial: Trial, damage: str) -> Verdict:
    """A file of images is damaged after its row was final: the rows stay, and `verify` finds it."""
    shutil.copytree(trial.undisturbed.parent / "data", trial.folder / "data")
    config = trial.config()
    DAMAGES[damage](shard_of(config))
    found = spheroidd("verify", str(trial.folder / "data"))
    wrong = int(ledger(config).results != trial.truth.results) + int(found.returncode != 3)
    return Verdict(1, 0, wrong, f"`verify` ends with {found.returncode} and names the file")


def upgraded(trial: Trial, steps: int) -> Verdict:
    """A plate that an older program began goes on with this one."""
    trial.source = SLOW
    config = trial.config()
    process = trial.start(config)
    trial.until(lambda: len(ledger(config).slices) > trial.chance.randint(20, 120))
    kill(process)
    trial.look(config)
    make_older(trial.folder / "data", steps)
    code = trial.end(trial.start(config))
    return trial.verdict(config, 1, HUNG if code is None else f"exit code {code}; {told(config)}")


def second_daemon(trial: Trial) -> Verdict:
    """Another daemon is started for the same directory."""
    trial.source = PACED
    config = trial.config()
    process = trial.start(config)
    trial.until((trial.folder / "data" / "catalog.sqlite").exists)
    second = spheroidd("run", str(config))
    code = trial.end(process)
    verdict = trial.verdict(config, 1, f"the second ends with {second.returncode} and names the first")
    return Verdict(1, verdict.lost, verdict.wrong + int(code != 0) + int(second.returncode != 75), verdict.sees)


def interrupted(trial: Trial) -> Verdict:
    """SIGTERM, as a service manager sends it."""
    trial.source = SLOW
    config = trial.config()
    process = trial.start(config)
    trial.until(lambda: len(ledger(config).slices) > trial.chance.randint(1, 150))
    process.terminate()
    code = trial.end(process)
    trial.look(config)
    sees = HUNG if code is None else f"exit code {code}"
    code = trial.end(trial.start(config))
    return trial.verdict(config, 1, sees + (HUNG if code is None else "; the next run goes on"))


def rows() -> Iterator[Row]:
    """The matrix."""
    yield Row("kill", "kill -9 of the daemon at random", 100, killed_at_random)
    yield Row("kill", "kill -9 of daemon and worker together", 60, lambda t: killed_at_random(t, group=True))
    for point in POINTS:
        for when in ("kill-before", "kill-after"):
            name = f"kill -9 {when.removeprefix('kill-')} {point}"
            few = 6 if point.startswith("file") else 40  # so many of them a plate has
            yield Row("kill", name, 2, lambda t, p=point, when=when, few=few: interposed(t, p, when, latest=few))
    for point in ("shard-write", "shard-sync", "shard-rename"):
        name = f"worker killed before its {point.replace('shard', 'masks')}"
        yield Row("worker", name, 2, lambda t, p=point: interposed(t, p, "kill-before", where="worker", latest=6))
    yield Row("worker", "worker killed while it scores", 10, lambda t: worker_ends(t, hangs=False))
    yield Row("worker", "worker stopped for good", 3, lambda t: worker_ends(t, hangs=True))
    yield Row("power", "power cut", 50, power_cut)
    yield Row("disk", "disk full for some seconds", 3, full_disk)
    yield Row("disk", "no further file can be opened for 15 s", 2, no_files)
    for number in ("ENOSPC", "EDQUOT", "EIO", "EROFS", "EMFILE"):
        for point in ("ring-write", "ring-sync", "shard-write", "shard-sync", "shard-rename", "ledger-commit"):
            yield Row("disk", f"{number} at {point}", 2, lambda t, p=point, n=number: interposed(t, p, n))
    yield Row("disk", "short write at shard-write", 3, lambda t: interposed(t, "shard-write", "short"))
    for number in ("ENOSPC", "EIO"):
        name = f"{number} at the worker's masks"
        yield Row("disk", name, 2, lambda t, n=number: interposed(t, "shard-write", n, where="worker", latest=6))
    for off in (-86400, -3600, 3600, 86400):
        yield Row("clock", f"clock set by {off:+d} s", 2, lambda t, o=off: interposed(t, "ledger-commit", f"clock={o}"))
    for kind in ("drop", "duplicate", "stall", "short", "fail", "lost"):
        yield Row("instrument", f"instrument: {kind}", 2, lambda t, kind=kind: instrument(t, kind))
    for kind in FILES:
        yield Row("hostile file", kind, 1, lambda t, kind=kind: hostile_file(t, kind))
    for kind in PUSHES:
        yield Row("hostile push", kind, 1, lambda t, kind=kind: hostile_push(t, kind))
    yield Row("hostile push", "a program that is killed half-way", 3, killed_program)
    for damage in DAMAGES:
        yield Row("damage", f"{damage} between stored and scored", 1, lambda t, d=damage: damaged_before_scoring(t, d))
        yield Row("damage", f"{damage} after final", 1, lambda t, d=damage: damaged_after_final(t, d))
    for steps in range(1, len(MIGRATIONS)):
        yield Row("upgrade", f"begun with schema {steps}", 1, lambda t, steps=steps: upgraded(t, steps))
    yield Row("ends", "a second daemon", 2, second_daemon)
    yield Row("ends", "SIGTERM", 3, interrupted)


@dataclass(slots=True)
class Line:
    """A line's trials so far."""

    row: Row
    times: int
    begun: int = 0
    verdicts: list[Verdict] = field(default_factory=list)
    unable: str = ""

    @property
    def happened(self) -> int:
        """How often the fault has happened."""
        return sum(verdict.happened for verdict in self.verdicts)

    @property
    def bad(self) -> int:
        """What was lost, wrong or hung."""
        return sum(verdict.lost + verdict.wrong + (HUNG in verdict.sees) for verdict in self.verdicts)

    @property
    def wants_more(self) -> bool:
        """Whether another trial is to begin; one that is not reached is tried again, not for ever."""
        begun_enough = self.happened + (self.begun - len(self.verdicts)) >= self.times
        return not (self.unable or begun_enough or self.begun >= 2 * self.times + 3)

    @property
    def over(self) -> bool:
        """Whether all its trials have ended."""
        return not self.wants_more and self.begun == len(self.verdicts) + bool(self.unable)

    @property
    def progress(self) -> float:
        """How much of it is begun, so that all lines come to the same share of what they are to have."""
        return max(self.happened, self.begun) / self.times

    def __str__(self) -> str:
        """The line of the table; of what was seen the two most frequent."""
        happened = [verdict for verdict in self.verdicts if verdict.happened]
        lost, wrong = (sum(getattr(verdict, name) for verdict in self.verdicts) for name in ("lost", "wrong"))
        hung = [verdict.sees for verdict in self.verdicts if HUNG in verdict.sees or verdict.wrong or verdict.lost]
        seen = Counter(verdict.sees for verdict in happened).most_common(2)  # it may depend on the moment
        sees = (hung or [" -- or: ".join(text for text, _ in seen)])[0] or self.unable or "not reached"
        times = f"{self.happened}" if self.happened >= self.row.times else f"{self.happened} of {self.row.times}"
        return f"| {self.row.kind} | {self.row.name} | {times} | {lost} | {wrong} | {sees} |"


class Campaign:
    """Carries lines out, several trials at a time: always the one that lags most behind."""

    def __init__(self, lines: list[Line], undisturbed: Path, seed: int, scratch: Path, until_s: float) -> None:
        self._lines, self._undisturbed, self._seed = lines, undisturbed, seed
        self._scratch, self._until_s = scratch, until_s
        self._lock = threading.Lock()
        self.stopping = False

    def work(self, tell: Callable[[Line], None]) -> None:
        """One trial after another, until nothing is left or it is time."""
        while (begun := self._next()) is not None:
            line, number = begun
            folder = self._scratch / f"{line.row.kind}-{self._lines.index(line)}-{number}".replace(" ", "-")
            folder.mkdir(parents=True)
            chance = random.Random(f"{self._seed} {line.row.name} {number}")
            trial = Trial(folder, ledger(self._undisturbed), self._undisturbed, chance)
            verdict: Verdict | None = None
            try:
                verdict = line.row.trial(trial)
            except NoDiskError as reason:
                line.unable = str(reason)
            except Exception as error:  # nobody foresaw it, so it is one of the findings
                verdict = Verdict(1, 0, 1, f"THE TRIAL BROKE: {error!r}"[:300])
            finally:
                trial.close()
            with self._lock:
                line.verdicts += [verdict] if verdict is not None else []
                tell(line)

    def _next(self) -> tuple[Line, int] | None:
        with self._lock:
            waiting = [line for line in self._lines if line.wants_more]
            if self.stopping or not waiting or time.monotonic() > self._until_s:
                return None
            line = min(waiting, key=lambda line: line.progress)
            line.begun += 1
            return line, line.begun


def main() -> int:
    """Carry out the matrix, or a part of it."""
    parser = argparse.ArgumentParser(description="Faults on real plates, and what was lost and what was wrong.")
    parser.add_argument("--only", default="", help="lines whose kind or name holds this word")
    parser.add_argument("--short", action="store_true", help="the short half: a minute, one fault of each kind")
    parser.add_argument("--share", type=float, default=1.0, help="this share of the times of each line, at least one")
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin no trial later than that")
    parser.add_argument("--jobs", type=int, default=max(1, (os.cpu_count() or 1) * 3 // 2), help="trials at a time")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="the same seed makes the same faults")
    parser.add_argument("--out", type=Path, help="write the table here as Markdown")
    parser.add_argument("--state", type=Path, help="keep what was done here, and go on from it where it is there")
    options = parser.parse_args()
    chosen = [row for row in rows() if options.only in f"{row.kind} {row.name}"]
    if options.short:
        chosen = [row for row in chosen if row.name in SHORT]
    share = 0.0 if options.short else options.share
    lines = [Line(row, max(1, math.ceil(row.times * share))) for row in chosen]
    kept: dict[str, list[dict[str, Any]]] = {}
    if options.state and options.state.exists():
        kept = json.loads(options.state.read_text(encoding="utf-8"))
        _restore(lines, kept)

    def tell(line: Line) -> None:
        if line.over or line.bad:
            print(line, flush=True)
        if options.out:  # each time: what ended this run in some other way leaves what was done
            options.out.write_text(document(lines), encoding="utf-8")
        if options.state:
            done = {line.row.name: [asdict(verdict) for verdict in line.verdicts] for line in lines}
            options.state.write_text(json.dumps(kept | done, indent=1), encoding="utf-8")  # of other lines, too

    _carry_out(lines, options, tell)
    bad = sum(line.bad for line in lines)
    print(f"{summary(lines)}, seed {options.seed}: {'nothing lost, nothing wrong' if not bad else f'{bad} BAD'}")
    return int(bad > 0)


def _restore(lines: list[Line], kept: dict[str, list[dict[str, Any]]]) -> None:
    """What an earlier run did; a fault that it did not reach is tried again."""
    for line in lines:
        found = [Verdict(**each) for each in kept.get(line.row.name, [])]
        line.verdicts = [verdict for verdict in found if verdict.happened]
        line.begun = len(line.verdicts)


def _carry_out(lines: list[Line], options: argparse.Namespace, tell: Callable[[Line], None]) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="spheroidd-faults-") as scratch,
        ThreadPoolExecutor(options.jobs, "trial") as pool,
    ):
        undisturbed = write_config(Path(scratch) / "undisturbed", source=WHOLE)
        if run(undisturbed, END_OF_FIRST_S) != 0:
            sys.exit("the plate does not run even undisturbed: " + undisturbed.with_suffix(".log").read_text())
        until_s = time.monotonic() + 60 * options.minutes
        campaign = Campaign(lines, undisturbed, options.seed, Path(scratch), until_s)
        working = [pool.submit(campaign.work, tell) for _ in range(options.jobs)]
        try:
            for one in as_completed(working):
                one.result()
        except KeyboardInterrupt:
            print("interrupted: the table holds what was done", file=sys.stderr)
        finally:
            campaign.stopping = True


def summary(lines: list[Line]) -> str:
    """How much was done, in words."""
    whole = [line for line in lines if line.happened >= line.row.times]
    times = {kind: sum(line.happened for line in lines if line.row.kind == kind) for kind in ("kill", "power")}
    words = f"{len(lines)} faults, {sum(line.happened for line in lines)} times in all"
    words += f", {times['kill']} kills and {times['power']} power cuts among them"
    lost, wrong = (sum(getattr(v, name) for line in lines for v in line.verdicts) for name in ("lost", "wrong"))
    words += f"; {lost} acknowledged slices lost, {wrong} wells wrong"
    short = len(lines) - len(whole)
    return words + (f"; {short} faults less often than they are to happen" if short else "")


def document(lines: list[Line]) -> str:
    """The page of the documentation."""
    when = datetime.datetime.now(datetime.UTC).date().isoformat()
    table = "\n".join([*HEAD, *(str(line) for line in lines if line.verdicts or line.unable)])
    return TEXT.format(when=when, share=summary(lines), table=table)


END_OF_FIRST_S = 300.0
SHORT = {
    "kill -9 of the daemon at random",
    "kill -9 after ledger-commit",
    "EDQUOT at ledger-commit",
    "EIO at shard-sync",
    "clock set by -3600 s",
    "TIFF whose planes loop",
    "time NaN",
    "flipped between stored and scored",
    "begun with schema 9",
}
HEAD = ("| kind | fault | times | lost | wrong | what a person sees |", "|---|---|---|---|---|---|")
TEXT = """# The matrix of faults

`make test-faults` wrote this on {when}:
{share}.

Each fault happens to a plate in real processes; afterwards the plate is run to its end. *times*: how often it happened
("33 of 50" where the run was ended before it had happened as often as it is to); a kill or a cut hits another moment
each time. *lost*: acknowledged slices that are gone, changed or unreadable. *wrong*: wells with another number than the
undisturbed plate has, or without a number and without a reason. The last column is the exit code of the run that the
fault met, and the alarms it raised; the two most frequent where it depends on the moment.

{table}
"""


if __name__ == "__main__":
    sys.exit(main())
