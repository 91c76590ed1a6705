"""The GPU's check is known to work before there is a GPU: all of its parts, on the processor, of a tiny stack."""

import json
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
import torch

from bench import gpu_check
from spheroidd.protocols.results import StackMeasurement
from tests.daemon.report.plates import measurement


def test_the_whole_check_runs_on_the_processor(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, warm_program: tuple[str]
) -> None:
    monkeypatch.setattr(gpu_check, "COMMAND", warm_program)
    assert gpu_check.main(["--smoke"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["failed"], found["late"]) == ({}, [])
    assert found["device"].startswith("no GPU")
    assert found["dice"] >= gpu_check.AT_LEAST["dice"]
    assert found["live_voxels"] > 0
    assert found["status"] == "final"
    assert found["study_voxels"] == [80, 80, 80]
    assert (found["counts_equal"], found["wells"], found["repeats_fp32"], found["repeats_bf16"]) == (
        True,
        1,
        True,
        True,
    )
    assert found["cells"] > 0
    assert found["fp32_off"] < gpu_check.AT_MOST["bf16_off"]
    times = ("last_slice_to_row_s", "stored_to_row_s", "study_s", "large_s", "network_ms", "times_monai_with_median")
    assert all(found[name] > 0 for name in (*times, "warm_up_s", "first_stack_s"))
    assert "missed" not in found, "a processor has no aims"


@pytest.mark.skipif(torch.cuda.is_available(), reason="here is a GPU")
def test_without_a_gpu_nothing_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu_check.main([]) == gpu_check.NO_GPU
    assert json.loads(capsys.readouterr().out)["gpu"] is None


def test_what_takes_too_long_is_cut_off_with_what_was_found() -> None:
    command = [sys.executable, "-m", "bench.gpu_check", "--smoke", "--limit-s", "0.1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1
    assert json.loads(done.stdout)["cut_off"]


@pytest.mark.parametrize(
    ("found", "expected"),
    [((300.0, 20.0, 9, 1), 0.0), ((303.0, 20.0, 9, 1), 0.01), ((300.0, 20.0, 9, 2), 0.5), ((None, 20.0, 9, 1), 1.0)],
)
def test_totals_of_a_plate_are_apart_by_the_worst_of_them(found: tuple[Any, ...], expected: float) -> None:
    def row(live_um3: float | None, dead_um3: float, n_live: int, n_dead: int) -> StackMeasurement:
        given = {"live_um3": live_um3, "dead_um3": dead_um3, "n_live": n_live, "n_dead": n_dead}
        return replace(measurement(300.0, n_z=1), **given)

    assert gpu_check.apart([row(300.0, 20.0, 9, 1)], [row(*found)]) == pytest.approx(expected, abs=1e-4)


def test_a_part_that_fails_leaves_the_others_and_ends_in_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(self: gpu_check.Check) -> dict[str, float]:
        raise ImportError("no module named numba")

    for name in ("network", "stack", "monai", "rows", "counts", "study", "large"):
        monkeypatch.setattr(gpu_check.Check, name, broken)
    assert gpu_check.main(["--smoke"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert "numba" in found["failed"]["broken"]
    assert found["dice"] >= gpu_check.AT_LEAST["dice"]


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, []),
        ({"network_ms": 10.5}, ["network_ms"]),
        ({"dice": 0.998}, ["dice"]),
        ({"counts_equal": False}, ["counts_equal"]),
        ({"repeats_bf16": False, "bf16_off": 0.02}, ["bf16_off", "repeats_bf16"]),
        ({"large_peak_gb": None}, ["large_peak_gb"]),
        (
            {"monai_median_s": 0.0, "monai_network_s": 1.0},
            ["times_monai_with_normalisation", "times_monai_with_median"],
        ),
    ],
)
def test_an_aim_that_is_not_reached_or_not_known_is_missed(changed: dict[str, float], expected: list[str]) -> None:
    figures = {"network_ms": 9.0, "stored_to_row_s": 0.2, "large_peak_gb": 7.0, "dice": 1.0, "stack_s": 0.1}
    figures |= {"bf16_off": 0.002, **dict.fromkeys(("counts_equal", "repeats_fp32", "repeats_bf16"), True)}
    figures |= {"monai_network_s": 2.0, "monai_normalisation_s": 0.5, "monai_median_s": 9.0, **changed}
    assert gpu_check.missed(figures | gpu_check.ratios(figures)) == expected
