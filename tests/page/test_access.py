"""The page on an endpoint that other machines reach: it loads, and shows nothing before it has the token."""

from __future__ import annotations

import pytest
from playwright.async_api import Browser, expect

from tests.daemon.conftest import World
from tests.page.conftest import TOKEN, looking

pytestmark = pytest.mark.services


async def test_other_machines_need_the_token(world: World, browser: Browser) -> None:
    async with (
        world.daemon(admin__host="0.0.0.0", admin__token=TOKEN) as daemon,
        looking(browser, daemon) as look,
    ):
        await look.go("")
        await look.give_token("a wrong one of more than sixteen")
        dialog = look.page.get_by_role("dialog", name="Token")
        await expect(dialog).to_contain_text("That is not the token.")
        assert await look.page.locator("main td").count() == 0
        await look.give_token()
        await expect(look.page.locator("#live")).to_have_text("live")
        await expect(look.page.get_by_role("table", name="Slots").locator("tbody tr").first).to_be_visible()
        stored = await look.page.evaluate(
            "[localStorage.length, sessionStorage.length, document.cookie, location.href].join(' ')"
        )
        assert stored == f"0 0  {look.url}/#/"
        await look.page.get_by_role("button", name="Forget token").click()
        await look.page.get_by_role("link", name="Failures").click()
        await expect(dialog).to_be_visible()
        assert look.trouble == []
    assert TOKEN not in daemon.log.read_text()


async def test_without_a_page_nothing_is_there(world: World, browser: Browser) -> None:
    async with world.daemon(admin__page=False) as daemon, looking(browser, daemon) as look:
        for path in ("/", "/page/app.js", "/page/events"):
            answer = await look.page.request.get(f"{look.url}{path}")
            assert answer.status == 404
