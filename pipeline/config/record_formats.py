"""Formats whose records are translated: Avro, Protobuf, line protocol."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from pipeline.config.field_types import ConfigModel, Secret


class SchemaRegistry(ConfigModel):
    """A schema registry with the interface of Confluent's."""

    url: str = Field(description="address, such as http://registry:8081", pattern=r"^https?://\S+$")
    username: str | None = Field(None, description="user of the basic authentication")
    password: Secret | None = Field(None, description="its password")
    ca: Path | None = Field(None, description="certificate of the authority that signed that of the registry")

    @model_validator(mode="after")
    def _both(self) -> SchemaRegistry:
        if (self.username is None) != (self.password is None):
            raise ValueError("give username and password, or neither")
        return self


class SchemaSource(ConfigModel):
    """Source of the schemas of records; exactly one of the keys."""

    schema_file: Path | None = Field(
        None,
        description="file with the schema: .avsc for Avro, a set of descriptors (protoc -o) for Protobuf",
    )
    registry: SchemaRegistry | None = Field(
        None, description="schema registry; each record begins with the id of its schema"
    )

    @model_validator(mode="after")
    def _one_schema(self) -> SchemaSource:
        if (self.schema_file is None) == (self.registry is None):
            raise ValueError("give exactly one of schema_file and registry")
        return self


Precision = Literal["s", "ms", "us", "ns"]
