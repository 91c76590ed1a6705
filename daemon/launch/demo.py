"""`spheroidd demo`: the main job on the emulator, and how near its answers come to the truth."""

import statistics
from pathlib import Path

from rich.console import Console
from rich.table import Table
from scipy import stats

from spheroidd.daemon.analysis.sim_depth import depth_of_plate
from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.daemon.config.model import Config, build_config
from spheroidd.daemon.config.source_registry import build_source
from spheroidd.daemon.launch.demo_directory import PLATE, REPORT_NAME, mark
from spheroidd.daemon.launch.run import run_plate
from spheroidd.daemon.scoring.plate_patterns import plate_patterns
from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.plate import WellRole
from spheroidd.sim_emulator.source import EmulatorSource

CONTROLS = {"negative_controls": 6, "positive_controls": 6}  # fewer give no verdict
# What is imaged: slices as an instrument gives them that reconstructs by itself, or raw frames of structured
# illumination, of which there are 15 for each slice and colour.
PRESETS: dict[str, dict[str, object]] = {
    "demo": {"preset": "demo", "compounds": 2, "doses": 6, **CONTROLS},
    "sim": {
        "preset": "sim",
        "n_z": 24,
        "z_step_um": 1.5,
        "slice_period_s": 0.4,
        "compounds": 1,
        "doses": 6,
        **CONTROLS,
        "raw": {},
    },
    "unit": {"preset": "unit", "pace": "fast", "compounds": 1, "doses": 2, **CONTROLS},  # whether an installation works
}


def run_demo(data_dir: Path, *, seed: int, console: Console, preset: str = "demo") -> int:
    """Run the emulator's demonstration plate, or go on with it, and compare it with its truth.

    ConfigError where `data_dir` holds anything else than a demonstration, or where there is no such preset.
    """
    check_preset(preset)
    mark(data_dir)
    config = demo_config(data_dir, seed, preset)
    console.print(
        f"A plate of emulated spheroids: imaged, stored, segmented and scored live into {data_dir}\n"
        f"[dim]from another terminal: spheroidd status {data_dir} --watch[/dim]",
        highlight=False,
    )
    code = run_plate(config, console=console)
    _compare(config, console)
    if preset == "sim":
        _tell_of_stripes(config, console)
    console.print(f"\nImages and masks: {data_dir / f'{PLATE}.ome.zarr'}  (OME-Zarr: napari, Fiji, any NGFF viewer)")
    console.print(f"Rows: spheroidd results {data_dir}   or {data_dir / 'catalog.sqlite'} in any SQLite tool")
    _report(data_dir, console)
    return code


def check_preset(preset: str) -> None:
    """ConfigError where there is no such demonstration."""
    if preset not in PRESETS:
        raise ConfigError(f"there is no demonstration {preset!r}", do=f"choose {' or '.join(PRESETS)}")


def _report(data_dir: Path, console: Console) -> None:
    from spheroidd.daemon.report.writer import write_report  # takes a second, which the run need not wait for

    report = data_dir / REPORT_NAME
    write_report(data_dir, report, command=f"spheroidd report {data_dir} -o {report}")
    console.print(f"Report: {report}  (open it in a browser; `spheroidd report` writes it as PDF too)")


def demo_config(data_dir: Path, seed: int, preset: str = "demo") -> Config:
    """The demonstration's configuration: what a configuration file would say."""
    tables = {
        "data": {"dir": str(data_dir)},
        "plate": {"name": PLATE},
        "source": {"kind": "emulator", "seed": seed, "pace": "real", **PRESETS[preset]},
        "store": {"min_free_gb": 0.5},
        "inference": {"normalisation": "plate"},
    }
    return build_config(tables, base=Path.cwd(), where="demo")


def _tell_of_stripes(config: Config, console: Console) -> None:
    """Print each colour's pattern beside the true one, and the depth at which its stripes die."""
    source = build_source(config.source, None, PLATE)
    if not isinstance(source, EmulatorSource):
        raise ConfigError("only the emulator knows the truth", do="compare a plate of the emulator")
    with Catalog.read_only(config.data.dir) as catalog:
        depths = {one.channel: one for one in depth_of_plate(catalog, PLATE)}
        known = plate_patterns(catalog.sim_patterns(PLATE), tuple(depths), lambda: True) or {}
    table = Table(title="the stripes, found and true", box=None, pad_edge=False, header_style="bold")
    for name in ("channel", "period nm", "true", "directions deg", "true", "SIM up to um"):
        table.add_column(name, justify="left" if name == "channel" else "right")
    for channel, found in known.items():
        truth, reach = source.pattern_truth(channel), depths[channel].sim_up_to_um
        angles = found.angles if found is not None else ()
        table.add_row(
            channel,
            f"{1000 * statistics.mean(one.period_um for one in angles):.1f}" if angles else "–",
            f"{1000 / truth.frequency_per_um:.1f}",
            " ".join(f"{one.angle_deg:.2f}" for one in angles) or "–",
            " ".join(f"{one:.2f}" for one in truth.angles_deg),
            "–" if reach is None else f"{reach:.0f}",
        )
    console.print(table)
    console.print(f"Each slice: spheroidd sim check {config.data.dir} --slices", highlight=False)


def _compare(config: Config, console: Console) -> None:
    """Print every well's estimate beside what the emulator knows to be true."""
    source = build_source(config.source, None, PLATE)
    if not isinstance(source, EmulatorSource):
        raise ConfigError("only the emulator knows the truth", do="compare a plate of the emulator")
    with Catalog.read_only(config.data.dir) as catalog:
        rows = catalog.result_rows(PLATE)
    truths = {row.result.well: source.well_truth(row.result.well) for row in rows}
    control_um3 = statistics.median(
        truth.live_um3_true for truth in truths.values() if truth.role == WellRole.NEGATIVE_CONTROL
    )
    table = Table(title="estimated against true viability", box=None, pad_edge=False, header_style="bold")
    for name in ("well", "treatment"):
        table.add_column(name)
    for name in ("V count", "true", "V control", "true"):
        table.add_column(name, justify="right")
    for row in rows:
        result, truth = row.result, truths[row.result.well]
        treatment = f"{truth.compound} {truth.dose_um:g} uM" if truth.compound else truth.role.replace("_", " ")
        table.add_row(
            result.well,
            treatment,
            "–" if result.v_count is None else f"{100 * result.v_count:.1f} %",
            f"{100 * truth.v_true_fov:.1f} %",
            "–" if result.v_control is None else f"{result.v_control:.1f} %",
            f"{100 * truth.live_um3_true / control_um3:.1f} %",
        )
    console.print(table)
    pairs = [(r.result.v_control, truths[r.result.well].v_true_fov) for r in rows if r.result.v_control is not None]
    if len(pairs) > 2:
        rho = stats.spearmanr(*zip(*pairs, strict=True)).statistic
        console.print(f"Spearman correlation of V control with the true viability: {rho:.3f}", highlight=False)
