"""The HTTP endpoint for machines: /metrics, /livez, /readyz, /status, and its description /openapi.json.

In: questions over HTTP, on loopback or a Unix socket unless told otherwise. Out: what the daemon's `View` says. Blocks
on nothing.
"""

from v2td.admin.debug_api import CannotTellError, DebugApi, Form, Profile
from v2td.admin.jobs_api import JobsApi
from v2td.admin.openai import OpenAIApi
from v2td.admin.page_api import PageApi
from v2td.admin.pages import Unplayable
from v2td.admin.routes import Table, View
from v2td.admin.server import serve
from v2td.admin.transcriptions import Receiving, Transcriber, Upload

__all__ = [
    "CannotTellError",
    "DebugApi",
    "Form",
    "JobsApi",
    "OpenAIApi",
    "PageApi",
    "Profile",
    "Receiving",
    "Table",
    "Transcriber",
    "Unplayable",
    "Upload",
    "View",
    "serve",
]
