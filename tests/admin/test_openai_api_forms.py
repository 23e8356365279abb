"""Forms that the API takes, and those that it refuses."""

import io
import random
from collections.abc import AsyncIterator

import pytest

from tests.admin.asking import END, FILE, HEADERS, PATH, asking, counted, field, head
from tests.admin.serving import BEARER, raw, rejected
from tests.admin.speaking import Told


class TestFields:
    @pytest.mark.parametrize(
        ("fields", "status", "code", "param", "said"),
        [
            ({"model": "gpt-9"}, 404, "model_not_found", "model", "'gpt-9' is none of those that are there (demo"),
            ({"language": "english"}, 400, "invalid_value", "language", "did you mean 'en'?"),
            ({"response_format": "xml"}, 400, "invalid_value", "response_format", "'xml'"),
            ({"temperature": "2"}, 400, "invalid_value", "temperature", "less than or equal to 1"),
            ({"temperature": "nan"}, 400, "invalid_value", "temperature", "temperature: "),
            ({"beam_size": "17"}, 400, "invalid_value", "beam_size", "less than or equal to 16"),
            ({"stream": "perhaps"}, 400, "invalid_value", "stream", "'perhaps'"),
            ({"chunking_strategy": "none"}, 400, "invalid_value", "chunking_strategy", "'auto'"),
            ({"prompt": "a\0b"}, 400, "invalid_value", "prompt", "NUL"),
            ({"prompt": "x" * 5000}, 400, "invalid_value", "prompt", "4096"),
            ({"timestamp_granularities[]": "word"}, 400, "invalid_value", None, "needs response_format verbose_json"),
            ({"stream": "true", "response_format": "srt"}, 400, "invalid_value", None, "needs response_format json"),
            ({"language": "en", "languages[]": "vi"}, 400, "invalid_value", None, "leave one out"),
            ({"languge": "en"}, 400, "unknown_parameter", None, "did you mean language"),
            ({"model[]": "demo"}, 400, "unknown_parameter", None, "unknown field 'model[]'"),
            ({"include[]": "logprobs"}, 400, "unknown_parameter", None, "unknown field 'include[]'"),
        ],
    )
    async def test_a_wrong_one_is_named(
        self, told: Told, *, fields: dict[str, str], status: int, code: str, param: str | None, said: str
    ) -> None:
        before = counted("refused")
        body = FILE + b"".join(field(name, value) for name, value in fields.items()) + END
        async with asking(told) as session, session.post(PATH, data=body, headers=HEADERS) as answer:
            error = (await answer.json())["error"]
            assert (answer.status, error["code"], error["param"]) == (status, code, param)
            assert error["type"] == "invalid_request_error"
            assert said in error["message"]
        assert (told.asked, told.files) == ([], [])
        assert counted("refused") == before + 1

    async def test_an_empty_one_is_as_good_as_none_and_brackets_may_be_left_out(self, told: Told) -> None:
        told.go.set()
        fields = {"language": "", "model": "", "timestamp_granularities": "word", "response_format": "verbose_json"}
        body = b"".join(field(name, value) for name, value in fields.items()) + FILE + END
        async with asking(told) as session, session.post(PATH, data=body, headers=HEADERS) as answer:
            assert answer.status == 200
        (asked,) = told.asked
        assert (asked.model, asked.options.language, asked.options.word_timestamps) == (None, None, True)
        assert told.heard == [b"sound"]

    async def test_one_that_is_no_text_or_there_twice_is_refused(self, told: Told) -> None:
        async with asking(told) as session:
            for more, said in (
                (field("prompt", "x").replace(b"x\r", b"\xff\r"), "prompt: is not UTF-8"),
                (field("model", "demo") * 2, "model: is there 2 times"),
                (FILE, "file: is there twice"),
                (field("keywords[]", "x") * 200, "more than 200 fields"),
                (field("keywords[]", "x" * 200) * 30, "keywords[] may have 4096 characters in all"),
            ):
                async with session.post(PATH, data=FILE + more + END, headers=HEADERS) as answer:
                    assert answer.status == 400
                    assert said in (await answer.json())["error"]["message"]
        assert told.files == []


class TestBodies:
    @pytest.mark.parametrize(
        ("body", "said"),
        [
            (END, "file: is missing"),
            (field("model", "demo") + END, "file: is missing"),
            (b"", "not valid multipart"),
            (b"--other\r\n\r\n--other--\r\n", "not valid multipart"),
            (FILE, "not valid multipart"),
            (FILE.replace(b'; name="file"', b"") + END, "each part is a field with a name"),
            (b"--frontier\r\nContent-Disposition: form-data; name", "each part is a field with a name"),
            (b"--frontier\r\n" + b"X: y\r\n" * 1000 + b"\r\n" + END, "not valid multipart"),
            (b"--frontier\r\n" + b"X" * 200_000 + END, "not valid multipart"),
            (b"--frontier\r\nContent-Type: multipart/mixed; boundary=x\r\n\r\n--x--\r\n" + END, "each part is a field"),
        ],
    )
    async def test_what_is_no_form_is_refused(self, told: Told, body: bytes, said: str) -> None:
        async with asking(told) as session, session.post(PATH, data=body, headers=HEADERS) as answer:
            assert answer.status == 400
            assert said in (await answer.json())["error"]["message"]
        assert (told.asked, told.files) == ([], [])

    @pytest.mark.parametrize(
        "disposition",
        [
            'form-data; name="file"; filename="a call.wav"',
            'form-data; filename="name=x; name=y"; name="file"',
            "form-data; name=file; filename*=UTF-8''%E1%BB%87.wav",
            'form-data; name="file"; filename="a \\"call\\".wav"; size=5;',
            'form-data;name="file";filename="\u1ec7.wav"',
        ],
    )
    async def test_clients_write_heads_of_parts_in_many_ways(self, told: Told, disposition: str) -> None:
        told.go.set()
        before, rest = FILE.split(b"form-data", 1)
        body = before + disposition.encode() + rest[rest.index(b"\r") :] + END
        async with asking(told) as session, session.post(PATH, data=body, headers=HEADERS) as answer:
            assert answer.status == 200
        assert told.heard == [b"sound"]

    @pytest.mark.parametrize(
        "disposition",
        [
            "form-data",
            "",
            "attachment; name=file",
            "form-data; name=file; name=file",
            'form-data; name="file',
            "form-data; name",
        ],
    )
    async def test_a_head_that_names_no_field_is_refused(self, told: Told, disposition: str) -> None:
        before, rest = FILE.split(b"form-data", 1)
        body = before + disposition.encode() + rest[rest.index(b"\r") :] + END
        async with asking(told) as session, session.post(PATH, data=body, headers=HEADERS) as answer:
            assert answer.status == 400
            assert "each part is a field with a name" in (await answer.json())["error"]["message"]

    @pytest.mark.parametrize("kind", ["application/json", "text/plain", "multipart/mixed; boundary=frontier"])
    async def test_other_kinds_are_refused(self, told: Told, kind: str) -> None:
        headers = {**BEARER, "Content-Type": kind}
        async with asking(told) as session, session.post(PATH, data=FILE + END, headers=headers) as answer:
            assert answer.status == 415
            assert "multipart/form-data" in (await answer.json())["error"]["message"]

    async def test_a_form_without_a_boundary_is_refused(self, told: Told) -> None:
        headers = {**BEARER, "Content-Type": "multipart/form-data"}
        async with asking(told) as session, session.post(PATH, data=FILE + END, headers=headers) as answer:
            assert answer.status == 400

    @pytest.mark.parametrize("seed", range(30))
    async def test_damaged_forms_are_refused_or_taken_and_leave_nothing(self, told: Told, seed: int) -> None:
        chance, told_body = (
            random.Random(seed),
            bytearray(field("model", "demo") + FILE + field("stream", "false") + END),
        )
        told.go.set()
        async with asking(told) as session:
            for _ in range(20):
                body = bytearray(told_body)
                for _ in range(chance.randint(1, 4)):
                    at = chance.randrange(len(body))
                    match chance.randrange(3):
                        case 0:
                            body[at] = chance.randrange(256)
                        case 1:
                            del body[at : at + chance.randint(1, 30)]
                        case _:
                            body[at:at] = body[: chance.randrange(len(body))]
                async with session.post(PATH, data=bytes(body), headers=HEADERS) as answer:
                    assert answer.status in {200, 400, 404}, bytes(body)
        assert told.files == []

    async def test_a_long_recording_is_refused_announced_or_not(self, told: Told) -> None:
        async def chunks() -> AsyncIterator[bytes]:
            yield FILE.removesuffix(b"\r\n")
            for _ in range(100):
                yield b"x" * 10_000
            yield b"\r\n" + END

        before = rejected("body")
        async with asking(told, {"max_body_bytes": 1000}, max_bytes=50_000) as session:
            whole = b"".join([each async for each in chunks()])
            for data in (whole, chunks()):
                async with session.post(PATH, data=data, headers=HEADERS) as answer:
                    error = (await answer.json())["error"]
                    assert (answer.status, error["code"], error["param"]) == (413, "too_large", "file")
                    assert "api.max_bytes" in error["message"]
            async with session.post(PATH, data=FILE + field("prompt", "x" * 1001) + END, headers=HEADERS) as answer:
                assert answer.status == 413
                assert "admin.max_body_bytes" in (await answer.json())["error"]["message"]
        assert rejected("body") == before + 3
        assert (told.asked, told.files) == ([], [])

    async def test_one_of_the_longest_that_may_be_is_taken(self, told: Told) -> None:
        told.go.set()
        sound = random.Random(1).randbytes(5_000_000)
        async with asking(told, max_bytes=len(sound)) as session:
            body = FILE.replace(b"sound", sound) + END
            async with session.post(PATH, data=io.BytesIO(body), headers=HEADERS) as answer:
                assert answer.status == 200
        assert told.heard == [sound]
        assert told.asked[0].audio.size_bytes == len(sound)

    async def test_who_stops_sending_is_not_waited_for(self, told: Told) -> None:
        before = rejected("slow")
        async with asking(told, {"request_seconds": 0.3}) as session:
            answer = await raw(session, head(1000) + FILE)
            assert answer.startswith(b"HTTP/1.1 408 ")
            assert b"admin.request_seconds" in answer
        assert rejected("slow") == before + 1
        assert told.files == []

    async def test_who_waits_to_be_invited_sends_nothing_to_a_refusal(self, told: Told) -> None:
        told.go.set()
        expecting = b"Expect: 100-continue\r\n"
        async with asking(told) as session:
            body = FILE + END
            invited = await raw(session, head(len(body), expecting + b"Connection: close\r\n"), body)
            assert invited.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")
            wrong = head(len(body), expecting).replace(b"Bearer a", b"Bearer b")
            assert (await raw(session, wrong)).startswith(b"HTTP/1.1 401 ")
            assert (await raw(session, head(10**9, expecting))).startswith(b"HTTP/1.1 413 ")
            assert (await raw(session, head(len(body), b"Expect: luck\r\n"))).startswith(b"HTTP/1.1 417 ")
        assert len(told.asked) == 1
