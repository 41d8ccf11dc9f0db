"""Kill campaign: writers and an evictor on one store, killed with SIGKILL at random moments.

    python tests/benchmarks/store_kills.py --kills 1000

Every process checks every row that it reads. Every so often all are killed at once and the store
is examined as it is left: recovered, verified, opened with zarr-python, its index checked by
SQLite. Prints one JSON line; exits 1 if anything was not as it should be.
"""

import argparse
import json
import os
import random
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
import traceback
from pathlib import Path

import numpy as np
import zarr

from lpipstore.cache.keys import PoolSpec
from lpipstore.cache.store import FeatureStore

WRITERS = 3
LIMIT = 6 << 20
UNIVERSE = 1500
SPECS = [
    PoolSpec("kills", 4000, "uint16", {"campaign": "large"}),
    PoolSpec("kills", 300, "float32", {"campaign": "small"}),
]


def row_of(spec, n):
    values = (np.arange(spec.length) * (n + 1) + n) % 50_000
    return values.astype(spec.dtype)


def rows_of(spec, numbers):
    return np.stack([row_of(spec, n) for n in numbers])


def check_reads(store, spec, numbers, report):
    out = np.empty((len(numbers), spec.length), spec.dtype)
    found = store.get_many([spec.key(b"%d" % n) for n in numbers], out)
    for n, there, row in zip(numbers, found, out, strict=True):
        if there and not np.array_equal(row, row_of(spec, n)):
            report("bad row", f"{spec.dtype} {n}")


def write_forever(path, draw, report, compress):
    while True:
        with FeatureStore(
            path, limit=LIMIT, compress=compress, durable=draw.random() < 0.2
        ) as store:
            for _ in range(draw.randint(1, 60)):
                spec = draw.choice(SPECS)
                numbers = [draw.randrange(UNIVERSE) for _ in range(draw.randint(1, 24))]
                keys = [spec.key(b"%d" % n) for n in numbers]
                if draw.random() < 0.1:
                    with store.pin("campaign", keys):
                        store.put_many(spec, keys, rows_of(spec, numbers))
                        check_reads(store, spec, numbers, report)
                elif draw.random() < 0.6:
                    store.put_many(spec, keys, rows_of(spec, numbers))
                else:
                    check_reads(store, spec, numbers, report)


def evict_forever(path, draw, report):
    while True:
        with FeatureStore(path, limit=LIMIT) as store:
            for _ in range(draw.randint(1, 20)):
                act = draw.random()
                if act < 0.5:
                    store.evict(int(draw.uniform(0.3, 1) * LIMIT))
                elif act < 0.55:
                    store.clear(draw.choice(SPECS).recipe)
                elif act < 0.6:
                    findings = store.verify(repair=True).findings
                    for finding in findings:  # a folder may be half made by one killed just now
                        if finding.kind not in ("orphan adopted", "orphan removed", "unknown file"):
                            report("verify", str(finding))
                else:
                    spec = draw.choice(SPECS)
                    check_reads(store, spec, draw.sample(range(UNIVERSE), 40), report)


def start(role, path, log, seed):
    """Fork a process that works until it is killed."""
    child = os.fork()
    if child:
        return child
    fd = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def report(kind, text):
        os.write(fd, (json.dumps([kind, text]) + "\n").encode())

    try:
        draw = random.Random(seed)
        if role < WRITERS:
            write_forever(path, draw, report, compress=role == 0)
        else:
            evict_forever(path, draw, report)
    except BaseException:
        report("error", traceback.format_exc())
    os._exit(1)


def examine(path, log):
    """Recover a store that nobody has open, and look at all of it."""

    def report(kind, text):
        with open(log, "a") as file:
            file.write(json.dumps([kind, text]) + "\n")

    connection = sqlite3.connect(path / "index.sqlite")
    if connection.execute("PRAGMA integrity_check").fetchone()[0] != "ok":
        report("integrity", "index")
    connection.close()
    with FeatureStore(path, limit=LIMIT) as store:
        if os.listdir(path / "open"):
            report("orphan", str(os.listdir(path / "open")))
        for finding in store.verify().findings:
            if finding.kind not in ("orphan adopted", "orphan removed"):
                report("verify", str(finding))
        for spec in SPECS:
            check_reads(store, spec, range(UNIVERSE), report)
        stat = store.stat()
        if stat.corrupt_rows:
            report("corrupt", str(stat.corrupt_rows))
        if stat.bytes > LIMIT:
            report("limit", str(stat.bytes))
        pools = [(path / "pools" / pool.folder, pool.rows) for pool in stat.pools]
        known = {
            (s.pool.folder, f"c.{s.number}.0") for s in store._handle.opened.state.segments.values()
        }
    for folder, rows in pools:
        array = zarr.open(folder, mode="r")
        filled = 0
        for file in folder.glob("c.*"):
            if (folder.name, file.name) not in known:
                report("orphan", str(file))
            first = int(file.name.split(".")[1]) * array.shards[0]
            values = array[first : first + array.shards[0]]
            empty = np.isnan(values) if values.dtype.kind == "f" else values == array.fill_value
            filled += int((~empty).any(axis=1).sum())
        if filled < rows:
            report("zarr", f"{folder.name}: {filled} of {rows} rows")
    return stat


def campaign(path, kills, seed):
    """Kill `kills` processes; return what was seen."""
    draw = random.Random(seed)
    log = path.with_name("log")
    log.touch()
    began = time.perf_counter()
    running = {}
    done = examinations = 0
    try:
        while done < kills and not log.stat().st_size:  # what is wrong is left to be looked at
            for role in range(WRITERS + 1):
                if role not in running:
                    running[role] = start(role, path, log, draw.random())
            time.sleep(draw.uniform(0, 0.06))  # the random moment
            together = done + WRITERS + 1 >= kills or draw.random() < 0.02
            for role in list(running) if together else [draw.randrange(WRITERS + 1)]:
                os.kill(running[role], signal.SIGKILL)
                os.waitpid(running.pop(role), 0)
                done += 1
            if together:
                stat = examine(path, log)
                examinations += 1
    finally:
        for child in running.values():
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    troubles = [json.loads(line) for line in log.read_text().splitlines()]
    return {
        "kills": done,
        "examinations": examinations,
        "bad_rows": sum(kind == "bad row" for kind, _ in troubles),
        "orphans_left": sum(kind == "orphan" for kind, _ in troubles),
        "other_troubles": sum(kind not in ("bad row", "orphan") for kind, _ in troubles),
        "adopted_orphans": stat.adopted_orphans,
        "removed_orphans": stat.removed_orphans,
        "evicted_segments": stat.evicted_segments,
        "corrupt_rows": stat.corrupt_rows,
        "hits": stat.hits,
        "seconds": round(time.perf_counter() - began, 1),
        "troubles": troubles[:5],
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="where the store is made (default: temporary)")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(dir=options.folder))
    result = campaign(folder / "store", options.kills, options.seed)
    print(json.dumps(result))
    if result["troubles"]:
        sys.exit(1)
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
