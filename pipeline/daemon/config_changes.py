"""Changes of a config that a running daemon has to restart something for."""

from __future__ import annotations

from pipeline.config.alerts import AlertsConfig
from pipeline.config.retraining import Retraining
from pipeline.config.schema import Config, Stream
from pipeline.core.errors import ConfigError

#: Keys that only a start reads.
FIXED_KEYS = ("database", "http", "workers")


def require_same_process(running: Config, config: Config) -> None:
    """Check that a reload changes no key that only a start reads.

    Raises:
        ConfigError: It changes one.
    """
    if any(getattr(running, key) != getattr(config, key) for key in FIXED_KEYS):
        raise ConfigError(
            "`database`, `http` and `workers` cannot change while the daemon runs; restart the daemon to "
            "change them"
        )


def changed_engines(old: Config, config: Config) -> set[str]:
    """Return the streams whose engine is to be closed or built."""
    shared = any(getattr(old, key) != getattr(config, key) for key in ("storage", "engine"))
    all_of_them = shared or bool(old.endpoints) != bool(config.endpoints)
    names = {*old.streams, *config.streams}
    return {name for name in names if all_of_them or _of_engine(old, name) != _of_engine(config, name)}


def _of_engine(config: Config, name: str) -> Stream | None:
    """Return the part of the config of a stream that its engine depends on.

    Alerts and the team do not count, and of retraining only the drift monitor.
    """
    stream = config.streams.get(name)
    if stream is None:
        return None
    on_drift = Retraining(on_drift=stream.retraining.on_drift)
    return stream.model_copy(update={"alerts": AlertsConfig(), "retraining": on_drift, "team": None})
