"""The configuration: what it accepts comes back the same, and what it refuses is named with its line."""

import importlib.metadata
import json
import sys
import types
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from spheroidd.daemon.config import source_registry as sources
from spheroidd.daemon.config.errors import line_of
from spheroidd.daemon.config.model import Config, build_config, config_schema, load_config, open_source, to_toml
from spheroidd.daemon.config.service_settings import read_verification
from spheroidd.daemon.config.submitted_plates import SubmittedPlates
from spheroidd.daemon.config.verification_settings import VerificationConfig
from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.results import Limits
from tests.places import EXAMPLES

CONFIGURATIONS = sorted(EXAMPLES.glob("*.toml"))


class Inner(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    host: str = "localhost"


class ScopeSettings(BaseModel):
    """Settings of a made-up source with every form of value that a source may want."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Literal["scope"] = "scope"
    folder: Path | None = None
    exposure_ms: float = Field(default=10.0, gt=0)
    binning: Literal[1, 2, 4] = 1
    wire: Inner = Inner()
    parts: tuple[Inner, ...] = ()


class Scope:
    Settings = ScopeSettings

    def __init__(self, *arguments: object) -> None:
        self.arguments = arguments


@pytest.fixture(autouse=True)
def scope(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("made_up_scope")
    module.Scope = Scope  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "made_up_scope", module)
    entry = importlib.metadata.EntryPoint("scope", "made_up_scope:Scope", "spheroidd.sources")
    monkeypatch.setattr(sources, "entry_points", lambda group: [entry] if group == entry.group else [])


def written(folder: Path, text: str) -> Path:
    path = folder / "run.toml"
    path.write_text(text, encoding="utf-8")
    return path


HEAD = '[source]\nkind = "scope"\n'  # two lines


@pytest.mark.parametrize(
    ("text", "line", "what", "do"),
    [
        ("[store]\nslab_zz = 3\n", 4, "store.slab_zz: there is no such key", "write slab_z (the keys are codec"),
        ("[stroe]\n", 3, "stroe: there is no such key", "write store"),
        ("[store]\nqqq = 1\n", 4, "store.qqq: there is no such key", "remove it"),
        ("[store]\n\n# slab_z = 1\nslab_z = 0\n", 6, "store.slab_z: it is 0", "write 1 or more"),
        ("[store]\ncodec = 'zst'\n", 4, "store.codec: it is 'zst'", "write 'lz4' or 'zstd'"),
        ("[store]\nslab_z = 'x'\n", 4, "store.slab_z: it is 'x'", "write a whole number"),
        ("[store]\nmin_free_gb = nan\n", 4, "store.min_free_gb: it is nan", "write a finite number"),
        ("[inference]\ndevice = 'gpu'\n", 4, "inference.device: it is 'gpu'", '"cuda:0"'),
        ("[inference]\nmodel = 5\n", 4, "inference.model: it is 5", "write 'default'"),
        ("[inference]\nregressor = 5\n", 4, "inference.regressor: it is 5", "write 'default', or a path in quotes"),
        ("[inference]\ndevices = 'every'\n", 4, "devices: it is 'every'", "write 'all', or a list in [brackets]"),
        ("[inference]\ncell_diameter_um = 'Auto'\n", 4, "um: it is 'Auto'", "write a number, or 'auto'"),
        ("[inference]\ncell_diameter_um = 3\n", 4, "cell_diameter_um: it is 3", "write 4.0 or more, or 'auto'"),
        ("[inference]\nnormalisation = 'none'\n", 4, "inference.normalisation: it is 'none'", "'stack' or 'plate'"),
        ("[inference.limits.405]\nlow = 1\n", 3, "inference.limits.405", "write '488' or '561'"),
        ("[inference.limits.488]\nlow=1\nhigh=2\nmean=1\n", 3, "inference.limits.488.sd: the key is missing", "add sd"),
        ("[inference.limits.488]\nlow=3\nhigh=2\nmean=1\nsd=1\n", 3, "low is 3.0 and high is 2.0", ""),
        (
            "[inference]\nlimits.488 = {low=1, high=2, mean=1, sd=-1}\n",
            4,
            "inference.limits.488.sd: it is -1",
            "more than 0",
        ),
        ("exposure = 1\n", 3, "source.exposure: there is no such key", "write exposure_ms"),
        ("exposure_ms = 0\n", 3, "source.exposure_ms: it is 0", "write more than 0"),
        ("binning = 3\n", 3, "source.binning: it is 3", "write 1, 2 or 4"),
        ("wire.hots = 'x'\n", 3, "source.wire.hots: there is no such key", "write host"),
        ("[source.wire]\nhost = 1\n", 4, "source.wire.host: it is 1", "write a text in double quotes"),
        ("[plate]\nname = 'a'\n[plate]\n", None, "not TOML", "brackets"),
        ("[data]\ndir = C:\\data\n", None, "not TOML: Invalid value (at line 4", "Windows in single quotes"),
        ("[data]\ndir = 5\n[store]\nslab_z = 0\n", 4, "data.dir: it is 5 (and 1 more: store.slab_z)", "a path"),
    ],
)
def test_a_fault_is_named_with_its_line_and_what_to_write(
    tmp_path: Path, text: str, line: int | None, what: str, do: str
) -> None:
    path = written(tmp_path, HEAD + text)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert what in caught.value.what
    assert do in caught.value.do
    assert caught.value.where == (f"{path}, line {line}" if line else str(path))


@pytest.mark.parametrize(
    ("text", "what", "do"),
    [
        ("", "source.kind: the kind of source is missing", "replay, watch, scope"),
        ("source = 'scope'", "source.kind: the kind of source is missing", "[source]"),
        ("[source]\nkind = 'scop'", "there is no source 'scop'", "write 'scope'"),
        ("[source]\nkind = 'zzz'", "there is no source 'zzz'", "write one of emulator, "),
    ],
)
def test_a_source_must_be_named(tmp_path: Path, text: str, what: str, do: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(written(tmp_path, text))
    assert what in caught.value.what
    assert do in caught.value.do


def test_a_source_that_cannot_be_imported_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sources._BUILT_IN, "broken", "spheroidd.no_such_module:Source")
    with pytest.raises(ConfigError, match="'broken' cannot be loaded: No module named"):
        load_config(written(tmp_path, "[source]\nkind = 'broken'"))


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", None], ids=["not UTF-8", "absent"])
def test_an_unreadable_file_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "x.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"x\.toml"):
        load_config(path)


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    absolute = (tmp_path / "weights.safetensors").as_posix()
    text = f"folder = 'in'\n[data]\ndir = 'out'\n[plate]\nmap = 'map.csv'\n[inference]\nmodel = '{absolute}'\n"
    config = load_config(written(tmp_path, HEAD + text))
    assert config.data.dir == tmp_path / "out"
    assert config.plate.map == tmp_path / "map.csv"
    assert config.source.model_dump()["folder"] == tmp_path / "in"
    assert config.inference.model == tmp_path / "weights.safetensors"


def test_the_tree_is_frozen(tmp_path: Path) -> None:
    config = load_config(written(tmp_path, HEAD))
    with pytest.raises(ValidationError):
        config.store.slab_z = 3  # type: ignore[misc]


def test_limits_reach_the_pipeline_as_nouns(tmp_path: Path) -> None:
    text = "[inference.limits.488]\nlow=1\nhigh=2\nmean=1.5\nsd=0.25\n"
    config = load_config(written(tmp_path, HEAD + text))
    assert config.inference.known_limits() == {"488": Limits(1.0, 2.0, 1.5, 0.25)}
    assert load_config(written(tmp_path, HEAD)).inference.known_limits() is None


def test_the_plate_is_named_by_its_map_unless_it_has_a_name(tmp_path: Path) -> None:
    (tmp_path / "Week 3.csv").write_text("well,role\nA1,sample\n", encoding="utf-8")
    config = load_config(written(tmp_path, HEAD + "[plate]\nmap = 'Week 3.csv'\n"))
    plate_map = config.plate_map()
    assert plate_map is not None
    assert (config.plate_name, plate_map.name, len(plate_map)) == ("Week_3", "Week_3", 1)
    assert load_config(written(tmp_path, HEAD + "[plate]\nname = 'P7'\n")).plate_name == "P7"
    assert load_config(written(tmp_path, HEAD)).plate_map() is None


texts = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1)


@settings(max_examples=50, deadline=None)
@given(
    host=texts, name=texts, parts=st.lists(texts, max_size=2), exposure=st.floats(1e-6, 1e6), slab=st.integers(1, 64)
)
def test_what_show_prints_reads_back_as_the_same(
    tmp_path_factory: pytest.TempPathFactory, host: str, name: str, parts: list[str], exposure: float, slab: int
) -> None:
    folder = tmp_path_factory.mktemp("c", numbered=True)
    limits = {"488": {"low": 1, "high": 2, "mean": 1.5, "sd": 0.5}}
    source = {"kind": "scope", "wire": {"host": host}, "parts": [{"host": p} for p in parts], "exposure_ms": exposure}
    tables = {"source": source, "plate": {"name": name}, "store": {"slab_z": slab}, "inference": {"limits": limits}}
    config = build_config(tables, base=folder)
    assert load_config(written(folder, to_toml(config))) == config


def test_the_schema_knows_every_key_and_source() -> None:
    schema = config_schema()
    json.dumps(schema)
    assert set(schema["properties"]) == set(Config.model_fields)
    assert {choice["$ref"] for choice in schema["properties"]["source"]["oneOf"]} >= {"#/$defs/scope"}
    references = set(json.dumps(schema).split('"$ref": "#/$defs/')[1:])
    assert {reference.split('"')[0] for reference in references} <= set(schema["$defs"])


@pytest.mark.parametrize("path", CONFIGURATIONS, ids=lambda path: path.name)
def test_the_examples_are_good(path: Path) -> None:
    config = load_config(path)
    assert load_config_text(to_toml(config), path) == config


def load_config_text(text: str, path: Path) -> Config:
    import tomllib

    return build_config(tomllib.loads(text), base=path.parent)


@pytest.mark.parametrize(
    ("text", "location", "line"),
    [
        ("a.b.c = 1", ("a", "b", "c"), 1),
        ("[a]\nb.c = 1", ("a", "b", "c"), 2),
        ("[a.'b']\n\"c\" = 1", ("a", "b", "c"), 2),
        ("[a]\nx = 1\n[a.b]\n", ("a", "b", "c"), 3),
        ("[a]\nb = 2\n", ("b",), None),
        ("[[a]]\nb = 1", ("a", "b"), 2),
        ("", ("a",), None),
    ],
)
def test_the_line_of_a_key(text: str, location: tuple[str, ...], line: int | None) -> None:
    assert line_of(text, location) == line


def test_a_source_is_built_from_the_configuration(tmp_path: Path) -> None:
    from spheroidd.daemon.system.clock import SystemClock

    config = load_config(written(tmp_path, HEAD + "[plate]\nname = 'P7'\n"))
    clock = SystemClock()
    source = open_source(config, clock)
    assert isinstance(source, Scope)
    assert source.arguments == (config.source, None, "P7", clock)


@pytest.mark.parametrize("table", ["alarms", "data", "service", "verification"])
def test_a_submitted_plate_leaves_the_daemons_tables_alone(tmp_path: Path, table: str) -> None:
    text = f"[plate]\nname = 'P'\n[source]\nkind = 'push'\n[{table}]\n"
    with pytest.raises(ConfigError, match=f"\\[{table}\\] is the daemon's own"):
        SubmittedPlates(tmp_path).submit(text, "well,role\nA01,sample\n")


def test_the_scrub_is_switched_off_and_bounded_by_its_table(tmp_path: Path) -> None:
    path = tmp_path / "serve.toml"
    path.write_text("[verification]\nscrub = false\nshare = 0.01\n")
    assert read_verification(path) == VerificationConfig(scrub=False, share=0.01)
    assert read_verification(None) == VerificationConfig()
    path.write_text("[verification]\nshare = 2.0\n")
    with pytest.raises(ConfigError, match="share"):
        read_verification(path)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("emulator", "emulator"),  # a name that ships is no file beside the configuration
        ("mine.safetensors", Path("/plates/mine.safetensors")),
        ("folder/emulator", Path("/plates/folder/emulator")),
        ("nonesuch", Path("/plates/nonesuch")),
        ("regressor", Path("/plates/regressor")),  # no network
        ("n" * 300, Path(f"/plates/{'n' * 300}")),  # no disk has such a name
        ("threshold:1.5", "threshold:1.5"),
    ],
)
def test_a_model_is_named_as_it_ships_or_by_its_path(written: str, meant: str | Path) -> None:
    tables = {"source": {"kind": "emulator"}, "inference": {"model": written}}
    assert build_config(tables, base=Path("/plates")).inference.model == meant
