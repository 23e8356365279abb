"""Search in what the writer wrote: by each language's rules, with and without accents, in pages."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.store.conftest import Writing
from tests.store.outcomes import coordinates, segment, transcript
from v2td.errors import ServiceError
from v2td.jobs import Redo, Replay, SourceRecord
from v2td.store import Database, redos, search
from v2td.store.connection import Connection
from v2td.store.redos import Wish
from v2td.store.search import InvalidSearchError

SAID = {
    1: ("en", "The trains were running late.", "Good morning everyone."),
    2: ("vi", "Xin chào các bạn", "đường phố Hà Nội rất đẹp"),
    3: ("vi", "Tôi ăn cháo mỗi sáng", "xin cảm ơn"),
    4: ("fr", "Les étudiants étudient", "bonjour"),
    5: ("ja", "東京の天気は晴れです。", "おはようございます"),
    6: (None, "zażółć gęślą jaźń", "running"),
    7: ("th", "สวัสดีครับ", "ขอบคุณ"),
}
# Who says what, in the numbers of SAID.
FOUND = {
    "run": [1],
    "running": [1, 6],
    "train late": [1],
    "train evening": [],
    '"good morning"': [1],
    '"morning good"': [],
    "morning -train": [],
    'morning -"train run"': [1],
    'morning -"train were"': [],
    '"train were" or "good evening"': [1],
    "bonjour or morning": [1, 4],
    "the": [1],
    "chào": [2],
    "CHÀO": [2],
    "cha\u0300o": [2],
    "chao": [2, 3],
    "duong pho ha noi": [2],
    '"hà nội"': [2],
    "xin": [2, 3],
    "étudiant": [4],
    "etudiants": [4],
    "zazolc": [6],
    "天気": [5],
    "気天": [],
    "おはよう": [5],
    '"東京" 晴れ': [5],
    "ขอบคุณ": [7],
    "' & | ! <-> :* \\ '; DROP TABLE transcriptions; run": [],
}


@pytest.fixture
async def said(store: Database, writing: Writing) -> Database:
    async with writing() as writer:
        for number, (language, *texts) in SAID.items():
            segments = tuple(segment(text, start=10.0 * index) for index, text in enumerate(texts))
            await writer.write(transcript(number, language=language, segments=segments))
    return store


async def found(store: Database, query: str, **where: Any) -> list[int]:
    page = await search.search(store, query, **where)
    numbers = sorted(int((each.job_id or "").removeprefix("job-")) for each in page.matches)
    ids = await search.matching(store, query, **{name: where[name] for name in where if name != "limit"})
    assert {each.id for each in page.matches} == set(ids)
    return numbers


async def test_who_says_it(said: Database) -> None:
    assert {query: await found(said, query) for query in FOUND} == FOUND
    assert await found(said, "running", language="en") == [1]
    assert await found(said, "chao", language="vi") == [2, 3]
    assert await found(said, "chao", language="en") == []


async def test_the_segment_that_says_it_and_the_words_in_it(said: Database) -> None:
    async def marked(query: str) -> list[tuple[float, str]]:
        (match,) = (await search.search(said, query)).matches
        told = []
        for passage in match.passages:
            text = passage.text
            for start, end in reversed(passage.marks):
                text = f"{text[:start]}[{text[start:end]}]{text[end:]}"
            told.append((passage.start_seconds, text))
        return told

    assert await marked("run train") == [(0.0, "The [trains] were [running] late.")]
    assert await marked("morning train") == [
        (0.0, "The [trains] were running late."),
        (10.0, "Good [morning] everyone."),
    ]
    assert await marked("ha noi") == [(10.0, "đường phố [Hà] [Nội] rất đẹp")]
    assert await marked("天気") == [(0.0, "東京の[天気]は晴れです。")]
    assert await marked("morning -evening") == [(10.0, "Good [morning] everyone.")]


async def test_pages_newest_first(said: Database, sql: Connection) -> None:
    await sql.execute("UPDATE transcriptions SET created_at = now() - kafka_offset / 2 * interval '1 hour'")
    query, numbers, cursor = "chao or run or bonjour or running or 天気", [], None
    while True:
        page = await search.search(said, query, limit=2, cursor=cursor)
        numbers += [int((each.job_id or "").removeprefix("job-")) for each in page.matches]
        if (cursor := page.cursor) is None:
            break
    assert sorted(numbers) == [1, 2, 3, 4, 5, 6], "some of them at the same time, none twice"
    assert [number // 2 for number in numbers] == [0, 1, 1, 2, 2, 3]
    now = datetime.now(UTC)
    assert await found(said, query, since=now - timedelta(minutes=90)) == [1, 2, 3]
    assert await found(said, query, until=now - timedelta(minutes=90)) == [4, 5, 6]


async def test_only_the_newest_revision_is_searched(said: Database, writing: Writing) -> None:
    first = transcript(1)
    record = SourceRecord(b"key", b"{}", ())
    await redos.note(said, None, None, [Wish(first.job.id, Replay.digest(record))])
    again = {"record": record, "replay": Replay(coordinates(99)), "redo": Redo(1, None)}
    async with writing() as writer:
        await writer.write(transcript(1, "trucks are here", job=again))
    assert await found(said, "train") == []
    assert await found(said, "truck") == [1]


async def test_what_cannot_be_searched_is_refused(store: Database) -> None:
    for query in ("", " ' - ! ", "a" * 1001, "\0"):
        with pytest.raises(InvalidSearchError):
            await search.search(store, query)
    for cursor in ("", "x", "!!", "é", "MjAyNi0wMS0wMSBh"):
        with pytest.raises(InvalidSearchError, match="cursor"):
            await search.search(store, "run", cursor=cursor)


async def test_much_is_not_searched_without_an_index(said: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "UNINDEXED_ROWS", 0)
    with pytest.raises(ServiceError, match="v2td db search-index"):
        await search.search(said, "run")
