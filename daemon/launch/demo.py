"""`spheroidd demo`: the main job on the emulator, and how near its answers come to the truth."""

import statistics
from pathlib import Path

from rich.console import Console
from rich.table import Table
from scipy import stats

from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.daemon.config.model import Config, build_config
from spheroidd.daemon.config.source_registry import build_source
from spheroidd.daemon.launch.demo_directory import PLATE, REPORT_NAME, mark
from spheroidd.daemon.launch.run import run_plate
from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.plate import WellRole
from spheroidd.sim_emulator.source import EmulatorSource

DESIGN = {"compounds": 2, "doses": 6, "negative_controls": 6, "positive_controls": 6}  # fewer controls give no verdict


def run_demo(data_dir: Path, *, seed: int, console: Console) -> int:
    """Run the emulator's demonstration plate, or go on with it, and compare it with its truth.

    ConfigError where `data_dir` holds anything else than a demonstration.
    """
    mark(data_dir)
    config = demo_config(data_dir, seed)
    console.print(
        f"A plate of emulated spheroids: imaged, stored, segmented and scored live into {data_dir}\n"
        f"[dim]from another terminal: spheroidd status {data_dir} --watch[/dim]",
        highlight=False,
    )
    code = run_plate(config, console=console)
    _compare(config, console)
    console.print(f"\nImages and masks: {data_dir / f'{PLATE}.ome.zarr'}  (OME-Zarr: napari, Fiji, any NGFF viewer)")
    console.print(f"Rows: spheroidd results {data_dir}   or {data_dir / 'catalog.sqlite'} in any SQLite tool")
    _report(data_dir, console)
    return code


def _report(data_dir: Path, console: Console) -> None:
    from spheroidd.daemon.report.writer import write_report  # takes a second, which the run need not wait for

    report = data_dir / REPORT_NAME
    write_report(data_dir, report, command=f"spheroidd report {data_dir} -o {report}")
    console.print(f"Report: {report}  (open it in a browser; `spheroidd report` writes it as PDF too)")


def demo_config(data_dir: Path, seed: int) -> Config:
    """The demonstration's configuration: what a configuration file would say."""
    tables = {
        "data": {"dir": str(data_dir)},
        "plate": {"name": PLATE},
        "source": {"kind": "emulator", "preset": "demo", "seed": seed, "pace": "real", **DESIGN},
        "store": {"min_free_gb": 0.5},
        "inference": {"normalisation": "plate"},
    }
    return build_config(tables, base=Path.cwd(), where="demo")


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
