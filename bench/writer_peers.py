"""Writers that take one plane at a time, in one table: ours, others' in their sharded layouts, and the disk itself.

All compress with blosc lz4 level 1 and byte shuffle (ome-writers fixes level 5) in inner chunks of 200x200 pixels.
Libraries that would rewrite a shard for every plane are given whole shards, buffered here as their users must do.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

N_PLANES, HEIGHT, WIDTH = 400, 800, 800
SHARD_Z, TILE = 16, 200  # for the others: the depth at which they do best
Plane = NDArray[np.uint16]


class Writer(Protocol):
    """Takes planes in z order."""

    def append(self, z: int, plane: Plane) -> None:
        """Take one plane."""
        ...

    def finish(self) -> None:
        """Write what is buffered; making it durable is timed apart, by the caller, for all alike."""
        ...


class Ours:
    """The store of this project: each plane durable as soon as it is reported."""

    def __init__(self, root: Path, told: Callable[[int], None] = lambda z: None, *, with_pyramid: bool = False) -> None:
        from spheroidd.acquisition.store.zarr_store import ZarrStackStore
        from spheroidd.protocols.events import Event, SliceDurable
        from spheroidd.protocols.plate import PlateMap, PlateWell, Treatment, WellRole
        from spheroidd.protocols.stack import StackKey, StackPlan
        from spheroidd.protocols.well import WellId

        def emit(event: Event) -> None:
            if isinstance(event, SliceDurable):
                told(event.index.z)

        well = WellId.parse("A01")
        plate = PlateMap("bench", (PlateWell(well, Treatment(WellRole.NEGATIVE_CONTROL)),))
        self._plan = StackPlan(StackKey("bench", well), ("488",), N_PLANES, HEIGHT, WIDTH, 0.125, 0.5)
        self._store = ZarrStackStore(root, plate, emit, with_pyramid=with_pyramid)
        self._store.open(self._plan)

    def append(self, z: int, plane: Plane) -> None:
        """See Writer."""
        from spheroidd.protocols.stack import Frame, SliceIndex

        self._store.append(Frame(self._plan.key, SliceIndex("488", z), plane, 0.0))

    def finish(self) -> None:
        """See Writer."""
        self._store.seal(self._plan.key)
        self._store.close()


class Raw:
    """One file, written plane by plane; `each` makes every plane durable before the next."""

    def __init__(self, root: Path, *, each: bool) -> None:
        self._fd = os.open(root / "raw", os.O_WRONLY | os.O_CREAT)
        self._each = each

    def append(self, z: int, plane: Plane) -> None:
        """See Writer."""
        os.write(self._fd, plane.data)
        if self._each:
            os.fdatasync(self._fd)

    def finish(self) -> None:
        """See Writer."""
        os.fdatasync(self._fd)
        os.close(self._fd)


class Buffered:
    """Gathers planes into whole shards for a library that takes them as `write(z, planes)`."""

    def __init__(self, write: Callable[[int, Plane], None]) -> None:
        self._write = write
        self._buffer = np.empty((SHARD_Z, HEIGHT, WIDTH), np.uint16)

    def append(self, z: int, plane: Plane) -> None:
        """See Writer."""
        self._buffer[z % SHARD_Z] = plane
        if z % SHARD_Z == SHARD_Z - 1:
            self._write(z + 1 - SHARD_Z, self._buffer)

    def finish(self) -> None:
        """See Writer."""
        pass  # N_PLANES is a multiple of SHARD_Z


class TensorStore(Buffered):
    """tensorstore's zarr3 driver; a shard is written while the next one fills."""

    def __init__(self, root: Path) -> None:
        import tensorstore

        blosc = {"cname": "lz4", "clevel": 1, "shuffle": "shuffle", "typesize": 2}
        codecs = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "blosc", "configuration": blosc}]
        sharding = {"chunk_shape": [SHARD_Z, TILE, TILE], "codecs": codecs}
        metadata = {
            "shape": [N_PLANES, HEIGHT, WIDTH],
            "data_type": "uint16",
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [SHARD_Z, HEIGHT, WIDTH]}},
            "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
        }
        kvstore = {"driver": "file", "path": str(root / "array"), "file_io_sync": False}
        self._array = tensorstore.open(
            {"driver": "zarr3", "kvstore": kvstore, "metadata": metadata}, create=True
        ).result()
        self._pending: list[Any] = []
        super().__init__(self._begin)

    def _begin(self, z: int, planes: Plane) -> None:
        future = self._array[z : z + SHARD_Z].write(planes)
        future.copy.result()  # the buffer may be filled again
        self._pending.append(future)
        if len(self._pending) > 1:
            self._pending.pop(0).result()

    def finish(self) -> None:
        """See Writer."""
        for future in self._pending:
            future.result()


def _zarr_python(root: Path, *, pipeline: str | None = None) -> Writer:
    import zarr
    from zarr.codecs import BloscCodec

    if pipeline is not None:
        zarr.config.set({"codec_pipeline.path": pipeline})
    array = zarr.create_array(
        root / "array",
        shape=(N_PLANES, HEIGHT, WIDTH),
        chunks=(SHARD_Z, TILE, TILE),
        shards=(SHARD_Z, HEIGHT, WIDTH),
        dtype="uint16",
        compressors=BloscCodec(cname="lz4", clevel=1, shuffle="shuffle", typesize=2),
    )

    def write(z: int, planes: Plane) -> None:
        array[z : z + SHARD_Z] = planes

    return Buffered(write)


class AcquireZarr:
    """acquire-zarr's own stream."""

    def __init__(self, root: Path) -> None:
        import acquire_zarr as az

        sizes = (("z", N_PLANES, SHARD_Z, 1), ("y", HEIGHT, TILE, HEIGHT // TILE), ("x", WIDTH, TILE, WIDTH // TILE))
        dimensions = [
            az.Dimension(
                name=name, kind=az.DimensionType.SPACE, array_size_px=size, chunk_size_px=chunk, shard_size_chunks=shard
            )
            for name, size, chunk, shard in sizes
        ]
        compression = az.CompressionSettings(
            compressor=az.Compressor.BLOSC1, codec=az.CompressionCodec.BLOSC_LZ4, level=1, shuffle=1
        )
        array = az.ArraySettings(dimensions=dimensions, data_type=az.DataType.UINT16, compression=compression)
        self._stream = az.ZarrStream(az.StreamSettings(store_path=str(root / "array"), arrays=[array]))

    def append(self, z: int, plane: Plane) -> None:
        """See Writer."""
        self._stream.append(plane)

    def finish(self) -> None:
        """See Writer."""
        self._stream.close()


class OmeWriters:
    """ome-writers with the backend it chooses first."""

    def __init__(self, root: Path, backend: Any = "auto") -> None:
        import ome_writers as ow

        dimensions = (
            ow.Dimension(name="z", count=N_PLANES, type="space", chunk_size=SHARD_Z, shard_size_chunks=1),
            ow.Dimension(name="y", count=HEIGHT, type="space", chunk_size=TILE, shard_size_chunks=HEIGHT // TILE),
            ow.Dimension(name="x", count=WIDTH, type="space", chunk_size=TILE, shard_size_chunks=WIDTH // TILE),
        )
        settings = ow.AcquisitionSettings(
            root_path=str(root / "image.ome.zarr"),
            dimensions=dimensions,
            dtype="uint16",
            compression="blosc-lz4",
            format=ow.OmeZarrFormat(backend=backend),
        )
        self._stream = ow.create_stream(settings)

    def append(self, z: int, plane: Plane) -> None:
        """See Writer."""
        self._stream.append(plane)

    def finish(self) -> None:
        """See Writer."""
        self._stream.close()


WRITERS: dict[str, Callable[[Path], Writer]] = {
    "raw_one_sync": lambda root: Raw(root, each=False),
    "raw_sync_per_plane": lambda root: Raw(root, each=True),
    "ours_durable_per_plane": Ours,
    "ours_with_pyramid": lambda root: Ours(root, with_pyramid=True),
    "tensorstore": TensorStore,
    "zarr_python": _zarr_python,
    "zarrs": lambda root: _zarr_python(root, pipeline="zarrs.ZarrsCodecPipeline"),
    "acquire_zarr": AcquireZarr,
    "ome_writers": OmeWriters,
}
