"""The Grafana dashboard asks for metrics, and for labels of them, that the daemon has."""

import json
import re
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from spheroidd.daemon.catalog.reader import CatalogReader
from spheroidd.daemon.monitoring.failed_logins import FailedLogins
from spheroidd.daemon.web.metrics import Metrics
from tests.daemon.web.test_page import fill_plate
from tests.places import ROOT

DASHBOARD = json.loads((ROOT / "deploy" / "grafana" / "spheroidd.json").read_text(encoding="utf-8"))
QUERIES = [
    *(target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]),
    *(one["query"]["query"] for one in DASHBOARD["templating"]["list"] if one["type"] == "query"),
]
OF_PROMETHEUS = {"instance", "le"}  # labels that it adds, or a histogram has


@pytest.fixture(scope="module")
def metrics(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """Every name of a sample, with its labels; of families without samples now, the name that they would have."""
    folder: Path = tmp_path_factory.mktemp("data")
    fill_plate(folder)
    with CatalogReader.read_only(folder) as catalog:
        text = Metrics(folder, FailedLogins()).text(catalog).decode()
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text):
        found.setdefault(family.name, set())
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


@pytest.mark.parametrize("query", QUERIES)
def test_every_metric_that_the_dashboard_names_exists(query: str, metrics: dict[str, set[str]]) -> None:
    names = re.findall(r"spheroidd_\w+", query)
    assert names
    assert [name for name in names if name not in metrics] == []
    asked = set(re.findall(r"(\w+)\s*=~", query))
    for by in re.findall(r"by \(([^)]*)\)", query):
        asked |= {label.strip() for label in by.split(",")}
    known = {label for name in names for label in metrics[name]} | OF_PROMETHEUS
    if "open_faults" in query:
        known.add("code")  # no fault is open on this plate
    assert asked - known == set()


def test_every_metric_of_the_daemon_is_on_the_dashboard(metrics: dict[str, set[str]]) -> None:
    shown = " ".join(QUERIES)
    ends = re.compile(r"_(total|info|bucket|count|sum|created)$")
    families = {ends.sub("", name) for name in metrics}
    assert [name for name in sorted(families) if name != "spheroidd" and name not in shown] == []


def test_panels_do_not_overlap_and_have_numbers_of_their_own() -> None:
    places = [panel["gridPos"] for panel in DASHBOARD["panels"]]
    cells = [(x, y) for p in places for x in range(p["x"], p["x"] + p["w"]) for y in range(p["y"], p["y"] + p["h"])]
    assert len(cells) == len(set(cells))
    assert max(p["x"] + p["w"] for p in places) == 24
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(places)
