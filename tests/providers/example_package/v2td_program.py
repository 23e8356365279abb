import asyncio
import os
import shutil
from asyncio.subprocess import PIPE
from collections.abc import Mapping

from v2td.errors import ProviderFailedError
from v2td.jobs import Heard, Segment
from v2td.providers import Capabilities, Recording


class Program:
    """Runs a program of yours, which is given a recording and prints `start<TAB>end<TAB>text` for each segment."""

    concurrency = 2  # jobs at once
    capabilities = Capabilities()  # transcribes, in any language; no words, no channels, no translation

    def __init__(self, name: str, options: Mapping[str, str]) -> None:
        self.name = name
        self.model = options.get("model", "program")
        self._program = options["program"]
        self._seconds = float(options.get("seconds", "600"))
        self.fingerprint = f"{self._program} {self.model}"  # what changes the text

    async def __aenter__(self) -> object:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def health(self) -> str | None:
        return None if shutil.which(self._program) else f"{self._program} is not there"

    async def transcribe(self, recording: Recording) -> Heard:
        without_secrets = {"PATH": os.defpath}
        process = await asyncio.create_subprocess_exec(
            self._program, recording.audio.path, stdout=PIPE, env=without_secrets
        )
        try:
            async with asyncio.timeout(self._seconds):
                printed, _ = await process.communicate()
        except TimeoutError:
            raise ProviderFailedError(f"the program took longer than {self._seconds:g} s") from None
        finally:
            if process.returncode is None:  # too late, or nobody waits for it any more
                process.kill()
                await process.wait()
        if process.returncode != 0:
            raise ProviderFailedError(f"the program ended with {process.returncode}")
        lines = [line.split("\t") for line in printed.decode().splitlines()]
        segments = tuple(Segment(float(start), float(end), text, 0, 0, 0, 0) for start, end, text in lines)
        return Heard(segments, (), recording.options.language, None, self.model)
