"""What the page shows is what the database has, it shows it at once, and all can read it."""

from __future__ import annotations

import asyncio
import json
import os
from io import BytesIO
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from axe_playwright_python.async_playwright import Axe
from PIL import Image
from playwright.async_api import Browser, Page, expect

from tests.daemon.conftest import World
from tests.page.conftest import TOKEN, Look, looking
from v2td.bundled.recordings import AUDIO

pytestmark = pytest.mark.services

BEARER = {"Authorization": f"Bearer {TOKEN}"}
SCREENSHOTS = Path(__file__).parents[2] / "docs" / "screenshots"
LONG = {"id": "long", "audio_url": "/en-long.ogg"}
SHORT = [{"id": f"short {number}", "audio_url": f"/en-0{number}.ogg"} for number in (2, 3, 4)]
_LOADED = {"Failures": "of all instances", "Audit log": "Nothing was changed yet."}
FAILED = [{"id": "gone", "audio_url": "/nothing.ogg"}, {"id": "no URL"}]


async def test_views(world: World, browser: Browser) -> None:
    async with (
        world.daemon(admin__token=TOKEN, database__flush_seconds=0.01) as daemon,
        looking(browser, daemon) as look,
    ):
        await look.go("jobs")
        await expect(look.page.locator("#live")).to_have_text("live")
        await world.submit(*(_at(world, each) for each in (*SHORT, *FAILED, LONG)))
        # Live: this page was loaded when there was nothing.
        ended = look.page.get_by_role("table", name="The last that ended").locator("tbody tr")
        await expect(ended).to_have_count(5)
        await world.until_finished(6, 60)
        await _shows_jobs(world, look)
        await _shows_numbers(world, look)
        await _shows_failures(world, look)
        await _shows_a_job(world, look)
        await _plays_a_recording(look)
        await _finds_what_was_said(world, look)
        await _gives_recordings(world, look)
        await _is_accessible(look)
        assert look.trouble == []
        if os.environ.get("SCREENSHOTS_OF_THE_PAGE"):
            await _make_screenshots(world, look)


def _at(world: World, message: dict[str, Any]) -> dict[str, Any]:
    return {name: world.web + value if name == "audio_url" else value for name, value in message.items()}


async def _shows_jobs(world: World, look: Look) -> None:
    rows = await world.rows("""
        SELECT id::text, kafka_partition, kafka_offset, 'transcribed' AS outcome FROM transcriptions UNION ALL
        SELECT id::text, kafka_partition, kafka_offset, error_class FROM failures WHERE error_class <> 'bad_message'
    """)
    lines = look.page.get_by_role("table", name="The last that ended").locator("tbody tr")
    shown = {
        (await line.locator("a").get_attribute("title"), *(await line.locator("td").all_inner_texts())[1:3])
        for line in await lines.all()
    }
    assert shown == {
        (row["id"], f"{world.topic}/{row['kafka_partition']}/{row['kafka_offset']}", row["outcome"]) for row in rows
    }


async def _shows_numbers(world: World, look: Look) -> None:
    await look.page.get_by_role("link", name="Overview").click()
    await expect(look.page.get_by_role("heading", level=1)).to_have_text("Overview")
    failures = await world.rows("SELECT error_class, count(*) AS n FROM failures GROUP BY 1")
    table = look.page.get_by_role("table", name="Failures by class").locator("tbody tr")
    await expect(table).to_have_count(len(failures))
    shown = [tuple(text.split("\t")) for text in await table.all_inner_texts()]
    assert sorted(shown) == sorted((row["error_class"], str(row["n"])) for row in failures)
    committed = look.page.get_by_role("table", name="Partitions").locator('td[data-label="Committed"]')
    await expect(committed.filter(has_text="6")).to_have_count(1)  # one key, and so one partition
    windows = await world.rows("SELECT sum(jsonb_array_length(timings->'windows')) AS n FROM transcriptions")
    served = await look.page.locator('td[data-label="Windows"]').all_inner_texts()
    assert sum(map(int, served)) == windows[0]["n"]
    stages = await look.page.get_by_role("table", name="Stages").locator("tbody tr td:first-child").all_inner_texts()
    assert stages == [
        *("fetch", "wait for a decoder", "decode and VAD", "transcribe", "write", "wait to be tried again"),
    ]
    assert await look.page.get_by_role("table", name="Providers").locator("tbody tr").count() == 1
    assert await look.page.get_by_role("img", name="Jobs").locator("path.line").count() == 2


async def _shows_failures(world: World, look: Look) -> None:
    await look.page.get_by_role("link", name="Failures").click()
    await look.give_token()
    (row,) = await world.rows("SELECT id::text, reason, audio_url FROM failures WHERE error_class = 'not_found'")
    example = look.page.get_by_role("region", name="not_found (1)").locator("li")
    await expect(example).to_contain_text(row["reason"])
    await expect(example).to_contain_text(row["audio_url"])
    assert await example.locator("a").get_attribute("href") == f"#/jobs/{row['id']}"


async def _shows_a_job(world: World, look: Look) -> None:
    (row,) = await world.rows("SELECT * FROM transcriptions WHERE job_id = 'long'")
    segments = await world.rows(
        "SELECT text FROM transcript_segments WHERE transcription_id = $1 ORDER BY segment_index", row["id"]
    )
    await look.page.evaluate("location.hash = '#/jobs/long'")  # by the message's own id, as it may be known from a log
    await expect(look.page.locator(".segments li")).to_have_count(len(segments))
    assert await look.said(".segments .text") == [each["text"].strip() for each in segments]
    facts = dict(zip(await look.said(".facts dt"), await look.said(".facts dd"), strict=True))
    assert facts["URL"] == row["audio_url"]
    assert facts["Record"] == f"{world.topic}/{row['kafka_partition']}/{row['kafka_offset']}"
    assert facts["Provider"] == f"{row['provider']}, model {row['model']}"
    steps = look.page.locator("details", has_text="Waterfall as a table")
    await steps.locator("summary").click()
    shown = [tuple(text.split("\t")) for text in await steps.locator("tbody tr").all_inner_texts()]
    windows = _windows(row)
    assert [(name, slot) for name, _, _, _, slot, _, _ in shown if name.startswith("window")] == windows
    others = [each[0] for each in shown if not each[0].startswith("window")]
    assert others == [
        *("download", "waits for a decoder", "decode and VAD", "transcribe", "write the row", "offset committed"),
    ]
    for suffix in ("srt", "json"):
        async with look.page.expect_download() as download:
            await look.page.get_by_role("button", name=suffix, exact=True).click()
        content = Path(await (await download.value).path()).read_text()
        assert segments[0]["text"].strip() in content


def _windows(row: dict[str, Any]) -> list[tuple[str, str]]:
    windows = sorted(json.loads(row["timings"])["windows"], key=lambda window: window["start"])
    return [(f"window {each['index']}", f"slot {each['slot']}") for each in windows]


async def _plays_a_recording(look: Look) -> None:
    await look.page.get_by_role("button", name="Load the recording").click()
    audio = look.page.locator("audio")
    await expect(audio).to_be_visible()
    await look.page.wait_for_function("() => document.querySelector('audio').duration > 60")
    last = look.page.locator(".segments li").last
    await last.get_by_role("button").click()
    await expect(last).to_have_attribute("aria-current", "true")  # the text follows
    await audio.evaluate("(audio) => audio.pause()")


async def _finds_what_was_said(world: World, look: Look) -> None:
    (row,) = await world.rows("SELECT id::text, text FROM transcriptions WHERE job_id = 'short 2'")
    word = max(row["text"].strip(".").split(), key=len)
    await look.page.get_by_role("link", name="Search").click()
    await look.page.get_by_label("Words").fill(word)
    await look.page.keyboard.press("Enter")
    found = look.page.locator(".examples li", has=look.page.locator(f'a[title="{row["id"]}"]'))
    await expect(found.locator("mark").first).to_have_text(word, ignore_case=True)


async def _gives_recordings(world: World, look: Look) -> None:
    rows = {row["job_id"]: row["id"] for row in await world.rows("SELECT job_id, id FROM transcriptions")}
    rows |= {row["job_id"]: row["id"] for row in await world.rows("SELECT job_id, id FROM failures")}
    async with aiohttp.ClientSession(look.url, headers=BEARER) as session:
        async with session.get(f"/page/jobs/{rows['short 2']}/audio", headers={"Range": "bytes=0-3"}) as part:
            assert (part.status, part.content_type, await part.read()) == (206, "audio/ogg", b"OggS")
            assert part.headers["Content-Security-Policy"].startswith("sandbox")
            assert part.headers["X-Content-Type-Options"] == "nosniff"
        async with session.get(f"/page/jobs/{rows['short 3']}/audio") as whole:
            assert await whole.read() == (AUDIO / "en-03.ogg").read_bytes()
        async with session.get(f"/page/jobs/{rows['gone']}/audio") as gone:
            assert gone.status == 404
            assert "404" in (await gone.json())["detail"]
        async with session.get("/page/jobs/00000000-0000-0000-0000-000000000000/audio") as nobody:
            assert nobody.status == 404
        async with session.get(f"/page/jobs/{rows['short 2']}/audio", headers={"Authorization": ""}) as nobody:
            assert nobody.status == 401


async def _is_accessible(look: Look) -> None:
    page = look.page
    for name in ("Overview", "Jobs", "Failures", "Search", "Audit log"):
        await page.get_by_role("link", name=name, exact=True).click()
        await expect(page.get_by_role("heading", level=1)).to_have_text(name)
        if name in _LOADED:
            await expect(page.locator("main")).to_contain_text(_LOADED[name])
        await _judged(page, name)
    await page.evaluate("location.hash = '#/jobs/long'")
    await expect(page.locator(".segments li").first).to_be_visible()
    await _judged(page, "a job")
    await page.get_by_role("button", name="Pause intake").click()
    await expect(page.get_by_role("dialog")).to_be_visible()
    await _judged(page, "a question")
    await page.keyboard.press("Escape")


async def _judged(page: Page, name: str) -> None:
    """Fail when axe has a complaint, or something must be scrolled sideways; in all four looks."""
    for width, scheme in ((1280, "light"), (400, "dark"), (400, "light"), (1280, "dark")):
        await page.set_viewport_size({"width": width, "height": 900})
        await page.emulate_media(color_scheme="light" if scheme == "light" else "dark")
        overflow = await page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert overflow <= 0, f"{name} at {width}"
        found = await Axe().run(page)
        assert len(found.response["passes"]) > 10  # it did look
        assert found.violations_count == 0, f"{name}, {width}, {scheme}: {found.generate_report()}"
    await page.set_viewport_size({"width": 1280, "height": 900})
    await page.emulate_media(color_scheme="light")


async def _make_screenshots(world: World, look: Look) -> None:
    """Write what the README shows, of a daemon that has something to do."""
    SCREENSHOTS.mkdir(exist_ok=True)
    page = look.page
    await page.set_viewport_size({"width": 1280, "height": 1250})
    await page.evaluate("location.hash = '#/jobs/long'")
    await expect(page.locator(".segments li").first).to_be_visible()
    await page.get_by_role("button", name="Load the recording").click()
    await page.locator(".segments li").nth(3).get_by_role("button").click()
    await page.evaluate("scrollTo(0, 0)")
    await _shot(page, "job")
    await page.get_by_role("link", name="Overview").click()
    for _ in range(45):
        await world.submit(*(_at(world, {"audio_url": f"/en-0{each}.ogg"}) for each in range(2, 7)))
        await world.submit(*(_at(world, LONG) for _ in range(2)))
        await asyncio.sleep(2)
    await expect(page.locator(".state.busy").first).to_be_visible()
    await _shot(page, "overview")
    await page.get_by_role("link", name="Jobs").click()
    await page.set_viewport_size({"width": 1280, "height": 800})
    await _shot(page, "jobs")
    await page.get_by_role("link", name="Overview").click()
    await page.set_viewport_size({"width": 400, "height": 860})
    await page.emulate_media(color_scheme="dark")
    await _shot(page, "narrow-dark")


async def _shot(page: Page, name: str) -> None:
    await asyncio.sleep(0.5)  # for the charts to have their new width
    shot = Image.open(BytesIO(await page.screenshot()))
    shot.convert("RGB").quantize(128).save(SCREENSHOTS / f"{name}.png", optimize=True)
