"""Opens an annotation by its name's ending."""

from pathlib import Path

from spheroidd.inference.annotations.volume import Annotation
from spheroidd.protocols.errors import ConfigError


def read_annotation(path: Path) -> Annotation:
    """Read a TrakEM2 project (.xml, .xml.gz), a label TIFF (.tif, .tiff), .npy, or OME-Zarr labels (a folder).

    ConfigError says what is wrong with the file.
    """
    from spheroidd.inference.annotations import label_images as annotations_images
    from spheroidd.inference.annotations import trakem2 as annotations_trakem2

    name = path.name.lower()
    if name.endswith((".xml", ".xml.gz")):
        return annotations_trakem2.read_trakem2(path)
    if path.is_dir() or name.endswith(".zarr"):
        return annotations_images.read_zarr_labels(path)
    if name.endswith((".tif", ".tiff")):
        return annotations_images.read_tiff_labels(path)
    if name.endswith(".npy"):
        return annotations_images.read_array_labels(path)
    do = "give a TrakEM2 .xml, a label .tif, a .npy or a .zarr"
    raise ConfigError(f"{path.name!r} is of no kind of annotation that is known", where=str(path), do=do)
