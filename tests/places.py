"""The places that tests use, and the one mark for tests that need the real data."""

import pytest

from bench.places import DOCS, EXAMPLES, REAL_DATA, ROOT

__all__ = ["DOCS", "EXAMPLES", "NURSERY_VARIABLE", "REAL_DATA", "ROOT", "WARM_PYTHON_VARIABLE", "needs_real_data"]

NURSERY_VARIABLE = "SPHEROIDD_TESTS_NURSERY"  # a folder where all workers of a run of pytest find `tests.warm_start`'s

WARM_PYTHON_VARIABLE = "SPHEROIDD_TESTS_PYTHON"  # in place of `python`, whose `-c` runs in a fork: `tests.warm_workers`

needs_real_data = pytest.mark.skipif(
    not REAL_DATA.is_dir(), reason=f"the real data are not at {REAL_DATA}; set SPHEROIDD_TEST_DATA"
)
