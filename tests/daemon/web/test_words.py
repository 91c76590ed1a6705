"""All that the page says stands in one table: its own words, and by their codes those of the daemon."""

import ast
import json
import re
from pathlib import Path

import pytest

from spheroidd.daemon.analysis.curves import curves
from spheroidd.daemon.analysis.plate_quality import plate_quality
from spheroidd.daemon.analysis.sim_depth import ChannelDepth, SliceDepth
from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.daemon.report.drawing import svg
from spheroidd.daemon.report.sim_depth import depth_plot
from spheroidd.daemon.web.words import english, told, words
from spheroidd.protocols.dose import CurveStatus
from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.faults import FaultCode
from spheroidd.protocols.phrase import Phrase, as_data, constant, phrase
from spheroidd.protocols.phrases import PHRASES
from spheroidd.protocols.plate import WellRole
from spheroidd.protocols.quality import Verdict
from spheroidd.protocols.result_columns import COLUMNS
from spheroidd.protocols.results import WellStatus
from spheroidd.protocols.trust import Trust, TrustFlag, failed_reason
from tests.daemon.report import plates
from tests.daemon.web.rig import asked, said
from tests.daemon.web.told_sentences import FILE, raised, sentences
from tests.places import ROOT

SAID = re.compile(r"""phrase\(\s*(f?)"([^"]+)\"""")


def sources() -> str:
    folders = ("protocols", "inference", "daemon")
    return "\n".join(path.read_text(encoding="utf-8") for folder in folders for path in (ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize(
    ("prefix", "codes"),
    [
        ("fault_", FaultCode),
        ("flag-", TrustFlag),
        ("trusted-", Trust),
        ("state_", WellStatus),
        ("status-", WellStatus),
        ("well-", WellStatus),
        ("role_", WellRole),
        ("role-", WellRole),
        ("verdict-", Verdict),
        ("curve-", (status.value.replace("_", "-") for status in CurveStatus)),
        ("column_", (column.name for column in COLUMNS)),
    ],
)
def test_every_code_that_the_daemon_can_send_stands_in_the_table(prefix: str, codes: type) -> None:
    assert {f"{prefix}{code}" for code in codes} - english().keys() == set()


def test_every_sentence_that_is_made_stands_in_the_table_and_no_other() -> None:
    code = sources()
    named = {text for formatted, text in SAID.findall(code) if not formatted and "{" not in text}
    assert named - PHRASES.keys() == set()
    starts = tuple(text.split("{")[0] for formatted, text in SAID.findall(code) if formatted)
    texts = set(re.findall(r'"([a-z0-9_-]+)"', code.replace((ROOT / "protocols/phrases.py").read_text("utf-8"), "")))
    constants = {name for name, text in PHRASES.items() if "{" not in text and f'"{text}"' in code}
    unused = {name for name in PHRASES if not name.startswith(starts)} - texts - constants
    assert unused == set()


def test_every_text_that_is_raised_answered_or_kept_stands_in_the_table() -> None:
    assert json.loads(FILE.read_text(encoding="utf-8")) == sentences(), "run `make sentences`"


def test_a_text_of_the_code_has_its_values_in_braces() -> None:
    code = (
        """BusyError(f"no well {row.well!r} of {a or 'b'}, {b.well}", where="nowhere", do="wait for " + all_of(them))"""
    )
    assert list(raised(ast.parse(code))) == ["no well {well} of {value}, {well2}", "wait for {them}"]


def test_what_is_drawn_here_is_drawn_in_the_words_of_the_table() -> None:
    pieces = tuple(SliceDepth(float(n), 0.4, 5.0, 0.5, 0.25, 0.25) for n in range(3))
    table = {name: re.sub(r"(?<![{\w])[^\W\d_]+(?![\w}])", "X", text) for name, text in english().items()}
    drawing = depth_plot([ChannelDepth("488", 1, pieces)], narrow=True, in_words=lambda text: told(text, table))
    assert drawing is not None
    letters = " ".join(re.findall("<(?:text|title)[^>]*>([^<]*)<", svg(drawing)))
    assert set(re.findall(r"[^\W\d_]+", letters)) == {"X"}


def test_a_sentence_is_a_text_that_knows_its_code() -> None:
    found = phrase("of-well", well="B02", what=phrase("replicates-few"))
    assert found == "B02: no well has enough replicates on this plate to tell an outlier"
    assert as_data(found) == ["of-well", {"well": "B02", "what": ["replicates-few"]}]
    assert said(as_data(found)) == found
    assert as_data(constant("no value")) == ["no-value"]
    assert as_data(constant("mould")) == "mould"
    with pytest.raises(KeyError):
        phrase("of-well", well="B02")


def test_what_is_found_in_a_plate_and_its_curves_is_told_by_code(tmp_path: Path) -> None:
    wells, live = plates.screen_plate("P1", 8, 12, {"strong": 0.2, "weak": 5000.0})
    odd = {well: volume * (0.3 if n % 7 == 0 else 1.0) for n, (well, volume) in enumerate(sorted(live.items()))}
    plates.register(tmp_path, wells)
    plates.score(tmp_path, wells, odd)
    with Catalog.read_only(tmp_path) as catalog:
        quality, found = plate_quality(catalog, "P1"), curves(catalog, "P1")
    assert len(quality.flags) > 3
    told = [*quality.reasons, *(flag.what for flag in quality.flags), *(flag.do for flag in quality.flags)]
    told += [text for one in found for text in (one.fit.reason, *one.fit.warnings, one.fit.words.said)]
    assert [text for text in told if not isinstance(text, Phrase)] == []
    assert isinstance(failed_reason(["no-cell", "too-dim"]), Phrase)


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ("{", "cannot be read"),
        ("[]", "are no table"),
        ({"plat": "Platte"}, "has no words 'plat'"),
        ({"plate": 5}, "cannot show its words 'plate'"),
        ({"slices": "{done} von {all}"}, "cannot show its words 'slices'"),
    ],
)
def test_a_translation_that_the_page_cannot_show_is_refused(tmp_path: Path, given: object, what: str) -> None:
    file = tmp_path / "words.de.json"
    file.write_text(given if isinstance(given, str) else json.dumps(given), encoding="utf-8")
    with pytest.raises(ConfigError, match=re.escape(what)) as refused, asked(tmp_path, http_words=file):
        pass
    assert (refused.value.where, bool(refused.value.do)) == (str(file), True)


def test_what_a_translation_lacks_stays_english(tmp_path: Path) -> None:
    file = tmp_path / "words.de.json"
    file.write_text(json.dumps({"language": "de", "plate": "Platte"}), encoding="utf-8")
    found = words(file)
    assert (found["plate"], found["language"], found["alarms"]) == ("Platte", "de", "Alarms")
    assert found.keys() == english().keys()
