"""Log lines as text: times in many spellings, lines that go on, and bad ones."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.schema import Stream
from pipeline.core.timestamps import parse_times
from pipeline.decode import make_decoder
from pipeline.decode.decoder import Decoded
from pipeline.decode.log_lines import goes_on, split_line
from pipeline.decode.log_templates import LogTemplates
from pipeline.sources.files.readers import make_reader
from tests.support.decoding import records, stream

#: Line → time and message; times without a year are of 2026.
LINES = {
    "2026-03-01 12:00:00,123 - INFO  [main] started": ("2026-03-01T12:00:00.123Z", "INFO|[main] started"),
    "2026-03-01T12:00:00.123456789Z stdout F it is up": (
        "2026-03-01T12:00:00.123456789Z",
        "stdout F it is up",
    ),
    "2026-03-01T12:00:00+01:00 host app[1]: y": ("2026-03-01T11:00:00Z", "host|app[1]: y"),
    "2026/03/01 12:00:00 http: server error": ("2026-03-01T12:00:00Z", "http: server error"),
    "[Sun Dec 04 04:47:44 2005] [notice] init() ok": ("2005-12-04T04:47:44Z", "[notice] init() ok"),
    "[Sun Dec 04 04:47:44.5 2005] [notice] x": ("2005-12-04T04:47:44.5Z", "[notice] x"),
    "Jun 14 15:16:01 combo sshd[19939]: check pass": (
        "2026-06-14T15:16:01Z",
        "combo|sshd[19939]: check pass",
    ),
    "Jun  4 15:16:01 combo sshd: x": ("2026-06-04T15:16:01Z", "combo|sshd: x"),
    "<34>1 2026-03-01T12:00:00Z host app - - - it is": ("2026-03-01T12:00:00Z", "<34>1 host app - - - it is"),
    '127.0.0.1 - - [10/Oct/2000:13:55:36 -0700] "GET / HTTP/1.0" 200 23': (
        "2000-10-10T20:55:36Z",
        '127.0.0.1 - - "GET / HTTP/1.0" 200 23',
    ),
    "I0614 15:16:01.123456 12 file.cc:12] ok": ("2026-06-14T15:16:01.123456Z", "12 file.cc:12] ok"),
    "06-14 15:16:01.123  34  34 D tag: m": ("2026-06-14T15:16:01.123Z", "34|34 D tag: m"),
    "081109 203615 148 INFO dfs.X: m": ("2008-11-09T20:36:15Z", "148|INFO|dfs.X: m"),
    "14-Jun-2026 15:16:01.123 INFO [main] up": ("2026-06-14T15:16:01.123Z", "INFO|[main] up"),
    "type=SYSCALL msg=audit(1364481363.243:24287): arch=c": (
        "2013-03-28T14:36:03.243Z",
        "type=SYSCALL msg=audit( 24287): arch=c",
    ),
    'time=2026-03-01T12:00:00Z level=info msg="hello"': (
        "2026-03-01T12:00:00Z",
        'time= level=info msg="hello"',
    ),
    "- 1117838570 2005.06.03 R02 RAS KERNEL INFO x": (
        "2005-06-03T22:42:50Z",
        "2005.06.03|R02|RAS|KERNEL|INFO x",
    ),
    "Mar 14 15:16:01 2026 host up": ("2026-03-14T15:16:01Z", "host up"),
    "01.03.2026 12:00:00 Anlage ein": ("2026-03-01T12:00:00Z", "Anlage ein"),
}
FURTHER = [
    "\tat com.example.Main(Main.java:1)",
    "    raise ValueError",
    "Caused by: java.io.IOException: x",
    "java.lang.IllegalStateException: x",
    "Traceback (most recent call last):",
    "ValueError: x",
    "... 12 more",
    "}",
    "# Fields: date time",
]


def log_stream(**form: object) -> Stream:
    return stream({"log_lines": form})


def decoded(values: list[bytes], stamps: list[int] | None = None, **form: object) -> Decoded:
    return make_decoder("log", log_stream(**form)).decode(records(values, timestamps=stamps))


@pytest.mark.parametrize("line", LINES)
def test_the_time_and_the_rest_of_a_line(line: str) -> None:
    time, message = LINES[line]
    found = split_line(line)
    text = f"2026-{found.time}" if found.lacks_year else found.time
    assert parse_times([text], "auto", "UTC").tolist() == parse_times([time], "iso", "UTC").tolist()
    assert found.message == message


def test_lines_are_events_whose_text_is_the_rest() -> None:
    for line, (time, message) in LINES.items():
        found = decoded([line.encode()], year=2026)
        assert found.dead == []
        assert found.columns.events == [message]
        assert found.columns.time.tolist() == parse_times([time], "iso", "UTC").tolist()


def test_a_header_is_one_word_so_that_it_does_not_join_templates() -> None:
    texts = ["accepted connection from 10.0.0.1", "user bob authenticated", "query 7 took 12 ms"]
    lines = [
        split_line(f"2026-03-01 12:00:00 INFO  [worker-{n}] app.web - {text}") for n, text in enumerate(texts)
    ]
    assert [one.message for one in lines] == [
        f"INFO|[worker-{n}]|app.web {text}" for n, text in enumerate(texts)
    ]
    templates = LogTemplates()
    assert len({templates.code(one.message) for one in lines}) == 3
    request = "2026-03-01 12:00:00 12 INFO nova.api [req-1 8a7f3c2d9e b - -] GET /x"
    assert split_line(request).message == "12|INFO|nova.api GET /x"
    assert split_line("2026-03-01 12:00:00 8a7f3c2d9e [4f3e2d1c] ERROR").message.endswith("ERROR")


def test_lines_that_go_on_with_an_event_are_filtered() -> None:
    assert all(map(goes_on, FURTHER))
    found = decoded([line.encode() for line in FURTHER])
    assert (found.dead, len(found.columns), found.columns.filtered) == ([], 0, len(FURTHER))


def test_a_record_of_several_lines_has_an_event_for_each() -> None:
    value = "\n".join(["2026-03-01 12:00:00 one", *FURTHER, "2026-03-01 12:00:01 two", ""]).encode()
    found = decoded([value])
    assert found.columns.events == ["one", "two"]
    assert found.columns.offsets.tolist() == [0, 0]


def test_a_bad_line_of_a_record_is_a_dead_letter_that_can_be_read_again() -> None:
    found = decoded([b"2026-03-01 12:00:00 one\nnonsense it is\n2026-03-01 12:00:01 two"])
    assert found.columns.events == ["one", "two"]
    (letter,) = found.dead
    assert letter.partial
    assert b"nonsense it is" in (letter.value or b"")
    assert "no date with a time" in str(letter.value)
    again = decoded([letter.value or b""])
    assert len(again.columns) == 0
    assert len(again.dead) == 1


@pytest.mark.parametrize(
    ("value", "part"),
    [
        (b"", "the line is empty"),
        (b" \n ", "the line is empty"),
        (b"hello world", "no date with a time in the first 200 characters"),
        (b"x" * 300 + b" 2026-03-01 12:00:00 late", "no date with a time"),
        (b"2026-03-01 12:00:00 \xff\xfe", "utf-8"),
        (b"Jun 14 15:16:01 combo x", "has no year: set `year`"),
        (b"2026-13-01 12:00:00 x", "2026-13-01 12:00:00"),
        (b"03/04/2026 12:00:00 x", "day or month first"),
    ],
)
def test_a_line_that_cannot_be_read_is_a_dead_letter_with_its_bytes(value: bytes, part: str) -> None:
    (letter,) = decoded([value]).dead
    assert letter.value == value
    assert part in letter.detail


def test_the_year_is_the_one_that_is_nearest_to_the_record() -> None:
    stamps = [parse_times([at], "iso", "UTC")[0] for at in ("2026-01-01T00:00:05Z", "2025-12-31T23:59:58Z")]
    found = decoded([b"Dec 31 23:59:59 h x", b"Jan  1 00:00:01 h x"], stamps)
    wanted = parse_times(["2025-12-31T23:59:59Z", "2026-01-01T00:00:01Z"], "iso", "UTC")
    assert found.columns.time.tolist() == wanted.tolist()


def test_the_time_of_the_record_may_count_and_the_zone_is_that_of_the_format() -> None:
    stamp = int(parse_times(["2026-03-01T12:00:00Z"], "iso", "UTC")[0])
    found = decoded([b"no time here"], [stamp], time="$timestamp")
    assert (found.columns.events, found.columns.time.tolist()) == (["no time here"], [stamp])
    berlin = decoded([b"2026-03-01 13:00:00 x"], timezone="Europe/Berlin")
    assert berlin.columns.time.tolist() == [stamp]


@given(st.lists(st.binary(max_size=60), max_size=8))
def test_any_bytes_are_an_event_a_dead_letter_or_filtered(values: list[bytes]) -> None:
    found = decoded(values, year=2026)
    events = len(set(found.columns.offsets.tolist()))
    whole = sum(not letter.partial for letter in found.dead)
    assert events + whole + found.columns.filtered == len(values)


@pytest.mark.parametrize("name", ["app.log", "app.log.gz", "app.txt"])
def test_a_file_of_log_lines_is_read_by_lines(tmp_path: Path, name: str) -> None:
    content = b'2026-03-01 12:00:00 say "hello, world\r\n\r\n2026-03-01 12:00:01 two\n'
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    form = log_stream().format.chosen
    part = make_reader(tmp_path / name, form, follow=False).read()
    assert part is not None
    lines = part.table.column(0).to_pylist()
    assert lines == [b'2026-03-01 12:00:00 say "hello, world', b"2026-03-01 12:00:01 two"]
