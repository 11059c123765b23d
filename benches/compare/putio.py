#!/usr/bin/env python3
"""Compares putback on put.io with restic through rclone: the emulator of put.io, one line, same data.

Counts the requests that reach the service, and how near each program comes to what the line allows.
The emulator adds 100 ms to each request and lets 200 Mbit/s through in each direction, unless told
otherwise. What is measured how is in compare.py, whose parts are used here.

Exit codes: 0 everything ran and every restored tree equals its source (whether or not a target is
met); 1 a command failed or a restored tree differs; 2 wrong usage.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import compare
from compare import MIB, PASSWORD, progress

TOKEN = "token-for-the-comparison"
PHASES = ["init", "first", "unchanged", "snapshots", "restore"]
# Requests of one command with a warm cache: at most. `first` has 2 more for each pack.
REQUESTS_MAX = {"init": 20, "first": 15, "unchanged": 12, "snapshots": 6}
# Requests of restic divided by those of putback: at least.
REQUEST_RATIO_MIN = 3.0
# Share of what the line allows: at least, for data that cannot be compressed.
LINE_SHARE_MIN = 0.9
PEAK_MIB_MAX = 256


class Emulator:
    """The emulator as a process of its own, with what it stores below a folder."""

    def __init__(self, options, folder):
        folder.mkdir(parents=True)
        ready = folder / "ready.json"
        self.certificate = folder / "ca.pem"
        command = [
            options.emulator,
            "--listen=127.0.0.1:0",
            "--proxy=127.0.0.1:0",
            "--admin=127.0.0.1:0",
            f"--data={folder / 'data'}",
            f"--account=user:{TOKEN}",
            f"--latency={options.latency_ms}ms",
            f"--upload-rate={options.line_bytes}",
            f"--download-rate={options.line_bytes}",
            f"--write-ca={self.certificate}",
            f"--print-ready={ready}",
        ]
        self.process = subprocess.Popen(command, stdout=(folder / "log").open("w"), stderr=subprocess.STDOUT)
        deadline = time.monotonic() + 20
        while not (ready.exists() and ready.read_text().rstrip().endswith("}")):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"the emulator did not start: {folder / 'log'}")
            time.sleep(0.05)
        self.addresses = json.loads(ready.read_text())

    def take_requests(self):
        """Requests since the last call, and their bytes."""
        request = urllib.request.Request(f"{self.addresses['admin_url']}/log", method="GET")
        entries = json.load(urllib.request.urlopen(request))
        urllib.request.urlopen(urllib.request.Request(f"{self.addresses['admin_url']}/log", method="DELETE"))
        return entries

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()


class Tool:
    """One program: what is typed for each phase."""

    def phase(self, name, source, target):
        return {
            "init": self.command("init"),
            "first": self.command("backup", source),
            "unchanged": self.command("backup", source),
            "snapshots": self.command("snapshots"),
            "restore": self.command("restore", "latest", "--target", target),
        }[name]


class Putback(Tool):
    NAME = "putback"

    def __init__(self, options, emulator, folder):
        self.program, self.emulator, self.folder = options.putback, emulator, folder
        for name in ("home", "cache", "state"):
            (folder / name).mkdir(parents=True)

    def environment(self):
        return {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "HOME": str(self.folder / "home"),
            "PUTBACK_PASSWORD": PASSWORD,
            "PUTBACK_CACHE_DIR": str(self.folder / "cache"),
            "PUTBACK_STATE_DIR": str(self.folder / "state"),
            "PUTBACK_PUTIO_TOKEN": TOKEN,
            "PUTBACK_PUTIO_API_URL": self.emulator.addresses["api_url"],
            "PUTBACK_PUTIO_UPLOAD_URL": self.emulator.addresses["upload_url"],
        }

    def command(self, *arguments):
        return [self.program, "--repo", "putio:backups/putback", "--quiet", *arguments]


class Restic(Tool):
    NAME = "restic"

    def __init__(self, options, emulator, folder):
        self.program, self.rclone = options.restic, options.rclone
        self.emulator, self.folder = emulator, folder
        for name in ("home", "cache"):
            (folder / name).mkdir(parents=True)

    def environment(self):
        token = json.dumps({"access_token": TOKEN, "expiry": "0001-01-01T00:00:00Z"})
        return {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "HOME": str(self.folder / "home"),
            "RESTIC_PASSWORD": PASSWORD,
            "RESTIC_CACHE_DIR": str(self.folder / "cache"),
            "RCLONE_CONFIG": str(self.folder / "home/rclone.conf"),
            "RCLONE_CONFIG_PUTIO_TYPE": "putio",
            "RCLONE_CONFIG_PUTIO_TOKEN": token,
            "HTTPS_PROXY": self.emulator.addresses["proxy_url"],
            "SSL_CERT_FILE": str(self.emulator.certificate),
        }

    def command(self, *arguments):
        rclone = f"rclone.program={self.rclone}"
        return [self.program, "-r", "rclone:putio:backups/restic", "-o", rclone, "--quiet", *arguments]


def prepare(options, name):
    """The folder to back up: all of the tree, half of the random data."""
    data = compare.DataSet(name, options.work / "data" / name)
    data.create(compare.FULL)
    data.place(1)
    if name != "random":
        return data.current
    half = options.work / "data" / "random-half"
    if not half.exists():
        half.mkdir()
        for path in sorted(data.current.glob("random-*.bin"))[: compare.RANDOM_FILES // 2]:
            os.link(path, half / path.name)
    return half


def measure(options, name, source):
    """One data set through all phases; both programs have an emulator of their own."""
    results, failures = {}, []
    work = options.work / "putio"
    shutil.rmtree(work, ignore_errors=True)
    compare.read_everything(source)
    for make in (Putback, Restic):
        folder = work / make.NAME
        emulator = Emulator(options, folder / "emulator")
        try:
            tool = make(options, emulator, folder / "tool")
            for phase in PHASES:
                target = folder / "restored"
                target.mkdir(exist_ok=True)
                emulator.take_requests()
                log = folder / f"{phase}.log"
                measured = compare.run_measured(
                    tool.phase(phase, str(source), str(target)), tool.environment(), folder, log
                )
                entries = emulator.take_requests()
                measured["requests"] = len(entries)
                measured["sent"] = sum(entry["request_bytes"] for entry in entries)
                measured["received"] = sum(entry["response_bytes"] for entry in entries)
                packs = {entry["path"] for entry in entries if entry["method"] == "PATCH"}
                measured["uploads"] = len(packs)
                results[(make.NAME, phase)] = measured
                progress(
                    f"{name} {phase:10} {make.NAME:8} {measured['seconds']:8.2f} s "
                    f"{measured['requests']:6} requests {measured['peak_bytes'] / MIB:6.0f} MiB"
                )
                if measured["exit"] != 0:
                    failures.append(f"{name}, {phase}, {make.NAME}: exit {measured['exit']}, see {log}")
            restored = compare.find_restored(target, source)
            differences = compare.compare_trees(source, restored, False)
            for difference in differences[: compare.DIFFERENCES_SHOWN_MAX]:
                failures.append(f"{name}, restore, {make.NAME}: {difference}")
        finally:
            emulator.stop()
    return results, failures


def report(options, all_results, failures):
    lines = [f"# Comparison on put.io, {time.strftime('%Y-%m-%d')}", ""]
    missed = []

    def judge(what, value, limit, is_met, text):
        if not is_met:
            missed.append(f"{what}: {value}, target {text} {limit}")
        return "met" if is_met else "**not met**"

    for name, results in all_results.items():
        lines += [f"## {name}", ""]
        lines += ["| phase | putback | restic with rclone | requests, restic / putback | targets |"]
        lines += ["|---|---:|---:|---:|---|"]
        for phase in PHASES:
            ours, theirs = results[("putback", phase)], results[("restic", phase)]
            ratio = theirs["requests"] / max(ours["requests"], 1)
            targets = []
            if phase in REQUESTS_MAX:
                limit = REQUESTS_MAX[phase]
                if phase == "first":
                    # All uploads but the index segment and the snapshot are packs.
                    limit += 2 * (ours["uploads"] - 2)
                met = judge(f"{name}, {phase}, requests", ours["requests"], limit, ours["requests"] <= limit, "≤")
                targets.append(f"≤ {limit} requests {met}")
            if name == "random" and phase in ("first", "restore"):
                moved = max(ours["sent"], ours["received"])
                share = moved / options.line_bytes / ours["seconds"]
                met = judge(f"{name}, {phase}, share of the line", f"{share:.2f}", LINE_SHARE_MIN,
                            share >= LINE_SHARE_MIN, "≥")
                targets.append(f"{share:.2f} of the line, ≥ {LINE_SHARE_MIN} {met}")
            cells = [
                f"{one['seconds']:.2f} s, {one['requests']} requests, {one['peak_bytes'] / MIB:.0f} MiB"
                for one in (ours, theirs)
            ]
            lines.append(f"| {phase} | {cells[0]} | {cells[1]} | {ratio:.1f} | {'; '.join(targets)} |")
        total = {tool: sum(results[(tool, phase)]["requests"] for phase in PHASES) for tool in ("putback", "restic")}
        ratio = total["restic"] / total["putback"]
        met = judge(f"{name}, all phases, requests of restic / putback", f"{ratio:.1f}", REQUEST_RATIO_MIN,
                    ratio >= REQUEST_RATIO_MIN, "≥")
        lines.append(
            f"| all | {total['putback']} requests | {total['restic']} requests | {ratio:.1f} | ≥ {REQUEST_RATIO_MIN:.0f} {met} |"
        )
        peak = max(one["peak_bytes"] for (tool, _), one in results.items() if tool == "putback") / MIB
        met = judge(f"{name}, peak memory", f"{peak:.0f} MiB", f"{PEAK_MIB_MAX} MiB", peak <= PEAK_MIB_MAX, "≤")
        lines += ["", f"Peak memory of putback: {peak:.0f} MiB, ≤ {PEAK_MIB_MAX} {met}.", ""]
    facts = compare.machine_facts(options.work)
    lines += ["## Machine and line", ""]
    lines += [", ".join(f"{key}: {value}" for key, value in facts.items())]
    lines += ["", f"{options.latency_ms} ms for each request, {options.line_bytes * 8 / 1e6:.0f} Mbit/s in each direction."]
    summary = [f"Targets missed: {len(missed)}. Failures: {len(failures)}.", ""]
    summary += [f"* not met: {line}" for line in missed] + [f"* FAILURE: {line}" for line in failures] + [""]
    return "\n".join([*lines[:2], *summary, *lines[2:]]) + "\n"


def parse_options():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--putback", required=True, help="the program")
    parser.add_argument("--emulator", required=True, help="the program putio-emulator")
    parser.add_argument("--restic", required=True, help="the program restic")
    parser.add_argument("--rclone", required=True, help="the program rclone")
    parser.add_argument("--work", required=True, type=Path, help="folder for data and repositories: 15 GiB")
    parser.add_argument("--data", default="random,tree", help="which data sets (default: random,tree)")
    parser.add_argument("--latency-ms", type=int, default=100)
    parser.add_argument("--line-bytes", type=int, default=25_000_000, help="bytes a second, each way")
    parser.add_argument("--output", type=Path, help="where the report goes (default: standard output)")
    options = parser.parse_args()
    options.work = options.work.resolve()
    for name in ("putback", "emulator", "restic", "rclone"):
        setattr(options, name, str(Path(getattr(options, name)).resolve()))
    return options


def main():
    options = parse_options()
    all_results, failures = {}, []
    for name in options.data.split(","):
        source = prepare(options, name)
        all_results[name], failed = measure(options, name, source)
        failures += failed
    text = report(options, all_results, failures)
    if options.output:
        options.output.write_text(text)
    else:
        print(text)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
