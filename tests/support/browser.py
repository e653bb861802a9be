"""Debian's Chromium without a window, driven by Playwright: what a person's browser makes of a page."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Dialog, Page, sync_playwright

from support.repository_files import REPOSITORY

DESKTOP, PHONE = (1280, 900), (360, 760)
SCREENSHOTS = REPOSITORY / "build" / "screenshots"
AXE = Path(__file__).parent / "axe" / "axe.min.js"
# The machine may be ten times slower than one thinks.
PATIENCE_MS = 60_000
# WCAG 2.2 up to AA, and what axe calls good practice.
AXE_RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


@contextmanager
def chromium() -> Iterator[Browser]:
    """Run a browser while the block lasts; skip where there is none, and fail instead when CI=true."""
    binary = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if binary is None:
        lacking = "chromium is not installed: make deps-system"
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI=true, and {lacking}", pytrace=False)
        pytest.skip(lacking)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=binary, args=["--disable-gpu", "--disable-dev-shm-usage"], timeout=PATIENCE_MS
        )
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Tab:
    """One page that a person looks at, and whatever went wrong in it."""

    page: Page
    url: str
    faults: list[str] = field(default_factory=list)

    def heard(self, said: ConsoleMessage) -> None:
        """Keep what the browser complains about."""
        if said.type in ("error", "warning"):
            self.faults.append(said.text)

    def asked(self, dialog: Dialog) -> None:
        """Keep that a script of somebody's ran, and go on."""
        self.faults.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def look(self, path: str) -> None:
        """Open a page, and wait until it is live and what comes late has come."""
        answer = self.page.goto(self.url + path)
        assert answer is not None
        assert answer.status == 200, f"{path}: {answer.status}"
        self.live()

    def live(self) -> None:
        """Wait until the page is live and what comes late has come."""
        self.page.wait_for_selector('#live[data-state="on"]', state="attached")
        self.page.wait_for_function(
            "() => [...document.querySelectorAll('[data-sentence]')].every(one => !one.textContent.includes('fetched'))"
            " && [...document.querySelectorAll('[data-late]')].every(one => !one.querySelector(':scope > a'))"
        )

    def sign_in(self, token: str) -> None:
        """Sign in with a token."""
        self.page.goto(f"{self.url}/sign-in")
        self.page.fill("#token", token)
        self.page.click("button")
        self.live()

    def shoot(self, name: str, *, whole: bool = True) -> None:
        """Keep a picture of the whole page, or of what is on the screen."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=whole)

    def barriers(self) -> list[str]:
        """Return what keeps people out of the page, as axe-core finds it."""
        self.page.evaluate(AXE.read_text())
        found: dict[str, Any] = self.page.evaluate(
            "rules => axe.run(document, { runOnly: { type: 'tag', values: rules } })", AXE_RULES
        )
        assert found["passes"], "axe looked at nothing"
        return [
            f"{one['id']}: {one['help']}: {node['html'][:160]}" for one in found["violations"] for node in one["nodes"]
        ]

    def wider_than_the_screen(self) -> int:
        """Return by how many pixels the page is wider than its screen."""
        wider: int = self.page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        return max(0, wider)


@contextmanager
def tab(browser: Browser, url: str, size: tuple[int, int] = DESKTOP, scheme: str = "light") -> Iterator[Tab]:
    """Open a tab with cookies of its own while the block lasts.

    Raises:
        AssertionError: at the end, if the page complained or a script failed.
    """
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]},
        color_scheme="dark" if scheme == "dark" else "light",
        reduced_motion="reduce",
    )
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    found = Tab(page, url)
    page.on("console", found.heard)
    page.on("pageerror", lambda error: found.faults.append(str(error)))
    page.on("dialog", found.asked)
    try:
        yield found
        assert not found.faults, found.faults
    finally:
        context.close()
