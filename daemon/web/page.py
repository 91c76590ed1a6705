"""The page: its document, script and style, and what they ask for beside the wire contract's own calls.

Orders, status and results go by /v1. What stands here is only how a plate looks: colours, pictures, words.
"""

import gzip
import json
import time
import zlib
from collections.abc import Callable
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from spheroidd.acquisition.store.ngff import image_path, read_attributes
from spheroidd.daemon.analysis.sim_depth import depth_of_plate
from spheroidd.daemon.catalog.reader import CatalogReader
from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.daemon.config.model import ServiceConfig
from spheroidd.daemon.monitoring.status import SILENT_S, current_run
from spheroidd.daemon.report.drawing import svg_file
from spheroidd.daemon.report.sim_depth import depth_plot
from spheroidd.daemon.service.messages import stack_key
from spheroidd.daemon.web.app import WebApp
from spheroidd.daemon.web.curve_view import CurveViews
from spheroidd.daemon.web.live_images import LiveImages, Picture
from spheroidd.daemon.web.metrics import Metrics
from spheroidd.daemon.web.neuroglancer import neuroglancer_state
from spheroidd.daemon.web.plate_view import well_view
from spheroidd.daemon.web.plate_views import PlateViews, fingerprint
from spheroidd.daemon.web.report_file import ReportFiles
from spheroidd.daemon.web.result_view import result_view
from spheroidd.daemon.web.words import Words, needed, told, words
from spheroidd.protocols.errors import ConfigError, SpheroiddError, StorageError
from spheroidd.protocols.plate import check_plate_name
from spheroidd.protocols.stack import StackKey
from spheroidd.protocols.well import WellId

SCRIPTS = ("page.js", "curves.js", "results.js", "corrections.js", "queue.js", "live.js")
WORDS = "words.json"
NEUROGLANCER = "{neuroglancer}"  # in the address of a viewer: the place of a whole state
SMALL = 2000  # bytes: below that an answer is a packet or two anyway
_FOLDER = Path(__file__).parent


def page_routes(app: WebApp, data_dir: Path, settings: ServiceConfig) -> list[BaseRoute]:
    """The routes of the page, its pictures, metrics and health."""
    page = Page(app, data_dir, settings)
    return [
        Route("/", page.document),
        *(Route(f"/{name}", partial(page.script, name=name)) for name in SCRIPTS),
        Route("/page.css", page.style),
        Route(f"/{WORDS}", page.words),
        Route("/favicon.svg", page.icon),
        Route("/page/me", page.me),
        Route("/page/plate", page.plate),
        Route("/page/well", page.well),
        Route("/page/live", page.live),
        Route("/page/picture", page.picture),
        Route("/page/stripes", page.stripes),
        Route("/page/curves", page.curves),
        Route("/page/results", page.results),
        Route("/page/report", page.report),
        Route("/metrics", page.metrics),
        Route("/healthz", page.healthz),
        Route("/readyz", page.readyz),
    ]


@cache
def _document() -> Template:
    """The page's own, compiled once a process."""
    environment = Environment(loader=FileSystemLoader(_FOLDER), autoescape=True, undefined=StrictUndefined)
    return environment.get_template("page.html.j2")


def _with_its_packed(text: bytes) -> tuple[bytes, bytes]:
    """A text as it is, and for a browser that takes gzip."""
    return text, gzip.compress(text, mtime=0)


class Page:
    """What the routes do."""

    def __init__(self, app: WebApp, data_dir: Path, settings: ServiceConfig) -> None:
        self._app, self._data_dir, self._settings = app, data_dir, settings
        table = self._table = words(settings.http_words)
        about = {"version": version("spheroidd"), "name": data_dir.name, "scripts": SCRIPTS, "words": needed(table)}
        self._html = _document().render(about)
        texts = {name: (_FOLDER / name).read_bytes() for name in (*SCRIPTS, "page.css")} | {"": self._html.encode()}
        self._texts = {name: _with_its_packed(text) for name, text in texts.items()}
        self._images, self._metrics = LiveImages(data_dir), Metrics(data_dir, app.failed_logins)
        self._views, self._curves, self._reports = PlateViews(), CurveViews(), ReportFiles(data_dir)

    async def document(self, request: Request) -> Response:
        """The page itself; it holds nothing that needs a token."""
        return self._text(request, "", "text/html")

    async def script(self, request: Request, name: str) -> Response:
        """What it does."""
        return self._text(request, name, "text/javascript")

    async def style(self, request: Request) -> Response:
        """How it looks."""
        return self._text(request, "page.css", "text/css")

    async def words(self, request: Request) -> Response:
        """What it says, for whoever translates it."""
        if WORDS not in self._texts:  # made when somebody asks: to pack them would be half of a page's start
            self._texts[WORDS] = _with_its_packed(json.dumps(self._table, ensure_ascii=False, indent=1).encode())
        return self._text(request, WORDS, "application/json")

    async def icon(self, request: Request) -> Response:
        """A spheroid."""
        return Response(_ICON, media_type="image/svg+xml", headers={"cache-control": "max-age=86400"})

    async def me(self, request: Request) -> Response:
        """Who looks, and what they may do."""
        caller = self._app.caller(request)
        found = {"name": caller.name, "role": caller.role.name.lower(), "viewers": self._settings.http_viewers}
        return _json(found | {"data_dir": str(self._data_dir.absolute()), "zone": self._settings.time_zone})

    async def plate(self, request: Request) -> Response:
        """The plate as it is drawn."""
        seen = request.headers.get("if-none-match", "")
        return await self._read(request, partial(self._plate, _one(request, "plate"), seen))

    async def well(self, request: Request) -> Response:
        """One well."""
        plate, well = check_plate_name(_one(request, "plate")), WellId.parse(_one(request, "well"))
        return await self._read(request, partial(self._well, plate, well))

    async def live(self, request: Request) -> Response:
        """The stack under way; 204 where there is nothing to see yet."""
        seen = request.headers.get("if-none-match", "")
        return await self._read(request, lambda catalog: _picture(self._images.live(catalog), seen))

    async def picture(self, request: Request) -> Response:
        """A slice of a stack, or without `z` the brightest of all of them."""
        key = stack_key(_one(request, "plate"), _one(request, "well"), _number(request, "stack", 0) or 0)
        z, outlined = _number(request, "z", None), request.query_params.get("outlines") != "0"
        seen = request.headers.get("if-none-match", "")
        return await self._read(
            request, lambda catalog: _picture(self._images.of_stack(catalog, key, z, outlined=outlined), seen)
        )

    async def stripes(self, request: Request) -> Response:
        """How the stripes of a stack's raw frames die with the depth, as SVG; 204 where it has none."""
        key = stack_key(_one(request, "plate"), _one(request, "well"), _number(request, "stack", 0) or 0)
        seen = request.headers.get("if-none-match", "")
        return await self._read(request, lambda catalog: _stripes(catalog, key, seen, self._table))

    async def curves(self, request: Request) -> Response:
        """The dose-response curves as they are drawn."""
        plate, seen = check_plate_name(_one(request, "plate")), request.headers.get("if-none-match", "")

        def look(catalog: CatalogReader) -> Response:
            return _unless_seen(*self._curves.of(catalog, plate, fingerprint(catalog, plate)), seen)

        return await self._read(request, look)

    async def results(self, request: Request) -> Response:
        """The table of results."""
        plate, seen = check_plate_name(_one(request, "plate")), request.headers.get("if-none-match", "")

        def look(catalog: CatalogReader) -> Response:
            tag = fingerprint(catalog, plate)
            if seen == json.dumps(tag):
                return _unless_seen(tag, b"", seen)
            return _unless_seen(tag, json.dumps(result_view(catalog, plate), allow_nan=False).encode(), seen)

        return await self._read(request, look)

    async def report(self, request: Request) -> Response:
        """The report of a plate as a file, written by a process of its own and entered in the audit trail."""
        plate, kind = check_plate_name(_one(request, "plate")), _one(request, "kind")
        who = self._app.caller(request).name
        found = await self._app.in_thread(partial(self._reports.of, plate, kind, who))
        headers = {**_NEW, "content-disposition": f"attachment; filename*=UTF-8''{quote(found.name)}"}
        return Response(found.data, headers=headers, media_type=found.media_type)

    async def metrics(self, request: Request) -> Response:
        """For Prometheus."""
        return await self._read(request, lambda catalog: Response(self._metrics.text(catalog), media_type=Metrics.KIND))

    async def healthz(self, request: Request) -> Response:
        """200 as long as main shows a sign of life."""
        return await self._alive(None)

    async def readyz(self, request: Request) -> Response:
        """200 as long as main takes orders as well."""
        return await self._alive(("starting", "stopping", "stopped"))

    async def _alive(self, not_in: tuple[str, ...] | None) -> Response:
        state = await self._app.in_thread(partial(_sign_of_life, self._data_dir))
        ok = state["alive"] and (not_in is None or state["state"] not in not_in)
        return Response(json.dumps(state), 200 if ok else 503, _NEW, "application/json")

    async def _read(self, request: Request, look: Callable[[CatalogReader], Response]) -> Response:
        self._app.caller(request)

        def work() -> Response:
            with Catalog.read_only(self._data_dir) as catalog:
                found = look(catalog)
            return _packed(found) if _takes_gzip(request) else found

        return await self._app.in_thread(work)

    def _text(self, request: Request, name: str, media_type: str) -> Response:
        """A text of the page, as small as the browser takes it."""
        plain, packed = self._texts[name]
        if _takes_gzip(request):
            return Response(packed, headers=_NEW | _GZIP, media_type=media_type)
        return Response(plain, headers=_NEW, media_type=media_type)

    def _plate(self, plate: str, seen: str, catalog: CatalogReader) -> Response:
        return _unless_seen(*self._views.of(catalog, check_plate_name(plate)), seen)

    def _well(self, plate: str, well: WellId, catalog: CatalogReader) -> Response:
        view = well_view(catalog, plate, well, self._views.quality(catalog, plate))
        for stack in view["stacks"]:
            stack["neuroglancer"] = self._neuroglancer(StackKey(plate, well, stack["stack"]))
        return _json(view)

    def _neuroglancer(self, key: StackKey) -> dict[str, Any] | None:
        """How that viewer opens a stack; None where it has no image yet, or where no such viewer is named."""
        if not any(NEUROGLANCER in viewer for viewer in self._settings.http_viewers):
            return None
        try:
            return neuroglancer_state(read_attributes(image_path(self._data_dir, key)))
        except (StorageError, KeyError, ValueError):  # it is not begun, or a program of another kind wrote it
            return None


def _takes_gzip(request: Request) -> bool:
    return "gzip" in request.headers.get("accept-encoding", "")


def _packed(found: Response) -> Response:
    """An answer in JSON, made smaller: a plate of 384 wells is a tenth of it, which over a laboratory's VPN is seen."""
    body = bytes(found.body)
    if found.media_type != "application/json" or len(body) < SMALL:
        return found
    kept = {name: value for name, value in found.headers.items() if name not in ("content-length", "content-type")}
    return Response(gzip.compress(body, 1, mtime=0), found.status_code, kept | _GZIP, found.media_type)


def _sign_of_life(data_dir: Path) -> dict[str, Any]:
    try:
        with Catalog.read_only(data_dir) as catalog:
            run = current_run(data_dir, catalog, time.time())
    except SpheroiddError as error:
        return {"alive": False, "state": "unknown", "why": error.what}
    if run is None:
        return {"alive": True, "state": "starting"}
    silent_s = max(0.0, time.time() - run.heartbeat_s)
    return {"alive": silent_s < SILENT_S, "state": run.state, "silent_s": round(silent_s, 1)}


def _picture(found: Picture | None, seen: str) -> Response:
    if found is None:
        return Response(status_code=204, headers=_NEW)
    tag = json.dumps(found.tag)
    headers = {"etag": tag, "cache-control": "no-cache", "x-stack": str(found.key), "x-slices": str(found.n_slices)}
    if seen == tag:
        return Response(status_code=304, headers=headers)
    return Response(found.jpeg, headers=headers, media_type="image/jpeg")


def _stripes(catalog: CatalogReader, key: StackKey, seen: str, table: Words) -> Response:
    drawing = depth_plot(depth_of_plate(catalog, key.plate, key), narrow=True, in_words=lambda text: told(text, table))
    if drawing is None:
        return Response(status_code=204, headers=_NEW)
    text = svg_file(drawing).encode()
    headers = {**_NEW, "etag": json.dumps(f"{key}-{zlib.crc32(text):08x}")}
    if seen == headers["etag"]:
        return Response(status_code=304, headers=headers)
    return Response(text, headers=headers, media_type="image/svg+xml")


def _unless_seen(tag: str, view: bytes, seen: str) -> Response:
    """A view in JSON, and nothing of it where the caller has it already."""
    headers = {**_NEW, "etag": json.dumps(tag)}
    if seen == headers["etag"]:
        return Response(status_code=304, headers=headers)
    return Response(view, headers=headers, media_type="application/json")


def _json(found: object) -> Response:
    return Response(json.dumps(found, allow_nan=False), headers=_NEW, media_type="application/json")


def _one(request: Request, name: str) -> str:
    values = request.query_params.getlist(name)
    if len(values) != 1:
        raise ConfigError(f"{name} is missing, or there several times", do=f"ask with ?{name}=...")
    return values[0]


def _number(request: Request, name: str, default: int | None) -> int | None:
    text = request.query_params.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) < 7):
        raise ConfigError(f"{name} is {text[:20]!r}", do="write a whole number")
    return int(text)


_NEW = {"cache-control": "no-cache"}
_GZIP = {"content-encoding": "gzip", "vary": "accept-encoding"}
_ICON = (
    b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><circle cx="16" cy="16" r="14" fill="#1f3a5f"/>'
    b'<circle cx="16" cy="16" r="9" fill="#5ec962"/><circle cx="18" cy="17" r="4" fill="#d6569f"/></svg>'
)
