"""Open data sets of the accuracy pages, fetched from their origins and verified.

``open_data.json`` names each file, its place and the SHA-256 of its content. Sets that need preparation or an
agreement are only described.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.core.errors import InputError, NotInstalled, SourceUnavailable

TIMEOUT_SECONDS = 30
_MAX_TEXT = 300


class OpenFile(NamedTuple):
    """A published file.

    ``path`` is that in the data folder, ``sha256`` that of its content. A path that ends in ``.gz`` is stored
    compressed; the hash is that of the content.
    """

    path: str
    url: str
    sha256: str


@dataclass(frozen=True, slots=True)
class OpenSet:
    """A data set. Without ``files`` it is prepared by hand, as ``layout`` says."""

    name: str
    folder: str
    title: str
    origin: str
    licence: str
    layout: str = ""
    files: tuple[OpenFile, ...] = ()


_LABELLED = "one CSV a series with timestamp, value and label (.csv or .csv.gz), and manifest.csv"
_SETS = (
    OpenSet(
        "nab", "nab", "Numenta Anomaly Benchmark: 58 series", "https://github.com/numenta/NAB", "see origin"
    ),
    OpenSet(
        "skab", "skab", "Skoltech water test bed: 35 recordings", "https://github.com/waico/SKAB", "GPL-3.0"
    ),
    OpenSet(
        "loghub",
        "events",
        "six logs of 2,000 lines with reference templates",
        "https://github.com/logpai/loghub",
        "research use",
    ),
    OpenSet(
        "ucr",
        "ucr",
        "UCR anomaly archive 2021, 57 series of at most 60,000 points",
        "https://www.cs.ucr.edu/~eamonn/time_series_data_2018/",
        "see origin",
        _LABELLED,
    ),
    OpenSet(
        "tsb-ad-u-r",
        "tsb-ad-u-r",
        "41 series of TSB-AD-U",
        "https://github.com/TheDatumOrg/TSB-AD",
        "mixed, research use",
        _LABELLED,
    ),
    OpenSet(
        "kpi",
        "kpi",
        "6 KPIs of the AIOps challenge 2018",
        "https://github.com/NetManAIOps/KPI-Anomaly-Detection",
        "see origin",
        _LABELLED,
    ),
    OpenSet("wsd", "wsd", "82 web service metrics", "NetManAIOps, WSD", "see origin", _LABELLED),
    OpenSet(
        "nasa",
        "nasa",
        "28 SMAP channels",
        "https://github.com/khundman/telemanom",
        "see origin",
        _LABELLED,
    ),
    OpenSet(
        "network",
        "network",
        "bytes of a server interface; flow records of Westermo",
        "https://github.com/NetManAIOps/donut, https://github.com/westermo/network-traffic-dataset",
        "see origin; CC BY 4.0",
        "server_eth1_out.csv (timestamp, value, label), westermo_flows_left.zip, westermo_events.txt",
    ),
    OpenSet(
        "stocks",
        "stocks",
        "30 US stocks, daily",
        "https://github.com/CNuge/kaggle-code",
        "see origin",
        "one CSV a stock: Date,Open,High,Low,Close,Adj Close,Volume,Name",
    ),
    OpenSet(
        "hdfs",
        "events",
        "HDFS block sessions as event ids",
        "https://github.com/wuyifan18/DeepLog",
        "see origin",
        "hdfs_normal_train.txt.gz, hdfs_normal_test.txt.gz, hdfs_abnormal_test.txt.gz: a session a line",
    ),
)


def open_sets(mirror: str | None = None) -> dict[str, OpenSet]:
    """Return the sets by name.

    Args:
        mirror: Address of a server that has the files of all sets by their paths, in place of the origins.
    """
    known = json.loads((files("pipeline.evaluate") / "open_data.json").read_text())
    return {one.name: _with_files(one, known.get(one.name), mirror) for one in _SETS}


def _with_files(one: OpenSet, known: dict[str, Any] | None, mirror: str | None) -> OpenSet:
    if known is None:
        return one
    found = tuple(
        OpenFile(path, f"{mirror.rstrip('/')}/{path}" if mirror else known["base"] + there, digest)
        for path, (there, digest) in known["files"].items()
    )
    return OpenSet(one.name, one.folder, one.title, one.origin, one.licence, one.layout, found)


def missing_files(one: OpenSet, folder: Path) -> list[OpenFile]:
    """Return the files of a set that are absent or have another content."""
    return [file for file in one.files if _content_hash(folder / file.path) != file.sha256]


def fetch_set(one: OpenSet, folder: Path, advance: Callable[[OpenFile], None] = lambda file: None) -> int:
    """Fetch what is missing of a set, and return the number of files.

    Files that are there with the right content are kept, so an interrupted fetch goes on.

    Args:
        one: The set.
        folder: The data folder, to which the set's own folder belongs.
        advance: Called with each file that was fetched.

    Raises:
        InputError: The set cannot be fetched, but only prepared by hand.
        NotInstalled: pooch is missing.
        SourceUnavailable: Files cannot be fetched, or have another content than the one that was measured.
    """
    if not one.files:
        raise InputError(f"{one.name} is not fetched: {how_to_prepare(one, folder)}")
    wanted = missing_files(one, folder)
    for file in wanted:
        try:
            _fetch(file, folder)
        except NotInstalled:
            raise
        except Exception as error:  # those of requests, urllib3 and pooch have no common base
            raise SourceUnavailable(_failure(one, folder, file, error)) from None
        advance(file)
    return len(wanted)


def how_to_prepare(one: OpenSet, folder: Path) -> str:
    """Return where a set comes from and what belongs where."""
    return (
        f"it needs preparation. Origin: {one.origin} (licence: {one.licence}). "
        f"Put it to {folder / one.folder}: {one.layout}"
    )


def _fetch(file: OpenFile, folder: Path) -> None:
    try:
        import pooch
    except ImportError:
        raise NotInstalled(
            "fetching data needs pooch, which is not installed: pip install 'forewatch[data]'"
        ) from None
    target = folder / file.path
    target.parent.mkdir(parents=True, exist_ok=True)
    packed = target.suffix == ".gz"
    plain = f".{target.name}.fetched" if packed else target.name
    pooch.get_logger().setLevel("ERROR")
    pooch.retrieve(
        file.url,
        known_hash=f"sha256:{file.sha256}",
        fname=plain,
        path=target.parent,
        downloader=pooch.HTTPDownloader(timeout=TIMEOUT_SECONDS),
    )
    if packed:
        fetched = target.with_name(plain)
        target.write_bytes(gzip.compress(fetched.read_bytes(), mtime=0))
        fetched.unlink()


def _content_hash(path: Path) -> str:
    try:
        content = path.read_bytes()
        return hashlib.sha256(gzip.decompress(content) if path.suffix == ".gz" else content).hexdigest()
    except (OSError, EOFError, gzip.zlib.error):  # type: ignore[attr-defined]
        return ""


def _failure(one: OpenSet, folder: Path, file: OpenFile, error: Exception) -> str:
    reason = " ".join(str(error).split())[:_MAX_TEXT]
    what = "has another content than the one that was measured" if "hash" in reason else "cannot be fetched"
    left = len(missing_files(one, folder))
    return (
        f"{one.name}: {file.url} {what}: {reason}. {left} of {len(one.files)} files are missing. "
        f"Where this machine has no access, fetch them elsewhere from {one.origin} and put them to "
        f"{folder / one.folder} (this one: {folder / file.path}, sha256 {file.sha256}), or name a mirror "
        "with --mirror; then run this again"
    )


def states(folder: Path) -> Iterator[tuple[OpenSet, str]]:
    """Yield each set and what is there of it."""
    for one in open_sets().values():
        if one.files:
            left = len(missing_files(one, folder))
            yield one, "complete" if not left else f"{left} of {len(one.files)} files missing"
        else:
            there = (folder / one.folder).is_dir()
            yield one, "folder is there, not verified" if there else "prepare by hand"
