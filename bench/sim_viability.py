"""Viability from raw frames against the same plate given as slices: `python -m bench.sim_viability [SEED]`, JSON.

A held-out emulated plate is run twice through the whole daemon: with 15 raw frames a slice, whose light together is
that of one slice, and with the slices as an instrument gives them that reconstructs by itself. Same wells, same cells,
same network; bound: the mean V count of the wells differs by no more than a point, and live Dice is not lower.
"""

import json
import statistics
import sys
from typing import Any

from bench.heldout import SEED, Held, run

PLATE = {"preset": "sim", "compounds": 2, "doses": 4, "negative_controls": 2, "positive_controls": 1}
MAX_POINTS, MAX_DICE_LOSS = 1.0, 0.01


def figures(held: Held) -> dict[str, Any]:
    """Of one way: how far from the truth, and how well the masks fit."""
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


def compare(seed: int) -> tuple[dict[str, Any], list[str]]:
    """The figures of both ways and how far they are apart, and what is not as it must be."""
    raw, given = run(seed, "plate", PLATE | {"raw": {}}), run(seed, "plate", PLATE)
    found: dict[str, Any] = {"seed": seed, "raw_frames": figures(raw), "given_slices": figures(given)}
    ours, theirs = ({row.well: row for row in held.results} for held in (raw, given))
    wrong = [] if ours.keys() == theirs.keys() else ["other wells have a row"]
    for name, percent in (("v_count", 100), ("v_control", 1)):  # a share, and per cent
        apart = [
            percent * (getattr(ours[well], name) - getattr(theirs[well], name))
            for well in ours.keys() & theirs.keys()
            if getattr(ours[well], name) is not None and getattr(theirs[well], name) is not None
        ]
        found[f"{name}_apart_points"] = {
            "wells": len(apart),
            "mean": round(statistics.mean(apart), 2),
            "mean_absolute": round(statistics.mean(map(abs, apart)), 2),
            "most": round(max(apart, key=abs), 2),
        }
    if abs(found["v_count_apart_points"]["mean"]) > MAX_POINTS:
        wrong.append(f"V count is {found['v_count_apart_points']['mean']} points apart, not {MAX_POINTS:g}")
    if raw.pooled_dice["live"] < given.pooled_dice["live"] - MAX_DICE_LOSS:
        wrong.append("live Dice is lower from raw frames")
    return found, wrong


def main() -> int:
    """1 where a bound is not kept."""
    found, wrong = compare(int(sys.argv[1]) if len(sys.argv) > 1 else SEED)
    print(json.dumps({"bench": "sim_viability", **found, "not_kept": wrong}, indent=1))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
