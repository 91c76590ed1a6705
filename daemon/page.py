"""The page's own routes."""

from pathlib import Path

from starlette.routing import BaseRoute

from spheroidd.daemon.web_app import WebApp


def page_routes(app: WebApp, data_dir: Path) -> list[BaseRoute]:
    """None yet."""
    return []
