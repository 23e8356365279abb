import asyncio
import json
import re
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from jsonschema import Draft202012Validator, ValidationError  # type: ignore[import-untyped] # it ships no annotations

from tests.admin.serving import BEARER, EXPOSED, STATUS, TOKEN, Daemon, served
from tests.admin.speaking import Told, api
from v2td.admin.routes import Access, routes
from v2td.fetch.spool import Spool


async def description(session: aiohttp.ClientSession) -> dict[str, Any]:
    async with session.get("/openapi.json", headers=BEARER) as answer:
        assert (answer.status, answer.content_type) == (200, "application/json")
        found: dict[str, Any] = await answer.json()
        return found


async def test_it_has_every_route_and_nothing_else(daemon: Daemon) -> None:
    async with served(daemon) as session:
        document = await description(session)
        assert document["openapi"] == "3.1.0"
        described = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
        served_routes = {(route.method, route.path) for route in routes(daemon.view())}
        assert described == served_routes | {("GET", "/openapi.json"), ("POST", "/echo")}
        for method, path in described:
            async with session.request(method, path) as answer:
                assert answer.status not in {404, 405}


@pytest.mark.parametrize(("exposed", "open_paths"), [(False, 5), (True, 2)])
async def test_it_says_where_the_token_is_asked_for(daemon: Daemon, exposed: bool, open_paths: int) -> None:
    async with served(daemon, **(EXPOSED if exposed else {})) as session:
        document = await description(session)
        found = 0
        for path, methods in document["paths"].items():
            for method, operation in methods.items():
                async with session.request(method, path) as answer:
                    assert (answer.status in {401, 403}) is (operation["security"] == [{"bearer": []}])
                    found += answer.status == 200
    assert found == open_paths


async def test_status_is_of_the_shape_that_is_described(daemon: Daemon) -> None:
    async with served(daemon) as session:
        document = await description(session)
    schema = {"$ref": "#/components/schemas/Status", "components": document["components"]}
    Draft202012Validator(schema).validate(STATUS)
    with pytest.raises(ValidationError):
        Draft202012Validator(schema).validate({**STATUS, "transcript": "what was said"})
    with pytest.raises(ValidationError):
        Draft202012Validator(schema).validate({name: STATUS[name] for name in STATUS if name != "slots"})


# In a form one value is a list of one, and nothing has a type: what schemathesis takes for wrong often is not. Its
# coverage phase stumbles over files where a schema has conditions.
FORMS = """
[[operations]]
include-method = "POST"
checks.negative_data_rejection.enabled = false
phases.coverage.enabled = false
"""


async def schemathesis(url: str, folder: Path, *options: str) -> str:
    """What it says of the server there; it must have found nothing."""
    async with aiohttp.ClientSession(url) as session:
        (folder / "openapi.json").write_text(json.dumps(await description(session)))
    process = await asyncio.create_subprocess_exec(
        *(Path(sys.executable).with_name("schemathesis"), "run", "openapi.json", "--url", url),
        *("--max-examples", "20", "--no-color", *options),
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    return output.decode()


@pytest.mark.slow
@pytest.mark.parametrize(("exposed", "token"), [(False, True), (True, False), (True, True)])
async def test_schemathesis_finds_nothing(daemon: Daemon, tmp_path: Path, exposed: bool, token: bool) -> None:
    """Requests that fit the description and requests that do not: the answers have to fit it either way."""
    given = EXPOSED if exposed else {"token": TOKEN}
    async with served(daemon, requests_per_second=10_000, **given) as session:
        said = await schemathesis(
            str(session._base_url), tmp_path, *(("-H", f"Authorization: Bearer {TOKEN}") if token else ())
        )
    assert int(re.findall(r"(\d+) generated", said)[0]) > 50, said


@pytest.mark.slow
async def test_schemathesis_finds_nothing_in_the_api(tmp_path: Path) -> None:
    (tmp_path / "schemathesis.toml").write_text(FORMS)
    with Spool(tmp_path) as spool:
        told = Told(spool)
        told.go.set()
        async with api(Daemon(transcriber=told), {"requests_per_second": 10_000}) as url:
            await schemathesis(url, tmp_path, "-H", f"Authorization: Bearer {TOKEN}")
    assert {each.options.task for each in told.asked} == {"transcribe", "translate"}
    assert len(told.asked) > 20


def test_access_is_told_apart() -> None:
    assert [access.asks_for_token(local=True) for access in Access] == [False, False, False, True]
    assert [access.asks_for_token(local=False) for access in Access] == [False, False, True, True]
