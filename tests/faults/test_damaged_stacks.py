"""A shard that does not read back is its own stack's failure: every other stack gets its row, and final rows stay."""

import json
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from spheroidd.acquisition.store.stack_files import read_block
from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.daemon.scoring.score_stack import _read
from spheroidd.protocols.errors import StackError
from spheroidd.protocols.stack import Block, StackKey
from spheroidd.protocols.well import WellId
from tests.faults.plate_runs import kill, ledger, run, spheroidd, start, write_config

DAMAGED = StackKey("P1", WellId.parse("A02"))


def flip(shard: Path) -> None:
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 0xFF
    shard.write_bytes(content)


def shorten(shard: Path) -> None:
    shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2])


def zero(shard: Path) -> None:
    shard.write_bytes(bytes(shard.stat().st_size))


DAMAGES: dict[str, Callable[[Path], None]] = {"flipped": flip, "gone": Path.unlink, "shortened": shorten, "zeros": zero}


def copy_of(undisturbed: Path, folder: Path) -> Path:
    """The finished plate, to be damaged."""
    shutil.copytree(undisturbed.parent / "data", folder / "data")
    return write_config(folder)


def shard_of(config: Path, well: str = "A02") -> Path:
    folder = config.parent / "data" / "P1.ome.zarr" / well[0] / well[1:] / "0" / "0" / "c"
    return sorted(path for path in folder.rglob("*") if path.is_file())[0]


def stored_and_killed(config: Path) -> None:
    """A daemon that is killed when A02 is stored; its worker needs longer to begin than the plate to be imaged."""
    process = start(config)
    try:
        deadline = time.monotonic() + 120
        while ledger(config).states.get("A02", ("", None))[0] != "stored":
            assert time.monotonic() < deadline, "it never arrived to that"
            time.sleep(0.02)
    finally:
        kill(process)
    assert "A02" not in ledger(config).results


def rows(config: Path) -> dict[str, dict[str, Any]]:
    printed = spheroidd("results", str(config.parent / "data"), "--json").stdout
    return {row["well"]: row for row in json.loads(printed)}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_shard_is_the_failure_of_its_stack(tmp_path: Path, undisturbed: Path, damage: str) -> None:
    config = copy_of(undisturbed, tmp_path)
    shard = shard_of(config)
    DAMAGES[damage](shard)
    with Catalog.read_only(tmp_path / "data") as catalog:
        plan = catalog.plan(DAMAGED)
        acknowledged = {index.z: crc for index, crc in catalog.acknowledged(DAMAGED).items() if index.channel == "488"}
    with pytest.raises(StackError, match="do not read back") as refused:
        _read(partial(read_block, tmp_path / "data"), Block(DAMAGED, "488", 0, plan.n_z), acknowledged)
    assert refused.value.where == str(shard)


def test_a_damaged_stack_fails_by_name_and_the_plate_goes_on(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    stored_and_killed(config)
    flip(shard_of(config))
    assert run(config) == 1, config.with_suffix(".log").read_text()
    found = rows(config)
    bad = found.pop("A02")
    assert (bad["status"], bad["v_control"]) == ("failed", None)
    assert "do not read back" in bad["reason"]
    assert {row["status"] for row in found.values()} == {"final"}


def test_rows_that_are_final_stay_so_where_a_stack_cannot_be_scored_again(tmp_path: Path, undisturbed: Path) -> None:
    config = copy_of(undisturbed, tmp_path)
    shard_of(config).unlink()
    scored = spheroidd("score", str(tmp_path / "data"))
    assert scored.returncode == 1, scored.stderr
    assert "P1/A02/0 not scored again" in scored.stdout
    assert ledger(config).results == ledger(undisturbed).results
    told = json.loads(spheroidd("alarms", str(tmp_path / "data"), "--json").stdout)
    assert ("rescore-failed", str(DAMAGED)) in {(alarm["code"], alarm["key"]) for alarm in told}
