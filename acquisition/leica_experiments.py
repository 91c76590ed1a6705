"""Which of a Leica's experiments are this run's: those that were not there before it began."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from spheroidd.acquisition.image_name import ImageName
from spheroidd.acquisition.leica_names import LeicaNames


@dataclass(frozen=True, slots=True)
class NewImages(LeicaNames):
    """Leica's names, without the images of experiments that were there before: they show other days, or other plates.

    An experiment is the folder that holds `slide--S00`.
    """

    before: set[str] = field(default_factory=set)

    def read(self, path: str) -> ImageName | str | None:
        """See `NameGrammar`."""
        said = LeicaNames.read(self, path)
        if isinstance(said, ImageName) and _experiment(path) in self.before:
            return "their experiment was there before this run began"
        return said


def _experiment(path: str) -> str:
    folders = path.split("/")[:-1]
    slide = next((at for at, name in enumerate(folders) if name.lower().startswith("slide--")), len(folders))
    return "/".join(folders[:slide])


def experiments_in(root: Path) -> set[str]:
    """Every folder below `root` that may hold an experiment, as it is now; cheap, because no field is looked into."""
    found = set()
    for folder, names, _ in os.walk(root):
        found.add(Path(folder).relative_to(root).as_posix().removeprefix("."))
        names[:] = [name for name in names if not name.lower().startswith("slide--")]
    return found
