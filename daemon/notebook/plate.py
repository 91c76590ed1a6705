"""A plate as a person in a notebook has it: tables that are read when they are asked for, and kept until `refresh`."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from spheroidd.daemon.catalog.lookup import the_plate, the_well
from spheroidd.daemon.catalog.reader import CatalogReader
from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.stack import StackKey
from spheroidd.protocols.well import WellId

if TYPE_CHECKING:
    import pandas as pd

    from spheroidd.daemon.notebook.stack import Stack
    from spheroidd.protocols.quality import PlateQuality

T = TypeVar("T")
_COMMAND = (sys.executable, "-c", "from spheroidd.daemon.cli import main; main()")
_TO_LOOK_AT = 1  # exit code of a command that did its work, and of which somebody should look at a well


class Plate:
    """One plate of a data directory, read only; `spheroidd.open` makes it.

    Each table is read when it is first asked for and kept until `refresh`, so the cells of a notebook agree with each
    other while a daemon goes on writing. Nothing keeps the catalog open between calls. Errors as `spheroidd.open`.
    """

    def __init__(self, data: "str | os.PathLike[str]", plate: str | None = None) -> None:
        self.data_dir = Path(data)
        self._kept: dict[tuple[Any, ...], Any] = {}
        self._standings: dict[StackKey, tuple[object, ...]] = {}
        self._cursor = 0
        self.changed: tuple[str, ...] = ()
        with CatalogReader.read_only(self.data_dir) as catalog:
            self.name = the_plate(catalog, plate)
            self._look(catalog)

    def __repr__(self) -> str:
        done = sum(status == "final" for status, *_ in self._standings.values())
        return f"<plate {self.name} in {self.data_dir}: {done} of {len(self._standings)} wells final>"

    def refresh(self) -> tuple[str, ...]:
        """Forget what was read, so that the next call reads anew; the wells of which anything changed since."""
        with CatalogReader.read_only(self.data_dir) as catalog, catalog.snapshot():
            self.changed = self._look(catalog)
        self._kept.clear()
        return self.changed

    @property
    def over(self) -> bool:
        """Nothing more comes of any well by itself; as of the last refresh."""
        return all(is_over for _, _, _, is_over in self._standings.values())

    @property
    def models(self) -> list[str]:
        """The digests of the models that have rows of this plate, the latest used first."""
        return self._once(("models",), lambda catalog: catalog.models(self.name))

    def rows(self, model: str | None = None) -> "pd.DataFrame":
        """A row for each stack that counts of every imaged well, in the plate map's order; columns in docs/schema.md.

        By one of `models` (its digest, or the beginning of it), or by the one that measured the stack last. What is
        not known is missing, never 0, and `reason` says why. Units stand in the columns' names and `attrs["units"]`.
        """
        from spheroidd.daemon.notebook.rows import rows_table

        digest = None if model is None else self._model(model)
        return self._frame(("rows", digest), lambda catalog: rows_table(catalog, self.name, digest))

    def curves(self, metric: str = "v_control", *, model: str | None = None, shape: str = "LL.4") -> "pd.DataFrame":
        """A row for each patient and compound with its fit: status, IC50 with limits in micromolar, plateaus, AUC.

        `metric` is v_control, v_score or v_count; `shape` LL.3, LL.4 or LL.5. An IC50 is missing unless the status is
        ok or approximate, and `reason` says what is known instead. ConfigError for a metric, shape or model there
        is not.
        """
        from spheroidd.daemon.export.tables import curves_table

        fits = self._curves(metric, model, shape)
        return self._frame(("curves", metric, model, shape), lambda catalog: curves_table(fits))

    def curve_points(self, metric: str = "v_control", *, model: str | None = None) -> "pd.DataFrame":
        """A row for each well of each curve, whether it takes part in the fit or not, and why not."""
        from spheroidd.daemon.export.tables import curve_points_table

        fits = self._curves(metric, model, "LL.4")
        return self._frame(("points", metric, model), lambda catalog: curve_points_table(fits))

    def quality(self, metric: str = "v_control", *, model: str | None = None) -> "PlateQuality":
        """The plate's verdict with its figures (robust Z', SSMD, ...) and flags; see `spheroidd quality`."""
        from spheroidd.daemon.analysis.plate_quality import plate_quality

        digest = None if model is None else self._model(model)

        def read(catalog: CatalogReader) -> "PlateQuality":
            return plate_quality(catalog, self.name, metric, model_sha256=digest)

        return self._once(("quality", metric, digest), read)

    def truth(self) -> "pd.DataFrame":
        """What is true of the plate's wells, where anybody knows it: `v_true_fraction`, the part that lives.

        Emulated plates know all of it, recordings what lies beside them. ConfigError where nobody knows anything.
        """
        from spheroidd.daemon.notebook.rows import truth_table

        return self._frame(("truth",), lambda catalog: truth_table(catalog, self.name))

    def __getitem__(self, well: "str | tuple[str, int]") -> "Stack":
        """The stack of a well that counts, `plate["B03"]`; another is `plate["B03", 1]`. ConfigError without any."""
        from spheroidd.daemon.notebook.stack import Stack

        name, number = (well, None) if isinstance(well, str) else well

        def read(catalog: CatalogReader) -> Stack:
            found = WellId.parse(the_well(catalog, self.name, name))
            key = StackKey(self.name, found, self._number(catalog, found) if number is None else number)
            return Stack(self.data_dir, key, catalog.plan(key), catalog.acknowledged(key))

        return self._once(("stack", name, number), read)

    def stacks(self, well: str | None = None) -> "list[Stack]":
        """The stacks that count, of one well or of all, in the plate map's order."""
        with CatalogReader.read_only(self.data_dir) as catalog:
            current = catalog.current_stacks(self.name)
            wanted = None if well is None else the_well(catalog, self.name, well)
            keys = [row.key for row in catalog.stacks(self.name) if row.key in current]
        return [self[str(key.well), key.stack] for key in keys if wanted in (None, str(key.well))]

    def score(self, model: str | None = None, *, normalisation: str | None = None) -> tuple[str, ...]:
        """Score every stored stack of the data directory again, as `spheroidd score` does, and refresh.

        `model` is "default", "threshold" or a file of weights; rows of the models before stay, and `rows(model)` gives
        them. The wells that changed. Runs in a process of its own; ConfigError with its words where it fails.
        """
        import subprocess

        given = (("--model", model), ("--normalisation", normalisation))
        options = [part for name, value in given if value is not None for part in (name, value)]
        command = [*_COMMAND, "score", str(self.data_dir), *options]
        done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)
        if done.returncode not in (0, _TO_LOOK_AT):
            what = done.stderr.strip() or done.stdout.strip()
            raise ConfigError(f"the plate could not be scored: {what}", where=str(self.data_dir))
        return self.refresh()

    def _curves(self, metric: str, model: str | None, shape: str) -> Any:
        from spheroidd.daemon.analysis.curves import curve_points, fit_points

        digest = None if model is None else self._model(model)

        def read(catalog: CatalogReader) -> Any:
            return curve_points(catalog, self.name, metric, model_sha256=digest)

        points = self._once(("wells of curves", metric, digest), read)
        if ("fits", metric, digest, shape) not in self._kept:  # after the catalog was let go: a fit takes its time
            self._kept["fits", metric, digest, shape] = fit_points(points, shape)
        return self._kept["fits", metric, digest, shape]

    def _model(self, beginning: str) -> str:
        found = [digest for digest in self.models if digest.startswith(beginning)]
        if len(found) != 1:
            what = f"{'no' if not found else 'more than one'} model begins with {beginning!r}"
            do = f"choose of {', '.join(digest[:12] for digest in self.models) or 'none: nothing is scored yet'}"
            raise ConfigError(what, where=f"plate {self.name}", do=do)
        return found[0]

    def _number(self, catalog: CatalogReader, well: WellId) -> int:
        numbers = [key.stack for key in catalog.current_stacks(self.name) if key.well == well]
        return min(numbers, default=0)  # of none that counts, the first is what is there to look at

    def _frame(self, what: tuple[Any, ...], read: "Callable[[CatalogReader], Any]") -> "pd.DataFrame":
        from spheroidd.daemon.notebook.frames import to_frame

        return self._once(("frame", *what), lambda catalog: to_frame(read(catalog))).copy()

    def _once(self, what: tuple[Any, ...], read: Callable[[CatalogReader], T]) -> T:
        if what not in self._kept:
            with CatalogReader.read_only(self.data_dir) as catalog, catalog.snapshot():
                self._kept[what] = read(catalog)
        return cast(T, self._kept[what])

    def _look(self, catalog: CatalogReader) -> tuple[str, ...]:
        """See how each stack stands; the wells that stand otherwise than at the last look, in the map's order."""
        self._cursor, rewritten = catalog.results_changed(self.name, self._cursor)
        before, found = self._standings, catalog.standings(self.name)
        self._standings = {
            one.key: (one.status.value, one.trust, one.n_slices_acked, one.status.is_over) for one in found
        }
        other = {key for key, how in self._standings.items() if before.get(key) != how}
        return tuple(dict.fromkeys(str(one.key.well) for one in found if one.key in other or one.key in rewritten))
