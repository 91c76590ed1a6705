"""A plate's metadata by MIHCSME, the minimum information for high-content screening microscopy experiments, as .xlsx.

The workbook has the four sheets of the published template (Hosseini et al. 2023, doi:10.1038/s41597-023-02367-w;
readable by the OMERO tool mihcsme-py): InvestigationInformation, StudyInformation and AssayInformation with the columns
Annotation_groups, Key and Value, and AssayConditions with a row for each well. Keys whose values the daemon cannot know
(people, organism, protocols) are written with an empty value, for a person to fill in. The sheet `_Spheroidd` says
where the file comes from. The groups and keys are REMBI's idea of study, sample and acquisition, in MIHCSME's words.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from spheroidd.daemon.catalog.reader import CatalogReader
from spheroidd.daemon.catalog.rows import StackRow
from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.plate import PlateMap, WellRole
from spheroidd.protocols.stack import DEAD_CHANNEL, LIVE_CHANNEL
from spheroidd.protocols.tables.cells import is_formula

Group = tuple[str, Mapping[str, str | None]]
Sheets = dict[str, list[list[str | float | None]]]

_CHANNELS = {
    LIVE_CHANNEL: ("Calcein-AM", "cytoplasm of live cells", "live"),
    DEAD_CHANNEL: ("Propidium iodide", "nuclei of dead cells", "dead"),
}
_INVESTIGATION: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        "DataOwner",
        (
            "First Name",
            "Middle Name(s)",
            "Last Name",
            "User name",
            "Institute",
            "E-Mail Address",
            "ORCID investigator",
        ),
    ),
    ("DataCollaborator", ("ORCID  Data Collaborator",)),
    (
        "InvestigationInfo",
        ("Project ID", "Investigation Title", "Investigation internal ID", "Investigation description"),
    ),
)
_STUDY: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Study", ("Study Title", "Study internal ID", "Study Description", "Study Key Words")),
    (
        "Biosample",
        ("Biosample Taxon", "Biosample description", "Biosample Organism", "Number of cell lines used"),
    ),
    (
        "Library",
        (
            "Library File Name",
            "Library File Format",
            "Library Type",
            "Library Manufacturer",
            "Library Version",
            "Library Experimental Conditions",
            "Quality Control Description",
        ),
    ),
    (
        "Protocols",
        ("HCS library protocol", "growth protocol", "treatment protocol", "HCS data analysis protocol"),
    ),
    ("Plate", ("Plate type", "Plate type Manufacturer", "Plate type Catalog number")),
)
_ASSAY: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        "Assay",
        (
            "Assay Title",
            "Assay internal ID",
            "Assay Description",
            "Assay number of biological replicates",
            "Number of plates",
            "Assay Technology Type",
            "Assay Type",
            "Assay External URL",
            "Assay data URL",
        ),
    ),
    ("AssayComponent", ("Imaging protocol", "Sample preparation protocol")),
    (
        "Biosample",
        ("Cell lines storage location", "Cell lines clone number", "Cell lines Passage number"),
    ),
    (
        "ImageData",
        (
            "Image number of pixelsX",
            "Image number of pixelsY",
            "Image number of  z-stacks",
            "Image number of channels",
            "Image number of timepoints",
            "Image sites per well",
        ),
    ),
    ("ImageAcquisition", ("Microscope id",)),
)
CONDITIONS = (
    "Plate",
    "Well",
    "Treatment",
    "Dose",
    "DoseUnit",
    "Patient",
    "Role",
    "PixelSizeUm",
    "ZStepUm",
    "Status",
    "Excluded",
    "ExclusionReason",
)


def plate_sheets(catalog: CatalogReader, plate: str, facts: Mapping[str, str]) -> Sheets:
    """The workbook's cells, by sheet: what the catalog knows of the plate, None for what it does not."""
    plate_map, stacks = catalog.plate_map(plate), catalog.stacks(plate)
    study = {"Number of cell lines used": _count(entry.treatment.patient for entry in plate_map)}
    source: list[list[str | float | None]] = [["# Where this file comes from"], ["Key", "Value"]]
    source += [[key, value] for key, value in facts.items()]
    return {
        "InvestigationInformation": _grouped("Investigation Information", _INVESTIGATION, {}),
        "StudyInformation": _grouped("Study Information", _STUDY, study),
        "AssayInformation": [
            *_grouped("Assay Information", _ASSAY, _assay(plate_map, stacks)),
            *_specimen(stacks),
        ],
        "AssayConditions": [["# Assay Conditions"], list(CONDITIONS), *_conditions(catalog, plate_map, stacks)],
        "_Spheroidd": source,
    }


def write_mihcsme(sheets: Sheets, path: Path) -> None:
    """Write the workbook; texts stay texts, whatever they begin with. ConfigError where openpyxl is missing."""
    workbook_class = _openpyxl()
    workbook = workbook_class()
    workbook.remove(workbook.active)
    for name, rows in sheets.items():
        sheet = workbook.create_sheet(name)
        for number, row in enumerate(rows, start=1):
            for place, value in enumerate(row, start=1):
                if value is None:
                    continue
                cell = sheet.cell(number, place)
                cell.value = xml_text(value) if isinstance(value, str) else value
                if isinstance(value, str):
                    cell.data_type = "s"  # "=1+1" is a compound's name here, not a formula
                    cell.quotePrefix = is_formula(value)  # nor after somebody edited the cell
        for letter, width in zip("ABCDEFGHIJKL", (24, 34, 40, *[16] * 9), strict=True):
            sheet.column_dimensions[letter].width = width
    workbook.save(path)


def xml_text(text: str) -> str:
    """The text; what no XML file can hold (control characters, lone surrogates, non-characters) becomes U+FFFD.

    >>> xml_text("a\\x00b")
    'a\\ufffdb'
    """
    return "".join(character if _allowed(character) else "\ufffd" for character in text)


def _allowed(character: str) -> bool:
    return character >= " " and character not in "\ufffe\uffff" and not "\ud800" <= character <= "\udfff"


def _openpyxl() -> Any:
    try:
        from openpyxl import Workbook
    except ImportError as error:
        do = 'pip install "spheroidd[export]", or choose another --format'
        raise ConfigError("MIHCSME workbooks need the package openpyxl", where="spheroidd export", do=do) from error
    return Workbook


def _grouped(
    title: str, groups: Iterable[tuple[str, tuple[str, ...]]], known: Mapping[str, str | None]
) -> list[list[str | float | None]]:
    rows: list[list[str | float | None]] = [[f"# {title}"], ["Annotation_groups", "Key", "Value"]]
    rows += [[group, key, known.get(key)] for group, keys in groups for key in keys]
    return rows


def _assay(plate_map: PlateMap, stacks: Sequence[StackRow]) -> dict[str, str | None]:
    plans = [row.plan for row in stacks]
    sites: dict[str, int] = {}
    for row in stacks:
        sites[str(row.key.well)] = sites.get(str(row.key.well), 0) + 1
    return {
        "Assay Title": plate_map.name,
        "Assay Description": "Viability of tumour spheroids from live/dead fluorescence in 3-D, by segmentation",
        "Number of plates": "1",
        "Assay Technology Type": "structured illumination microscopy",
        "Assay Type": "compound screen, dose response",
        "Image number of pixelsX": _all(plan.width for plan in plans),
        "Image number of pixelsY": _all(plan.height for plan in plans),
        "Image number of  z-stacks": _all(plan.n_z for plan in plans),
        "Image number of channels": _all(len(plan.channels) for plan in plans),
        "Image number of timepoints": "1" if plans else None,
        "Image sites per well": _all(sites.values()),
    }


def _specimen(stacks: Sequence[StackRow]) -> list[list[str | float | None]]:
    channels = list(dict.fromkeys(channel for row in stacks for channel in row.plan.channels))
    rows: list[list[str | float | None]] = [["Specimen", "Channel Transmission id", "NA"]]
    for number, channel in enumerate(channels, start=1):
        method, entity, label = _CHANNELS[channel]
        values = {
            "visualization method": f"{method}, {channel} nm",
            "entity": entity,
            "label": label,
            "id": str(number),
        }
        rows += [["Specimen", f"Channel {number} {key}", value] for key, value in values.items()]
    return rows


def _conditions(
    catalog: CatalogReader, plate_map: PlateMap, stacks: Sequence[StackRow]
) -> list[list[str | float | None]]:
    """A row for each well that is not empty."""
    plans = {row.key.well: row.plan for row in reversed(stacks)}
    excluded = catalog.wells_left_out(plate_map.name)
    states = {result.well: result.status.value for result in reversed(catalog.results(plate_map.name))}
    rows: list[list[str | float | None]] = []
    for entry in plate_map:
        treatment, plan, well = entry.treatment, plans.get(entry.well), str(entry.well)
        if treatment.role is WellRole.EMPTY:
            continue
        out = excluded.get(well)
        rows.append(
            [
                plate_map.name,
                well,
                treatment.compound or _TREATMENTS.get(treatment.role),
                treatment.dose_um,
                None if treatment.dose_um is None else "uM",
                treatment.patient,
                treatment.role.value,
                plan.pixel_um if plan else None,
                plan.z_step_um if plan else None,
                states.get(well),
                "yes" if out else "no",
                out.reason if out else None,
            ]
        )
    return rows


_TREATMENTS = {WellRole.NEGATIVE_CONTROL: "untreated", WellRole.POSITIVE_CONTROL: "killed"}


def _all(values: Iterable[int]) -> str | None:
    """The one value, or all there are: "200", "100, 200"; None where there are none."""
    return ", ".join(str(value) for value in sorted(set(values))) or None


def _count(values: Iterable[str | None]) -> str | None:
    """How many different ones are named."""
    return str(len({value for value in values if value})) if any(values) else None
