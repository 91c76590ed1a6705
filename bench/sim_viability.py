"""Viability from raw frames beside the same plate given as slices, and without the pattern: JSON.

    python -m bench.sim_viability                               all of it: three plates, one after the other
    python -m bench.sim_viability raw > raw.json                one plate; `given` and `widefield` alike
    python -m bench.sim_viability compare raw.json given.json widefield.json

A held-out emulated plate goes through the whole daemon three times: with 15 raw frames a slice, whose light together is
that of one slice; with the slices as an instrument gives them that reconstructs by itself; and with the raw frames of a
light that has no pattern, which become widefield. Same wells, same cells, same network. Bound: from raw frames the mean
V count of the wells differs by no more than a point from that of the given slices, and live Dice is not lower. The
third plate says what the pattern is worth for viability. Rows appear on stderr as they come.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.heldout import SEED, Held, run

PLATE = {"preset": "sim", "compounds": 2, "doses": 4, "negative_controls": 2, "positive_controls": 1}
WAYS: Mapping[str, Mapping[str, Any]] = {
    "raw": PLATE | {"raw": {}},
    "given": PLATE,
    "widefield": PLATE | {"raw": {"modulation": 0.0}},
}
MAX_POINTS, MAX_DICE_LOSS = 1.0, 0.01
PERCENT = {"v_count": 100, "v_control": 1}  # a share, and per cent


def image(way: str, seed: int) -> dict[str, Any]:
    """One plate: how far its rows are from the truth, how well the masks fit, and each well's figures."""
    began_s = time.perf_counter()
    print(f"{way}: a plate of {PLATE['preset']} spheroids, seed {seed}", file=sys.stderr, flush=True)
    held = run(seed, "plate", WAYS[way], console=Console(file=sys.stderr, width=100))
    print(f"{way}: {time.perf_counter() - began_s:.0f} s", file=sys.stderr, flush=True)
    return {"way": way, "seed": seed, "figures": figures(held), "wells": _wells(held)}


def figures(held: Held) -> dict[str, Any]:
    """How far from the truth, and how well the masks fit."""
    errors = [
        100 * (result.v_count - truth.v_true_fov)
        for result, truth in zip(held.results, held.truths, strict=True)
        if result.v_count is not None
    ]
    return {
        "wells": len(held.results),
        "wells_with_v_count": len(errors),
        "v_count_mean_absolute_error_points": round(statistics.mean(map(abs, errors)), 2),
        **{f"{name}_dice_plate": round(dice, 4) for name, dice in held.pooled_dice.items()},
    }


def _wells(held: Held) -> dict[str, dict[str, float | None]]:
    return {
        str(result.well): {"v_count": result.v_count, "v_control": result.v_control, "v_true": truth.v_true_fov}
        for result, truth in zip(held.results, held.truths, strict=True)
    }


def compare(plates: Mapping[str, Mapping[str, Any]]) -> tuple[dict[str, Any], list[str]]:
    """What each way found and how far it is from the given slices, and what is not as it must be."""
    found: dict[str, Any] = {way: plate["figures"] for way, plate in plates.items()}
    given, wrong = plates["given"], []
    for way, plate in plates.items():
        if plate["wells"].keys() != given["wells"].keys() or plate["seed"] != given["seed"]:
            wrong.append(f"{way} is not the plate that was given")
        elif way != "given":
            found[f"{way}_from_given"] = {f"{name}_points": _apart(plate, given, name) for name in PERCENT}
    if "raw" in plates and "raw_from_given" in found:
        apart = found["raw_from_given"]["v_count_points"]["mean"]
        if abs(apart) > MAX_POINTS:
            wrong.append(f"V count from raw frames is {apart} points apart, not {MAX_POINTS:g}")
        ours, theirs = (one["figures"]["live_dice_plate"] for one in (plates["raw"], given))
        if ours < theirs - MAX_DICE_LOSS:
            wrong.append(f"live Dice from raw frames is {ours}, and {theirs} of the given slices")
    return found, wrong


def _apart(plate: Mapping[str, Any], given: Mapping[str, Any], name: str) -> dict[str, Any]:
    """In points, over the wells that have the figure both ways."""
    pairs = [(well[name], given["wells"][at][name]) for at, well in plate["wells"].items()]
    apart: list[float] = [
        PERCENT[name] * (ours - theirs) for ours, theirs in pairs if ours is not None and theirs is not None
    ]
    if not apart:
        return {"wells": 0}
    return {
        "wells": len(apart),
        "mean": round(statistics.mean(apart), 2),
        "mean_absolute": round(statistics.mean(map(abs, apart)), 2),
        "most": round(max(apart, key=abs), 2),
    }


def main() -> int:
    """1 where a bound is not kept."""
    parser = argparse.ArgumentParser(prog="python -m bench.sim_viability", description="Viability from raw frames.")
    parser.add_argument("part", nargs="?", choices=(*WAYS, "compare"), help="one plate, or the comparison of files")
    parser.add_argument("files", nargs="*", type=Path, help="what the parts printed")
    parser.add_argument("--seed", type=int, default=SEED)
    asked = parser.parse_args()
    if asked.part in WAYS:
        print(json.dumps(image(asked.part, asked.seed), indent=1))
        return 0
    if asked.part == "compare":
        plates = {one["way"]: one for one in (json.loads(path.read_text()) for path in asked.files)}
        if missing := {"raw", "given"} - plates.keys():
            parser.error(f"there is no file of the part {' and '.join(sorted(missing))}")
    else:
        plates = {way: image(way, asked.seed) for way in WAYS}
    found, wrong = compare(plates)
    print(json.dumps({"bench": "sim_viability", "seed": plates["given"]["seed"], **found, "not_kept": wrong}, indent=1))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
