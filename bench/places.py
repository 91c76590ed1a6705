"""Where things lie in a checkout: its root, the examples, and the real data that are never part of it."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"
DOCS = ROOT / "docs"
OUT = ROOT / "bench" / "out"
# Recordings, tables and schemas that other people made; `SPHEROIDD_TEST_DATA` names them where they lie elsewhere.
REAL_DATA = Path(os.environ.get("SPHEROIDD_TEST_DATA", ROOT.parent / "shared" / "data"))
