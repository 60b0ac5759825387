"""What a server and all its processes have used: processor time and memory, as the kernel counts them."""

import contextlib

import psutil


def cpu_seconds(pid: int) -> float:
    """Return the processor time of a process and all below it, those that have ended included."""
    while True:
        family = _family(pid)
        with contextlib.suppress(psutil.NoSuchProcess):
            total = sum(sum(process.cpu_times()[:4]) for process in family)
            if family == _family(pid):
                return total
        # One ended meanwhile: its time has gone to its parent, and may have been counted twice or not at all.


def memory_bytes(pid: int) -> int:
    """Return the memory of a process and all below it, shared pages divided among those who share them."""
    total = 0
    for process in _family(pid):
        try:
            memory = process.memory_full_info()
        except psutil.NoSuchProcess:
            continue
        total += getattr(memory, "pss", memory.rss)  # Only Linux knows the proportional share.
    return total


def _family(pid: int) -> list[psutil.Process]:
    parent = psutil.Process(pid)
    return [parent, *parent.children(recursive=True)]
