"""Further inputs of the kinds that users reported, each read right without an answer, or asked about.

They were found by trying 188 invented inputs (docs/lab-notes/data.md).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.errors import InputError
from pipeline.services.config_wizard import import_file
from tests.unit.services.test_exports import ROWS, at, epoch, iso, value
from tests.unit.services.test_siblings import MEAN, Sibling, check_sibling, lines, parquet, table

SHARE_ON = 0.4
FAR = 15_000


def switched(off: str, on: str) -> Callable[[int], str]:
    return lambda i: on if i % 10 > 5 else off


def limited(i: int) -> float:
    return 25.0 if i in (3, 9) else value(i)


def without(dropped: int) -> float:
    kept = [value(i) for i in range(ROWS) if i % 9 != dropped]
    return sum(kept) / len(kept)


MISSING_MEAN = without(4)
NUMBERS: dict[str, tuple[Callable[[int], object], float]] = {
    "2.0D+01 of Fortran": (lambda i: f"{value(i):.4E}".replace("E", "D"), MEAN),
    "Arabic digits": (
        lambda i: f"{value(i):.2f}".translate(str.maketrans("0123456789.", "٠١٢٣٤٥٦٧٨٩٫")),
        MEAN,
    ),
    "digits of full width": (
        lambda i: f"{value(i):.2f}".translate(str.maketrans("0123456789.", "０１２３４５６７８９．")),
        MEAN,
    ),
    "'20.1 of a spreadsheet": (lambda i: f"'{value(i)}", MEAN),
    "formula of a spreadsheet": (lambda i: f'"=""{value(i)}"""', MEAN),
    "20.1 (est.)": (lambda i: f"{value(i)} (est.)" if i % 5 == 0 else value(i), MEAN),
    "2_000_000": (lambda i: f"{round(100_000 * value(i)):_}", 100_000 * MEAN),
    "eight words for none": (
        lambda i: (
            ["k.A.", ":", "#N/A N/A", "***", "Err", "..", "N/V", "x"][i // 9] if i % 9 == 4 else value(i)
        ),
        MISSING_MEAN,
    ),
    "~20.1": (lambda i: f"~{value(i)}" if i % 7 == 0 else value(i), MEAN),
    "beyond the range: >25": (
        lambda i: ">25" if i in (3, 9) else value(i),
        sum(map(limited, range(ROWS))) / ROWS,
    ),
    "1e31 for none": (lambda i: "1e+31" if i % 9 == 4 else value(i), MISSING_MEAN),
    "-999.25 for none": (lambda i: "-999.25" if i % 9 == 4 else value(i), MISSING_MEAN),
    "-8888 for none": (lambda i: "-8888" if i % 9 == 4 else value(i), MISSING_MEAN),
    "ON and OFF": (switched("OFF", "ON"), SHARE_ON),
    "true and false": (switched("false", "true"), SHARE_ON),
    "closed and open": (switched("closed", "open"), SHARE_ON),
}
TIMES: dict[str, Callable[[int], str]] = {
    "dashes in the clock": lambda i: f"{at(i):%Y-%m-%d_%H-%M-%S}",
    "17 digits": lambda i: f"{at(i):%Y%m%d%H%M%S}000",
    "14 de marzo de 2026": lambda i: f"14 de marzo de 2026 {at(i):%H:%M}",
    "Sa 14.03.2026": lambda i: f"Sa 14.03.2026 {at(i):%H:%M}",
    "Sat 03/14/2026": lambda i: f"Sat 03/14/2026 {at(i):%H:%M}",
    "March 14 2026 at 1:05 PM": lambda i: f"March 14 2026 at {at(i):%I:%M %p}",
    "14MAR2026:13:05:00 of SAS": lambda i: f"{at(i):%d%b%Y:%H:%M:%S}".upper(),
    "formula of a spreadsheet": lambda i: f'="{at(i):%Y-%m-%d %H:%M}"',
    "offset with a minus sign": lambda i: f"{at(i - 300):%Y-%m-%dT%H:%M:%S}−05:00",
    "13時05分": lambda i: f"{at(i):%Y年%m月%d日 %H時%M分}",
    "오후 1:05": lambda i: f"{at(i):%Y-%m-%d} {'오전' if at(i).hour < 12 else '오후'} {at(i):%I:%M}",
    "13h05": lambda i: f"14/03/2026 {at(i):%H}h{at(i):%M}",
    "(UTC)": lambda i: f"{at(i):%Y-%m-%d %H:%M:%S} (UTC)",
    "a date of JavaScript": lambda i: (
        f"{at(i) + timedelta(hours=1):%a %b %d %Y %H:%M:%S} GMT+0100 (Central European Standard Time)"
    ),
    "an interval of an energy market": lambda i: (
        f"{at(i + 60):%d.%m.%Y %H:%M} - {at(i + 61):%d.%m.%Y %H:%M} (CET)"
    ),
    "an interval of ISO 8601": lambda i: f"{iso(i)}/{iso(i + 1)}",
    "in quotes": lambda i: f"'{iso(i)}'",
    "Mar 14, 2026 @ of Kibana": lambda i: f'"{at(i):%b %d, %Y @ %H:%M:%S.000}"',
    "+0100 CET of Go": lambda i: f"{at(i + 60):%Y-%m-%d %H:%M:%S} +0100 CET",
    "both clocks of Go": lambda i: f"{at(i):%Y-%m-%d %H:%M:%S}.123 +0000 UTC m=+{i}.5",
    "2026/03/14-13:05": lambda i: f"{at(i):%Y/%m/%d-%H:%M:%S}",
    "days of MATLAB": lambda i: f"{740_055 + i / 1440:.9f}",
    "Julian days": lambda i: f"{2_461_113.5 + i / 1440:.9f}",
    "modified Julian days": lambda i: f"{61_113 + i / 1440:.9f}",
}
SHAPES = {
    "a field like the path of the samples (USGS)": Sibling(
        "usgs.json",
        json.dumps(
            {
                "value": {
                    "timeSeries": [
                        {
                            "sourceInfo": {"siteName": f"river {k}"},
                            "values": [
                                {"value": [{"value": str(value(i)), "dateTime": iso(i)} for i in range(ROWS)]}
                            ],
                        }
                        for k in (0, 1)
                    ]
                }
            }
        ),
        series=2,
        points=2 * ROWS,
    ),
    "numbers by their time (OpenTSDB)": Sibling(
        "tsdb.json",
        json.dumps(
            [
                {
                    "metric": "load",
                    "tags": {"host": h},
                    "dps": {str(epoch(i)): value(i) for i in range(ROWS)},
                }
                for h in "ab"
            ]
        ),
        series=2,
        points=2 * ROWS,
    ),
    "arrays in arrays, a line each": Sibling(
        "aa.jsonl",
        lines(lambda i: [[{"id": k, "t": epoch(i), "v": value(i)}] for k in "ab"]),
        series=2,
        points=2 * ROWS,
    ),
    "a time around the samples and one of each": Sibling(
        "batch.jsonl",
        lines(
            lambda j: {
                "ts": epoch(10 * j + 10),
                "dev": "a",
                "m": [{"t": epoch(10 * j + i), "v": value(10 * j + i)} for i in range(10)],
            },
            rows=ROWS // 10,
        ),
    ),
    "identifiers of digits and letters (Node-RED)": Sibling(
        "flow.jsonl",
        lines(
            lambda i: {"_msgid": f"{i:x}aa", "payload": value(i), "topic": "temp", "ts": str(1000 * epoch(i))}
        ),
    ),
    "a switch alone": Sibling(
        "pump.jsonl", lines(lambda i: {"id": "a", "t": epoch(i), "pump": i % 10 > 5}), mean=SHARE_ON
    ),
    "SenML with base names": Sibling(
        "pack.jsonl",
        lines(
            lambda i: [
                {"bn": "urn:a:", "bt": epoch(i), "bu": "Cel", "n": "temp", "v": value(i)},
                {"n": "hum", "u": "%RH", "v": value(i)},
            ]
        ),
        series=2,
        points=2 * ROWS,
    ),
    "SenML with base times": Sibling(
        "pack.json",
        json.dumps(
            [{"bn": "a", "bt": epoch(0), "bv": 20, "v": value(0) - 20}]
            + [{"t": 60 * i, "v": value(i) - 20} for i in range(1, ROWS)]
        ),
    ),
}
FILES = {
    "a text over lines in each row": Sibling(
        "note.csv", table("time,note,v", lambda i: f'{iso(i)},"first\n2nd, {i}",{value(i)}')
    ),
    "a name over lines": Sibling(
        "name.csv", 'Logger 5" pipe\ntime,"value\n(°C)"\n' + lines(lambda i: f"{iso(i)},{value(i)}")
    ),
    "rows above the header as wide as it": Sibling(
        "pre.csv", "Station;Halle\nSerial;1234\n\n" + table("t;v", lambda i: f"{iso(i)};{value(i)}")
    ),
    "rows without empty columns at the end": Sibling(
        "short.csv", table("t,v,note", lambda i: f"{iso(i)},{value(i)}{',ok' if i % 3 else ''}")
    ),
    "a year, a day of it and an hour": Sibling(
        "doy.csv",
        table("year,doy,hour,v", lambda i: f"2026,{73 + i // 24},{i % 24},{value(i)}"),
        step=3600,
    ),
    "times in UTC beside local ones": Sibling(
        "utc.csv", table("local_time,utc_time,v", lambda i: f"{at(i + 60)},{iso(i)},{value(i)}")
    ),
    "prices with decimal commas and a volume in thousands": Sibling(
        "bars.csv",
        table("Datum;Volumen;Schluss", lambda i: f"{at(i)};1.{100 + i};{str(value(i)).replace('.', ',')}"),
    ),
}


@pytest.mark.parametrize("name", [*SHAPES, *FILES])
def test_a_sibling_is_read_right(tmp_path: Path, name: str) -> None:
    check_sibling(tmp_path, (SHAPES | FILES)[name])


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_is_read_right(tmp_path: Path, name: str) -> None:
    spelled, mean = NUMBERS[name]
    check_sibling(tmp_path, Sibling("n.csv", table("t,v", lambda i: f"{iso(i)},{spelled(i)}"), mean=mean))


@pytest.mark.parametrize("name", TIMES)
def test_a_time_is_read_right(tmp_path: Path, name: str) -> None:
    check_sibling(tmp_path, Sibling("t.csv", table("time,v", lambda i: f"{TIMES[name](i)},{value(i)}")))


LARGE = {
    "big.csv": lambda: table("t,place,v", lambda i: f"{iso(i % 3000)},hall {i // 3000},{value(i)}", FAR),
    "big.jsonl": lambda: lines(lambda i: {"t": iso(i % 3000), "place": f"hall {i // 3000}", "v": 1.5}, FAR),
    "big.parquet": lambda: parquet(
        {
            "t": [iso(i % 3000) for i in range(FAR)],
            "place": [f"hall {i // 3000}" for i in range(FAR)],
            "v": [value(i) for i in range(FAR)],
        }
    ),
}


@pytest.mark.parametrize("file", LARGE)
def test_a_label_that_changes_late_in_a_file_is_seen(tmp_path: Path, file: str) -> None:
    check_sibling(tmp_path, Sibling(file, LARGE[file](), series=5, points=FAR, mean=None))


def seconds_since(year: int, month: int = 1, day: int = 1) -> Callable[[int], float]:
    """Return times of the last days, in seconds from a date."""
    began = datetime(year, month, day, tzinfo=UTC)
    now = datetime.now(UTC).replace(microsecond=0)
    return lambda i: (now - timedelta(days=30, minutes=-i) - began).total_seconds()


@pytest.mark.parametrize(
    ("unit", "began"),
    [("gps", (1980, 1, 6)), ("since_1904", (1904,)), ("since_2000", (2000,)), ("since_2001", (2001,))],
)
def test_seconds_from_another_moment_are_asked_about(tmp_path: Path, unit: str, began: Any) -> None:
    seconds = seconds_since(*began)
    (tmp_path / "a.csv").write_text(table("time,v", lambda i: f"{seconds(i):.0f},{value(i)}"))
    _, options = import_file(tmp_path / "a.csv", {}).guess.questions["time_unit"]
    assert unit in options
    found = import_file(tmp_path / "a.csv", {"time_unit": unit})
    assert found.probe is not None
    assert found.probe.decoded == ROWS
    newest = datetime.fromtimestamp(found.probe.samples[0].time_ns / 1e9, UTC)
    assert timedelta(days=29) < datetime.now(UTC) - newest < timedelta(days=31)


def test_a_point_of_thousands_or_of_decimals_is_asked_about(tmp_path: Path) -> None:
    wanted = Sibling("a.csv", table("t;v", lambda i: f"{iso(i)};{20 + i % 7}.{100 + i}"), mean=None)
    (tmp_path / "a.csv").write_text(str(wanted.content))
    assert import_file(tmp_path / "a.csv", {}).guess.questions["thousands"][1] == [".", "none"]
    form = check_sibling(tmp_path, wanted, {"thousands": "."}).format.chosen
    assert (form.thousands, form.decimal) == (".", ",")
    assert check_sibling(tmp_path, wanted, {"thousands": "none"}).format.chosen.decimal == "."


def test_an_encoding_that_is_not_known_is_asked_about(tmp_path: Path) -> None:
    wanted = Sibling("a.csv", table("時刻,温度", lambda i: f"{iso(i)},{value(i)}").encode("cp932"))
    (tmp_path / "a.csv").write_bytes(bytes(wanted.content))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="--set encoding="):
        import_file(tmp_path / "a.csv", {})
    check_sibling(tmp_path, wanted, {"encoding": "cp932", "time": "時刻"})


@pytest.mark.parametrize(("name", "content"), [("unit_of", "kWh"), ("hint", "Good"), ("note", "by hand")])
def test_a_constant_word_that_is_no_name(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / "a.csv").write_text(table(f"t,v,{name}", lambda i: f"{iso(i)},{value(i)},{content}"))
    assert "series" not in import_file(tmp_path / "a.csv", {}).guess.form


def test_the_number_of_a_row_and_the_place_of_a_station_are_no_values(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(table(",t,v,lat,lon", lambda i: f"{i},{iso(i)},{value(i)},50.1,7.5"))
    assert import_file(tmp_path / "a.csv", {}).guess.form["values"] == ["v"]


def test_a_switch_beside_numbers_is_neither_value_nor_label(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(
        table("t,v,pump", lambda i: f"{iso(i)},{value(i)},{switched('off', 'on')(i)}")
    )
    found = import_file(tmp_path / "a.csv", {}).guess
    assert (found.form["values"], found.form.get("series")) == (["v"], None)


def test_versions_and_other_forms_of_the_time_are_neither_values_nor_labels(tmp_path: Path) -> None:
    buckets = [
        {
            "key_as_string": iso(i),
            "key": 1000 * epoch(i),
            "temp": {"value": value(i)},
            "specversion": "1.0",
            "app_version": "v2",
        }
        for i in range(ROWS)
    ]
    (tmp_path / "a.json").write_text(json.dumps({"buckets": buckets}))
    form = import_file(tmp_path / "a.json", {}).guess.form
    assert (form["time"], form["values"]) == ("key_as_string", {"value": "temp.value"})
    assert not form.get("series")


def test_two_scales_in_one_column_are_asked_about(tmp_path: Path) -> None:
    content = table("t,v", lambda i: f"{iso(i)},{value(i)}{'°C' if i % 2 else '°F'}")
    (tmp_path / "a.csv").write_text(content)
    assert "°C, °F" in import_file(tmp_path / "a.csv", {}).guess.questions["units"][0]
    check_sibling(tmp_path, Sibling("a.csv", content), {"units": "°C,°F"})
