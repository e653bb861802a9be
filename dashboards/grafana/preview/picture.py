"""A preview as a PNG: what Chromium makes of the page, by Playwright, which is among the development dependencies.

Invariant: a page that complains, or whose plot was not drawn, gives no picture.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from playwright.sync_api import Browser, ConsoleMessage, Error, sync_playwright

from dashboards.grafana.preview.definition import PreviewError

_PROGRAMS: Final = ("chromium", "chromium-browser", "google-chrome")
_PATIENCE_MS: Final = 60_000
# Of a rather dense screen, so that small print can be read.
_SCALE: Final = 1.25


@contextmanager
def chromium() -> Iterator[Browser]:
    """Run a browser while the block lasts.

    Raises:
        PreviewError: there is none.
    """
    binary = next(filter(None, map(shutil.which, _PROGRAMS)), None)
    if binary is None:
        raise PreviewError("a picture needs Chromium: `make deps-system` installs it; or write an .html file")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=binary, args=["--disable-gpu", "--disable-dev-shm-usage"])
        try:
            yield browser
        finally:
            browser.close()


def shoot(browser: Browser, page_file: Path, out: Path, width: int) -> None:
    """Write the picture of a preview.

    Args:
        browser: looks at it.
        page_file: the preview's page.
        out: the PNG; one that is there is replaced.
        width: of the panel, in pixels.

    Raises:
        PreviewError: the browser complained.
    """
    context = browser.new_context(viewport={"width": width, "height": 600}, device_scale_factor=_SCALE)
    context.set_default_timeout(_PATIENCE_MS)
    faults: list[str] = []

    def heard(said: ConsoleMessage) -> None:
        if said.type in ("error", "warning"):
            faults.append(said.text)

    try:
        page = context.new_page()
        page.on("console", heard)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto(page_file.absolute().as_uri())
        drawn = "!document.getElementById('plot') || document.documentElement.dataset.drawn === 'yes'"
        if not page.evaluate(drawn) or faults:
            raise PreviewError(f"the page was not drawn: {'; '.join(faults) or 'its script did not end'}")
        page.locator("figure").screenshot(path=out, type="png")
    except Error as error:
        raise PreviewError(f"the browser failed: {error.message}") from error
    finally:
        context.close()
