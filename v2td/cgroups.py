"""What the cgroups of this process allow, v1 and v2, also where both are mounted."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath


def cpu_quota(root: Path = Path("/")) -> float | None:
    """Return the tightest CPU quota from our cgroup up to its root, in CPUs; None when there is none."""
    quotas = [_quota(_read(folder / "cpu.max")) for folder in _folders(root, "")]
    quotas += [
        _quota(f"{_read(folder / 'cpu.cfs_quota_us')} {_read(folder / 'cpu.cfs_period_us')}")
        for folder in _folders(root, "cpu")
    ]
    return min((quota for quota in quotas if quota is not None), default=None)


def memory_limit(root: Path = Path("/")) -> int | None:
    """Return the lowest memory limit from our cgroup up to its root, in bytes; None when there is none.

    Version 1 says "no limit" with a number beyond any RAM. Beyond memory.high the kernel slows us down: a limit too.
    """
    texts = [_read(folder / name) for folder in _folders(root, "") for name in ("memory.max", "memory.high")]
    texts += [_read(folder / "memory.limit_in_bytes") for folder in _folders(root, "memory")]
    return min((int(text) for text in texts if text.isdecimal()), default=None)


def _quota(text: str) -> float | None:
    """Return CPUs from the microseconds of a quota and its period; "max" and -1 say that there is no limit."""
    match = re.fullmatch(r"(\d+) (\d*[1-9]\d*)", text)
    return int(match[1]) / int(match[2]) if match else None


def _folders(root: Path, controller: str) -> Iterator[Path]:
    """Yield the folder of our cgroup and those above it: of a v1 controller, or of v2 when it is empty."""
    group = _group(root, controller)
    mount = _mount(root, controller)
    if group is None or mount is None:
        return
    top, point = mount
    # Within a container /proc may name the group as the host sees it, while the mount shows no more than ours.
    inside = group.relative_to(top) if group.is_relative_to(top) else PurePosixPath()
    if ".." in inside.parts:
        inside = PurePosixPath()
    folder = root / point.relative_to("/")
    yield folder
    for part in inside.parts:
        folder /= part
        yield folder


def _group(root: Path, controller: str) -> PurePosixPath | None:
    """Return the path of our group from /proc/self/cgroup: lines of `hierarchy:controllers:path`."""
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            return PurePosixPath(path)
    return None


def _mount(root: Path, controller: str) -> tuple[PurePosixPath, PurePosixPath] | None:
    """Return which group is mounted, and where, from /proc/self/mountinfo (proc(5))."""
    for line in _read(root / "proc/self/mountinfo").splitlines():
        mounted, _, kind = line.partition(" - ")
        system, _source, options = kind.split(" ", 2)
        right = system == "cgroup" and controller in options.split(",") if controller else system == "cgroup2"
        if right:
            _id, _parent, _device, top, point, *_ = mounted.split(" ")
            return PurePosixPath(_unescaped(top)), PurePosixPath(_unescaped(point))
    return None


def _unescaped(path: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), path)


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
