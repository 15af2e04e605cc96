"""Checks of a release: tag, version and changelog agree."""

from __future__ import annotations

import pytest

from tools.release import notes_of, version_of

CHANGELOG = """\
# Changelog

## [Unreleased]

## [0.2.0] - 2026-12-01

### Added

- Something.

## [0.1.0] - 2026-11-01

- First.
"""


def test_the_notes_are_the_section_of_the_version():
    assert notes_of("0.2.0", CHANGELOG) == "### Added\n\n- Something.\n"
    assert notes_of("0.1.0", CHANGELOG) == "- First.\n"


@pytest.mark.parametrize("version", ["0.3.0", "Unreleased", "0.1"])
def test_a_version_without_notes_is_refused(version: str):
    with pytest.raises(SystemExit, match="no section"):
        notes_of(version, CHANGELOG)


def test_the_tag_is_the_version():
    assert version_of("v0.2.0", {"version": "0.2.0"}) == "0.2.0"


@pytest.mark.parametrize("tag", ["0.2.0", "v0.2.1", "v0.2.0rc1", "main"])
def test_another_tag_is_refused(tag: str):
    with pytest.raises(SystemExit, match=r"v0\.2\.0"):
        version_of(tag, {"version": "0.2.0"})
