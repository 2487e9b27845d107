"""The machine a run happens on: what must be installed, what it is, and the CPU time and memory of process trees.

Linux only (/proc, and the CPU clock that the kernel keeps of every process). Reads; starts nothing but the compiler.
"""

from __future__ import annotations

import os
import platform
import resource
import shutil
import subprocess
import time
from pathlib import Path

HERE = Path(__file__).parent
BINARIES = HERE / "bin"
PACKAGES = {"gcc": "gcc libc6-dev", "nginx": "nginx", "openssl": "openssl"}  # on Debian and Ubuntu
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class BenchError(Exception):
    """The run cannot go on, or what it measured is worth nothing: the message says why."""


def require(*tools: str) -> None:
    """Checks the tools and the two CPUs, and allows as many open files as the system lets us."""
    os.environ["PATH"] += os.pathsep + "/usr/sbin"  # where Debian keeps nginx
    missing = [tool for tool in tools if not shutil.which(tool)]
    if missing:
        packages = " ".join(PACKAGES[tool] for tool in missing)
        raise BenchError(f"{', '.join(missing)} not found; on Debian and Ubuntu: apt-get install {packages}")
    if len(os.sched_getaffinity(0)) < 2:
        raise BenchError("two CPUs are needed: one for what is measured, one for the load")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def build() -> None:
    BINARIES.mkdir(exist_ok=True)
    for name in ("mock", "load"):
        source, binary = HERE / f"{name}.c", BINARIES / name
        if not binary.exists() or binary.stat().st_mtime < source.stat().st_mtime:
            subprocess.run(["gcc", "-O2", "-Wall", "-o", str(binary), str(source)], check=True)


def environment() -> dict[str, str]:
    """For what is measured: no settings of the caller's, and compiled modules kept as in any installation."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE" and not name.startswith("AIGATE_")}


def describe() -> dict[str, str]:
    fields = dict(line.split(":", 1) for line in Path("/proc/cpuinfo").read_text().splitlines() if ":" in line)
    model = {name.strip(): value.strip() for name, value in fields.items()}.get("model name", platform.machine())
    memory_kib = int(Path("/proc/meminfo").read_text().split()[1])
    nginx = subprocess.run(["nginx", "-v"], capture_output=True, text=True, check=True).stderr
    return {
        "cpu": f"{model}, {os.cpu_count()} CPUs" + (" (virtual)" if _is_virtual() else ""),
        "memory": f"{memory_kib / 1024**2:.0f} GB",
        "kernel": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "nginx": nginx.strip().rpartition("/")[2],
    }


def _is_virtual() -> bool:
    return "hypervisor" in Path("/proc/cpuinfo").read_text()


def process_tree(root: int) -> list[int]:
    """The process and all its descendants."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (stat := _stat(int(entry))):
            children.setdefault(int(stat[1]), []).append(int(entry))
    tree = [root]
    for pid in tree:  # grows while it is walked
        tree += children.get(pid, [])
    return tree


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""  # it has ended


def cpu_s(pids: list[int]) -> float:
    """CPU time used so far by living processes, all their threads, in the kernel and out of it; to the nanosecond."""
    return sum(time.clock_gettime_ns(~pid << 3 | 2) for pid in pids) / 1e9  # CPUCLOCK_SCHED of the process: see clock_getcpuclockid(3)


def rss_mib(pids: list[int]) -> float:
    total = 0
    for pid in pids:
        try:
            total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES
        except OSError:
            continue  # it has ended
    return total / 2**20


def machine_busy_s() -> float:
    """CPU time spent by everything on the machine."""
    user, nice, system, _, _, irq, soft_irq = (int(field) for field in Path("/proc/stat").read_text().split()[1:8])
    return (user + nice + system + irq + soft_irq) / TICKS_PER_S


def _stat(pid: int) -> list[str] | None:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None  # it has ended
