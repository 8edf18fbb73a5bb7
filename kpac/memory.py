"""Available and peak memory, within the limits of a container."""

import os
import sys
from pathlib import Path


def available_bytes() -> int:
    """Bytes that can be allocated now: the machine's free memory, or the container's remaining limit if smaller."""
    try:
        import psutil  # the import can fail: on Linux it needs the module resource

        free = psutil.virtual_memory().available
    except ImportError:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min([free, *_container_bytes()])


def peak_bytes_held() -> int:
    """Peak memory of this process so far, in bytes; the current memory if the system does not record the peak."""
    try:
        import resource  # not on Windows
    except ImportError:
        import psutil

        held = psutil.Process().memory_info()
        return getattr(held, "peak_wset", held.rss)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


# How PyTorch reports exhausted memory without an exception class of its own: from its CPU allocator; from CUDA, if it
# was not PyTorch's GPU allocator that asked for the memory, but for instance the loading of a kernel; cuBLAS; cuDNN.
EXHAUSTED = (
    "DefaultCPUAllocator",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)


def is_exhausted(error: BaseException) -> bool:
    """Whether an error says that memory could not be allocated, on a CPU or a GPU."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # by name: PyTorch is not imported
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in EXHAUSTED)


def _container_bytes() -> list[int]:
    """Remaining bytes under the memory limit of this process's control group (cgroup v2), if it has one."""
    folder = Path("/sys/fs/cgroup")
    try:
        folder = folder / Path("/proc/self/cgroup").read_text().split("::", 1)[1].splitlines()[0].lstrip("/")
        limit = int((folder / "memory.max").read_text())  # "max" if there is no limit
        used = int((folder / "memory.current").read_text())
        statistics = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except (OSError, ValueError, IndexError):
        return []
    return [limit - used + int(statistics.get("inactive_file", 0))]  # cached files can be evicted
