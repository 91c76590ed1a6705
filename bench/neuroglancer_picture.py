"""A stack in neuroglancer, opened by the page's own link. Writes the picture of the docs.

    python -m pip install --no-deps --target FOLDER neuroglancer
    SPHEROIDD_NEUROGLANCER=FOLDER python -m bench.neuroglancer_picture DATA A01 docs/neuroglancer.png

DATA is a data directory with one plate; neuroglancer is served by this computer, its client from FOLDER. What both do
together is tested by `tests/daemon/web/test_viewers.py` under the same variable.
"""

import os
import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

from tests.daemon.web.neuroglancer import INSTALLED, WEBGL, local_neuroglancer, open_link
from tests.daemon.web.rig import asked

CHROMIUM = os.environ.get("SPHEROIDD_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
SCREEN = {"width": 1366, "height": 768}
WAIT_MS = 60_000


def main() -> None:
    """Write the picture, and say what was opened."""
    data, well, out = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    if not INSTALLED:
        sys.exit("no neuroglancer: name the folder that it was installed into in SPHEROIDD_NEUROGLANCER")
    with (
        local_neuroglancer() as viewer,
        asked(data, http_viewers=[f"{viewer}#!{{neuroglancer}}"]) as (client, _, _),
        sync_playwright() as program,
    ):
        chromium = program.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *WEBGL])
        page = chromium.new_page(viewport=SCREEN)
        page.goto(f"http://127.0.0.1:{client.port}/")
        page.click(f"#well-{well}")
        link = page.get_by_role("link", name="Open in 127.0.0.1").get_attribute("href")
        open_link(page, link or "", WAIT_MS)
        page.screenshot(path=out)
        chromium.close()
    print(f"{out}: {well} by {link}")


if __name__ == "__main__":
    main()
