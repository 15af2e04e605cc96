"""Jars of the local Kafka broker, listed with their hashes in ``kafka_jars.json``.

jgo downloads them once per user. The list is updated (the second artifact is Kafka's logging backend) by

    python -m pipeline.local_kafka.distribution
    org.apache.kafka:kafka_2.13:4.2.0+org.apache.logging.log4j:log4j-slf4j-impl:2.25.3
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from pathlib import Path
from typing import Any

from pipeline.core.errors import ForewatchError

LOCK = "kafka_jars.json"
PARALLEL_DOWNLOADS = 8


class DownloadError(ForewatchError):
    """The jars of the broker could not be downloaded."""

    exit_code = 3


def cache_home() -> Path:
    """Return the per-user cache folder: ``$XDG_CACHE_HOME/forewatch``, else ``~/.cache/forewatch``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "forewatch"


def ensure_jars(announce: Callable[[str], None], cache: Path | None = None) -> Path:
    """Return the folder with the broker's jars, after a download if they are missing.

    ``announce`` gets one line before a download. Of two processes one downloads and the other waits. The
    folder is complete or absent. Raises DownloadError.
    """
    lock = json.loads(files("pipeline.local_kafka").joinpath(LOCK).read_text())
    digest = hashlib.sha256(json.dumps(lock, sort_keys=True).encode()).hexdigest()[:8]
    cache = cache or cache_home()
    folder = cache / f"kafka-{lock['version']}-{digest}"
    if folder.is_dir():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    with open(cache / "kafka.lock", "w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        if not folder.is_dir():
            announce(
                f"downloading Apache Kafka {lock['version']} ({len(lock['jars'])} jars, "
                f"{lock['megabytes']} MB, once) to {folder}"
            )
            _download(lock["jars"], folder)
    return folder


def _download(jars: dict[str, str], folder: Path) -> None:
    """Fetch ``{group:artifact:version: sha256}`` beside ``folder``, then move it in place at once."""
    scratch = Path(tempfile.mkdtemp(prefix=".kafka-", dir=folder.parent))
    try:
        context, flat = _context(scratch / "repository"), scratch / "jars"
        flat.mkdir()

        def fetch(item: tuple[str, str]) -> None:
            path = _artifact(context, item[0]).resolve()
            if hashlib.sha256(path.read_bytes()).hexdigest() != item[1]:
                raise DownloadError(
                    f"{item[0]}: the downloaded file is not the one that {LOCK} names; try again, or "
                    f"check the mirror"
                )
            path.rename(flat / path.name)

        with ThreadPoolExecutor(PARALLEL_DOWNLOADS) as pool:
            list(pool.map(fetch, jars.items()))
        flat.rename(folder)
    except (OSError, RuntimeError) as error:  # requests' errors are OSErrors, jgo's own are RuntimeErrors
        raise DownloadError(
            f"could not download Apache Kafka: {error}; check the network, or the mirror in jgo's settings"
        ) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _context(repository: Path) -> Any:
    """Return jgo's resolver over a private repository.

    So an interrupted download leaves no partial file for the next one.
    """
    from jgo.config import GlobalSettings
    from jgo.constants import MAVEN_CENTRAL_URL
    from jgo.maven import MavenContext

    mirrors = {**GlobalSettings.load().repositories, "central": MAVEN_CENTRAL_URL}
    return MavenContext(repo_cache=repository, remote_repos=mirrors, timeout=30)


def _artifact(context: Any, coordinate: str) -> Any:
    group, artifact, version = coordinate.split(":")
    return context.project(group, artifact).at_version(version).artifact()


def _relock(endpoint: str) -> None:
    """Resolve the artifacts of ``endpoint`` with all they need and write the list of jars with their hashes."""
    import jgo

    resolved = {
        f"{a.groupId}:{a.artifactId}:{a.version}": a.resolve().read_bytes() for a in jgo.resolve(endpoint)
    }
    lock = {
        "version": endpoint.split("+")[0].rpartition(":")[2],
        "megabytes": round(sum(map(len, resolved.values())) / 1e6),
        "jars": {name: hashlib.sha256(data).hexdigest() for name, data in sorted(resolved.items())},
    }
    Path(__file__).with_name(LOCK).write_text(json.dumps(lock, indent=1) + "\n")


if __name__ == "__main__":
    _relock(sys.argv[1])
