"""Whether a file is whole: the structure of a TIFF, checked to its last byte before a plane of it is believed.

tifffile opens OME-TIFFs that were cut to half their length as valid single planes. Here the list of planes must end
where the file says it ends, every description and every strip of pixels must lie within the file, and there must be
as many planes as its OME-XML promises.
"""

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from spheroidd.acquisition.images.codecs import check_codec
from spheroidd.acquisition.images.metadata.image_metadata import Facts, of_micromanager
from spheroidd.acquisition.images.metadata.units import dtype_name
from spheroidd.acquisition.images.ome.description import OmeImage
from spheroidd.acquisition.images.tiff.chain import DO_AGAIN, check_offsets
from spheroidd.acquisition.images.tiff.ome_set import describe, is_ome, open_alone
from spheroidd.protocols.errors import StackError

MICROMANAGER_TAG = 51123
MAX_PLANE_BYTES = 2**31  # a mosaic of 32,000 x 32,000 pixels
LARGE_BYTES, MAX_SHRINKAGE = 2**26, 200  # a larger plane that shrank by more is no image of a camera
_MINISWHITE = 0


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


def check_pixels(page: Any, path: Path, *, one_block: bool = False) -> None:
    """Raise StackError where a page's pixels are more than their bytes can hold, are not what its numbers say, or
    cannot be unpacked here. `one_block`: the page stands for all planes, whose bytes are known to be there.
    """
    if 0 in page.shape:
        raise damaged(path, f"its images are {page.shape}")
    n_bytes, stored = math.prod(page.shape) * np.dtype(page.dtype).itemsize, sum(page.databytecounts)
    if not one_block and (n_bytes > MAX_PLANE_BYTES or LARGE_BYTES < n_bytes > MAX_SHRINKAGE * stored):
        what = f"one of its planes claims {n_bytes} bytes of pixels and has {stored} in the file"
        raise damaged(path, what)
    if page.keyframe.photometric == _MINISWHITE:
        what = "its grey values are inverted (PhotometricInterpretation is WhiteIsZero)"
        raise StackError(what, where=str(path), do="save it again with black at zero (Fiji: Image > Lookup Tables)")
    check_codec(page.keyframe, path)


class TiffPages:
    """A TIFF taken by itself, page by page, whatever its OME-XML or Micro-Manager's say of other files.

    Its list of pages holds to the end; whether a page is whole is asked of each. Use it in a `with` statement.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        check_offsets(path)
        with tifffile_faults() as faults:
            try:
                self.tiff: Any = open_alone(path)
            except (StackError, OSError):
                raise
            except Exception as error:  # tifffile meets tags of types that it does not expect
                said = str(error).partition(": header=")[0]  # what else it may be is not for every reader's eyes
                raise damaged(path, f"not a whole TIFF: {said}") from error
            try:
                self.n_pages = check_chain(self.tiff, path)
                self._read()
            except (StackError, OSError):
                self.tiff.close()
                raise
            except Exception as error:  # a damaged file can make tifffile raise anything
                self.tiff.close()
                raise damaged(path, f"its structure is damaged: {type(error).__name__} {error}") from error
        if faults:  # tifffile goes on with less than was promised
            self.tiff.close()
            raise damaged(path, f"its structure is damaged: {faults[0]}")

    def _read(self) -> None:
        """What a kind of file has to say for itself."""

    @property
    def description(self) -> str:
        """What the first page says, such as an OME-XML."""
        return str(self.tiff.pages.first.description)

    def check_page(self, number: int, shape: tuple[int, int], dtype: str) -> None:
        """Raise StackError where a page is not one whole grey image of that shape and dtype, CodecError where it cannot
        be unpacked.
        """
        page = self.tiff.pages[number]
        if tuple(page.shape) != shape or dtype_name(self.path, np.dtype(page.dtype)) != dtype:
            what = f"plane {number + 1} is {page.dtype} {page.shape}, not {dtype} {shape}"
            raise StackError(what, where=str(self.path), do="save one grey image of one size and kind per plane")
        if not is_within(page):
            raise damaged(self.path, f"the pixels of plane {number + 1} of {self.n_pages} lie beyond its end")
        check_pixels(page, self.path)

    def page(self, number: int) -> NDArray[Any]:
        """Read the pixels (y, x) of a page, counted from 0, in memory of its own; StackError where they are damaged."""
        try:
            pixels = self.tiff.pages[number].asarray()
        except OSError:
            raise
        except Exception as error:  # decoders raise what they like
            raise damaged(self.path, f"plane {number + 1} cannot be decoded: {error}") from error
        return np.array(pixels, dtype=dtype_name(self.path, pixels.dtype), order="C")

    def close(self) -> None:
        """Let the file go; may be called twice."""
        self.tiff.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class WholeTiff(TiffPages):
    """A TIFF all of whose pages are whole grey images of one size and kind.

    `ome` is None where the file holds no OME-XML, or one that is in another file, which is not there.
    """

    def _read(self) -> None:
        first = self.tiff.pages[0]
        if len(first.shape) != 2:
            raise StackError(f"its images are {first.shape}", where=str(self.path), do="save grey images")
        self.height, self.width = first.shape
        self.dtype = dtype_name(self.path, np.dtype(first.dtype))
        for number in range(self.n_pages):
            self.check_page(number, (self.height, self.width), self.dtype)
        text = self.description
        self.ome = self._described(text) if is_ome(text) else None
        if self.ome:
            self._check_promised(self.ome)

    def _described(self, text: str) -> OmeImage | None:
        whole, own = describe(text, self.path)
        return whole.image(self.path, own.uuid) if whole else None

    def _check_promised(self, ome: OmeImage) -> None:
        if (ome.height, ome.width) != (self.height, self.width):
            what = f"its images are {(self.height, self.width)}, its OME-XML says {(ome.height, ome.width)}"
            raise damaged(self.path, what)
        promised = max(ome.ifds.values(), default=-1) + 1
        if promised > self.n_pages:
            raise damaged(self.path, f"its OME-XML promises {promised} planes, and it holds {self.n_pages}")

    def metadata(self, number: int) -> Facts:
        """What the file says of a page's image, in its OME-XML or as Micro-Manager does."""
        return self.ome.facts_of(number) if self.ome else micromanager_facts(self.tiff.pages.get(number, aspage=True))


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
