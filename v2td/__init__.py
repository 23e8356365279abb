"""v2td: recordings named in Kafka become transcripts in Postgres."""

import os

# onnxruntime (the VAD) sends telemetry home by default from 1.29 on; recordings are nobody's business.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.1.0"
