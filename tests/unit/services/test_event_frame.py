"""Events of a pandas frame: sessions, alarms, sentences and errors."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from forewatch import EventColumns, EventModel, InputError, fit_events


def door_log(cycles: int, wrong: int | None = None, seed: int = 0) -> pd.DataFrame:
    """Return cycles of a door; in cycle ``wrong`` it closes before it unlocks."""
    rng = np.random.default_rng(seed)
    rows, now = [], pd.Timestamp("2026-01-01")
    for cycle in range(cycles):
        codes = ["badge", "unlock", "open", *["hold"] * rng.integers(0, 3), "close", "lock"]
        if cycle == wrong:
            codes = ["badge", "close", "open", "unlock", "lock"]
        for code in codes:
            rows.append({"ts": now, "door": f"d{cycle % 3}", "code": code})
            now += pd.Timedelta("2s")
        now += pd.Timedelta("5min")
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def model() -> EventModel:
    return fit_events(door_log(150), event="code", key="door", time="ts", idle="1min")


def test_a_wrong_order_is_told_and_nothing_else(model):
    frame = door_log(30, wrong=17, seed=1)
    shuffled = frame.sample(frac=1.0, random_state=0)
    verdicts = model.score(shuffled)
    assert verdicts.index.equals(shuffled.index)
    alarms = verdicts[verdicts["flag"]].sort_index()
    first = alarms.iloc[0]
    assert frame.loc[alarms.index[0], "code"] == "close"
    assert first["cause"] == "unexpected_event"
    assert first["statement"].startswith("“close” came after “badge”, as it does ")
    assert "usual here: “unlock” (more than 99 % of cases)" in first["statement"]
    wrong = frame.index[(frame["ts"].diff() > pd.Timedelta("1min")).cumsum() == 17]
    assert set(alarms.index) <= set(wrong)


def test_a_session_that_ends_too_early(model):
    frame = door_log(3)
    verdicts = model.score(frame.iloc[:-1])
    assert verdicts["flag"].tolist() == [False] * (len(frame) - 2) + [True]
    assert verdicts["cause"].iloc[-1] == "missing_event"
    assert "no event came" in verdicts["statement"].iloc[-1]
    assert "“lock” (more than 99 % of cases) was due" in verdicts["statement"].iloc[-1]


def test_new_empty_and_missing_codes_are_unknown(model):
    frame = door_log(1)
    for odd in ("fire", "", None):
        changed = frame.assign(code=[*frame["code"][:-1], odd])
        assert model.score(changed)["cause"].iloc[-1] == "new_event"


def test_no_row_gives_no_verdict(model):
    assert model.score(door_log(1).iloc[:0]).empty


def test_without_sessions_no_end_is_judged():
    endless = fit_events(door_log(400), event="code", time="ts", sessions=False)
    verdicts = endless.score(door_log(3).iloc[:-1])
    assert not verdicts["flag"].any()


def test_saved_and_loaded(model, tmp_path):
    digest = model.save(str(tmp_path / "door"))
    loaded = EventModel.load(str(tmp_path / "door"), EventColumns("code", "door", "ts", "1min"), digest)
    frame = door_log(5, wrong=2)
    pd.testing.assert_frame_equal(loaded.score(frame), model.score(frame))
    with pytest.raises(InputError, match="there is no file"):
        EventModel.load(str(tmp_path / "gate"), EventColumns("code"))


def test_errors_say_what_to_do(model):
    with pytest.raises(InputError, match="no column 'kode'; the frame has ts, door, code"):
        fit_events(door_log(3), event="kode")
    with pytest.raises(InputError, match="at least 20 sequences, there are 1"):
        fit_events(door_log(3), event="code")
    with pytest.raises(InputError, match="'soon' is not a duration"):
        fit_events(door_log(3), event="code", time="ts", idle="soon")
