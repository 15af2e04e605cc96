"""Hash of the settings that decide the verdicts of a stream."""

from __future__ import annotations

import hashlib
import json

from pipeline.config.schema import Stream

#: Keys of a format that were added after 0.1.0.
NEW_FORMAT_KEYS = {
    *("time_format", "where", "decimal", "thousands", "missing", "units", "states"),
    *("code", "text", "template"),
    *("comment", "skip", "skip_after_header", "encoding"),
}

#: Key that was added after 0.1.0 → value that does what 0.1.0 did.
_BEHAVIOUR_OF_0_1_0 = {
    "decision": "surprise",
    "timezone": None,
    "holidays": None,
    "sensitivity": None,
    "max_series": 100_000,
    "duplicates": "first",
    "events": None,
    "interval": 0.99,
}


def config_hash(stream: Stream) -> str:
    """Return 12 hex digits that change with anything that decides a stream's verdicts.

    Spelling, order of keys, and the keys of ``left_out`` do not count.
    """
    left_out = {"alerts", "forecaster", "outputs", "power", "retraining", "revise", "team"}
    values = stream.model_dump(mode="json", by_alias=True, exclude=left_out)
    # Stored anomalies carry this hash, so a key keeps the name under which it was first hashed.
    values["history"] = values.pop("warm_start")
    # A key that was added after 0.1.0 counts only if its value differs from the behaviour of 0.1.0.
    for key, former in _BEHAVIOUR_OF_0_1_0.items():
        if values[key] == former:
            del values[key]
    first_sources = ("kafka", "files", "telemetry", "memory")
    values["source"] = {
        name: one for name, one in values["source"].items() if one is not None or name in first_sources
    }
    values["format"] = {
        name: form for name, form in values["format"].items() if form is not None or name in ("json", "csv")
    }
    for form in values["format"].values():
        for key in NEW_FORMAT_KEYS & set(form or ()):
            if form[key] == type(stream.format.chosen).model_fields[key].get_default(
                call_default_factory=True
            ):
                del form[key]
    if values["aggregate"] is not None and values["aggregate"]["silence"] is None:
        del values["aggregate"]["silence"]
    canonical = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]
