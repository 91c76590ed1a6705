"""A plate in napari: filtered by what its wells hold, a well's cells with their table. Writes the picture of the docs.

    python -m venv napari-env
    napari-env/bin/pip install "napari[pyqt6]" napari-ome-zarr napari-ome-zarr-navigator
    xvfb-run -s '-screen 0 1600x1200x24' \\
        napari-env/bin/python bench/napari_picture.py DATA/P1.ome.zarr B01 docs/napari.png

The environment is napari's alone: Qt's bindings have a licence of their own, and nothing of spheroidd is imported here.
Ends with an error where napari does not see the conditions, the labels or the features.
"""

import importlib
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

WAIT_S, SETTLE_S = 120.0, 3.0
SIZE = (1500, 1000)
LABEL, FEATURES, SHOWN = "live_objects", "live_features", "volume_um3"


def until(there: Callable[[], object], what: str) -> None:
    """Let Qt work until something is there; RuntimeError where it does not come."""
    application = importlib.import_module("qtpy.QtWidgets").QApplication.instance()
    end_s = time.monotonic() + WAIT_S
    while not there():
        application.processEvents()
        time.sleep(0.02)
        if time.monotonic() > end_s:
            raise RuntimeError(f"napari does not show {what}")


def filtered(browser: Any, plate: Path, compound: str) -> list[str]:
    """The wells that are left where the plate's table of conditions is asked for a compound."""
    browser._zarr_selector.configure("File", str(plate))
    until(lambda: browser._plate_mgr.zarr_plate is not None, "the plate")
    browser._condition_table_source.value = "Plate-based condition table"
    until(lambda: browser._cond_filter.df is not None, "the table of conditions")
    rows = [row for row in browser._cond_filter.filter_container if hasattr(row, "__len__") and len(row) == 2]
    (row,) = [row for row in rows if row[1].label == "compound"]
    row[1].value = True
    row[0].value = compound
    until(lambda: 0 < len(browser.well.choices) < len(browser._plate_mgr.get_plate_wells()[0]), "the filter")
    return list(browser.well.choices)


def load_cells(viewer: Any, browser: Any, well: str) -> Any:
    """A well's channels, numbered cells and their table; the layer of the cells."""
    browser.well.value = well
    browser.launch_load_roi()
    loader = browser.roi_loader
    until(lambda: LABEL in loader._label_picker.choices and FEATURES in loader._feature_picker.choices, "the labels")
    until(lambda: loader._run_button.enabled, "the loader ready")
    loader._channel_picker.value = list(loader._channel_picker.choices)
    loader._label_picker.value = [LABEL]
    loader._feature_picker.value = [FEATURES]
    loader.run()
    until(lambda: any(LABEL in layer.name and len(layer.features) for layer in viewer.layers), "the cells' table")
    return next(layer for layer in viewer.layers if LABEL in layer.name)


def coloured(cells: Any) -> None:
    """The cells from small to large, as a viewer's plug-in for features would have them."""
    colormaps = importlib.import_module("napari.utils.colormaps")
    volumes = dict(zip(cells.features["label"], cells.features[SHOWN], strict=True))
    low, high = min(volumes.values()), max(volumes.values())
    viridis = colormaps.ensure_colormap("viridis")
    colours = {int(label): viridis.map((v - low) / max(high - low, 1e-9)) for label, v in volumes.items()}
    cells.colormap = colormaps.DirectLabelColormap(color_dict={**colours, None: "transparent", 0: "transparent"})
    cells.opacity = 0.6


def main() -> None:
    """Write the picture, and say what napari saw."""
    plate, well, out = Path(sys.argv[1]).absolute(), sys.argv[2], Path(sys.argv[3])
    compound = sys.argv[4] if len(sys.argv) > 4 else "C01"
    napari = importlib.import_module("napari")
    navigator = importlib.import_module("napari_ome_zarr_navigator")
    viewer = napari.Viewer(title=plate.name, ndisplay=2)
    viewer.window.resize(*SIZE)
    browser = navigator.PlateBrowser(viewer)
    viewer.window.add_dock_widget(browser, name="Plate Browser", area="right")
    wells = filtered(browser, plate, compound)
    if well not in wells:
        raise RuntimeError(f"{well} is none of the wells with {compound}: {', '.join(wells)}")
    cells = load_cells(viewer, browser, well)
    coloured(cells)
    images = [layer for layer in viewer.layers if layer is not cells and hasattr(layer, "contrast_limits")]
    limits = {layer.name: layer.contrast_limits for layer in images}
    colours = {layer.name: layer.colormap.name for layer in images}
    if len(limits) != len(browser.roi_loader._channel_picker.choices):
        raise RuntimeError(f"napari shows the channels {', '.join(limits)} and no others")
    viewer.layers.selection.active = cells
    table, _ = viewer.window.add_plugin_dock_widget("napari", "Features table widget")
    bottom = importlib.import_module("qtpy.QtCore").Qt.DockWidgetArea.BottomDockWidgetArea
    viewer.window._qt_window.addDockWidget(bottom, table)
    browser.native.parent().raise_()
    viewer.reset_view()
    settled_s = time.monotonic() + SETTLE_S
    until(lambda: time.monotonic() > settled_s, "a picture")
    viewer.screenshot(str(out), canvas_only=False, flash=False)
    print(f"wells with {compound}: {', '.join(wells)}")
    print(f"{well}: {len(cells.features)} cells with {', '.join(cells.features.columns)}")
    print(f"contrast limits {limits}, colours {colours}")


if __name__ == "__main__":
    main()
