"""CPU time of a batch that meets series whose states are in the database.

    python -m benchmarks.returning_series [--series 10000] [--detector standard]

The states of silent series are stored one by one, as a snapshot stores them. Then a scorer without series
loads all of them, as it does before it scores the first batch in which they come again.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time

import numpy as np

from pipeline.config.schema import Config
from pipeline.core.types import Partition
from pipeline.database import open_database
from pipeline.engine.offloaded_state import OffloadedSeries, states_of
from pipeline.models.champion import champion_of
from pipeline.scoring.stream_scorer import StreamScorer
from storage.stream_state import offloaded_series

PARTITION = Partition("plant", 0)
LIMIT_SECONDS = 1.0


def main() -> None:
    """Run the benchmark of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--series", type=int, default=10_000)
    parser.add_argument("--detector", default="standard")
    options = parser.parse_args()
    stream = {
        "source": {"files": {"paths": ["points.csv"]}},
        "format": {"csv": {"series": "sensor", "time": "ts", "values": "temperature"}},
        "detector": options.detector,
    }
    with tempfile.TemporaryDirectory() as folder:
        config = Config.model_validate({"database": f"sqlite:///{folder}/f.db", "streams": {"plant": stream}})
        with open_database(config) as database:
            champion = champion_of(database, "plant", config.streams["plant"])

            def scorer(offloaded: OffloadedSeries | None = None) -> StreamScorer:
                load = (lambda partition, first_ns: []) if offloaded is None else offloaded.restore
                return StreamScorer(champion.provenance, config.streams["plant"], champion.detector, load)

            first, keys = scorer(), {f"sensor-{n:06d}": n for n in range(options.series)}
            slots = first.add_series(PARTITION, keys)
            began = time.process_time()
            states = list(states_of(first, slots))
            taken = time.process_time() - began
            with database.begin() as connection:
                offloaded_series.store(connection, "plant", PARTITION, states)
            second = scorer(OffloadedSeries(database, "plant"))
            began = time.process_time()
            found = second.add_series(PARTITION, keys)
            loaded = time.process_time() - began
            seen = second.series.state["windows"]["last_time"][found]
            assert np.array_equal(seen, first.series.state["windows"]["last_time"][slots])
    print(
        f"{options.series:,} series of {options.detector}: stored in {taken:.2f} s of CPU, "
        f"loaded in {loaded:.2f} s; "
        f"limit {LIMIT_SECONDS:g} s"
    )
    print(json.dumps({"benchmark": "returning_series", **vars(options), "store_s": taken, "load_s": loaded}))


if __name__ == "__main__":
    main()
