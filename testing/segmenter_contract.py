"""What every Segmenter owes its holder. Inherit it, and give `make_segmenter`."""

import numpy as np
import pytest
from numpy.typing import NDArray

from spheroidd.protocols.ports import Prediction, Segmenter
from spheroidd.protocols.results import Precision


def noise(shape: tuple[int, int, int], seed: int = 0) -> NDArray[np.float32]:
    """A normalised volume (2, z, y, x) with a few bright blobs in it."""
    rng = np.random.default_rng(seed)
    volume = rng.normal(-0.6, 0.2, (2, *shape))
    for channel in range(2):
        for centre in rng.uniform(0, shape, (6, 3)):
            grid = np.indices(shape) + 0.5
            distance2 = sum((axis - at) ** 2 for axis, at in zip(grid, centre, strict=True))
            volume[channel] += 3 * (distance2 < 16)
    return volume.astype(np.float32)


class SegmenterContract:
    """Shape, range, determinism, and that the halo it asks for is enough."""

    TILE_TOLERANCE = 1e-3  # of a probability, between a region seen whole and seen with just the halo around

    def make_segmenter(self) -> Segmenter:
        """A new segmenter each time it is called."""
        raise NotImplementedError

    @pytest.fixture
    def segmenter(self) -> Segmenter:
        """The segmenter under test."""
        return self.make_segmenter()

    def test_it_says_what_it_wants(self, segmenter: Segmenter) -> None:
        assert len(segmenter.spacing_um) == 3
        assert min(segmenter.spacing_um) > 0
        assert segmenter.halo >= 0
        assert segmenter.sha256
        assert segmenter.precision in list(Precision)

    @pytest.mark.parametrize("shape", [(16, 16, 16), (8, 24, 16), (5, 19, 13), (1, 1, 1)], ids=str)
    def test_a_prediction_has_the_region_s_shape_and_lies_in_range(
        self, segmenter: Segmenter, shape: tuple[int, int, int]
    ) -> None:
        prediction = segmenter.predict(noise(shape))
        assert isinstance(prediction, Prediction)
        for name, part in prediction._asdict().items():
            assert part.shape == shape, name
            assert part.dtype == np.float32, name
            assert np.isfinite(part).all(), name
            assert part.min() >= 0, name
        assert prediction.live.max() <= 1
        assert prediction.dead.max() <= 1

    def test_the_same_region_gives_the_same_bits(self, segmenter: Segmenter) -> None:
        region = noise((16, 24, 24))
        first, again, other = segmenter.predict(region), segmenter.predict(region.copy()), self.make_segmenter()
        for a, b, c in zip(first, again, other.predict(region), strict=True):
            assert np.array_equal(a, b)
            assert np.array_equal(a, c)

    def test_the_region_is_left_as_it_was(self, segmenter: Segmenter) -> None:
        region = noise((8, 16, 16))
        before = region.copy()
        region.flags.writeable = False
        segmenter.predict(region)
        assert np.array_equal(region, before)

    def test_a_tile_with_its_halo_gives_what_the_whole_volume_gives(self, segmenter: Segmenter) -> None:
        halo = -(-segmenter.halo // 8) * 8
        volume = noise((2 * halo + 16, 40, 40))
        whole = segmenter.predict(volume)
        tile = segmenter.predict(volume[:, : halo + 8])
        for name, a, b in zip(Prediction._fields, whole, tile, strict=True):
            assert np.abs(a[:8] - b[:8]).max() <= self.TILE_TOLERANCE, name
