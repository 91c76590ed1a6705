"""The GPU's check is known to work before there is a GPU: all of its parts, on the processor, of a tiny stack."""

import json

import pytest
import torch

from bench import gpu_check


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
    times = ("last_slice_to_row_s", "stored_to_row_s", "study_s", "large_s", "network_ms", "times_monai_with_median")
    assert all(found[name] > 0 for name in times)
    assert "missed" not in found, "a processor has no aims"


@pytest.mark.skipif(torch.cuda.is_available(), reason="here is a GPU")
def test_without_a_gpu_nothing_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu_check.main([]) == gpu_check.NO_GPU
    assert json.loads(capsys.readouterr().out)["gpu"] is None


def test_a_part_that_fails_leaves_the_others_and_ends_in_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(self: gpu_check.Check) -> dict[str, float]:
        raise ImportError("no module named numba")

    for name in ("network", "stack", "monai", "rows", "study", "large"):
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
        ({"large_peak_gb": None}, ["large_peak_gb"]),
        (
            {"monai_median_s": 0.0, "monai_network_s": 1.0},
            ["times_monai_with_normalisation", "times_monai_with_median"],
        ),
    ],
)
def test_an_aim_that_is_not_reached_or_not_known_is_missed(changed: dict[str, float], expected: list[str]) -> None:
    figures = {"network_ms": 9.0, "stored_to_row_s": 0.2, "large_peak_gb": 7.0, "dice": 1.0, "stack_s": 0.1}
    figures |= {"monai_network_s": 2.0, "monai_normalisation_s": 0.5, "monai_median_s": 9.0, **changed}
    assert gpu_check.missed(figures | gpu_check.ratios(figures)) == expected
