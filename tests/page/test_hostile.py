"""The corpus of hostile messages, and what attacks pages, shown by the page: as text, and as nothing else."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest
from playwright.async_api import Browser, expect

from tests.corpus import messages, own_messages
from tests.corpus.case import Case
from tests.corpus.programme import open_place
from tests.daemon.conftest import World
from tests.page.conftest import TOKEN, Look, looking
from tests.services.state import Services

pytestmark = pytest.mark.services

MAX_BYTES = 300_000  # longer ones say nothing more
MARKUP = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "\"><svg onload=alert(1)><a href='",
    "</textarea></title></style><iframe srcdoc='<script>parent.alert(1)</script>'>",
    "javascript:alert(1)//",
    "{{constructor.constructor('alert(1)')()}} ${alert(1)} #{alert(1)} <%= alert(1) %>",
    "<math><mi xlink:href='data:x,<script>alert(1)</script>'></math><base href=//evil.example>",
    "<form action=//evil.example><input autofocus onfocus=alert(1)><button formaction=javascript:alert(1)>",
    "__proto__ constructor toString",
    "&lt;b&gt; &#x3C;script&#x3E; %3Cscript%3E \\u003cscript\\u003e",
    "\u202ealert(1)\u202c \u2028\u2029 a\u0301\u0327\U0001f469\u200d\U0001f4bb",
    "'; DROP TABLE failures; --",
)
_INJECTED = (
    "script:not([src='/page/app.js']), img, iframe, object, embed, base, style, math, textarea, [onload], [onerror]"
)
# What reaches the rows only when something before them let it through, and what strangers say anyway.
_SPOIL = (
    "UPDATE failures SET reason = $2, job_id = $2, audio_url = $2, topic = $2, error_class = $2 WHERE id = $1",
    """UPDATE transcriptions SET text = $2, job_id = $2, audio_url = $2, tenant = $2, language = $2, provider = $2,
    model = $2, metadata = jsonb_build_object($2::text, $2::text) WHERE id = $1""",
    "UPDATE transcript_segments SET text = $2, speaker = $2 WHERE transcription_id = $1",
)


async def test_hostile_text_is_text(services: Services, world: World, browser: Browser, tmp_path: Path) -> None:
    async with open_place(services, tmp_path / "place") as place:
        cases = [each async for each in _replayed([*messages.cases(place), *own_messages.cases(place)])]
        assert len(cases) > 60
        ports = [int(world.web.rsplit(":", 1)[1]), place.web.port]
        async with (
            world.daemon(admin__token=TOKEN, fetch__allowed_ports=ports, pipeline__attempts=1) as daemon,
            looking(browser, daemon) as look,
        ):
            marked = [{"audio_url": text, "id": text, "tenant": text} for text in MARKUP]
            await world.submit(*(each.value for each in cases), *marked)
            await world.until_finished(len(cases) + len(MARKUP), 90)
            await _looks_at_all(world, look)
            await _looks_at_spoilt_rows(world, look)
            assert look.trouble == []
            await _policy_holds(look)


async def _replayed(cases: list[Case]) -> AsyncIterator[Case]:
    for each in cases:
        told_by_value_alone = each.lane == "doors" and not each.headers and each.timestamp_ms is None
        if told_by_value_alone and not each.slow and each.outcomes == 1 and len(each.value or b"") < MAX_BYTES:
            yield each


async def _looks_at_all(world: World, look: Look) -> None:
    await look.go_with_token("failures")
    await expect(look.page.locator(".examples li").first).to_be_visible()
    await _is_harmless(look)
    rows = await world.rows("""
        SELECT id::text, job_id FROM transcriptions WHERE job_id IS NOT NULL
        UNION ALL SELECT id::text, job_id FROM failures WHERE job_id IS NOT NULL
    """)
    assert len(rows) > len(MARKUP)
    for row in rows:
        await look.page.evaluate("(job) => { location.hash = '#/jobs/' + encodeURIComponent(job) }", row["id"])
        await expect(look.page.get_by_role("heading", name="Waterfall")).to_be_visible()
        assert row["job_id"] in (await look.page.locator(".facts").text_content() or "")
    await _is_harmless(look)
    await look.page.evaluate("location.hash = '#/jobs/twice'")
    await expect(look.page.get_by_text("Several messages have this id")).to_be_visible()
    assert await look.page.locator("main li a").count() == 2
    for text in MARKUP:  # as ids in the address
        await look.page.evaluate("(job) => { location.hash = '#/jobs/' + encodeURIComponent(job) }", text)
        await expect(look.page.get_by_role("heading", name="Waterfall")).to_be_visible()
        assert await look.page.locator("h1").text_content() == f"Job {text}"
        await _is_harmless(look)


async def _looks_at_spoilt_rows(world: World, look: Look) -> None:
    jobs = await world.rows("SELECT id FROM transcriptions WHERE text <> '' LIMIT $1", len(MARKUP))
    failed = await world.rows("SELECT id FROM failures ORDER BY created_at DESC LIMIT $1", len(MARKUP))
    connection = await asyncpg.connect(world.database)
    for rows in (jobs, failed):
        for row, text in zip(rows, MARKUP, strict=False):
            for statement in _SPOIL:
                await connection.execute(statement, row["id"], text)
    await connection.close()
    assert len(jobs) > 3
    for row, text in zip(jobs, MARKUP, strict=False):
        await look.page.evaluate("(job) => { location.hash = '#/jobs/' + job }", str(row["id"]))
        line = look.page.locator(".segments .text").first
        await expect(line).to_be_visible()
        assert await line.text_content() == f"{text}: {text.strip()}"
        await _is_harmless(look)
    await look.page.get_by_role("link", name="Failures").click()
    heads = look.page.locator("h2")
    await expect(heads.filter(has_text=MARKUP[4])).to_have_count(1)
    shown = json.dumps([await each.text_content() for each in await heads.all()])
    assert all(json.dumps(text)[1:-1] in shown for text in MARKUP)
    await _is_harmless(look)


async def _is_harmless(look: Look) -> None:
    """Nothing was made of any text, nothing was kept from being made, and nobody was asked but the daemon."""
    assert await look.page.locator(_INJECTED).count() == 0
    assert await look.violations() == []
    asked = await look.page.evaluate("performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert all(name.startswith(f"{look.url}/") for name in asked)


async def _policy_holds(look: Look) -> None:
    """Were there a hole in the page, the policy would still be there."""
    with pytest.raises(Exception, match="TrustedHTML"):
        await look.page.evaluate("document.body.innerHTML = '<img src=x onerror=alert(1)>'")
    await look.page.evaluate("""() => {
        const image = document.createElement("img");
        image.src = "https://evil.example/pixel";
        document.body.append(image);
        fetch("https://evil.example/").catch(() => null);
    }""")
    await look.page.wait_for_function("() => reports.length > 2")  # no bare expression: the policy forbids eval
    assert {each.split(" ")[0] for each in await look.violations()} >= {"img-src", "connect-src"}
