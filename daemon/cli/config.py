"""`spheroidd config`: look at a configuration."""

from pathlib import Path
from typing import Annotated

import typer

from spheroidd.daemon.cli.app import JsonOption, sub_app

config_app = sub_app("config", "Look at a configuration: effective values, schema, faults.")


@config_app.command("show")
def config_show(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Configuration (TOML).")], as_json: JsonOption = False
) -> int:
    """Print the effective configuration, defaults included."""
    from spheroidd.daemon.config.model import load_config, to_toml

    config = load_config(file)
    typer.echo(config.model_dump_json(indent=2) if as_json else to_toml(config), nl=as_json)
    return 0


@config_app.command("schema")
def config_schema() -> int:
    """Print the JSON schema of the configuration, for editors."""
    import json

    from spheroidd.daemon.config.model import config_schema as schema

    typer.echo(json.dumps(schema(), indent=2))
    return 0


@config_app.command("check")
def config_check(file: Annotated[Path, typer.Argument(metavar="FILE", help="Configuration (TOML).")]) -> int:
    """Check a configuration, the plate map and the regressor it names. Exit code 2 where one is wrong."""
    from spheroidd.daemon.config.model import load_config
    from spheroidd.daemon.config.named_models import chosen_regressor

    config = load_config(file)
    chosen_regressor(config.inference)
    plate_map = config.plate_map()
    wells = f"{len(plate_map.imaged())} wells to image" if plate_map else "the source designs the plate itself"
    typer.echo(f"{file}: good; plate {config.plate_name}, {wells}, source {config.source_kind}")
    return 0
