import aiohttp
import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped] # it ships no annotations

from tests.daemon.conftest import World

pytestmark = pytest.mark.services

TOKEN = "canary-of-the-admin-endpoint"


async def test_other_machines_need_the_token_and_get_what_is_described(world: World) -> None:
    async with (
        world.daemon(admin__host="0.0.0.0", admin__token=TOKEN) as daemon,
        aiohttp.ClientSession(f"http://127.0.0.1:{daemon.port}") as session,
    ):
        for path in ("/status", "/metrics", "/openapi.json"):
            async with session.get(path) as answer:
                assert answer.status == 401
        async with session.get("/readyz") as answer:
            assert answer.status == 200
        bearer = {"Authorization": f"Bearer {TOKEN}"}
        async with session.get("/openapi.json", headers=bearer) as answer:
            components = (await answer.json())["components"]
        async with session.get("/status", headers=bearer) as answer:
            status = await answer.json()
        schema = {"$ref": "#/components/schemas/Status", "components": components}
        Draft202012Validator(schema).validate(status)
        assert status["partitions"]
        assert status["slots"]
    assert TOKEN not in daemon.log.read_text()
