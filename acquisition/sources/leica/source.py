"""A Leica under LAS X, as a source: its CAM server is told what to scan, its Matrix Screener tree holds the slices.

Neither is believed alone. That a scan has ended is LAS X's word; which slices there are is the tree's, file by file
checked to its last byte; what is missing then is imaged once more, and named where that does not help.
"""

import contextlib
from collections.abc import Iterable, Iterator, Set
from typing import ClassVar

from spheroidd.acquisition.plates.stack_settings import plan_of
from spheroidd.acquisition.sources.leica.cam_client import CamInterruptedError
from spheroidd.acquisition.sources.leica.experiments import EarlierExperiments
from spheroidd.acquisition.sources.leica.scan import LeicaScan
from spheroidd.acquisition.sources.leica.settings import LeicaCamSettings
from spheroidd.acquisition.sources.watched_folder.arrivals import FolderWatch
from spheroidd.acquisition.sources.watched_folder.settings import FolderSettings
from spheroidd.acquisition.sources.watched_folder.source import WatchSource
from spheroidd.acquisition.sources.watched_folder.stack_arrival import Arrival
from spheroidd.acquisition.store.slice_names import name_slices
from spheroidd.protocols.errors import ConfigError, InstrumentError, SpheroiddError, StackError
from spheroidd.protocols.events import FaultRaised
from spheroidd.protocols.faults import FaultCode
from spheroidd.protocols.plate import PlateMap
from spheroidd.protocols.ports import Clock
from spheroidd.protocols.stack import Frame, SliceIndex, StackKey, StackPlan

LENGTH_TOLERANCE = 0.01  # of a length: LAS X rounds, and a wrong objective is off by far more


class LeicaCamSource(WatchSource):
    """A StackSource that has LAS X scan a plate. A stack's missing slices are named in the error that it ends with.

    With `scan = "well"` each stack is a scan of its own, and they come in any order that is asked for; with "plate" one
    scan covers all that are still to come, and they come as LAS X takes them.
    """

    Settings: ClassVar[type[FolderSettings]] = LeicaCamSettings

    def __init__(self, settings: LeicaCamSettings, plate_map: PlateMap | None, plate_name: str, clock: Clock) -> None:
        super().__init__(settings, plate_map, plate_name, clock)
        self._leica = settings
        self._earlier = EarlierExperiments()
        self._watch = FolderWatch(settings, self._map, clock, enters=self._earlier.enters)
        self._scan = LeicaScan(settings, lambda: self._interrupted())
        self._to_come: list[StackKey] = []  # of a scan over the plate: what was not given out
        self._scanned: set[StackKey] = set()  # what a scan was begun for
        self._asked: set[StackKey] = set()
        self._has_looked = False
        self._runs_on = False  # a scan that could not be stopped was told of
        self._is_lost = False  # the connection, and it was told of
        self._news_s = clock.elapsed()
        self._ended_s = float("-inf")

    def check(self) -> None:
        """Raise ConfigError where there is no folder, InstrumentError where LAS X does not answer; nothing is moved."""
        if not self._watch.root.is_dir():
            do = "write the folder that LAS X exports its experiments to, as this computer sees it; mount the share"
            raise ConfigError("there is no such folder", where=f"source.folder = {self._watch.root}", do=do)
        self._scan.check()

    def plans(self) -> Iterable[StackPlan]:
        """Every stack of the plate: controls first, or as they come where one scan covers all."""
        if self._leica.scan == "well":
            return [self.plan(key) for key in self._keys()]
        return self._as_they_come()

    def plan(self, key: StackKey) -> StackPlan:
        """The geometry of a stack, the same for every well."""
        return plan_of(key, self._leica, self._leica.slice_period_s)

    def frames(self, plan: StackPlan, wanted: Set[SliceIndex]) -> Iterator[Frame]:
        """The wanted slices as their files come; StackError or InstrumentError names those that do not."""
        left, over = set(wanted), False
        try:
            yield from self._follow(plan, left)
            if left and not self._interrupted():
                raise self._lost(self._arrival_of(plan))
            self._hear_out(plan)
            self._tell_of_refused(self._arrival_of(plan))
            over = not self._interrupted()
        except CamInterruptedError:
            pass  # whoever asked for the slices has given up
        except (StackError, InstrumentError) as error:
            raise self._named(plan, error, left) from error
        finally:
            if not over:
                self._stop()

    def close(self) -> None:
        """Stop a scan that goes on, hang up, and stop listening; may be called twice."""
        self._stop()
        self._scan.close()
        super().close()

    # -- the course of a stack -------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Look at the folder; what it held before the first look is not ours."""
        if not self._has_looked:
            self._earlier.note(self._watch.root)
            self._has_looked = True
        self._watch.look()

    def _follow(self, plan: StackPlan, left: set[SliceIndex]) -> Iterator[Frame]:
        """Give out what comes, have LAS X scan what is not there, until nothing is left or nothing more can come."""
        covered = plan.key in self._scanned and plan.key not in self._asked  # a scan of the plate was for it as well
        scans_left, last_look = self._leica.retries + (not covered), False
        self._asked.add(plan.key)
        self._arrival_of(plan).look_again()
        while left and not self._interrupted():
            self._look()
            arrival = self._arrival_of(plan)
            self._check_voxels(plan, arrival)
            self._check_depth()
            for frame in self._read(plan, arrival, left):
                left.discard(frame.index)
                last_look = False
                yield frame
                if self._interrupted():
                    return
            if not left:
                return
            if self._scan.goes_on:
                self._check_stall(plan.key)
                self._wait()
            elif not self._has_rested(plan.key, arrival):
                self._wait()
            elif (
                plan.key in self._scanned and not last_look
            ):  # a file may have become whole without a change of its size and time
                last_look = True
                arrival.look_again()
            elif scans_left > 0:
                scans_left -= 1
                last_look = False
                self._begin(plan)
            else:
                return

    def _hear_out(self, plan: StackPlan) -> None:
        """All slices are there; a well's own scan ends now, unless LAS X takes more than was planned."""
        if self._leica.scan == "plate" or not self._scan.is_of(plan.key):
            return
        while self._scan.is_of(plan.key) and not self._interrupted():
            if self._quiet_s() >= self._leica.settle_s:
                self._stop()
            self._wait()
            self._look()
        self._watch.hurry()
        self._watch.wait(self._interrupted)
        self._look()
        self._check_depth()

    def _begin(self, plan: StackPlan) -> None:
        """Have LAS X scan this stack; those of which nothing has come as well, where one scan covers the plate."""
        again = plan.key in self._scanned
        base = self._base(plan.key)
        if base != plan.key and not again:  # what came before is another stack's
            self._watch.arrivals[base] = Arrival(base, self._clock.elapsed())
        keys = [plan.key, *(key for key in self._to_come if key not in self._watch.arrivals)]
        self._scan.await_rest()
        self._scan.begin({key: self._leica.fields[self._base(key).stack] for key in keys}, again=again)
        self._scanned.update(keys)
        self._news_s = self._clock.elapsed()
        self._tell_of_connection()
        if self._runs_on:
            self._runs_on = False
            stopped = InstrumentError("LAS X obeys again; what ran on was stopped")
            self._tell(FaultRaised(FaultCode.LEICA_SCAN, stopped, cleared=True))

    def _has_rested(self, key: StackKey, arrival: Arrival) -> bool:
        """Whether files of a scan that has ended would have come by now: a look that began so late found none."""
        last_s = max(self._ended_s, arrival.news_s)
        return key not in self._scanned or self._watch.looked_s - last_s >= self._leica.settle_s

    def _wait(self) -> None:
        """Until something may have come: from LAS X, in the folder, or an order to give up."""
        self._watch.wait(lambda: self._interrupted() or self._listen())

    def _listen(self) -> bool:
        """Hear LAS X; true where it is worth a look at the folder."""
        went_on = self._scan.goes_on
        told = self._scan.listen()
        if told:
            self._news_s = self._clock.elapsed()
            self._watch.hurry()
        if went_on and not self._scan.goes_on:
            self._ended_s = self._clock.elapsed()
        self._tell_of_connection()
        return told

    def _check_stall(self, key: StackKey) -> None:
        """Raise InstrumentError where the scan brings nothing; one of another stack is given less time, and ended."""
        quiet_s = self._quiet_s()
        ours = self._scan.is_of(key) or self._leica.scan == "plate"
        if not ours and quiet_s >= self._leica.settle_s:
            self._stop()
        elif quiet_s >= self._leica.end_after_s:
            broken = f", and the connection is lost ({self._scan.fault.what})" if self._scan.fault else ""
            what = f"nothing arrived from LAS X's scan for {quiet_s:.0f} s{broken}"
            do = "see what LAS X waits for; raise source.end_after_s where a stack takes longer"
            raise InstrumentError(what, do=do)

    def _quiet_s(self) -> float:
        """How long neither LAS X nor the folder had news."""
        return self._clock.elapsed() - max(self._news_s, self._watch.news_s)

    def _stop(self) -> None:
        """Have LAS X stop; a scan that cannot be stopped is told of, because light goes on falling on the plate."""
        if not self._scan.goes_on:
            return
        self._ended_s = self._clock.elapsed()
        try:
            self._scan.stop()
        except InstrumentError as error:
            self._runs_on = True
            self._tell(FaultRaised(FaultCode.LEICA_SCAN, error))
        except CamInterruptedError:
            pass

    def _as_they_come(self) -> Iterator[StackPlan]:
        """Row by row to begin with; while a scan goes on, whatever it has brought the first file of."""
        self._to_come = sorted(self._keys())
        while self._to_come and not self._interrupted():
            key = self._first_come()
            if key is not None:
                self._to_come.remove(key)
                yield self.plan(key)
                continue
            with contextlib.suppress(CamInterruptedError):
                self._wait()

    def _first_come(self) -> StackKey | None:
        try:
            self._look()
        except InstrumentError:
            return self._to_come[0]  # whoever takes that stack meets it again, and tries again
        come = (key for key in self._to_come if key in self._watch.arrivals)
        ended = self._quiet_s() >= self._leica.end_after_s or not any(self._scan.is_of(key) for key in self._to_come)
        return next(come, self._to_come[0] if ended else None)

    # -- which files are whose ---------------------------------------------------------------------------------------

    def _base(self, key: StackKey) -> StackKey:
        """The stack that a file's name can say: a repeated well's images are called as its first ones were."""
        return StackKey(key.plate, key.well, key.stack % self._leica.n_stacks)

    def _arrival_of(self, plan: StackPlan) -> Arrival:
        base = self._base(plan.key)
        if base != plan.key and plan.key not in self._scanned:
            return Arrival(base, self._clock.elapsed())  # what has come is an earlier stack's
        return self._watch.arrival(base)

    def _check_voxels(self, plan: StackPlan, arrival: Arrival) -> None:
        """Raise ConfigError where the first whole file shows that the settings are of another template."""
        if arrival.sample is not None:
            return
        self._sample(arrival)
        for name in ("pixel_um", "z_step_um"):
            said, planned = getattr(arrival.sample, name, None), getattr(plan, name)
            if said and abs(said - planned) > LENGTH_TOLERANCE * planned:
                what = f"it is {planned:g}, and LAS X's files of well {plan.key.well} say {said:g}"
                raise ConfigError(what, where=f"source.{name}", do="correct it, or load the template it is of")

    def _check_depth(self) -> None:
        """Raise ConfigError where LAS X takes more slices than were planned: the stacks would be cut off."""
        for arrival in (*self._watch.arrivals.values(), *self._watch.waiting().values()):
            if arrival.top_z >= self._leica.n_z:
                what = f"it is {self._leica.n_z}, and LAS X wrote slice Z{arrival.top_z:02d} of well {arrival.key.well}"
                raise ConfigError(what, where="source.n_z", do=f"write {arrival.top_z + 1} or more, as the job has")

    # -- what went wrong ---------------------------------------------------------------------------------------------

    def _lost(self, arrival: Arrival) -> StackError | InstrumentError:
        """Why a stack is not whole; where nothing at all came the next well would fare no better."""
        refused = arrival.complaint(self._watch.root)
        why = f" ({refused.what})" if refused else ""
        if arrival.looked_at or refused:
            do = "see the messages of LAS X and the disk it writes to, or image the well again"
            return StackError(f"LAS X's scan ended without all of its slices{why}", do=do)
        strangers = self._watch.strangers()
        why += f" ({strangers})" if strangers else ""
        if self._earlier:
            why += f" ({len(self._earlier)} experiments that were there before are left alone)"
        do = "check that LAS X exports to source.folder, and source.job, fields, slide and channels"
        return InstrumentError(f"LAS X's scan ended and brought no file of it{why}", do=do)

    def _tell_of_connection(self) -> None:
        """Say once that the connection is lost, though the scan goes on, and once that it is there again."""
        fault = self._scan.fault
        if (fault is not None) != self._is_lost:
            self._is_lost = fault is not None
            told = fault or InstrumentError("LAS X is connected again")
            self._tell(FaultRaised(FaultCode.LEICA_CAM, told, cleared=fault is None))

    def _named(self, plan: StackPlan, error: SpheroiddError, left: Set[SliceIndex]) -> SpheroiddError:
        """The error with what it cost: which slices, of which stack."""
        lost = f" ({len(left)} of {plan.n_slices} slices are missing: {name_slices(left)})" if left else ""
        where = f"{plan.key}, {error.where}" if error.where else str(plan.key)
        return type(error)(error.what + lost, where=where, do=error.do)
