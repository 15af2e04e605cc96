"""The model of the settings that only streams of events have."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from pipeline.config.field_types import ConfigModel, Duration

#: Alarm rate of a session over that of a point, for the same sensitivity.
SESSION_RATE_RATIO = 100.0


class EventsConfig(ConfigModel):
    """Sessions of the events of a series, and the model of their order."""

    idle: Duration | None = Field(
        None,
        description="time without an event of the series after which its session has ended; an end that "
        "comes too early is an anomaly (default: without `idle` and `end` there are no sessions)",
    )
    end: list[str] = Field(
        default_factory=list, description="codes of the event that ends a session: [stopped, aborted]"
    )
    model: Path | None = Field(
        None,
        description="model file of `EventModel.save`, used until a training has made another one",
    )

    top_k: int | None = Field(
        None,
        ge=1,
        description="an event that is not among so many most probable ones is an anomaly too, however "
        "probable it is (default: the probability alone decides)",
    )

    @property
    def sessions(self) -> bool:
        """Return whether the events of a series are divided into sessions."""
        return self.idle is not None or bool(self.end)
