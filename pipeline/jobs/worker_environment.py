"""The environment variables that trainings may see; secrets of the daemon are not among them."""

from __future__ import annotations

import os
from collections.abc import Mapping

from pipeline.config.schema import Config
from pipeline.core.secret_text import is_secret_name

_NAMES = frozenset(
    (
        "FOREWATCH_LOG_LEVEL",
        "HOME",
        "LANG",
        "LANGUAGE",
        "LD_LIBRARY_PATH",
        "LOGNAME",
        "PATH",
        "SHELL",
        "SSL_CERT_DIR",
        "SSL_CERT_FILE",
        "TEMP",
        "TERM",
        "TMP",
        "TMPDIR",
        "TZ",
        "USER",
        "VIRTUAL_ENV",
    )
)
_PREFIXES = (
    "CUDA",
    "DASK_",
    "KMP_",
    "LC_",
    "MALLOC_",
    "MKL_",
    "NCCL_",
    "NUMBA_",
    "NVIDIA_",
    "OMP_",
    "OPENBLAS_",
    "PG",  # libpq reads them at each connect; PGPASSWORD has a secret name
    "PYTHON",
    "PYTORCH_",
    "TORCH",
    "XDG_",
)


def worker_environment(config: Config, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that a worker on this machine gets: a fixed list and ``cluster.environment``."""
    return {
        name: value
        for name, value in environment.items()
        if name in config.cluster.environment
        or name in _NAMES
        or (name.startswith(_PREFIXES) and not is_secret_name(name))
    }


def runner_environment(config: Config, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that the runner gets: those of a worker, and what opens the database."""
    secret = config.database_password
    database = {
        name: value
        for name, value in environment.items()
        if name == "PGPASSWORD" or (secret is not None and name == secret.env)
    }
    return worker_environment(config, environment) | database


def forget_database_variables(config: Config) -> None:
    """Remove from this process what its workers must not inherit. Call it before a worker starts."""
    kept = worker_environment(config, os.environ)
    for name in set(os.environ) - kept.keys():
        del os.environ[name]
