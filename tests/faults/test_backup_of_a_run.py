"""A backup that follows a run which is killed: brought back elsewhere, the plate goes on and ends as if nothing was."""

import time
from pathlib import Path

from spheroidd.daemon.verification.verifier import verify
from tests import warm_start
from tests.faults.plate_runs import N_Z, kill, ledger, run, spheroidd, start, unreadable, write_config

SOURCE = {"pace": "real", "slice_period_s": 0.15}


def test_a_killed_plate_goes_on_from_its_backup_at_another_place(tmp_path: Path, undisturbed: Path) -> None:
    config, to, elsewhere = write_config(tmp_path / "here", source=SOURCE), tmp_path / "to", tmp_path / "there"
    process, truth = start(config), ledger(undisturbed)
    backup = ["backup", str(tmp_path / "here" / "data"), "--to", str(to), "--follow", "--every", "1"]
    following, log = None, tmp_path / "backup.log"
    try:
        deadline = time.monotonic() + 120
        while not (to / "replaced").exists() or len(ledger(config).slices) % (2 * N_Z) < 8:  # in the middle of a stack
            assert time.monotonic() < deadline, "it never arrived to that"
            if following is None and ledger(config).slices:
                with log.open("w") as out:
                    following = warm_start.start(backup, stdout=out, stderr=out)
            time.sleep(0.02)
        kill(process)
        assert following is not None
        assert following.wait(120) == 0, log.read_text()  # it ends with the daemon
    finally:
        kill(process)
        if following is not None:
            kill(following)
    kept = ledger(config).slices
    back = spheroidd("restore", str(to), "--to", str(elsewhere / "data"))
    assert back.returncode in (0, 1), back.stdout + back.stderr  # 1: slices of the stack under way are in the ring
    moved = write_config(elsewhere, source=SOURCE)
    assert ledger(moved).slices == kept
    assert run(moved) == 0, moved.with_suffix(".log").read_text()
    end = ledger(moved)
    assert (end.slices, end.results) == (truth.slices, truth.results)
    assert unreadable(moved, end.slices) == []
    assert verify(elsewhere / "data").findings == ()
