"""Requests made from the OpenAPI document, to a real server: no error, and answers as described.

A run takes about 20 s: each operation gets some requests that fit the document and some that do not.
The long one sends many more, in three to four minutes at a load of two:
``python -m pytest -q -m long tests/contract/test_openapi.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import quote

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, assume, given, settings
from schemathesis.checks import load_all_checks
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from pipeline.api.app import build_app
from storage.results import anomalies
from storage.sql.database import Database
from tests.support.alerting import RouterBench, anomaly
from tests.support.api_servers import Site, served

load_all_checks()

REQUESTS_PER_OPERATION = 6
REQUESTS_OF_A_LONG_RUN = 100
#: The HTTP server closes the connection of a request line of 64 KiB, before any route sees it.
MAX_ADDRESS = 60_000
LIMITS = {"requests_per_minute": 1_000_000, "failures_per_minute": 1_000_000}
#: Rules that no schema states are refused with 422, such as an end in the past. Of a repeated parameter the
#: last one counts.
EXCLUDED = [positive_data_acceptance, negative_data_rejection]
#: Answers without an end.
STREAMS = ("/events",)
SCHEMA = schemathesis.openapi.from_dict(build_app().openapi())
OPERATIONS = {
    f"{one.ok().method.upper()} {one.ok().path}": one.ok()
    for one in SCHEMA.get_all_operations()
    if one.ok().path not in STREAMS
}


@pytest.fixture(scope="module")
def site(tmp_path_factory, sqlite_template) -> Iterator[Site]:
    """A server with an alert."""
    folder = tmp_path_factory.mktemp("openapi")
    (folder / "forewatch.db").write_bytes(sqlite_template.read_bytes())
    database = Database(f"sqlite:///{folder}/forewatch.db")
    bench = RouterBench(database)
    with database.begin() as connection:
        anomalies.upsert(connection, [anomaly()])
    bench.happen(anomaly())
    bench.settle()
    with served(database, folder, LIMITS) as running:
        yield running
    database.close()


@pytest.fixture(scope="module")
def headers(site: Site) -> dict[str, str]:
    return {"Authorization": f"Bearer {site.key('admin')}"}


def send(site: Site, headers: dict[str, str], case_of, requests: int) -> None:
    """Send requests, the same ones in every run, and check the answers."""

    @settings(
        max_examples=requests,
        deadline=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
        derandomize=True,
        database=None,
    )
    @given(case=case_of)
    def answers(case) -> None:
        assume(len(quote(f"{case.query} {case.path_parameters}")) < MAX_ADDRESS)
        case.call_and_validate(
            base_url=f"{site.url}/api/v1",
            headers=headers,
            excluded_checks=EXCLUDED,
        )

    answers()


MODES = pytest.mark.parametrize(
    "mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=lambda mode: mode.value
)


@pytest.mark.parametrize("name", sorted(OPERATIONS))
@MODES
def test_every_operation_answers_as_the_document_says(site, headers, name, mode):
    send(site, headers, OPERATIONS[name].as_strategy(generation_mode=mode), REQUESTS_PER_OPERATION)


@pytest.mark.long
@pytest.mark.parametrize("name", sorted(OPERATIONS))
@MODES
def test_many_requests_to_every_operation(site, headers, name, mode):
    send(site, headers, OPERATIONS[name].as_strategy(generation_mode=mode), REQUESTS_OF_A_LONG_RUN)
