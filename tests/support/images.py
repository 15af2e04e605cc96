"""Container images built and run without a container engine: buildah in a chroot.

The base image is made by debootstrap, so that no registry is needed. A command runs in a mount namespace of
its own, with the root of the image read-only and as its user.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

BASE = "docker.io/library/debian:bookworm-slim"
_TOOLS = ("buildah", "debootstrap", "unshare", "chroot")
_USELESS = (
    "usr/share/doc",
    "usr/share/man",
    "usr/share/locale",
    "var/lib/apt/lists",
    "var/cache/apt",
    "var/log",
)


def missing_tools() -> list[str]:
    """Return what this machine lacks to build an image; ``root`` is one of them."""
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    return missing if os.geteuid() == 0 else ["root", *missing]


@dataclass
class BuiltImage:
    """``root`` is the mounted file system of the image ``name``."""

    name: str
    root: Path

    def config(self) -> dict:
        """Return the configuration that a container engine would use."""
        return json.loads(_buildah("inspect", "--type", "image", self.name))["OCIv1"]["config"]

    def size(self) -> int:
        """Return the bytes of all files, hard links counted once."""
        return int(subprocess.check_output(["du", "-sxb", str(self.root)], text=True).split()[0])

    def run(
        self, folder: Path, *arguments: str, entrypoint: Sequence[str] = ("forewatch-entrypoint",)
    ) -> subprocess.CompletedProcess:
        """Run a command as the user of the image, and wait for its end."""
        command = self.command(folder, *arguments, entrypoint=entrypoint)
        return subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)

    @contextmanager
    def running(
        self,
        folder: Path,
        log: Path,
        *arguments: str,
        entrypoint: Sequence[str] = ("forewatch-entrypoint",),
    ) -> Iterator[subprocess.Popen]:
        """Run a command in the background; it is killed at the end of the block."""
        command = self.command(folder, *arguments, entrypoint=entrypoint)
        with log.open("w") as output:
            process = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def command(
        self, folder: Path, *arguments: str, entrypoint: Sequence[str] = ("forewatch-entrypoint",)
    ) -> list[str]:
        """Return what runs a command in a root that is read-only.

        Its process becomes that of the image. The volumes are ``lib`` and ``cache`` in ``folder``.
        """
        for name in ("lib", "cache"):
            (folder / name).mkdir(exist_ok=True)
            os.chown(folder / name, 10001, 10001)
        config = self.config()
        environment = ["env", "-i", *config["Env"], *entrypoint, *arguments]
        root = shlex.quote(str(self.root))
        script = f"""
            set -e
            mount --bind {root} {root} && mount -o remount,bind,ro {root}
            mount -t tmpfs tmpfs {root}/tmp && chmod 1777 {root}/tmp
            mount -t proc proc {root}/proc
            mount --bind /dev {root}/dev
            mount -t tmpfs tmpfs {root}/dev/shm && chmod 1777 {root}/dev/shm
            mount --bind {shlex.quote(str(folder / "lib"))} {root}/var/lib/forewatch
            mount --bind {shlex.quote(str(folder / "cache"))} {root}/var/cache/forewatch
            cd {root}
            exec chroot --userspec={config["User"]} {root} sh -c 'cd /var/lib/forewatch && exec "$@"' - \
                {shlex.join(environment)}
        """
        return ["unshare", "--mount", "--propagation", "private", "sh", "-c", script]


@contextmanager
def build_image(repository: Path, target: str, folder: Path) -> Iterator[BuiltImage]:
    """Build a target of the Dockerfile, and mount it until the end of the block."""
    name = os.environ.get("FOREWATCH_TEST_IMAGE") or f"forewatch-test:{target}"
    if "FOREWATCH_TEST_IMAGE" not in os.environ:
        _make_base(folder)
        _build(repository, target, name, folder)
    container = _buildah("from", "--pull-never", name).strip()
    try:
        yield BuiltImage(name, Path(_buildah("mount", container).strip()))
    finally:
        _buildah("rm", container)


def _build(repository: Path, target: str, name: str, folder: Path) -> None:
    """Run the Dockerfile; a certificate authority of this machine's network is given to pip and npm."""
    volumes = []
    if authority := os.environ.get("SSL_CERT_FILE"):
        shutil.copy(authority, folder / "ca.crt")
        (folder / "pip.conf").write_text("[global]\ncert = /run/ca.crt\n")
        (folder / "npmrc").write_text("cafile=/run/ca.crt\n")
        places = {"ca.crt": "/run/ca.crt", "pip.conf": "/etc/pip.conf", "npmrc": "/root/.npmrc"}
        volumes = [f"--volume={folder / source}:{place}:ro" for source, place in places.items()]
    options = ["--isolation=chroot", "--pull-never", "--layers", f"--target={target}", f"--tag={name}"]
    dockerfile = f"--file={repository / 'deploy/docker/Dockerfile'}"
    _buildah(
        "bud",
        "--format=docker",
        *options,
        *volumes,
        "--build-arg=SOURCE_DATE_EPOCH=1700000000",
        dockerfile,
        str(repository),
    )


def _make_base(folder: Path) -> None:
    """Make the image that FROM names, unless it is there."""
    if subprocess.run(["buildah", "inspect", BASE], capture_output=True, check=False).returncode == 0:
        return
    tree = folder / "base"
    subprocess.run(
        ["debootstrap", "--variant=minbase", "bookworm", str(tree)], check=True, stdout=subprocess.DEVNULL
    )
    for name in _USELESS:
        shutil.rmtree(tree / name, ignore_errors=True)
    # Devices are no files: a copy of /dev/full does not end.
    shutil.rmtree(tree / "dev")
    for name in ("var/log", "dev"):
        (tree / name).mkdir()
    container = _buildah("from", "scratch").strip()
    shutil.copytree(tree, _buildah("mount", container).strip(), symlinks=True, dirs_exist_ok=True)
    path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    _buildah("config", "--env", path, container)
    _buildah("commit", "--rm", container, BASE)


def _buildah(*arguments: str) -> str:
    done = subprocess.run(["buildah", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout
