"""How wide a run takes the cells of its plate to be: as usual, as stated, or as the plate's own rows say.

Where the settings say "auto", a plate's stacks are scored at the usual width, and once all of them are, they are asked
together. Where they tell a width that does not fit, it is taken for the plate, and what was scored at another one is
outdated. That is decided once: a width that was taken stays.
"""

from typing import Literal

from spheroidd.daemon.catalog.audit_chain import Action
from spheroidd.daemon.catalog.found_widths import AUTO, FoundWidth, found_width
from spheroidd.daemon.catalog.reader import CatalogReader
from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.inference.quality.cell_width import PlateWidth, StackWidth, plate_width

Width = float | Literal["auto"] | None  # "auto" is found by itself, None as usual


class CellWidth:
    """The width of one plate's cells for one model. Only `ask` writes, inside main's transaction."""

    def __init__(self, catalog: Catalog, plate: str, model_sha256: str, wanted: Width) -> None:
        self._catalog, self._plate, self._model = catalog, plate, model_sha256
        self._stated: float | None = wanted if isinstance(wanted, int | float) else None
        self._auto = wanted == AUTO
        self.found = self._read() if self._auto else FoundWidth()
        self._news = False  # a stack was measured since they were asked
        self.told: str | None = None  # what this run found, in words

    def _read(self) -> FoundWidth:
        return found_width(self._catalog, self._plate, self._model)

    @property
    def um(self) -> float | None:
        """What a stack is scored with."""
        return self.found.um if self._auto else self._stated

    @property
    def is_open(self) -> bool:
        """Whether the plate is still to be asked, so that its rows may change."""
        return self._auto and self.found.um is None and (self._news or not self.found.asked)

    def measured(self) -> None:
        """A stack has a new measurement."""
        self._news = True

    def forget(self) -> None:
        """Something that was written was taken back."""
        if self._auto:
            self.found, self._news = self._read(), True

    def ask(self) -> None:
        """Ask the plate's rows, and write down what they say."""
        plate = plate_width(stack_widths(self._catalog, self._plate, self._model))
        taken = None if plate.um is None or plate.fits else round(plate.um, 1)
        action = Action.CELL_WIDTH_KEPT if taken is None else Action.CELL_WIDTH_FOUND
        new = {
            "model_sha256": self._model,
            "cell_diameter_um": taken,
            "stacks": plate.stacks,
            "low_um": plate.low and round(plate.low, 1),
            "high_um": plate.high and round(plate.high, 1),
        }
        self.told = _in_words(plate)
        self._catalog.append_event(action, plate=self._plate, new=new, reason=self.told)
        self.found, self._news = self._read(), False


def stack_widths(catalog: CatalogReader, plate: str, model_sha256: str | None = None) -> list[StackWidth]:
    """Every stack of a plate that counts, by one model, or by the one that scored it last."""
    rows = [row for row in catalog.result_rows(plate, model_sha256) if row.exclusion is None]
    models = {row.result.model_sha256 for row in rows if row.result.model_sha256}
    evidence = {model: catalog.mask_evidence(plate, model) for model in models}
    found = []
    for row in rows:
        result = row.result
        if result.n_live is None and result.n_dead is None:  # nothing was counted yet, which is not none
            continue
        masks = evidence.get(result.model_sha256 or "", {}).get(row.key)
        n_cells = (result.n_live or 0) + (result.n_dead or 0)
        looks = masks.looks if masks else None
        taken, flags = result.cell_diameter_um, tuple(result.trust_flags or ())
        found.append(StackWidth(str(row.key.well), n_cells, taken, looks, flags))
    return found


def _in_words(plate: PlateWidth) -> str:
    if plate.um is None:
        return f"how wide the cells are cannot be told: {plate.why}"
    by = f"cells look {plate.um:.1f} um wide, by {plate.stacks} stacks ({plate.low:.1f} to {plate.high:.1f})"
    return f"{by}: about as wide as was taken" if plate.fits else f"{by}, so every stack is scored with that width"
