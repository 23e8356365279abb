"""Remote tiers of MinIO: what `mc ilm tier add` does, without mc."""

from __future__ import annotations

import hashlib
import json
import os

import aiohttp
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tests.services import minio
from tests.services.errors import ServiceError

_PBKDF2_AES_GCM = b"\x02"  # the one of MinIO's three ciphers that takes nothing but hashlib and AES
_ROUNDS = 8192


async def add(server: minio.Server, name: str, *, endpoint: str, access_key: str, secret_key: str, bucket: str) -> None:
    """Lets ``server`` move objects to a bucket of another S3 server, by the name of a tier.  Raises ServiceError."""
    remote = {"Endpoint": endpoint, "AccessKey": access_key, "SecretKey": secret_key, "Bucket": bucket}
    tier = {"Version": "v1", "Type": "minio", "Name": name, "MinIO": remote}
    body = _encrypted(json.dumps(tier).encode(), server.secret_key)
    request = AWSRequest("PUT", f"{server.endpoint}/minio/admin/v3/tier?force=false", data=body)
    S3SigV4Auth(Credentials(server.access_key, server.secret_key), "s3", minio.REGION).add_auth(request)
    async with (
        aiohttp.ClientSession() as session,
        session.put(request.url, data=body, headers=dict(request.headers.items())) as answer,
    ):
        if answer.status not in (200, 204):
            raise ServiceError(f"MinIO refused the tier {name}: {answer.status} {await answer.text()}")


def _encrypted(content: bytes, password: str) -> bytes:
    """As madmin-go's EncryptData, for contents of up to 16 KiB: the admin API takes no secrets in the clear."""
    salt, nonce = os.urandom(32), os.urandom(8)
    cipher = AESGCM(hashlib.pbkdf2_hmac("sha256", password.encode(), salt, _ROUNDS, 32))
    # sio-go: each fragment's nonce ends with its number, from 1 on; 0 seals the associated data, 0x80 marks the last.
    associated = b"\x80" + cipher.encrypt(nonce + bytes(4), b"", b"")
    sealed = cipher.encrypt(nonce + (1).to_bytes(4, "little"), content, associated)
    return salt + _PBKDF2_AES_GCM + nonce + sealed
