"""Arguments that ``forewatch worker`` refuses before it connects."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from pipeline.cli.app import app
from pipeline.core.errors import InputError


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nonsense"], "is not an address of a Dask scheduler; write tcp://host:8786"),
        (["tls://host:8786"], "needs --tls-ca, --tls-cert and --tls-key"),
        (
            ["tcp://host:8786", "--tls-ca", "a", "--tls-cert", "b", "--tls-key", "c"],
            "any other takes none of them",
        ),
        (["tls://host:8786", "--tls-ca", "a", "--tls-cert", "b"], "needs --tls-ca"),
        (["tls://host:8786", "--tls-ca", "a", "--tls-cert", "b", "--tls-key", "c"], "there is no file a"),
    ],
)
def test_certificates_and_address_belong_together(words, message):
    done = CliRunner().invoke(app, ["worker", "--scheduler", *words])
    assert isinstance(done.exception, InputError)
    assert message in str(done.exception)


@pytest.mark.parametrize(
    "address", ["me:hunter2@host:8786", "tcp://hunter2@host:8786", "tcp://h:1?token=hunter2"]
)
def test_credentials_in_an_address_are_refused_and_not_shown(address):
    done = CliRunner().invoke(app, ["worker", "--scheduler", address])
    assert isinstance(done.exception, InputError)
    assert "hunter2" not in str(done.exception)
