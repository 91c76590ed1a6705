"""The description of a file that is one of a set: in itself, or in the file beside it that it names."""

from pathlib import Path
from typing import Any

import tifffile

from spheroidd.acquisition.images.file_kind import read_description
from spheroidd.acquisition.images.ome.description import OmeDocument
from spheroidd.acquisition.images.tiff.chain import check_offsets
from spheroidd.protocols.errors import StackError

TIFF_ENDINGS = (".tif", ".tiff", ".btf", ".tf8")


def open_alone(path: Path) -> Any:
    """A TIFF in tifffile, kept from opening the other files of a set and from giving their planes for this file's."""
    return tifffile.TiffFile(path, is_ome=False, is_mmstack=False, is_ndtiff=False)


def is_ome(text: str) -> bool:
    """Whether a TIFF's description is an OME-XML."""
    return "OME" in text and text.lstrip("\ufeff \t\r\n").startswith("<")


def describe(text: str, path: Path) -> tuple[OmeDocument | None, OmeDocument]:
    """The document that describes a file's images, and the file's own, which says who the file is.

    The first is None where it lies in another file that is not there; StackError where that one is of another set.
    """
    own = OmeDocument(text, path)
    if not own.metadata_file:
        return own, own
    beside = path.parent / own.metadata_file.replace("\\", "/").rpartition("/")[2]
    if not beside.exists():
        return None, own
    whole = OmeDocument(_description_of(beside), beside)
    if own.metadata_uuid and whole.uuid and own.metadata_uuid != whole.uuid:
        what = f"it belongs to the set {own.metadata_uuid}, and {beside.name} beside it describes the set {whole.uuid}"
        raise StackError(what, where=str(path), do="keep the files of one set in a folder of their own")
    return whole, own


def _description_of(path: Path) -> str | bytes:
    if not path.name.lower().endswith(TIFF_ENDINGS):
        return read_description(path)
    check_offsets(path)
    with open_alone(path) as tiff:
        return str(tiff.pages.first.description)
