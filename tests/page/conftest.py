"""A real daemon, and Debian's chromium to look at its page."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from playwright.async_api import Browser, Page, async_playwright, expect

from tests.daemon.conftest import Daemon, flaky, recordings_server, world

__all__ = ["TOKEN", "Look", "browser", "flaky", "looking", "recordings_server", "world"]

TOKEN = "a token of more than sixteen characters"
WIDE = {"width": 1280, "height": 900}
PATIENCE_MS = 30_000  # for what comes when the machine is busy

_REPORTS = """
window.reports = [];
addEventListener("securitypolicyviolation", (event) => reports.push(`${event.violatedDirective} ${event.blockedURI}`));
"""


@dataclass
class Look:
    """A page, and what went wrong in it: errors, violations of its policy, and dialogs that scripts opened."""

    page: Page
    url: str
    trouble: list[str] = field(default_factory=list)

    async def go(self, view: str) -> None:
        """Show a view, by what stands behind the #."""
        await self.page.goto(f"{self.url}/#/{view}")

    async def give_token(self, token: str = TOKEN) -> None:
        """Answer the question for the token by keyboard, as soon as it is asked."""
        await expect(self.page.get_by_role("dialog", name="Token")).to_be_visible()
        await self.page.keyboard.type(token)
        await self.page.keyboard.press("Enter")

    async def go_with_token(self, view: str) -> None:
        """Load a view of what was said: nothing remembers the token over a load of the page."""
        await self.page.goto("about:blank")
        await self.go(view)
        await self.give_token()

    async def said(self, selector: str) -> list[str]:
        """Return the texts of all elements."""
        return [text.strip() for text in await self.page.locator(selector).all_inner_texts()]

    async def violations(self) -> list[str]:
        """Return what the policy kept from happening since the page was loaded."""
        return list(await self.page.evaluate("reports"))


@asynccontextmanager
async def looking(browser: Browser, daemon: Daemon, **options: Any) -> AsyncIterator[Look]:
    """Open a page of a daemon; options are playwright's, of a context."""
    context = await browser.new_context(**({"viewport": WIDE, "reduced_motion": "reduce"} | options))
    context.set_default_timeout(PATIENCE_MS)
    await context.add_init_script(_REPORTS)
    page = await context.new_page()
    look = Look(page, f"http://127.0.0.1:{daemon.port}")
    page.on("pageerror", lambda error: look.trouble.append(f"error: {error}"))
    page.on("dialog", lambda dialog: look.trouble.append(f"dialog: {dialog.message}"))
    try:
        yield look
    finally:
        await context.close()


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    """Chromium without a window; playwright's own is not there."""
    program = shutil.which("chromium")
    assert program is not None, "chromium is not there: apt-get install chromium"
    expect.set_options(timeout=PATIENCE_MS)
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--mute-audio"])
        yield chromium
        await chromium.close()
