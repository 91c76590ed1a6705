"""Mistakes that a test must notice: `python -m tests.mutants [WORD]` makes each in a copy of the tree and runs the
tests that are to fail. A table on stdout; exit code 1 where one survives. About 3 minutes on two cores.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from tests.places import ROOT


class Mutant(NamedTuple):
    """One mistake: the file, what stands there, what stands there instead, and the tests that are to notice."""

    file: str
    right: str
    wrong: str
    tests: str


MUTANTS = (
    Mutant(
        "protocols/calibration.py",
        "MAX_SCALE_ERROR = 0.01",
        "MAX_SCALE_ERROR = 0.02",
        "tests/acquisition/plates/test_plan_geometry.py",
    ),
    Mutant(
        "daemon/report/sections.py",
        '    Section("Example images", _example_images),\n',
        "",
        "tests/daemon/report/test_sections.py",
    ),
    Mutant(
        "protocols/results.py",
        "return self.n_live / (self.n_live + self.n_dead)",
        "return self.n_live / max(self.n_dead, 1)",
        "tests/daemon/catalog/test_catalog.py tests/inference/segmentation/test_objects.py",
    ),
    Mutant(
        "daemon/monitoring/status.py",
        "self.silent_s > SILENT_S",
        "self.silent_s > 100 * SILENT_S",
        "tests/daemon/monitoring/test_status.py",
    ),
    Mutant(
        "daemon/catalog/audit_chain.py",
        'if name != "sha256"}',
        'if name not in ("sha256", "reason")}',
        "tests/daemon/catalog/test_audit.py",
    ),
    Mutant(
        "inference/quality/control_statistics.py",
        "MAD_TO_SD = 1.4826",
        "MAD_TO_SD = 1.0",
        "tests/inference/quality/test_plate_verdict.py",
    ),
    Mutant(
        "daemon/service/tokens.py",
        "token.expires_s > self._now()",
        "token.expires_s > 0",
        "tests/daemon/service/test_tokens.py",
    ),
    Mutant(
        "inference/dose_response/log_logistic.py",
        "_log_dose_of_fraction(parameters, 0.5)",
        "_log_dose_of_fraction(parameters, 0.45)",
        "tests/inference/dose_response/test_fit.py",
    ),
    Mutant(
        "inference/viability/related_viability.py",
        "percent = 100 * live_um3 / median if",
        "percent = 100 * live_um3 / max(controls_um3) if",
        "tests/inference/viability/test_related_viability.py",
    ),
    Mutant(
        "daemon/catalog/writer.py",
        'if known != event.crc32c:\n            what = f"{event.index} has',
        'if known == event.crc32c + 1:\n            what = f"{event.index} has',
        "tests/daemon/catalog/test_catalog.py",
    ),
    Mutant(
        "acquisition/store/zarr_store.py",
        "if held != crc:\n                self._emit(FaultRaised(FaultCode.DUPLICATE_SLICE",
        "if False:\n                self._emit(FaultRaised(FaultCode.DUPLICATE_SLICE",
        "tests/acquisition/store/test_zarr_store.py",
    ),
    Mutant(
        "acquisition/disk/durable_file.py",
        "            if sync:\n                sync_directory(path.parent)",
        "            if False:\n                sync_directory(path.parent)",
        "tests/acquisition/disk tests/faults/test_store_power_cut.py",
    ),
    Mutant(
        "inference/agreement/overlap_metrics.py",
        "return part / whole if whole else 1.0",
        "return part / whole if whole else 0.0",
        "tests/inference/agreement/test_overlap_metrics.py",
    ),
)


def survives(mutant: Mutant, tree: Path) -> bool | None:
    """Whether its tests pass in `tree`, a copy of this one; None where the right text does not stand there once."""
    path = tree / mutant.file
    text = path.read_text(encoding="utf-8")
    if text.count(mutant.right) != 1:
        return None
    path.write_text(text.replace(mutant.right, mutant.wrong), encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(tree / "tests" / "_typeroot")}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-n", "0", "-p", "no:cacheprovider", *mutant.tests.split()]
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)
    path.write_text(text, encoding="utf-8")
    if done.returncode not in (0, 1):  # 1: a test failed
        raise RuntimeError(f"{mutant.file}: the tests could not be run:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.returncode == 0


def main(word: str = "") -> int:
    """Make them all, or those of the files whose name holds the word; 1 where one survives or cannot be made."""
    table = Table("file", "instead of", "stands", "tests", "", box=None, pad_edge=False)
    failed = 0
    chosen = [one for one in MUTANTS if word in one.file]
    with TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        for name in listed.split("\n")[:-1]:
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tree / name, follow_symlinks=False)
        for mutant in chosen:
            found = survives(mutant, tree)
            failed += found is not False
            verdict = {True: "SURVIVES", False: "killed", None: "cannot be made"}[found]
            words = [text.strip().replace("\n", " ") or "nothing" for text in (mutant.right, mutant.wrong)]
            table.add_row(mutant.file, *words, mutant.tests, verdict)
            print(f"{mutant.file}: {verdict}", file=sys.stderr, flush=True)
    Console(width=None if sys.stdout.isatty() else 200).print(table)
    print(f"{len(chosen) - failed} of {len(chosen)} are killed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
