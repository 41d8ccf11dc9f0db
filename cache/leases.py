"""Pins: segments that a run still needs stay, for as long as the run lives."""

import os
import time
from functools import cache
from pathlib import Path

from .index import Transaction

LEASE_S = 300  # a lease whose process cannot be looked up ends when it was not renewed for so long


def enter_lease(transaction: Transaction, run: str) -> int:
    """Begin a lease of this process for a run, and return its number."""
    pid = os.getpid()
    cursor = transaction.execute(
        "INSERT INTO leases (run, pid, started, space, beat) VALUES (?, ?, ?, ?, ?)",
        (run, pid, _started(pid) or "", process_space(), int(time.time())),
    )
    return int(cursor.lastrowid or 0)


def renew_lease(transaction: Transaction, lease: int) -> bool:
    """Say that the process of a lease still lives; False if the lease was ended meanwhile."""
    beat = int(time.time())
    renewed = transaction.execute("UPDATE leases SET beat = ? WHERE id = ?", (beat, lease))
    return renewed.rowcount > 0


def pin_segments(transaction: Transaction, lease: int, segments: list[int]) -> None:
    """Keep segments from eviction while the lease lasts."""
    transaction.executemany(
        "INSERT OR IGNORE INTO pins (segment, lease) VALUES (?, ?)",
        [(segment, lease) for segment in segments],
    )


def unpin_segments(transaction: Transaction, lease: int, segments: list[int]) -> None:
    """Let segments go that a lease kept."""
    transaction.executemany(
        "DELETE FROM pins WHERE segment = ? AND lease = ?",
        [(segment, lease) for segment in segments],
    )


def end_lease(transaction: Transaction, lease: int) -> None:
    """End a lease and everything that it kept."""
    transaction.execute("DELETE FROM pins WHERE lease = ?", (lease,))
    transaction.execute("DELETE FROM leases WHERE id = ?", (lease,))


def end_dead_leases(transaction: Transaction) -> int:
    """End the leases of processes that are gone, and return how many they were.

    A process of this machine and process space is looked up (its number and its start); any
    other must have renewed its lease within `LEASE_S` seconds.
    """
    here = process_space()
    oldest = time.time() - LEASE_S
    dead = []
    for lease, pid, started, space, beat in transaction.execute(
        "SELECT id, pid, started, space, beat FROM leases"
    ).fetchall():
        alive = _started(pid) == started if space == here else beat >= oldest
        if not alive:
            dead.append(lease)
    for lease in dead:
        end_lease(transaction, lease)
    # what a process pinned before it saw that its lease was ended
    transaction.execute("DELETE FROM pins WHERE lease NOT IN (SELECT id FROM leases)")
    return len(dead)


@cache
def process_space() -> str:
    """Name the machine's boot and the process namespace, in which a process number has a meaning.

    Without ``/proc`` the name is this process's own, so that nobody looks its number up.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return f"unknown/{os.getpid()}/{time.time_ns()}"


def _started(pid: int) -> str | None:
    """Return when a process started, in ticks after boot; None if it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    fields = stat.rpartition(b")")[2].split()  # a program's name may hold blanks and brackets
    return None if fields[0] == b"Z" else fields[19].decode()
