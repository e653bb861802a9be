"""The report in a real browser: two sizes, both themes; no barrier, no request, no complaint; and on paper."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from support.browser import DESKTOP, PHONE, chromium, tab
from support.incident_reports import FOLDER

REPORT = (FOLDER / "report.html").as_uri()
MARGIN_POINTS = 3


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_everybody_can_read_it_and_it_asks_nobody(browser: Browser, size: tuple[int, int], scheme: str) -> None:
    with tab(browser, REPORT, size, scheme) as found:
        asked: list[str] = []
        found.page.on("request", lambda request: asked.append(request.url))
        found.page.goto(REPORT)
        assert found.page.locator("figure svg").count() == 4
        assert found.barriers() == []
        assert found.wider_than_the_screen() == 0
        found.shoot(f"incident-{'phone' if size == PHONE else 'desktop'}-{scheme}")
        assert asked == [REPORT]


def test_it_is_printed_on_a4(browser: Browser, tmp_path: Path) -> None:
    with tab(browser, REPORT) as found:
        found.page.goto(REPORT)
        data = found.page.pdf(prefer_css_page_size=True)
        found.page.emulate_media(media="print", color_scheme="dark")
        shown = "() => getComputedStyle(document.body).backgroundColor"
        assert found.page.evaluate(shown) == "rgb(255, 255, 255)", "paper is white, whatever the screen is"
        assert not found.page.locator("nav").is_visible()
    (tmp_path / "report.pdf").write_bytes(data)
    sizes = [tuple(map(float, one.split())) for one in re.findall(rb"/MediaBox ?\[([^\]]+)\]", data)]
    assert 4 <= len(sizes) <= 20
    for _, _, wide, high in sizes:
        assert wide == pytest.approx(595, abs=MARGIN_POINTS)
        assert high == pytest.approx(842, abs=MARGIN_POINTS)
