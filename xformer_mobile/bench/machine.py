"""The machine that measures: what it is, what it lets us fix, and what disturbs it.

Nothing here needs more than the standard library. What a system does not offer is said, not guessed.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.metadata
import os
import platform
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from xformer_mobile import __version__

__all__ = [
    "TOOLS",
    "describe_machine",
    "describe_tools",
    "flush_denormals",
    "flushes_denormals",
    "pin",
    "resident_bytes",
    "restart_peak",
    "usable_cpus",
]

PROC = Path("/proc")

TOOLS = ("numpy", "onnxruntime", "ai-edge-litert", "executorch", "torch", "coremltools")
"""Distributions whose versions a measurement may depend on."""


def describe_machine() -> dict[str, Any]:
    """The LatencyRun's ``machine``: enough to tell whether two files come from one machine, and from one boot.

    ``id`` is a hash: it names the machine without giving away what it is made from.
    """
    parts = (_read(Path("/etc/machine-id")), platform.node(), _cpu_name(), str(os.cpu_count()))
    boot = _read(PROC / "sys/kernel/random/boot_id")
    return {
        "id": hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16],
        "boot": hashlib.sha256(boot.encode()).hexdigest()[:16] if boot else None,
        "system": platform.system(),
        "release": platform.release(),
        "architecture": platform.machine(),
        "cpu": _cpu_name(),
        "cpus": os.cpu_count(),
        "usable_cpus": len(usable_cpus()),
        "memory_bytes": _memory_bytes(),
        "governor": _read(Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")) or None,
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }


def describe_tools(names: Iterable[str] = TOOLS) -> dict[str, str]:
    """The versions of Python, of this project and of the engines that are installed."""
    versions = {"python": platform.python_version(), "xformer-mobile": __version__}
    for name in names:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def usable_cpus() -> tuple[int, ...]:
    """The processors that this process may use; where the system does not say, as many as there are."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def pin(cpus: Iterable[int]) -> bool:
    """Bind this process, with the threads that it has and will start, to these processors; false where the OS can't."""
    if not hasattr(os, "sched_setaffinity"):
        return False
    threads = [int(entry.name) for entry in (PROC / "self/task").glob("*")] or [0]
    chosen = set(cpus)
    try:
        for thread in threads:
            os.sched_setaffinity(thread, chosen)
    except OSError:
        return False
    return True


def resident_bytes(field: str = "VmRSS") -> int | None:
    """Memory of this process that is in RAM: now (VmRSS) or at most (VmHWM); None where the system does not say."""
    for line in _read(PROC / "self/status").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    if field == "VmHWM":
        try:
            import resource
        except ImportError:  # Windows
            return None
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
    return None


def restart_peak() -> bool:
    """Let VmHWM begin anew at what is resident now; false where the system can't."""
    try:
        (PROC / "self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def flushes_denormals() -> bool:
    """Whether this thread's arithmetic takes denormal numbers for zero."""
    smallest = np.full(8, np.finfo(np.float32).tiny, np.float32)
    return not bool((smallest * np.float32(0.5)).any())


def flush_denormals() -> bool:
    """Make this thread, and those that it will start, take denormal numbers for zero; false where it can't be done.

    Sets the bits of the C library's floating-point environment: FTZ and DAZ of MXCSR on x86-64 (glibc's fenv_t has it
    at byte 28), FZ of FPCR on AArch64 (the first word). Threads inherit the environment of the one that starts them.
    """
    places = {"x86_64": (28, 0x8040), "aarch64": (0, 1 << 24)}
    if sys.platform != "linux" or platform.libc_ver()[0] != "glibc" or platform.machine() not in places:
        return False
    offset, bits = places[platform.machine()]
    libm = ctypes.CDLL("libm.so.6")
    environment = ctypes.create_string_buffer(64)
    if libm.fegetenv(environment):
        return False
    word = ctypes.c_uint32.from_buffer(environment, offset)
    word.value |= bits
    return not libm.fesetenv(environment) and flushes_denormals()


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8", errors="replace").strip()
    except OSError:
        return ""


def _cpu_name() -> str:
    for line in _read(PROC / "cpuinfo").splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Hardware", "Processor"):
            return value.strip()
    return platform.processor() or platform.machine()


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None
