import asyncio

import asyncpg
import pytest

from v2td.errors import ServiceError
from v2td.store.faults import Verdict, connecting, describe, explain, explained, server_of, verdict


def postgres_error(sqlstate: str, **fields: str) -> asyncpg.PostgresError:
    codes = {"constraint_name": "n", "table_name": "t", "detail": "D", "message": "M"}
    wire = {"C": sqlstate, "S": "ERROR", **{codes[name]: value for name, value in fields.items()}}
    error: asyncpg.PostgresError = asyncpg.PostgresError.new(wire)
    return error


@pytest.mark.parametrize(
    ("sqlstates", "expected"),
    [
        (("08000", "08006", "53100", "53300", "57P01", "57P02", "57P03", "40001", "40P01"), Verdict.RETRY),
        (("57014", "25006", "55P03", "58030", "XX000", "99999"), Verdict.RETRY),  # no rule names them
        (("22003", "22021", "22P02", "23502", "23505", "54000", "54001"), Verdict.BAD_ROW),
        (("28000", "28P01", "3D000", "42501", "42P01", "42703"), Verdict.STOP),
        (("23514",), Verdict.NO_PARTITION),
    ],
)
def test_sqlstates(sqlstates: tuple[str, ...], expected: Verdict) -> None:
    assert {sqlstate: verdict(postgres_error(sqlstate)) for sqlstate in sqlstates} == dict.fromkeys(sqlstates, expected)


def test_a_check_that_somebody_made_is_the_rows_fault() -> None:
    assert verdict(postgres_error("23514", constraint_name="no_swearing")) is Verdict.BAD_ROW


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ConnectionRefusedError(111, "refused"), Verdict.RETRY),
        (TimeoutError(), Verdict.RETRY),
        (asyncpg.InterfaceError("connection is closed"), Verdict.RETRY),
        (UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed"), Verdict.BAD_ROW),
        (OverflowError("value out of int64 range"), Verdict.BAD_ROW),
        (RecursionError(), Verdict.BAD_ROW),
        (asyncpg.exceptions.ClientConfigurationError("invalid DSN"), Verdict.STOP),
        (KeyError("a bug"), None),
        (asyncio.CancelledError(), None),
    ],
)
def test_errors_of_the_client(error: BaseException, expected: Verdict | None) -> None:
    assert verdict(error) is expected


def test_a_description_leaves_out_the_row() -> None:
    error = postgres_error("23502", message="null value", detail="Failing row contains (secret)")
    assert describe(error) == "null value (SQLSTATE 23502)"


@pytest.mark.parametrize(
    ("error", "hint"),
    [
        (postgres_error("28P01"), "password"),
        (postgres_error("3D000"), "create the database"),
        (postgres_error("42501"), "needs the right"),
        (postgres_error("42P01"), "v2td db upgrade"),
        (ConnectionRefusedError(111, "refused"), "is Postgres running"),
    ],
)
def test_every_fault_has_its_cure(error: Exception, hint: str) -> None:
    assert hint in explain("write", error).hint


def test_other_errors_pass() -> None:
    with pytest.raises(KeyError), explained("look"):
        raise KeyError("a bug")


@pytest.mark.parametrize("dsn", ["postgresql://v2td:hun/ter2@host/db", "hunter2://v2td@host/db"])
async def test_a_bad_dsn_is_told_in_our_words(dsn: str) -> None:
    with pytest.raises(ServiceError, match=r"cannot be read.*%XX") as caught, connecting(server_of(dsn)):
        await asyncpg.connect(dsn, timeout=5)
    assert "hun" not in str(caught.value)


@pytest.mark.parametrize(
    ("dsn", "server"),
    [
        ("postgresql://v2td:secret@db.example:5433/v2td?sslmode=require", "db.example:5433/v2td"),
        ("postgres:///v2td?host=/run/postgresql", "/v2td"),
        ("postgresql://v2td:hun/ter2@host/db", ""),
        ("nonsense", ""),
    ],
)
def test_the_server_is_named_and_nothing_secret(dsn: str, server: str) -> None:
    assert server_of(dsn) == server
