"""Whether a file is whole: the structure of a TIFF, checked to its last byte before a plane of it is believed.

tifffile opens OME-TIFFs that were cut to half their length as valid single planes. Here the list of planes must end
where the file says it ends, every description and every strip of pixels must lie within the file, and there must be
as many planes as its OME-XML promises.
"""

import logging
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import numpy as np
import tifffile
from numpy.typing import NDArray

from spheroidd.acquisition.images.image_metadata import Facts, of_micromanager
from spheroidd.acquisition.images.ome_xml import OmeImage, read_ome
from spheroidd.acquisition.images.units import dtype_name
from spheroidd.protocols.errors import StackError

MICROMANAGER_TAG = 51123
DO_AGAIN = "copy it again, or record the well again"


def damaged(path: Path, what: str) -> StackError:
    """The error of a file that is not whole."""
    return StackError(what, where=str(path), do=DO_AGAIN)


def check_chain(tiff: Any, path: Path) -> int:
    """Follow the list of planes, with every tag, to its end, a 0; tifffile stops silently where it breaks.

    Returns how many there are.
    """
    n_pages = 0
    tiff.pages.useframes = False  # frames would pass over tags that are cut off
    for n_pages, page in enumerate(tiff.pages, 1):
        if any(tag.valueoffset + tag.valuebytecount > tiff.filehandle.size for tag in getattr(page, "tags", ())):
            raise damaged(path, f"the description of plane {n_pages} lies beyond its end")
    tiff.pages.useframes = True
    tiff.filehandle.seek(tiff.pages.next_page_offset or 0)
    end = tiff.filehandle.read(tiff.tiff.offsetsize)
    if len(end) < tiff.tiff.offsetsize or any(end) or not n_pages:
        raise damaged(path, f"the list of its planes breaks off after {n_pages}")
    return n_pages


def is_within(page: Any) -> bool:
    """Whether a page's image is there, and every strip or tile of it lies within its file."""
    n_bytes = page.parent.filehandle.size
    segments = list(zip(page.dataoffsets, page.databytecounts, strict=True))
    return bool(segments) and all(start > 0 < count and start + count <= n_bytes for start, count in segments)


class WholeTiff:
    """A TIFF taken by itself, page by page, whatever its OME-XML says of other files. Every page is whole.

    Use it in a `with` statement. `ome` is None where the file holds no OME-XML.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with tifffile_faults() as faults:
            try:
                self._tiff: Any = tifffile.TiffFile(path, is_ome=False)
            except (tifffile.TiffFileError, ValueError, struct.error) as error:
                raise damaged(path, f"not a whole TIFF: {error}") from error
            try:
                self._read()
            except (StackError, OSError):
                self._tiff.close()
                raise
            except Exception as error:  # a damaged file can make tifffile raise anything
                self._tiff.close()
                raise damaged(path, f"its structure is damaged: {error}") from error
        if faults:  # tifffile goes on with less than was promised
            self._tiff.close()
            raise damaged(path, f"its structure is damaged: {faults[0]}")

    def _read(self) -> None:
        self.n_pages = check_chain(self._tiff, self.path)
        pages = [self._tiff.pages[number] for number in range(self.n_pages)]
        first = pages[0]
        if len(first.shape) != 2:
            raise StackError(f"its images are {first.shape}", where=str(self.path), do="save grey images")
        self.height, self.width = first.shape
        self.dtype = dtype_name(self.path, np.dtype(first.dtype))
        for number, page in enumerate(pages, 1):
            if page.shape != first.shape or page.dtype != first.dtype:
                what = f"plane {number} is {page.dtype} {page.shape}, the first {first.dtype} {first.shape}"
                raise StackError(what, where=str(self.path), do="save planes of one size and kind")
            if not is_within(page):
                raise damaged(self.path, f"the pixels of plane {number} of {self.n_pages} lie beyond its end")
        text = first.description
        self.ome = read_ome(text, self.path) if "OME" in text and text.lstrip().startswith("<") else None
        if self.ome:
            self._check_promised(self.ome)

    def _check_promised(self, ome: OmeImage) -> None:
        if (ome.height, ome.width) != (self.height, self.width):
            what = f"its images are {(self.height, self.width)}, its OME-XML says {(ome.height, ome.width)}"
            raise damaged(self.path, what)
        promised = max(ome.ifds.values(), default=-1) + 1
        if promised > self.n_pages:
            raise damaged(self.path, f"its OME-XML promises {promised} planes, and it holds {self.n_pages}")

    def page(self, number: int) -> NDArray[Any]:
        """Read the pixels (y, x) of a page, counted from 0, in memory of its own; StackError where they are damaged."""
        try:
            pixels = self._tiff.pages[number].asarray()
        except OSError:
            raise
        except Exception as error:  # decoders raise what they like
            raise damaged(self.path, f"plane {number + 1} cannot be decoded: {error}") from error
        return np.array(pixels, dtype=self.dtype, order="C")

    def metadata(self, number: int) -> Facts:
        """What the file says of a page's image, in its OME-XML or as Micro-Manager does."""
        return self.ome.facts_of(number) if self.ome else micromanager_facts(self._tiff.pages[number])

    def close(self) -> None:
        """Let the file go; may be called twice."""
        self._tiff.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def micromanager_facts(page: Any) -> Facts:
    """What Micro-Manager wrote beside a page's image; nothing where it did not, or not so that it can be read."""
    tag = getattr(page, "tags", {}).get(MICROMANAGER_TAG)
    said = tag.value if tag is not None else None
    return of_micromanager(said) if isinstance(said, dict) else {}


@contextmanager
def tifffile_faults() -> Iterator[list[str]]:
    """Collect what tifffile logs as errors, where it goes on with less than the file promised."""
    faults: list[str] = []
    logger, watch = logging.getLogger("tifffile"), logging.Handler(logging.ERROR)
    watch.emit = lambda record: faults.append(record.getMessage())  # type: ignore[method-assign]
    propagated, logger.propagate = logger.propagate, False
    logger.addHandler(watch)
    try:
        yield faults
    finally:
        logger.removeHandler(watch)
        logger.propagate = propagated
