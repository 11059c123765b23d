#!/usr/bin/env python3
"""Compares prune with restic's: a repository of 100,000 blobs, half of which nothing needs any more.

Both programs back up the same 100,000 files, each of them one blob, then half of them, then forget the
first snapshot. Timed is what gives the room back: `putback prune --instant --max-unused 0` and `restic
prune --max-unused 0`. Once on a local disk, for the time; once on the emulator of put.io, where restic
goes through `rclone serve restic`, for the requests that arrive there.

Two layouts: in `mixed` every second file of each folder is gone, so that every pack is needed in part;
in `apart` half of the folders are gone, so that most packs are needed wholly or not at all.

Afterwards the snapshot that is left is restored and compared with its files, and each program checks its
repository. How it is measured is in compare.py, how the emulator is run in putio.py.

Exit codes: 0 everything ran and every restored tree equals its source (whether or not a target is met);
1 a command failed or a restored tree differs; 2 wrong usage.
"""

import argparse
import json
import os
import random
import shutil
import sys
import time
from pathlib import Path

import compare
import putio
from compare import KIB, MIB, PASSWORD, progress

SEED = 20_261_122
FILES_PER_FOLDER = 100
# At least the smallest file that either program would cut is larger: each file is one blob.
FILE_BYTES = (8 * KIB, 24 * KIB)
POOL_BYTES = 64 * MIB
PIECE_BYTES = 512
# Seconds of restic divided by those of putback, on a local disk and in the layout `mixed`: at least.
SPEEDUP_MIN = 2.0
# Requests of restic divided by those of putback, on the emulator: at least.
REQUEST_RATIO_MIN = 4.0
# Commit window, lag of listings, pause between two looks; in seconds. Without locks an instant prune waits for the
# window and twice the lag, which is two hours and a quarter otherwise. Taken off the time that is shown.
TEST_TIMES = (2.0, 1.0, 0.1)


class Data:
    """Files of source text that this machine has, in pieces of a few lines and in random order: all different."""

    def __init__(self, folder, files, layout):
        self.all, self.half = folder / "all" / "data", folder / "half" / "data"
        done = folder / "done"
        if done.exists():
            return
        shutil.rmtree(folder, ignore_errors=True)
        source = random.Random(SEED)
        folders = compare.system_folders(first=Path.home() / ".cargo/registry/src")
        pool = compare.SourceText(SEED, folders).text(POOL_BYTES)
        for number in range(files):
            place = f"{number // FILES_PER_FOLDER:04}"
            stays = number % 2 if layout == "mixed" else number // FILES_PER_FOLDER % 2
            length = source.randint(*FILE_BYTES)
            starts = [source.randrange(POOL_BYTES - PIECE_BYTES) for _ in range(0, length, PIECE_BYTES)]
            content = b"".join(pool[start : start + PIECE_BYTES] for start in starts)
            for root in (self.all, self.half) if stays else (self.all,):
                (root / place).mkdir(parents=True, exist_ok=True)
                (root / place / f"{number:06}").write_bytes(content)
        done.touch()


class Steps:
    """One program on one store: what is typed, and what is counted."""

    def __init__(self, name, command, environment, folder, emulator):
        self.name, self.command, self.environment = name, command, environment
        self.folder, self.emulator = folder, emulator
        self.failures = []

    def run(self, phase, *arguments):
        if self.emulator:
            self.emulator.take_requests()
        log = self.folder / f"{phase}.log"
        measured = compare.run_measured(self.command(*arguments), self.environment, self.folder, log)
        entries = self.emulator.take_requests() if self.emulator else []
        measured["requests"] = len(entries)
        measured["sent"] = sum(entry["request_bytes"] for entry in entries)
        measured["received"] = sum(entry["response_bytes"] for entry in entries)
        progress(f"{self.name} {phase:8} {measured['seconds']:8.2f} s {measured['requests']:6} requests")
        if measured["exit"] != 0:
            self.failures.append(f"{self.name}, {phase}: exit {measured['exit']}, see {log}")
        return measured


def environment_of(options, name, folder, emulator):
    """What both programs see, on a local disk or on the emulator."""
    if emulator:
        make = {"putback": putio.Putback, "restic": putio.Restic}[name]
        tool = make(options, emulator, folder / "tool")
        environment, command = tool.environment(), tool.command
    else:
        for part in ("home", "cache", "state"):
            (folder / "tool" / part).mkdir(parents=True)
        repository = str(folder / "repository")
        environment = {
            "PATH": "/usr/bin:/bin",
            "LANG": "C.UTF-8",
            "HOME": str(folder / "tool/home"),
            "PUTBACK_PASSWORD": PASSWORD,
            "PUTBACK_CACHE_DIR": str(folder / "tool/cache"),
            "PUTBACK_STATE_DIR": str(folder / "tool/state"),
            "RESTIC_PASSWORD": PASSWORD,
            "RESTIC_CACHE_DIR": str(folder / "tool/cache"),
        }

        def command(*arguments):
            program = {"putback": options.putback, "restic": options.restic}[name]
            return [program, "--repo", repository, "--quiet", *arguments]

    if name == "putback" and emulator:
        environment["PUTBACK_TEST_TIMES"] = ",".join(str(seconds) for seconds in TEST_TIMES)
    return environment, command


def measure(options, name, place, layout, data):
    """One program through all steps. What it took to prune, the bytes before and after, and failures."""
    folder = options.work / "prune" / f"{layout}-{place}-{name}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    emulator = putio.Emulator(options, folder / "emulator") if place == "putio" else None
    stored = folder / ("emulator/data" if emulator else "repository")
    try:
        environment, command = environment_of(options, name, folder, emulator)
        steps = Steps(f"{layout} {place} {name}", command, environment, folder, emulator)
        # Both snapshots are of the same path: the half takes the place of the whole.
        source = folder / "source" / "data"
        source.parent.mkdir()
        steps.run("init", "init")
        for part, tree in (("first", data.all), ("second", data.half)):
            shutil.rmtree(source, ignore_errors=True)
            shutil.copytree(tree, source, copy_function=os.link)
            compare.read_everything(source)
            steps.run(part, "backup", str(source))
        before = compare.size_of(stored)
        is_putback = name == "putback"
        steps.run("forget", "forget", *(["latest~1"] if is_putback else ["--keep-last", "1"]))
        arguments = ["--instant", "--yes"] if is_putback else []
        pruned = steps.run("prune", "prune", "--max-unused", "0", *arguments)
        if is_putback and emulator:
            pruned["waited"] = TEST_TIMES[0] + 2 * TEST_TIMES[1]
        pruned["bytes_before"], pruned["bytes_after"] = before, compare.size_of(stored)
        steps.run("check", "check", "--read-data")
        target = folder / "restored"
        target.mkdir()
        steps.run("restore", "restore", "latest", "--target", str(target))
        restored = compare.find_restored(target, source)
        differences = compare.compare_trees(source, restored, False)
        shown = differences[: compare.DIFFERENCES_SHOWN_MAX]
        failures = steps.failures + [f"{steps.name}, restore: {difference}" for difference in shown]
    finally:
        if emulator:
            emulator.stop()
    if not failures and not options.keep:
        shutil.rmtree(folder)
    return pruned, failures


def table(options, results):
    lines = ["| layout | store | putback | restic | seconds, restic / putback | requests, restic / putback | target |"]
    lines.append("|---|---|---:|---:|---:|---:|---|")
    missed = []
    for layout in options.layouts:
        for place in options.places:
            ours, theirs = results[f"{layout} {place} putback"], results[f"{layout} {place} restic"]

            def cell(one):
                text = f"{one['seconds'] - one.get('waited', 0):.2f} s, {one['peak_bytes'] / MIB:.0f} MiB, "
                text += f"{one['bytes_before'] / MIB:.0f} to {one['bytes_after'] / MIB:.0f} MiB stored"
                return text + (f", {one['requests']} requests" if one["requests"] else "")

            speedup = theirs["seconds"] / max(ours["seconds"] - ours.get("waited", 0), 0.001)
            ratio = theirs["requests"] / max(ours["requests"], 1)
            target = ""
            if place == "putio":
                is_met = ratio >= REQUEST_RATIO_MIN
                target = f"requests ≥ {REQUEST_RATIO_MIN:.0f}"
            else:
                is_met = speedup >= SPEEDUP_MIN or layout != "mixed"
                target = f"seconds ≥ {SPEEDUP_MIN:.0f}" if layout == "mixed" else ""
            if target:
                target += " met" if is_met else " **not met**"
            if not is_met:
                missed.append(f"{layout}, {place}: {target}")
            requests = f"{ratio:.1f}" if place == "putio" else ""
            lines.append(
                f"| {layout} | {place} | {cell(ours)} | {cell(theirs)} | {speedup:.1f} | {requests} | {target} |"
            )
    return lines, missed


def report(options, results, failures):
    lines, missed = table(options, results)
    facts = compare.machine_facts(options.work)
    head = [
        f"# Prune of {options.files} blobs, half of them dead, {time.strftime('%Y-%m-%d')}",
        "",
        f"Targets missed: {len(missed)}. Failures: {len(failures)}.",
        "",
        *[f"* FAILURE: {line}" for line in failures],
        *([""] if failures else []),
    ]
    tail = [
        "",
        f"On the emulator: {options.latency_ms} ms for each request, {options.line_bytes * 8 / 1e6:.0f} Mbit/s in each "
        f"direction; putback's wait between mark and deletion, {TEST_TIMES[0] + 2 * TEST_TIMES[1]:.0f} s there, is taken off.",
        "",
        ", ".join(f"{key}: {value}" for key, value in facts.items()),
    ]
    return "\n".join([*head, *lines, *tail]) + "\n"


def parse_options():
    def names(allowed):
        def parse(text):
            chosen = text.split(",")
            if not set(chosen) <= set(allowed):
                raise argparse.ArgumentTypeError(f"choose from {','.join(allowed)}")
            return chosen

        return parse

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--putback", required=True, help="the program")
    parser.add_argument("--emulator", help="the program putio-emulator")
    parser.add_argument("--restic", required=True, help="the program restic")
    parser.add_argument("--rclone", help="the program rclone")
    parser.add_argument("--work", required=True, type=Path, help="folder for data and repositories: 8 GiB")
    parser.add_argument("--files", type=int, default=100_000, help="blobs of the first snapshot")
    parser.add_argument("--layouts", type=names(["mixed", "apart"]), default=["mixed", "apart"])
    parser.add_argument("--places", type=names(["local", "putio"]), default=["local", "putio"])
    parser.add_argument("--latency-ms", type=int, default=0)
    parser.add_argument("--line-bytes", type=int, default=250_000_000, help="bytes a second, each way")
    parser.add_argument("--keep", action="store_true", help="leave the repositories")
    parser.add_argument("--output", type=Path, help="where the report goes (default: standard output)")
    parser.add_argument("--json", type=Path, help="where all that was measured goes")
    options = parser.parse_args()
    options.work = options.work.resolve()
    needed = ["putback", "restic"] + (["emulator", "rclone"] if "putio" in options.places else [])
    for name in needed:
        if not getattr(options, name):
            parser.error(f"--{name} is needed for the emulator")
        setattr(options, name, str(Path(getattr(options, name)).resolve()))
    return options


def main():
    options = parse_options()
    results, failures = {}, []
    for layout in options.layouts:
        data = Data(options.work / "data" / f"prune-text-{layout}-{options.files}", options.files, layout)
        for place in options.places:
            for name in ("putback", "restic"):
                pruned, failed = measure(options, name, place, layout, data)
                results[f"{layout} {place} {name}"] = pruned
                failures += failed
    text = report(options, results, failures)
    if options.output:
        options.output.write_text(text)
    else:
        print(text)
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
