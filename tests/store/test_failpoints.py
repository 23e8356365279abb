"""The places at which tests/chaos kills the daemon are where they say: an error there leaves what a death would."""

from collections.abc import Callable, Iterator

import pytest

from tests.store.conftest import Writing
from tests.store.outcomes import coordinates, failure, transcript
from tests.store.test_writer import counts, write_all
from v2td import failpoints
from v2td.jobs import Replay
from v2td.store import Database, WindowRow, batch, ensure_partitions, save_windows, unfinished
from v2td.store.connection import Connection
from v2td.store.rows import rows_of

PLACES = ("write.begin", "write.copied", "write.committed")

Arm = Callable[[str], None]


@pytest.fixture
def arm(monkeypatch: pytest.MonkeyPatch) -> Iterator[Arm]:
    def set_variable(words: str) -> None:
        monkeypatch.setenv(failpoints.VARIABLE, words)
        failpoints.arm()

    yield set_variable
    monkeypatch.delenv(failpoints.VARIABLE)
    failpoints.arm()


@pytest.mark.parametrize("place", PLACES)
async def test_only_what_is_committed_stays(place: str, arm: Arm, store: Database, sql: Connection) -> None:
    await ensure_partitions(sql, 0)
    await save_windows(store, [WindowRow(coordinates(1), 0, "ab", {})])
    arm(f"{place}=raise")
    with pytest.raises(failpoints.FailpointError):
        async with store.raw() as connection:
            await batch.insert(connection, [rows_of(transcript(1)), rows_of(failure(2))])
    committed = place == "write.committed"
    assert await counts(sql) == ((1, 2, 1) if committed else (0, 0, 0))
    assert bool((await unfinished(store)).windows) != committed


@pytest.mark.parametrize("place", PLACES)
async def test_what_is_tried_again_is_there_once(place: str, arm: Arm, writing: Writing, sql: Connection) -> None:
    """`full` is an OSError, which the writer takes for trouble that passes: at write.committed, a lost answer."""
    async with writing() as writer:
        await writer.write(failure(9))
        await sql.execute("UPDATE failures SET replay_state = 'requested'")
        arm(f"{place}=full")
        again = transcript(9, job={"replay": Replay(coordinates(1, topic="replays"))})
        await write_all(writer, transcript(1), failure(2), again)
    assert await counts(sql) == (2, 4, 1)
    assert await sql.fetchval("SELECT count(*) FROM replays") == 1
