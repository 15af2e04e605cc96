"""Training of a stream of events: sessions from recorded events, a model, its evidence and its files."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detectors.sequences.code_numbers import END_NUMBER, code_number, number_text
from detectors.sequences.detector import NextEventDetector
from detectors.sequences.fit import Piece
from detectors.sequences.vocabulary import UNKNOWN
from pipeline.config.schema import Config, Stream
from pipeline.core.errors import InputError
from pipeline.daemon.retraining_service import _schedules as schedules
from pipeline.decode import Columns
from pipeline.decode.event_codes import EventCodes
from pipeline.decode.known_codes import seen_codes
from pipeline.jobs.requests import trainable
from pipeline.jobs.task_types import Task, TaskResult, VersionFiles
from pipeline.jobs.tasks import run_task
from pipeline.models import registry
from pipeline.training.dataset import TrainingData
from pipeline.training.event_training import AlarmRule, EventCard, EventJudgement, sessions_of, train_events
from storage.model_store.jobs import JobState, TaskKind
from storage.model_store.models import ModelVersion
from tests.support.events import CYCLE, PARTITION, START, cycles, saved_door_model, stream_tree


def recorded(numbers: list[float], allowed: list[bool] | None = None) -> TrainingData:
    n = len(numbers)
    return TrainingData(
        "doors",
        ("event",),
        ["a"],
        np.array([0, n]),
        np.arange(n),
        np.array(numbers)[:, None],
        np.zeros(n, np.int32),
        np.zeros(n, np.int64),
        np.zeros(n, bool),
        np.ones(n, bool) if allowed is None else np.array(allowed),
        [],
    )


def test_sessions_are_cut_at_their_ends_and_quarantined_ones_left_out():
    end = END_NUMBER
    data = recorded([1, 2, end, 3, end, end, 4, 5, end, 6], [True, True, True, False, *[True] * 6])
    assert sessions_of(data, sessions=True) == [Piece(["#1", "#2"], []), Piece(["#4", "#5"], [])]
    assert sessions_of(data, sessions=False) == []
    assert sessions_of(recorded([1, 2, end, 3]), sessions=False) == [Piece(["#1", "#2", "#3"], [])]


def test_parts_of_a_series_know_the_events_before_up_to_a_quarantined_one():
    numbers = np.arange(1.0, 451.0)
    allowed = np.ones(450, np.bool_)
    allowed[150] = False
    found = sessions_of(recorded(numbers.tolist(), allowed.tolist()), sessions=False)
    assert [(one.codes[0], len(one.codes), len(one.before)) for one in found] == [
        ("#1", 100, 0),
        ("#201", 100, 0),
        ("#301", 100, 100),
        ("#401", 50, 100),
    ]
    assert found[2].before == found[1].codes


def test_too_few_events_without_sessions_are_counted_as_events():
    with pytest.raises(ValueError, match="needs 5,000 events, the history has 300"):
        train_events([Piece(["a"] * 100)] * 3, None, AlarmRule(ended=False, rate=1e-4), seed=0)


def test_a_number_is_its_own_code():
    assert code_number(number_text(code_number("badge"))) == code_number("badge")


@pytest.mark.parametrize(
    ("challenger", "champion", "promoted"),
    [
        (EventJudgement(0.5, 0.01), None, True),
        (EventJudgement(0.5, 0.2), None, False),
        (EventJudgement(2.5, 0.0), None, False),
        (EventJudgement(0.5, 0.01), EventJudgement(0.6, 0.01), True),
        (EventJudgement(0.5, 0.01), EventJudgement(0.5, 0.01), False),
        (EventJudgement(0.7, 0.01), EventJudgement(0.5, 0.01), False),
        (EventJudgement(0.0001, 0.01), EventJudgement(0.0003, 0.01), False),
        (EventJudgement(0.0003, 0.01), EventJudgement(0.0003, 0.01), False),
    ],
)
def test_the_rule_of_promotion(challenger, champion, promoted):
    card = EventCard(100, 200, 1000, 5, 0.01, challenger, champion, 2.0)
    assert card.decision().promote is promoted
    assert card.as_dict()["text"].startswith("100 sessions, 200 of them held out; 5 codes")


def task(folder: Path, rows: list[tuple[str, float, str]], champion: VersionFiles | None) -> Task:
    path = folder / "past.csv"
    lines = [f"{door},{START + at},{code}" for door, at, code in sorted(rows, key=lambda one: one[1])]
    path.write_text("\n".join(["door,t,event", *lines]) + "\n")
    stream = Stream.model_validate(
        {
            "source": {"memory": {"name": "doors"}},
            "format": {"csv": {"series": "door", "time": "t", "code": "event"}},
            "events": {"idle": "1m"},
            "warm_start": str(path),
        }
    )
    return Task(
        job=1,
        token=1,
        kind=TaskKind.TRAIN,
        name="doors",
        stream=stream,
        history=str(folder / "history"),
        models=str(folder / "models"),
        champion=champion,
        challenger=None,
        review_labels=(),
        detail={},
    )


def test_a_training_gives_the_templates_of_all_partitions_one_code(tmp_path):
    """Past lines come from a file, and a partition of the live stream has met them in another order."""
    one = task(tmp_path, [], None)
    tree = one.stream.model_dump(by_alias=True, exclude_unset=True)
    tree["format"] = {"csv": {"series": "door", "time": "t", "text": "event"}}
    live, lines = (
        EventCodes(templates=True),
        [f"{code} door event by {name}" for code in CYCLE for name in ("zoe", "yan")],
    )
    columns = Columns.empty(PARTITION, 1)
    columns.events = lines
    live.number(columns)
    rows = [
        (door, at, f"{code} door event by {'abcdefgh'[n % 8]}nn")
        for door in "ab"
        for n, (_, at, code) in enumerate(cycles(door, 60))
    ]
    task(tmp_path, rows, None)  # writes the file
    done = run_task(
        replace(one, stream=Stream.model_validate(tree), codes=seen_codes([live])),
        lambda progress: None,
        lambda: False,
    )
    assert (done.state, done.better) == (JobState.SUCCEEDED, True), done.reason
    assert done.made is not None
    model = NextEventDetector.load(done.made.path, done.made.sha256)
    assert sorted(map(model.vocabulary.text, range(2, 7))) == sorted(
        f"{code} door event by <*>" for code in CYCLE
    )
    assert len(model.vocabulary.codes) == 5
    assert (model.encode_numbers(live.codes()) != UNKNOWN).all()


def test_a_challenger_is_compared_with_the_champion_on_newer_sessions(tmp_path):
    """The doors get a further step: the model that learned it wins, and the old one does not win it back."""
    before = [one for door in "ab" for one in cycles(door, 60)]
    after = [
        (door, 40_000 + n * 600 + step, code)
        for door in "ab"
        for n in range(60)
        for step, code in enumerate((*CYCLE, "alarm on"))
    ]

    def trained(rows: list[tuple[str, float, str]]) -> VersionFiles:
        done = run_task(task(tmp_path, rows, None), lambda progress: None, lambda: False)
        assert done.made is not None
        return done.made

    def compared(challenger: VersionFiles, champion: VersionFiles) -> TaskResult:
        one = task(tmp_path, [*before, *after], champion)
        detail = {"until_ns": (START + 40_000) * 10**9, "version": challenger.version}
        shadow = replace(one, kind=TaskKind.SHADOW, challenger=challenger, detail=detail)
        return run_task(shadow, lambda progress: None, lambda: False)

    old, new = trained(before), trained([*before, *after])
    better, worse = compared(new, old), compared(old, new)
    assert (better.state, better.better) == (JobState.SUCCEEDED, True), better.reason
    assert better.result["new_points"] == 60 * 2 * 7 - 2  # with the ends of sessions
    assert better.evidence["shadow"]["champion"]["nats"] > better.evidence["shadow"]["challenger"]["nats"]
    assert not worse.better
    assert "nats an event, the champion" in worse.reason


def test_a_stream_of_events_is_trained_every_night():
    stream = Stream.model_validate(stream_tree(None))
    config = Config.model_validate({"database": "sqlite:///x.db", "streams": {"doors": stream_tree(None)}})
    assert trainable(stream)
    assert list(schedules(config)) == ["doors"]
    assert stream.retraining.schedule == "0 3 * * *"


def test_a_model_of_an_earlier_version_has_no_templates(tmp_path):
    path = saved_door_model(tmp_path)
    manifest = Path(f"{path}.json")
    about = json.loads(manifest.read_text())
    del about["code_of"], about["templates"]
    manifest.write_text(json.dumps(about))
    model = NextEventDetector.load(str(path))
    assert model.vocabulary.templates == ()
    assert set(model.encode_numbers(CYCLE)) == {2, 3, 4, 5, 6}


def test_a_training_makes_a_version_that_a_later_one_must_beat(tmp_path):
    rows = [one for door in "ab" for one in cycles(door, 60)]
    seen: list[dict[str, Any]] = []
    first = run_task(task(tmp_path, rows, None), seen.append, lambda: False)
    assert [one["epoch"] for one in seen if "epoch" in one] == list(range(1, len(seen)))
    assert len(seen) > 5, "each pass over the sessions is progress"
    assert "first model" in first.reason
    assert (first.state, first.better, first.result["sessions"]) == (JobState.SUCCEEDED, True, 120)
    assert first.made is not None
    assert first.result["first_model"]
    model = NextEventDetector.load(first.made.path, first.made.sha256)
    assert set(model.encode_numbers(CYCLE)) == {2, 3, 4, 5, 6}

    again = run_task(task(tmp_path, rows, first.made), lambda progress: None, lambda: False)
    assert (again.state, again.better) == (JobState.SUCCEEDED, False)

    random.Random(1).shuffle(rows)
    few = run_task(task(tmp_path, rows[:20], None), lambda progress: None, lambda: False)
    assert few.state == JobState.REJECTED
    assert "a training needs 50 sessions" in few.reason

    row = ModelVersion(
        first.made.version,
        "doors",
        first.made.path,
        first.made.sha256,
        "candidate",
        None,
        "job 1",
        1,
        1,
        "",
    )
    registry.require_usable(row)
    Path(f"{first.made.path}.safetensors").write_bytes(b"")
    with pytest.raises(InputError, match="cannot be used"):
        registry.require_usable(row)
