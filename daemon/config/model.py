"""The configuration: one frozen tree, read from TOML. What a key may hold stands here and nowhere else.

Paths are relative to the configuration file. Every fault names the file, the line, the key and what to write.
"""

import contextlib
import ipaddress
import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BaseModel, Field, SerializeAsAny, ValidationError, field_validator, model_validator

from spheroidd.daemon.config.alarm_settings import AlarmsConfig
from spheroidd.daemon.config.errors import ConfigFault, explain, line_of
from spheroidd.daemon.config.source_registry import SOURCES, build_source, settings_class
from spheroidd.daemon.config.table import Section
from spheroidd.daemon.config.verification_settings import VerificationConfig
from spheroidd.daemon.system.privacy import Readers
from spheroidd.inference.network.model_card import ships
from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.plate import PlateMap, WellRole, check_plate_name
from spheroidd.protocols.plate_map.file import read_plate_map
from spheroidd.protocols.ports import Clock, StackSource
from spheroidd.protocols.regular_file import read_regular_text
from spheroidd.protocols.results import Boundary, Limits, Normalisation
from spheroidd.protocols.sim_pattern import KeepRaw
from spheroidd.protocols.toml_text import parse_toml

Channel = Literal["488", "561"]
Tree = TypeVar("Tree", bound=BaseModel)


_ADDRESS = r"^(\[[0-9a-fA-F:]+\]|[^:\s]+):\d{1,5}$"


class DataRightsConfig(Section):
    """What [data] says to a daemon that is given its directory otherwise."""

    readable_by: Readers = Field(
        default=Readers.OWNER,
        description="whom new files are for: owner, group (reads only), or everybody that the umask allows; no effect "
        "on Windows, where files take their folder's rights",
    )


class DataConfig(DataRightsConfig):
    """[data]: where everything is kept, and who may read it."""

    dir: Path = Field(default=Path("spheroidd-data"), description="directory of the Zarr plate and the catalog")
    images: Path | None = Field(
        default=None,
        description="folder of the plates' images and masks, where they are not to lie in dir: one that the workers of "
        "a cluster see, say; the catalog requires a local disk",
    )


class PlateConfig(Section):
    """[plate]: which plate it is."""

    name: str | None = Field(default=None, description="the plate's name; without it the map's file name")
    map: Path | None = Field(
        default=None, description="plate map (CSV, text or xlsx); only the emulator can do without"
    )
    roles: dict[str, WellRole] = Field(
        default_factory=dict,
        description="the lab's own words for a well's role in the map, such as staurosporine = 'positive_control'",
    )


class StoreConfig(Section):
    """[store]: how slices become durable."""

    codec: Literal["lz4", "zstd"] = Field(default="lz4", description="lz4: faster; zstd: smaller; neither loses a bit")
    slab_z: int = Field(default=8, ge=1, le=64, description="slices of one channel in a file")
    ring_slots: int | None = Field(
        default=None,
        ge=16,
        le=4096,
        description="slices that may wait, durable, for their slab; without it 256 MiB of them, 48 at least",
    )
    min_free_gb: float = Field(default=2.0, ge=0, description="free space below which no slice is taken")
    keep_raw: KeepRaw = Field(
        default=KeepRaw.ALL,
        description="raw frames of structured illumination: all; until_scored: deleted once their row is final; none: "
        "once their slices are made. Those of a pattern that is not known are kept",
    )


class SimConfig(Section):
    """[sim]: what is known of the stripes beforehand, from a calibration slide."""

    pattern_488: Path | None = Field(
        default=None, description="file of `spheroidd sim estimate --json`; without it the plate's first stacks tell"
    )
    pattern_561: Path | None = Field(default=None, description="the same of the other colour")

    def files(self) -> dict[str, Path]:
        """The files by channel."""
        named = {"488": self.pattern_488, "561": self.pattern_561}
        return {channel: path for channel, path in named.items() if path is not None}


class LimitsConfig(Section):
    """One channel's intensity limits: clip to low..high, then (value - mean) / sd."""

    low: float
    high: float
    mean: float
    sd: float = Field(gt=0)

    @model_validator(mode="after")
    def _ordered(self) -> "LimitsConfig":
        if not self.low < self.high:
            raise ValueError(f"low is {self.low} and high is {self.high}; write low below high")
        return self


DeviceName = Annotated[int, Field(ge=0)] | Annotated[str, Field(pattern=r"^(cpu|cpu-torch|cuda(:\d+)?)$")]


class InferenceConfig(Section):
    """[inference]: the model and how it runs."""

    model: Literal["default"] | Annotated[str, Field(pattern=r"^threshold(:.*)?$")] | Path = Field(
        default="default",
        description='"default", a name of `spheroidd model list`, the path of a .safetensors file, or "threshold" '
        '("threshold:1.5": 1.5 standard deviations above the mean): every bright voxel is a cell, the baseline that a '
        "network must beat",
    )
    regressor: Literal["default"] | Path = Field(
        default="default", description='"default", or the path of a .safetensors file of `spheroidd regressor train`'
    )
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cpu-torch|cuda(:\d+)?)$")] = Field(
        default="auto", description='"auto", "cpu", "cuda" or "cuda:0"'
    )
    devices: Literal["all"] | tuple[DeviceName, ...] | None = Field(
        default=None, min_length=1, description='"all", or the numbers of the GPUs that score, a worker each: [0, 1]'
    )
    threads: int | None = Field(
        default=None, ge=1, le=256, description="threads of the model; without it one for each core"
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        default="auto",
        description="what the model computes in; auto: bf16 where the hardware multiplies it, else fp32, unless the "
        "environment variable SPHEROIDD_PRECISION names one",
    )
    normalisation: Normalisation = Field(
        default=Normalisation.PLATE,
        description="intensity limits from the plate's wells (each stack's own without controls), or stack",
    )
    boundary: Boundary = Field(
        default=Boundary.HALF_HEIGHT,
        description="of each cell that the network found: half-height, where its light falls to the middle between it "
        "and the ground around it, or network, where the network's probability is one half",
    )
    cell_diameter_um: Annotated[float, Field(ge=4, le=40, allow_inf_nan=False)] | Literal["auto"] | None = Field(
        default=None,
        description="how wide a living cell is, where that is far from the 12.6 um of the cells that the model learnt "
        "from: it is then shown voxels in which cells have the size that it knows; auto: once the plate is scored its "
        "rows are asked, and where they tell another width it is scored again with that. For auto the voxel size must "
        "be right: a wrong one looks like cells of another size",
    )
    limit_tolerance: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="stack only: how far limits may move before a slab is segmented again; above 0 the result "
        "depends a little on the pace at which slices came",
    )
    limits: dict[Channel, LimitsConfig] | None = Field(
        default=None, description="intensity limits known before, per channel"
    )
    objects: bool = Field(
        default=True,
        description="write each counted object down: labels/live_objects, labels/dead_objects and a table of them "
        "beside each image",
    )
    max_attempts: int = Field(default=3, ge=1, le=100, description="how often a stack may take the worker down with it")
    patience_s: float = Field(
        default=600.0,
        ge=5,
        le=86400,
        allow_inf_nan=False,
        description="a worker without a sign of life (a slab done, a look for slices) for this long is killed and its "
        "stack scored again",
    )

    @field_validator("model")
    @classmethod
    def _shipped_name(cls, value: str | Path) -> str | Path:
        """A bare name of weights that ship is that name, in whatever folder the configuration lies."""
        return value.name if isinstance(value, Path) and value.parent == Path() and ships(value.name) else value

    def known_limits(self) -> dict[str, Limits] | None:
        """The limits as the pipeline wants them; None where none are given."""
        if self.limits is None:
            return None
        return {channel: Limits(**limits.model_dump()) for channel, limits in self.limits.items()}


class ScoringConfig(Section):
    """[scoring]: where stacks are scored."""

    engine: Literal["embedded", "ray"] = Field(
        default="embedded",
        description="embedded: beside the daemon; ray: on the nodes of a Ray cluster, stored stacks only",
    )
    ray_address: str | None = Field(
        default=None, description="host:port of the cluster's head; without it RAY_ADDRESS, else this computer alone"
    )
    ray_workers: int | None = Field(
        default=None, ge=1, le=1024, description="workers; without it one for each GPU, else one for each node"
    )


class ServiceConfig(Section):
    """[service]: what other programs can ask of the daemon, over gRPC."""

    enabled: bool = Field(default=True, description="whether other programs can ask at all")
    address: Annotated[str, Field(pattern=_ADDRESS)] = Field(
        default="127.0.0.1:0",
        description="host:port; port 0 takes a free one, which `spheroidd` finds by the data directory",
    )
    name: str | None = Field(default=None, description="the name in the certificate, where it is not the host's")
    tls_certificate: Path | None = Field(default=None, description="PEM; needed beyond this computer")
    tls_key: Path | None = Field(default=None, description="PEM, without a passphrase")
    tls_client_ca: Path | None = Field(default=None, description="PEM; only clients it has signed may connect")
    local_role: Literal["viewer", "operator", "admin", "none"] = Field(
        default="admin", description="what programs of this computer may do without a token"
    )
    http: bool = Field(default=True, description="whether there is a page to look at, and REST")
    http_address: Annotated[str, Field(pattern=_ADDRESS)] = Field(
        default="127.0.0.1:8040", description="host:port of the page; where the port is taken, a free one"
    )
    http_hosts: tuple[str, ...] = Field(
        default=(), description="further names of this computer under which the page may be opened"
    )
    http_viewers: tuple[Annotated[str, Field(pattern=r"^https?://[^/\s]+/\S*\{(url|neuroglancer)\}\S*$")], ...] = Field(
        default=(),
        description="web viewers that the page links to and that may read the images: their address, with {url} in "
        'the place of an image\'s, such as "https://hms-dbmi.github.io/vizarr/?source={url}", or {neuroglancer} in '
        'that of a state with both channels, such as "https://neuroglancer-demo.appspot.com/#!{neuroglancer}"',
    )
    http_words: Path | None = Field(
        default=None,
        description="a JSON file with the page's words in another language, made of its own table, /words.json",
    )
    time_zone: str | None = Field(
        default=None,
        description='the lab\'s zone, such as "Europe/Berlin", in which the page and notices give times; without it '
        "that of whoever looks",
    )

    @property
    def host(self) -> str:
        """The address without its port."""
        return self.address.rpartition(":")[0].strip("[]")

    @property
    def local(self) -> bool:
        """Whether only this computer can reach it."""
        return _is_local(self.host)

    @property
    def http_host(self) -> str:
        """The page's address without its port."""
        return self.http_address.rpartition(":")[0].strip("[]")

    @property
    def http_local(self) -> bool:
        """Whether only this computer can reach the page."""
        return _is_local(self.http_host)

    @field_validator("time_zone")
    @classmethod
    def _known_zone(cls, name: str | None) -> str | None:
        if name is not None:
            try:
                ZoneInfo(name)
            except (ValueError, OSError, ZoneInfoNotFoundError) as error:
                what = f"there is no time zone {name!r}"
                raise ValueError(f'{what}; write one of the IANA list, such as "Europe/Berlin"') from error
        return name

    @model_validator(mode="after")
    def _guarded(self) -> "ServiceConfig":
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key belong together; write both")
        if self.tls_client_ca is not None and self.tls_certificate is None:
            raise ValueError("tls_client_ca needs tls_certificate and tls_key; write them too")
        if not self.local and self.tls_certificate is None:
            what = f"address {self.address} can be reached from other computers"
            raise ValueError(f"{what}; write tls_certificate and tls_key, or use 127.0.0.1")
        if self.http and not self.http_local and self.tls_certificate is None:
            what = f"http_address {self.http_address} can be reached from other computers"
            raise ValueError(f"{what}; write tls_certificate and tls_key, or use 127.0.0.1")
        return self


def _is_local(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


class Config(Section):
    """The whole tree. `source` holds the settings of the chosen kind."""

    data: DataConfig = DataConfig()
    plate: PlateConfig = PlateConfig()
    source: SerializeAsAny[BaseModel]
    store: StoreConfig = StoreConfig()
    sim: SimConfig = SimConfig()
    inference: InferenceConfig = InferenceConfig()
    scoring: ScoringConfig = ScoringConfig()
    service: ServiceConfig = ServiceConfig()
    alarms: AlarmsConfig = AlarmsConfig()
    verification: VerificationConfig = VerificationConfig()

    @property
    def source_kind(self) -> str:
        """Which source: "emulator", "replay", or a registered one."""
        return str(self.source.model_dump(include={"kind"})["kind"])

    @property
    def plate_name(self) -> str:
        """The plate's name: given, or the map's file name, or "plate"."""
        if self.plate.name:
            return check_plate_name(self.plate.name)
        return read_plate_map(self.plate.map, roles=self.plate.roles).name if self.plate.map else "plate"

    def plate_map(self) -> PlateMap | None:
        """Read the plate map; None where none is given. ConfigError names its line and column."""
        return read_plate_map(self.plate.map, self.plate.name, self.plate.roles) if self.plate.map else None


def load_config(path: Path) -> Config:
    """Read a configuration file; ConfigError names the line, the key and what to write."""
    try:
        text = read_regular_text(path)
        table = parse_toml(text)
    except OSError as error:
        do = "check the path; `examples/` has some to start from"
        raise ConfigError(f"cannot read the configuration: {error.strerror}", where=str(path), do=do) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"not in UTF-8: {error.reason}", where=str(path), do="save it as UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        do = "texts stand in double quotes, paths of Windows in single quotes, tables in [brackets]"
        raise ConfigError(f"not TOML: {error}", where=str(path), do=do) from error
    return build_config(table, base=path.parent, where=str(path), text=text)


def build_config(table: Mapping[str, Any], *, base: Path, where: str = "options", text: str = "") -> Config:
    """A configuration from tables (as TOML gives them); paths are relative to `base`. ConfigError as `load_config`."""
    faults: list[ConfigFault] = []
    tables = dict(table)
    source = tables.get("source")
    if not isinstance(source, Mapping) or not isinstance(source.get("kind"), str):
        do = f"add [source] with kind = one of {', '.join(SOURCES)}"
        faults.append(ConfigFault(("source", "kind"), "the kind of source is missing", do))
        tables["source"] = Section()
    else:
        line = line_of(text, ("source", "kind"))
        chosen = settings_class(source["kind"], where=f"{where}, line {line}" if line else where)
        try:
            tables["source"] = chosen.model_validate(source)
        except ValidationError as error:
            faults += explain(error, chosen, source, ("source",))
            tables["source"] = Section()
    try:
        config = Config.model_validate(tables)
    except ValidationError as error:
        faults += explain(error, Config, table)
    if faults:
        raise _refusal(faults, where, text)
    return _with_absolute_paths(config, base.absolute())


def scoring_settings(table: Mapping[str, Any]) -> ScoringConfig:
    """[scoring] from options; ConfigError names the option that is wrong."""
    try:
        return ScoringConfig.model_validate(table)
    except ValidationError as error:
        raise _refusal(list(explain(error, ScoringConfig, table)), "options", "") from error


def inference_with(before: InferenceConfig, given: Mapping[str, Any], *, where: str) -> InferenceConfig:
    """The settings with those of `given` that are not None in place of their own; ConfigError as `build_config`."""
    changed = {**before.model_dump(), **{name: value for name, value in given.items() if value is not None}}
    try:
        return InferenceConfig.model_validate(changed)
    except ValidationError as error:
        raise _refusal(explain(error, InferenceConfig, changed, ("inference",)), where, "") from error


def config_schema() -> dict[str, Any]:
    """The JSON schema of the file, with the settings of every source that is installed."""
    schema = Config.model_json_schema()
    definitions = schema["$defs"]
    choices = []
    for kind in SOURCES:
        own = settings_class(kind).model_json_schema(ref_template=f"#/$defs/{kind}.{{model}}")
        definitions |= {f"{kind}.{name}": value for name, value in own.pop("$defs", {}).items()}
        definitions[kind] = own
        choices.append({"$ref": f"#/$defs/{kind}"})
    schema["properties"]["source"] = {"oneOf": choices}
    return schema


def _refusal(faults: list[ConfigFault], where: str, text: str) -> ConfigError:
    first, *others = sorted(faults, key=lambda fault: fault.line(text) or 0)
    line = first.line(text)
    what = f"{first.key}: {first.what}" if first.key else first.what
    if others:
        what += f" (and {len(others)} more: {', '.join(fault.key for fault in others)})"
    return ConfigError(what, where=f"{where}, line {line}" if line else where, do=first.do)


def _with_absolute_paths(model: Tree, base: Path) -> Tree:
    """Every path of the tree, a source's own ones too, made absolute."""
    changes: dict[str, Any] = {}
    for name in type(model).model_fields:
        value = getattr(model, name)
        if isinstance(value, Path):
            changes[name] = base / value.expanduser()
        elif isinstance(value, BaseModel):
            changes[name] = _with_absolute_paths(value, base)
    return model.model_copy(update=changes)


def to_toml(config: BaseModel) -> str:
    """The effective configuration, defaults included, as TOML that its own loader reads back."""
    return toml_of(config.model_dump(mode="json"))


def toml_of(table: Mapping[str, Any]) -> str:
    """A table of tables as TOML; None is a comment that says so."""
    return "\n".join(_toml_table((), table)).strip() + "\n"


def _toml_table(path: tuple[str, ...], table: Mapping[str, Any]) -> list[str]:
    plain = {key: value for key, value in table.items() if not isinstance(value, Mapping)}
    lines = [f"[{'.'.join(map(_toml_key, path))}]"] if path and (plain or not table) else []
    lines += [
        f"# {key} is not set" if value is None else f"{_toml_key(key)} = {_toml_value(value)}"
        for key, value in plain.items()
    ]
    for key, value in table.items():
        if isinstance(value, Mapping):
            lines += ["", *_toml_table((*path, key), value)]
    return lines


def _toml_key(key: str) -> str:
    """A key as it is where TOML allows that, else in quotes: a role's word may have blanks."""
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else json.dumps(key, ensure_ascii=False)


def _toml_value(value: object) -> str:
    """A value on one line; JSON's texts, numbers and booleans are TOML's as well."""
    if isinstance(value, Mapping):
        given = (f"{_toml_key(key)} = {_toml_value(part)}" for key, part in value.items() if part is not None)
        return f"{{ {', '.join(given)} }}"
    if isinstance(value, list):
        return f"[{', '.join(map(_toml_value, value))}]"
    return json.dumps(value, ensure_ascii=False)


def open_source(config: Config, clock: Clock) -> StackSource:
    """The source that a configuration asks for; ConfigError where it cannot be built from its settings and its map."""
    return build_source(config.source, config.plate_map(), config.plate_name, clock)
