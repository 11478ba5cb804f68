"""The machine that a run uses: its processor, memory, disk and libraries. Nothing here imports torch."""

from __future__ import annotations

import functools
import os
import platform
import re
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path
from typing import Any, Literal

from unlearnbench.errors import DatasetError

Precision = Literal["float32", "bfloat16"]
LIBRARIES = ("unlearnbench", "torch", "torchvision", "numpy", "scipy", "scikit-learn", "h5py", "pytorchcv")


# They come with the benchmark's repository, and no index has them.
_OWN = {
    "unlearnbench": ".",
    **{f"unlearnbench-{name}": f"plugins/unlearnbench-{name}" for name in ("example", "flower", "lab", "zoo")},
}


def library_versions() -> dict[str, str | None]:
    """Return the versions of the libraries that results may depend on; None for a missing one."""
    found: dict[str, str | None] = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def source_folder(name: str) -> str | None:
    """Return where a distribution lies in the benchmark's own repository, or None if it does not come with it.

    Args:
        name: Name of the distribution.
    """
    name = re.sub(r"[-_.]+", "-", name).lower()
    return _OWN.get(name)


def was_on_index(name: str) -> bool:
    """Return whether a distribution that is installed here came from an index, as far as its installer has noted."""
    try:
        files = distribution(name).files or []
    except PackageNotFoundError:
        return True
    return all(file.name != "direct_url.json" for file in files)


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


@functools.cache
def git_commit() -> str | None:
    """Return the commit of the benchmark's own checkout, with "-dirty" appended if it was changed, or None."""
    if _git("ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    commit = _git("rev-parse", "HEAD")
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ".")
    return commit and (f"{commit}-dirty" if changed else commit)


def processor_name() -> str:
    """Return the name of the processor."""
    try:
        match = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.M)
    except OSError:
        match = None
    return match[1].strip() if match else platform.processor() or platform.machine()


def cpu_precision() -> Precision:
    """Return the precision in which this machine's CPU trains if a recipe leaves it open.

    It is bfloat16 if Linux reports that the processor computes in it, and float32 otherwise.
    """
    try:
        match = re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.M)
    except OSError:
        match = None
    flags = set(match[1].split()) if match else set()
    return "bfloat16" if flags & {"avx512_bf16", "amx_bf16"} else "float32"


def may_have_gpu() -> bool:
    """Return whether this machine may have a GPU that torch could use."""
    return sys.platform == "darwin" or any(Path(path).exists() for path in ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg"))


def environment(device: str, precision: str, threads: int) -> dict[str, Any]:
    """Return the description of the machine for a record.

    Args:
        device: Name of the device.
        precision: Precision of training.
        threads: Number of threads of the CPU computations.
    """
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "device": device,
        "precision": precision,
        "threads": threads,
        "libraries": library_versions(),
        "commit": git_commit(),
    }


def reset_peak_memory() -> None:
    """Restart the count of this process's peak memory, if the system allows it (Linux)."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    except OSError:
        return


def peak_memory() -> int | None:
    """Return the peak resident memory of this process in bytes since the last reset, or None if unknown."""
    try:
        match = re.search(r"^VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"), re.M)
        if match:
            return int(match[1]) * 1024
    except OSError:
        pass
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def available_memory() -> int:
    """Return how many bytes of memory programs can still get, or the total if the system does not say."""
    try:
        match = re.search(r"^MemAvailable:\s*(\d+) kB", Path("/proc/meminfo").read_text(encoding="utf-8"), re.M)
    except OSError:
        match = None
    if match:
        return int(match[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 4 * 2**30


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def size_text(size: float) -> str:
    """Return a number of bytes as "169 MB" or "1.2 GB", in powers of 1000 as disks are sold."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 999.5:
            return f"{size:.0f} {unit}" if size >= 10 or unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def require_space(folder: Path, size: int, what: str, variable: str = "UNLEARNBENCH_DATA") -> None:
    """Check that there is room for `size` bytes.

    Args:
        folder: Folder that they will be written to; it need not exist yet.
        size: Number of bytes.
        what: Name of what is written, for the message.
        variable: Environment variable that names another folder for it.

    Raises:
        DatasetError: If there is not enough room.
    """
    place = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    free = shutil.disk_usage(place).free
    if free < size:
        raise DatasetError(
            f"{what} needs {size_text(size)} at {folder}, where {size_text(free)} are free\n"
            f"  Make room, or set {variable} to a folder on a larger disk"
        )
