"""Transcription on demand, as OpenAI's API has it: what is uploaded is answered with its text, and kept nowhere."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from typing import Any
from uuid import uuid4

import structlog
from aiohttp import web

from v2td.admin.connections import Connection
from v2td.admin.form import Form, parse
from v2td.admin.openai_shapes import API_SHAPES, ERROR, MODEL_ANSWER, MODELS_ANSWER, TEXT_ANSWER
from v2td.admin.refusals import RefusedError, busy, of_job, of_service, refusal, unavailable
from v2td.admin.renderings import MEDIA_TYPES, render
from v2td.admin.routes import Access, Route, json_answer
from v2td.admin.sse import Events
from v2td.admin.transcriptions import Transcriber, Upload
from v2td.admin.uploads import FORM, Uploads
from v2td.config import AdminSettings, ApiSettings
from v2td.errors import ErrorClass, JobError, ServiceError
from v2td.jobs import Task, Transcript
from v2td.logs import get_logger
from v2td.metrics import API_REQUESTS

log = get_logger(__name__)

REQUEST_ID = "x-request-id"


class OpenAIApi:
    """The API's operations; `ready` says why nothing can be transcribed now."""

    def __init__(
        self, transcriber: Transcriber, ready: Callable[[], str | None], api: ApiSettings, admin: AdminSettings
    ) -> None:
        self._transcriber = transcriber
        self._ready = ready
        self._api = api
        self._admin = admin
        self._uploads = Uploads(transcriber, api, admin)
        self._under_way = 0
        self._since = int(time.time())
        self._stopped = False
        self._limits: set[asyncio.Timeout] = set()

    def routes(self) -> Sequence[Route]:
        """Return all there is."""
        common: dict[str, Any] = {"shapes": (*API_SHAPES, Form), "error": ERROR, "refuse": refusal}
        body = {"required": True, "content": {FORM: {"schema": {"$ref": f"#/components/schemas/{Form.__name__}"}}}}
        name = {"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}
        return (
            Route(
                *("POST", "/v1/audio/transcriptions", Access.TOKEN, self._transcriptions, "Transcribe a recording"),
                *(TEXT_ANSWER, body),
                **common,
            ),
            Route(
                *("POST", "/v1/audio/translations", Access.TOKEN, self._translations, "Say in English what is said"),
                *(TEXT_ANSWER, body),
                **common,
            ),
            Route(
                *("GET", "/v1/models", Access.TOKEN, self._models, "Models that can be asked for", MODELS_ANSWER),
                **common,
            ),
            Route(
                *("GET", "/v1/models/{model}", Access.TOKEN, self._one_model, "One of them", MODEL_ANSWER),
                parameters=(name,),
                **common,
            ),
        )

    def stop(self) -> None:
        """Tell whoever waits that this daemon ends: another one, or this one later, may do it."""
        self._stopped = True
        for limit in self._limits:
            with suppress(RuntimeError):  # its time is over just now
                limit.reschedule(0)

    async def _transcriptions(self, request: web.Request) -> web.StreamResponse:
        return await self._answer(request, "transcribe")

    async def _translations(self, request: web.Request) -> web.StreamResponse:
        return await self._answer(request, "translate")

    async def _models(self, _request: web.Request) -> web.StreamResponse:
        return json_answer({"object": "list", "data": [self._model(each) for each in self._transcriber.models()]})

    async def _one_model(self, request: web.Request) -> web.StreamResponse:
        try:
            known = parse({"model": [request.match_info["model"]]}).known_model(self._transcriber.models())
        except RefusedError as error:
            return error.answer()
        assert known is not None  # a path has no empty part
        return json_answer(self._model(known))

    def _model(self, name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": self._since, "owned_by": "v2td"}

    async def _answer(self, request: web.Request, task: Task) -> web.StreamResponse:
        number = uuid4().hex  # OpenAI's client tells it, the log has it
        with structlog.contextvars.bound_contextvars(request=number):
            answer: web.StreamResponse
            try:
                with self._place(request):
                    answer = await self._answer_in_time(request, task, number)
            except RefusedError as error:
                log.info("not transcribed on demand", status=error.status, **error.error)
                answer = error.answer()
            if not answer.prepared:
                answer.headers[REQUEST_ID] = number
            return answer

    @contextmanager
    def _place(self, request: web.Request) -> Iterator[None]:
        """Hold one of the places while the block runs, and count how it ends; raises RefusedError without one."""
        result = "failed"  # whatever else may come: a client that goes away, too
        connection = request.protocol
        assert isinstance(connection, Connection)
        if "Expect" not in request.headers:  # who waits to be invited sends nothing to a refusal
            connection.linger(self._admin.request_seconds)
        try:
            if (reason := self._ready()) is not None:
                raise unavailable(f"not ready: {reason}")
            if self._under_way >= self._api.concurrency:
                raise busy(f"{self._under_way} requests are under way already (api.concurrency)")
            self._under_way += 1
            connection.work = asyncio.current_task()
            try:
                yield
            finally:
                connection.work = None
                self._under_way -= 1
            result = "ok"
        except RefusedError as error:
            result = error.result
            raise
        finally:
            API_REQUESTS.labels(result).inc()

    async def _answer_in_time(self, request: web.Request, task: Task, number: str) -> web.StreamResponse:
        deadline = asyncio.get_running_loop().time() + self._api.request_seconds
        async with AsyncExitStack() as stack:
            with _as_refusals():
                async with self._in_time(deadline):
                    audio, form = await stack.enter_async_context(self._uploads.received(request))
                upload = Upload(audio, form.options(task), form.known_model(self._transcriber.models()))
            if form.stream:
                events = Events(request, self._admin.request_seconds, {REQUEST_ID: number})
                return await events.send(lambda on_text: self._transcribe(replace(upload, on_text=on_text), deadline))
            transcript = await self._transcribe(upload, deadline)
        wanted = form.response_format
        return web.Response(
            text=render(transcript, wanted, form.timestamp_granularities),
            content_type=MEDIA_TYPES[wanted],
            charset="utf-8",
        )

    async def _transcribe(self, upload: Upload, deadline: float) -> Transcript:
        """Return what is said; `deadline` is the loop's time. Raises RefusedError only."""
        with _as_refusals():
            async with self._in_time(deadline):
                return _logged(await self._transcriber.transcribe(upload))

    @asynccontextmanager
    async def _in_time(self, deadline: float) -> AsyncIterator[None]:
        """End the block at the deadline, or when this daemon ends, by a RefusedError."""
        if self._stopped:
            raise unavailable("stopping", "failed")
        limit = asyncio.timeout_at(deadline)
        self._limits.add(limit)
        try:
            async with limit:
                yield
        except TimeoutError:
            if not limit.expired():
                raise
            raise self._out_of_time() from None
        finally:
            self._limits.discard(limit)

    def _out_of_time(self) -> RefusedError:
        if self._stopped:
            return unavailable("stopping", "failed")
        return of_job(JobError(ErrorClass.TIMEOUT, "not done within api.request_seconds"))


def _logged(transcript: Transcript) -> Transcript:
    log.info(
        "transcribed on demand",
        audio_seconds=round(transcript.audio_seconds, 2),
        seconds=round(transcript.duration_seconds, 2),
        language=transcript.language,
        segments=len(transcript.segments),
        provider=transcript.provider,
    )
    return transcript


@contextmanager
def _as_refusals() -> Iterator[None]:
    """Turn whatever goes wrong into what the client is told of it."""
    try:
        yield
    except RefusedError:
        raise
    except JobError as error:
        raise of_job(error) from None
    except ServiceError as error:
        log.error("transcription on demand", error=str(error))
        raise of_service(error) from None
    except Exception as error:
        log.exception("transcription on demand")
        raise RefusedError(500, "see the daemon's log", result="failed") from error
