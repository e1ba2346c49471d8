"""onnxruntime-web, the runtime of exported pages: fetched once with npm, checked against its hash, and cached."""

from __future__ import annotations

import base64
import gzip
import hashlib
import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from reverie.errors import CheckpointError

PACKAGE = "onnxruntime-web@1.30.0"
SHA512 = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
"""Hash of the package's archive, as the registry states it."""
ARCHIVE = "onnxruntime-web-1.30.0.tgz"
FILES = (
    "ort.wasm.bundle.min.mjs",
    "ort-wasm-simd-threaded.wasm",
    "ort.webgpu.bundle.min.mjs",
    "ort-wasm-simd-threaded.asyncify.wasm",
)
"""For WebAssembly, then for WebGPU: a page loads one pair of them."""
FETCH_SECONDS = 600


def cached_archive() -> Path:
    """Path of the cached archive: in `$XDG_CACHE_HOME/reverie`, else in `~/.cache/reverie`."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "reverie" / ARCHIVE


def find_archive(given: Path | None = None) -> Path:
    """The checked archive: `given`, or the cached one, or fetched with npm.

    Raises CheckpointError where it cannot be had or is another file than it should be.
    """
    archive = given or cached_archive()
    if given is None and not archive.is_file():
        _fetch(archive)
    if not archive.is_file():
        raise CheckpointError(f"there is no file {str(archive)!r}; expected {ARCHIVE}: npm pack {PACKAGE}")
    digest = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    if digest != SHA512:
        raise CheckpointError(
            f"{archive} is not {PACKAGE}: its SHA-512 is {digest[:16]}..., expected {SHA512[:16]}...; delete it"
        )
    return archive


def unpack_runtime(archive: Path, folder: Path) -> dict[str, int]:
    """Writes `FILES` of the archive to a folder, WebAssembly gzipped: plain file servers send files as they are.

    Returns the sizes in bytes of the gzipped files, by name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sizes = {}
    with tarfile.open(archive, "r:gz") as files:
        for name in FILES:
            content = files.extractfile(f"package/dist/{name}")
            assert content is not None, name
            if name.endswith(".wasm"):
                packed = gzip.compress(content.read(), compresslevel=6, mtime=0)
                (folder / f"{name}.gz").write_bytes(packed)
                sizes[f"{name}.gz"] = len(packed)
            else:
                (folder / name).write_bytes(content.read())
    return sizes


def _fetch(archive: Path) -> None:
    npm = shutil.which("npm")
    by_hand = f"fetch it elsewhere with `npm pack {PACKAGE}` and give --runtime {ARCHIVE}"
    if npm is None:
        raise CheckpointError(f"an exported page needs {PACKAGE}, and there is no npm to fetch it with; {by_hand}")
    archive.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=archive.parent) as folder:
        command = [npm, "pack", PACKAGE, "--ignore-scripts", "--pack-destination", folder]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=FETCH_SECONDS)
            problem = "" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["it failed"])[0]
        except (OSError, subprocess.TimeoutExpired) as error:
            problem = str(error)
        if problem:
            raise CheckpointError(f"npm could not fetch {PACKAGE} ({problem}); {by_hand}")
        os.replace(Path(folder) / ARCHIVE, archive)
