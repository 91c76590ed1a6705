"""Which of a Leica's experiments are this run's: those that held no images before it began."""

import os
from pathlib import Path

from spheroidd.protocols.errors import InstrumentError

_SLIDE = "slide--"  # an experiment is the folder that holds slide--S00 and so on


class EarlierExperiments:
    """The experiments that show other days or other plates; nobody looks into them again, however many there are."""

    def __init__(self) -> None:
        self._folders: set[str] = set()

    def __len__(self) -> int:
        return len(self._folders)

    def note(self, root: Path) -> None:
        """Remember every experiment below `root`; cheap, because no slide is looked into. InstrumentError where that
        cannot be said: an experiment that is not seen now would be taken for this run's later.
        """
        for folder, names, _ in os.walk(root, onerror=_refuse):
            slides = [name for name in names if _is_slide(name)]
            if slides:
                self._folders.add(Path(folder).relative_to(root).as_posix().removeprefix("."))
            names[:] = [name for name in names if name not in slides]

    def enters(self, folder: str) -> bool:
        """Whether to look into a folder, relative to the root: not where it is a slide of an earlier experiment."""
        experiment, _, name = folder.rpartition("/")
        return not (_is_slide(name) and experiment in self._folders)


def _refuse(error: OSError) -> None:
    do = "mount the share, or give the rights to read it"
    raise InstrumentError(f"the folder cannot be read: {error.strerror}", where=str(error.filename), do=do) from error


def _is_slide(name: str) -> bool:
    return name.lower().startswith(_SLIDE)
