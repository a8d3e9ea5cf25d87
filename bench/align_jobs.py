"""What `bench/align.py` computes in processes of its own: one seed of one scenario, ours or everybody's.

Every result is one line of a JSON-lines file as soon as it is there, so that an interrupted run tells what it
has found, and goes on from there when it is started again with the same file.
"""

from __future__ import annotations

import json
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor, as_completed

import numpy as np

from bench.clock_peers import PEERS, Exchange
from edgecap.sim.clock import simulate
from edgecap.sim.links import SCENARIOS, LinkScenario
from edgecap.timeline.replay import replay, rows_from_arrays

SETTLED_NS = 10_000_000_000
SLEWED, STEPPED = "usb-1ms on a slewed clock", "usb-1ms on a stepped clock"
"""The same exchange stamped on CLOCK_MONOTONIC and on CLOCK_REALTIME, instead of on MONOTONIC_RAW."""
LINKS: dict[str, LinkScenario] = SCENARIOS | {SLEWED: SCENARIOS["usb-1ms"], STEPPED: SCENARIOS["usb-1ms"]}


def exchange_of(name, seed, seconds):
    log = simulate(LINKS[name], seed=seed, seconds=seconds)
    if name in (SLEWED, STEPPED):
        log = log.on_slewed_clock(np.random.default_rng(seed), steps=name == STEPPED)
    return log


def ours(name, log):
    result = replay(rows_from_arrays(log.arrays()), LINKS[name].clock())
    return result, result.t_ns - log.truth_ns[log.kind == 0]


def judged(name, seed, seconds):
    """Every figure of ours that has a target; ns unless the name says otherwise."""
    result, error = ours(name, exchange_of(name, seed, seconds))
    error = np.abs(error)
    since = result.arrival_ns - result.arrival_ns[0]
    locked = result.locked == 1
    late = locked & (since > SETTLED_NS)
    young = locked & (since < 1e9)
    relock = []
    for epoch in np.unique(result.epoch):
        part = result.epoch == epoch
        arrival, lock = result.arrival_ns[part], locked[part]
        relock.append(float(arrival[np.argmax(lock)] - arrival[0]) if lock.any() else float("inf"))
    return {
        "p50": float(np.percentile(error[late], 50)),
        "p99": float(np.percentile(error[late], 99)),
        "first": float(np.percentile(error[young], 99)) if young.any() else 0.0,
        "u50": float(np.percentile(result.u_ns[late], 50)),
        "u99": float(np.percentile(result.u_ns[late], 99)),
        "outside": int((error > result.u_ns).sum()),
        "frames": len(error),
        "locked": float(locked[since > SETTLED_NS].mean()),
        "relock": max(relock),
        "restarts": result.clock.quality().restarts,
        "epochs": len(relock),
    }


def peer_errors(peer, name, log):
    """|error| of every sample frame of the log. Others are told of a new boot, and begin anew."""
    least_ns = LINKS[name].wire_least_ns
    ends = np.flatnonzero(np.diff(log.boot.astype(np.int64))) + 1
    found = []
    for part in np.split(np.arange(len(log.kind)), ends):
        x = Exchange(log, part, least_ns)
        offset = np.fromiter(peer(x, LINKS[name].two_step), float, len(x.t))
        found.append(np.abs(x.t + offset - x.truth)[x.samples])
    return np.concatenate(found)


def compared(name, seed, seconds):
    """p99 |error| of everybody on the same frames: those that ours calls locked, after ten seconds."""
    log = exchange_of(name, seed, seconds)
    start = time.process_time()
    result, error = ours(name, log)
    spent = {"edgecap": time.process_time() - start}
    late = (result.arrival_ns - result.arrival_ns[0] > SETTLED_NS) & (result.locked == 1)
    p99 = {"edgecap": float(np.percentile(np.abs(error)[late], 99))}
    for peer, estimate in PEERS.items():
        start = time.process_time()
        p99[peer] = float(np.percentile(peer_errors(estimate, name, log)[late], 99))
        spent[peer] = time.process_time() - start
    return {"p99": p99, "ns_per_frame": {k: v / len(log.kind) * 1e9 for k, v in spent.items()}}


KINDS = {"ours": judged, "peers": compared}


def run_job(job):
    kind, name, seed, seconds = job
    return {
        "kind": kind,
        "scenario": name,
        "seed": seed,
        "seconds": seconds,
        **KINDS[kind](name, seed, seconds),
    }


def stored(path):
    """What a run before has left in the file; a line that was being written when it ended is dropped."""
    if not path.exists():
        return []
    found = []
    for line in path.read_text().splitlines():
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            print(f"{path}: left out a line that was cut off")
    path.write_text("".join(json.dumps(row) + "\n" for row in found))
    return found


def run_jobs(jobs, path, processes, tell):
    """Run the jobs that the file does not hold yet; `tell(rows)` after each scenario of a kind is whole."""
    rows = stored(path)
    done = {(r["kind"], r["scenario"], r["seed"], r["seconds"]) for r in rows}
    rows = [r for r in rows if (r["kind"], r["scenario"], r["seed"], r["seconds"]) in set(jobs)]
    missing = [job for job in jobs if job not in done]
    if len(missing) < len(jobs):
        print(f"{len(jobs) - len(missing)} of {len(jobs)} results are in {path} already")
    left = {(k, n): sum(j[:2] == (k, n) for j in missing) for k, n, *_ in jobs}
    for whole in [group for group, count in left.items() if count == 0]:
        tell([r for r in rows if (r["kind"], r["scenario"]) == whole])
    context = multiprocessing.get_context("spawn")
    with path.open("a") as file, ProcessPoolExecutor(processes, mp_context=context) as pool:
        running = [pool.submit(run_job, job) for job in missing]
        for future in as_completed(running):
            row = future.result()
            file.write(json.dumps(row) + "\n")
            file.flush()
            rows.append(row)
            group = row["kind"], row["scenario"]
            left[group] -= 1
            if left[group] == 0:
                tell([r for r in rows if (r["kind"], r["scenario"]) == group])
    return rows
