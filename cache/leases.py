"""Leases and pins in the index: pinned segments stay while the run that needs them is alive."""

import os
import time
from functools import cache
from pathlib import Path

from .index import Transaction

LEASE_S = 300  # a lease whose process cannot be looked up ends this long after its last renewal


def enter_lease(transaction: Transaction, run: str) -> int:
    """Begin a lease of this process for a run, and return the lease's id."""
    pid = os.getpid()
    cursor = transaction.execute(
        "INSERT INTO leases (run, pid, started, space, beat) VALUES (?, ?, ?, ?, ?)",
        (run, pid, _started(pid) or "", process_space(), int(time.time())),
    )
    return int(cursor.lastrowid or 0)


def renew_lease(transaction: Transaction, lease: int) -> bool:
    """Record that the process of a lease is alive; return False if the lease has been ended."""
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
    """Remove a lease's pins on the given segments."""
    transaction.executemany(
        "DELETE FROM pins WHERE segment = ? AND lease = ?",
        [(segment, lease) for segment in segments],
    )


def end_lease(transaction: Transaction, lease: int) -> None:
    """End a lease and remove all its pins."""
    transaction.execute("DELETE FROM pins WHERE lease = ?", (lease,))
    transaction.execute("DELETE FROM leases WHERE id = ?", (lease,))


def end_dead_leases(transaction: Transaction) -> int:
    """End the leases of dead processes; return how many leases were ended.

    A process on this machine and in this PID namespace is looked up by its PID and start time.
    Any other process counts as dead unless it renewed its lease within the last `LEASE_S` seconds.
    """
    here = process_space()
    oldest = time.time() - LEASE_S
    dead = []
    for lease, pid, started, space, beat in transaction.execute(
        "SELECT id, pid, started, space, beat FROM leases"
    ).fetchall():
        alive = (_started(pid) or "") == started if space == here else beat >= oldest
        if not alive:
            dead.append(lease)
    for lease in dead:
        end_lease(transaction, lease)
    # pins that a process added before it noticed that its lease had been ended
    transaction.execute("DELETE FROM pins WHERE lease NOT IN (SELECT id FROM leases)")
    return len(dead)


@cache
def process_space() -> str:
    """Return a name for this boot and PID namespace, within which a PID identifies a process.

    Without ``/proc`` the name is unique to this process, so that no other looks up its PID.
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
    fields = stat.rpartition(b")")[2].split()  # a program's name may contain spaces and brackets
    return None if fields[0] == b"Z" else fields[19].decode()
