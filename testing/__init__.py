"""Contract tests for whoever writes a source, a store or a segmenter: inherit a class, give one method, run pytest."""

if __name__ != "spheroidd.testing":
    raise ImportError("import spheroidd.testing, not testing: the bare folder would make a second copy of every class")

import pytest

# Else a contract that is broken would say AssertionError and nothing more.
pytest.register_assert_rewrite(*(f"{__name__}.{port}_contract" for port in ("source", "store", "segmenter")))
