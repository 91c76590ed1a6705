"""What stands under each figure and over each table: what is shown, of how many, and what the marks mean."""

from collections.abc import Sequence

from spheroidd.daemon.analysis.sim_depth import ChannelDepth
from spheroidd.daemon.report.content import PlateContent
from spheroidd.daemon.report.document import CompoundContent
from spheroidd.daemon.report.heatmap import plate_format


def maps(plate: PlateContent) -> str:
    """Under the heatmaps."""
    rows, columns = plate_format(plate.entries)
    stacks = " Wells with several stacks show their median." if any(len(e.results) > 1 for e in plate.imaged) else ""
    return (
        f"Wells of plate {plate.name} on the smallest standard format that holds them ({rows * columns} wells). Live "
        "volume is that of the segmented Calcein-AM signal within the imaged field; viability relates it to the median "
        "of the plate's untreated controls and may exceed 100 %. A well without a figure is crossed by a line and is "
        f"never shown as zero. Scales begin at 0; both are viridis.{stacks}"
    )


def controls(plate: PlateContent) -> str:
    """Under the controls strip."""
    return (
        "Every control well of the plate. Bars: medians; tints: median ± 3 × 1.4826 MAD, whose gap over the distance "
        "of the medians is the robust Z'. Diamonds: wells on the plate's edge. Ringed and named: wells that lie far "
        "from their replicates, or that a person excluded (hollow; they enter no figure)."
    )


def ic50_table() -> str:
    """Over the table of IC50s."""
    return (
        "What is known of each compound's potency. Relative IC50: dose halfway between the plateaus; absolute: dose at "
        "which half of the untreated viability is left; 95 %: profile-likelihood interval, “open” where the profile "
        "does not close. No number is given where the doses do not bracket the effect. Top, bottom, AUC (mean over "
        "the doses that all curves of the plate share) and E max (at the highest dose) are in percent of the "
        "untreated median."
    )


def patients() -> str:
    """Over the table of compounds across patients."""
    return (
        "Compounds across patients, by relative IC50, the most potent first. Mean: geometric, of a random-effects "
        "model on log10 IC50 in which each patient counts once and a censored or inactive curve takes part with the "
        "side it knows; next patient: where 95 % of further patients would lie; spread: standard deviation between "
        "patients in log10 units. In brackets the ranks that the intervals leave open. To the first: ratio of IC50s "
        "to the most potent compound's within the same patients, its p value adjusted by Holm over the table."
    )


def overview() -> str:
    """Over the table of plates."""
    return "The plates of this report."


def forest() -> str:
    """Under the IC50s on one axis."""
    return (
        "Relative IC50 of each compound and patient with its 95 % interval; grey: the doses that were tested. Hollow: "
        "approximate. Squares: the absolute IC50, where only that is known. Arrows: beyond the tested doses. Without a "
        "mark: no effect shown, one that cannot be placed, or no curve."
    )


def curves(plate: PlateContent) -> str:
    """Under the dose-response plots."""
    return (
        f"Dose response on plate {plate.name}, one plot for each compound and patient. Points: wells (hollow: left out "
        "of the fit); blue: untreated wells, which take part in the fit at dose 0; line: fitted log-logistic curve, "
        "drawn over the tested doses only; tint: its 95 % interval; diamond and bar: IC50 and its interval; "
        "dashed: half of the untreated median."
    )


def compound(of: CompoundContent) -> str:
    """Of the curves of one compound."""
    n = len(of.curves)
    which = "The curve" if n == 1 else f"The {n} curves"
    return f"{which} of {of.name}, one for each patient and plate: points, marks and lines as in the plates' figures."


def compound_fits() -> str:
    """Of what is known of one compound's curves."""
    return "What is known of each curve; the columns are those of the plates' tables."


def doses() -> str:
    """Of the responses behind a compound's curves."""
    return (
        "Viability in percent of the untreated, dose by dose: of the wells that take part in the fit, and why others "
        "do not."
    )


def pictures(plate: PlateContent) -> str:
    """Under the example images."""
    limits = "; ".join(f"{channel} nm: {low:.0f} to {high:.0f}" for channel, (low, high) in plate.display.items())
    return (
        "Maximum projections of an untreated and a killed well in the middle of their kind, and of samples from the "
        "most to the least live volume, with the outlines of the projected masks. All pictures share their display "
        f"limits ({limits} camera counts, gamma 0.7) and may be reduced copies: they are to be looked at, not measured."
    )


def series(shown: int, of: int) -> str:
    """Under the doses in pictures of some of a compound's or a plate's curves."""
    which = "" if shown == of else f"Of {shown} of {of} curves. "
    return (
        f"{which}One well of each dose, that in the middle of its replicates, as a maximum projection: green living, "
        "magenta dead cells; below it the dose, the well and its viability. Display limits are those of the example "
        "images. A crossed field: images that cannot be read."
    )


SERIES_ELSEWHERE = (
    "Each compound's doses are shown in pictures beside its curves, on its own page at the end of the report."
)


def findings() -> str:
    """Over the table of flags."""
    return "What stands out in images, controls and replicates. A finding names wells; it never removes one."


def wells() -> str:
    """Over the table of wells."""
    return (
        "Every imaged well. Viability: live volume in percent of the untreated median; live, %: live of all cells; "
        "score: estimate of the metabolic assay with its 90 % interval; slices: stored of promised; "
        "notes: further columns of the plate map."
    )


def sim_pictures() -> str:
    """Under widefield beside SIM."""
    return (
        "One slice of a well, made twice of the same raw frames with the same filter: without the stripes (widefield) "
        "and with them (SIM), both between the same limits. The slice with the highest contrast of its stripes."
    )


def stripes(channels: Sequence[ChannelDepth]) -> str:
    """Under the stripes by depth."""
    stacks = max(one.n_stacks for one in channels)
    of = "of the stack" if stacks == 1 else f"over {stacks} stacks (medians)"
    return (
        f"Stripes by depth, {of}. Left: modulation where stripes are alive; no mark where they are not. Right: "
        "contrast to noise of the weakest angle; below the dashed line chance could make it, and the angle adds "
        "its widefield only. Bars: how the slices were made; filled: SIM, pale: SIM in some angles, empty: widefield."
    )
