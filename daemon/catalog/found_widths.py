"""How wide the cells of a plate were found to be, where the settings leave that to the daemon.

What was found is an event of the audit trail and stands nowhere else, so the two cannot disagree. It holds for the
plate from then on, whatever model asked. Each start of scoring says in the trail what it took cells to be, too: a
number that was stated after the event wins over it.
"""

import json
from dataclasses import dataclass
from typing import Final

from spheroidd.daemon.catalog.audit_chain import Action
from spheroidd.daemon.catalog.reader import CatalogReader

AUTO: Final = "auto"  # in place of a number: found by itself


@dataclass(frozen=True, slots=True)
class FoundWidth:
    """What the trail says of a plate for the rows of one model.

    `um` is the width that was found, for whatever is scored with "auto". `asked` says that it need not be looked for,
    `sought` that this model's last start left it to the daemon, `overruled` that a number was stated for it since.
    """

    um: float | None = None
    asked: bool = False
    sought: bool = False
    overruled: bool = False

    def outdates(self, used_um: float | None) -> bool:
        """Whether a row for which cells were taken to be so wide is to be made with the found width instead."""
        return self.um is not None and not self.overruled and used_um != self.um


def found_width(catalog: CatalogReader, plate: str, model_sha256: str) -> FoundWidth:
    """What was found for a plate, and what it means for this model's rows."""
    um: float | None = None
    asked = sought = overruled = False
    for event in catalog.query(_EVENTS, {"plate": plate}):
        new = json.loads(event["new_json"] or "{}")
        if event["action"] == Action.CELL_WIDTH_FOUND:
            um, overruled = float(new["cell_diameter_um"]), False
        elif new.get("model_sha256") != model_sha256:
            continue
        elif event["action"] == Action.CELL_WIDTH_KEPT:
            asked = True
        elif "cell_diameter_um" in new:  # wells that are scored once more in the midst of a run start nothing
            sought = new["cell_diameter_um"] == AUTO
            overruled = overruled or isinstance(new["cell_diameter_um"], int | float)
    return FoundWidth(um, asked or um is not None, sought, overruled)


_ACTIONS = (
    Action.RUN_STARTED,
    Action.RUN_RESUMED,
    Action.RESCORE_STARTED,
    Action.CELL_WIDTH_FOUND,
    Action.CELL_WIDTH_KEPT,
)
_EVENTS = f"""
SELECT action, new_json FROM audit
WHERE plate = :plate AND action IN ({", ".join(f"'{action}'" for action in _ACTIONS)}) ORDER BY seq
"""
