"""On an endpoint that others reach: the token first; what a person does then is done, without a mouse, and audited."""

from __future__ import annotations

import asyncio

import pytest
from playwright.async_api import Browser, expect

from tests.daemon.conftest import World
from tests.page.conftest import TOKEN, Look, looking

pytestmark = pytest.mark.services

TABS = 60  # there are fewer places for the focus on any view


async def test_acts_by_keyboard(world: World, browser: Browser, flaky: dict[str, int]) -> None:
    flaky["en-02.ogg"] = 1000  # its job waits for its second attempt
    async with (
        world.daemon(
            admin__host="0.0.0.0",
            admin__token=TOKEN,
            pipeline__retry_initial_seconds=300,
            pipeline__retry_max_seconds=300,
        ) as daemon,
        looking(browser, daemon) as look,
    ):
        await world.submit({"audio_url": f"{world.web}/flaky/en-02.ogg"}, {"audio_url": f"{world.web}/none.ogg"})
        await world.until_finished(1, 30)
        (gone,) = await world.rows("SELECT id::text FROM failures")
        await _asks_for_the_token(look)
        await _skips_to_the_content(look)
        await _pauses_and_resumes(look)
        waiting = await _changes_priority_and_cancels(look)
        await _replays(look, gone["id"])
        await _is_audited(world, look, waiting, gone["id"])
        assert look.trouble == []
    assert TOKEN not in daemon.log.read_text()


async def _asks_for_the_token(look: Look) -> None:
    await look.go("")
    await look.give_token("a wrong one of more than sixteen")
    await expect(look.page.get_by_role("dialog", name="Token")).to_contain_text("That is not the token.")
    assert await look.page.locator("main td").count() == 0
    await look.give_token()
    await expect(look.page.locator("#live")).to_have_text("live")
    stored = "[localStorage.length, sessionStorage.length, document.cookie, location.href].join(' ')"
    assert await look.page.evaluate(stored) == f"0 0  {look.url}/#/"


async def _tab_to(look: Look, name: str) -> None:
    """Press Tab until what has the focus is called so (`…`: begins so), and shows that it has it."""
    for _ in range(TABS):
        await look.page.keyboard.press("Tab")
        said = "document.activeElement.ariaLabel ?? document.activeElement.innerText"
        called = str(await look.page.evaluate(said))
        if called == name or (name.endswith("…") and called.startswith(name[:-1])):
            width = await look.page.evaluate("getComputedStyle(document.activeElement).outlineWidth")
            assert width == "3px", f"nobody sees that {name} has the focus"
            return
    raise AssertionError(f"Tab does not come to {name}")


async def _act(look: Look, question: str, verb: str, told: str) -> None:
    """Press what has the focus, confirm, and wait for what is told of it."""
    await look.page.keyboard.press("Enter")
    await expect(look.page.get_by_role("dialog", name=question)).to_be_visible()
    await _tab_to(look, verb)
    await look.page.keyboard.press("Enter")
    await expect(look.page.locator(".toast")).to_contain_text(told)
    assert told in (await look.page.locator("#said").inner_text())  # who does not see it hears it


async def _skips_to_the_content(look: Look) -> None:
    await expect(look.page.locator("#ready")).to_have_text("ready")
    await _tab_to(look, "Skip to the content")
    await look.page.keyboard.press("Enter")
    assert await look.page.evaluate("document.activeElement.id") == "main"
    await look.page.evaluate("document.activeElement.blur()")


async def _pauses_and_resumes(look: Look) -> None:
    await _tab_to(look, "Pause intake")
    await look.page.keyboard.press("Enter")
    await look.page.keyboard.press("Escape")  # no
    await expect(look.page.get_by_role("dialog")).to_have_count(0)
    assert await look.page.evaluate("document.activeElement.id") == "intake"  # back where it was
    await _act(look, "Pause intake?", "Pause intake", "takes up no more jobs")
    await expect(look.page.locator("#intake")).to_have_text("Resume intake")
    await expect(look.page.locator("#ready")).to_contain_text("not ready: paused")
    assert await look.page.evaluate("document.activeElement.id") == "intake"
    await _act(look, "Resume intake?", "Resume intake", "takes up jobs again")
    await expect(look.page.locator("#ready")).to_have_text("ready")


async def _changes_priority_and_cancels(look: Look) -> str:
    await _tab_to(look, "Jobs")
    await look.page.keyboard.press("Enter")
    row = look.page.get_by_role("table", name="Jobs under way").locator("tbody tr")
    await expect(row).to_have_count(1)
    job = await row.locator("a").get_attribute("title")
    assert job is not None
    await row.locator("a").press("Enter")  # its page, while it waits
    await expect(look.page.locator("main .pill")).to_have_text("under way")
    assert "retry" in await look.said(".facts dd")
    await _tab_to(look, "Jobs")
    await look.page.keyboard.press("Enter")
    await _tab_to(look, "Change the priority of job…")
    await look.page.keyboard.press("Enter")
    await expect(look.page.get_by_role("dialog")).to_be_visible()
    await look.page.keyboard.press("Home")  # the choice has the focus: the most urgent
    await _tab_to(look, "Change it")
    await look.page.keyboard.press("Enter")
    await expect(look.page.locator(".toast")).to_contain_text("priority 0")
    await expect(row.locator('td[data-label="Priority"]')).to_have_text("0")
    await _tab_to(look, "Cancel job…")
    await _act(look, "Cancel this job?", "Cancel the job", "it ends as `cancelled`")
    ended = look.page.get_by_role("table", name="The last that ended").locator("tbody tr", has_text="cancelled")
    await expect(ended).to_have_count(1)
    await expect(row).to_have_count(0)
    return job


async def _replays(look: Look, job: str) -> None:
    await _tab_to(look, "Failures")
    await look.page.keyboard.press("Enter")
    await expect(look.page.get_by_role("region", name="not_found (1)")).to_be_visible()
    await _tab_to(look, f"Replay job …{job[-8:]}")
    await _act(look, "Replay this failure?", "Replay it", "its record was sent again")


async def _is_audited(world: World, look: Look, cancelled: str, replayed: str) -> None:
    acts = [
        *(("pause", None), ("resume", None), ("priority", cancelled), ("cancel", cancelled), ("replay", replayed)),
    ]
    async with asyncio.timeout(30):
        while len(rows := await world.rows("SELECT action, target, error FROM audit_log ORDER BY id")) < len(acts):
            await asyncio.sleep(0.1)
    assert [(row["action"], row["target"] if row["target"] in {cancelled, replayed} else None) for row in rows] == acts
    assert [row["error"] for row in rows] == [None] * len(acts)
    await look.page.get_by_role("link", name="Audit log").click()
    shown = look.page.get_by_role("table", name="Acts").locator('td[data-label="What"]')
    await expect(shown).to_have_text([action for action, _ in reversed(acts)])
