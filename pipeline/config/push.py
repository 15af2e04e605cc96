"""Configuration of sources that programs push to."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from pydantic import Field

from pipeline.config.field_types import ConfigModel, Duration, Secret


class PushSourceConfig(ConfigModel):
    """Records that programs send: POST http://host:port/push/STREAM, one a request."""

    host: str = Field("127.0.0.1", description="address to listen on; beyond loopback a key is needed")
    port: int = Field(
        9466, ge=0, le=65535, description="port; streams may share it, 0 takes a free port and logs it"
    )
    key: Secret | None = Field(
        None, description="key that senders give in the header `Authorization: Bearer KEY`"
    )
    max_body_bytes: int = Field(8 << 20, ge=1, le=1 << 30, description="largest body of a request")
    max_content_bytes: int = Field(
        64 << 20, ge=1, le=1 << 30, description="largest body of a request when it is unpacked"
    )
    spool: Path | None = Field(
        None,
        description="folder on a local disk that keeps what was received until it is scored "
        "(default: <database name>.spool/<stream>)",
    )
    spool_bytes: int = Field(
        1 << 30, ge=1 << 20, description="size of the spool above which senders get 429 and wait"
    )
    spool_keep: Duration = Field(
        timedelta(0), description="time for which records stay in the spool after they were scored"
    )
