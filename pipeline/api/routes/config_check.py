"""Check of a config before it is put into force."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import Request
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool

from pipeline.access.scopes import NotPermitted
from pipeline.api.context import Context
from pipeline.api.direct_answers import api_router
from pipeline.config.loader import config_of_text
from pipeline.config.yaml_file import ConfigFileError
from pipeline.core.errors import InputError
from pipeline.jobs.config_warnings import config_warnings

router = api_router(tags=["operations"])

_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/yaml": {
                "schema": {"type": "string"},
                "example": "streams: {plant: {preset: sensor}}",
            }
        },
    }
}


class ConfigProblem(BaseModel):
    """One error of a config."""

    line: int = Field(description="line of the text, from 1; 0 for the whole text")
    key: str = Field(examples=["streams.plant.preset"])
    what: str
    remedy: str


class ConfigCheck(BaseModel):
    """Result of a check; with warnings a config is valid."""

    valid: bool
    problems: list[ConfigProblem]
    warnings: list[str]


@router.post("/config/check", openapi_extra=_BODY)
async def check_config(context: Context, request: Request) -> ConfigCheck:
    """Check a config, the YAML of the body; nothing is put into force.

    The errors and warnings are those of `forewatch check`. Files that it names are looked for beside the
    config in force, so only an administrator who sees all streams may ask.
    """
    if context.visible is not None:
        raise NotPermitted("a key of some streams cannot check a config of all")
    try:
        text = (await request.body()).decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"byte {error.start} of the config is not UTF-8; send it as UTF-8") from None
    return await run_in_threadpool(_check, context.config.file or Path("forewatch.yaml"), text)


def _check(file: Path, text: str) -> ConfigCheck:
    try:
        config = config_of_text(file, text)
    except ConfigFileError as error:
        problems: list[Any] = [problem.as_dict() for problem in error.problems]
        return ConfigCheck(valid=False, problems=problems, warnings=[])
    return ConfigCheck(valid=True, problems=[], warnings=config_warnings(config))
