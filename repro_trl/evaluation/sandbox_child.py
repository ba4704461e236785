"""
The inner side of the sandbox: run as a script by `sandbox.py`, with the standard library alone.

It reads a first line with the program and its limits, cuts itself off from the machine, and then runs the program
once for every further line, each time in a fork of its own, and answers each with a line. It never learns which output
would be right. What a run leaves behind is killed before the next one starts.
"""

import ctypes
import errno
import io
import json
import os
import platform
import resource
import select
import shutil
import signal
import socket
import struct
import sys
import tempfile
import time
import traceback

INNER_ID = 1000  # not 0: a program that is executed by an ordinary user has no capabilities
CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x20000, 0x4000000, 0x8000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
MS_NOSUID, MS_NODEV, MS_BIND, MS_REC, MS_PRIVATE = 2, 4, 0x1000, 0x4000, 0x40000
MNT_DETACH = 2
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 4, 22, 36, 38
SECCOMP_MODE_FILTER = 2
AT_FDCWD, AT_RECURSIVE, MOUNT_ATTR_RDONLY = -100, 0x8000, 1
SYS_MOUNT_SETATTR, SYS_LANDLOCK_CREATE_RULESET = 442, 444  # the same on every architecture
# Numbers of system calls: pivot_root, capset, and those that reach the network or other processes.
SYSTEM_CALLS = {
    "x86_64": {
        "audit": 0xC000003E,
        "pivot_root": 155,
        "capset": 126,
        "socket": 41,
        # kill, tkill, tgkill, rt_sigqueueinfo, rt_tgsigqueueinfo, pidfd_send_signal, ptrace, process_vm_readv,
        # process_vm_writev, io_uring_setup
        "denied": (62, 200, 234, 129, 297, 424, 101, 310, 311, 425),
    },
    "aarch64": {
        "audit": 0xC00000B7,
        "pivot_root": 41,
        "capset": 91,
        "socket": 198,
        "denied": (129, 130, 131, 138, 240, 424, 117, 270, 271, 425),
    },
}
SYSTEM_FOLDERS = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/nix/store", "/etc/ld.so.cache")
SCRATCH = "/scratch"  # the only folder in which a program can write
DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")

libc = ctypes.CDLL(None, use_errno=True)


def check(result):
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


# --------------------------------------------------------------------------------------------------------- isolation


def drop_root():
    """Become a user that nobody else is, so that nothing on the machine belongs to the program."""
    if os.geteuid() == 0:
        user = 50000 + SANDBOX % 15000
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)


def enter_namespaces():
    """Own users, processes, mounts and network; a root folder with interpreter and system libraries, read-only."""
    user, group = os.getuid(), os.getgid()
    flags = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS
    check(libc.unshare(flags if user == 0 else flags | CLONE_NEWUSER))
    if user != 0:
        write("/proc/self/setgroups", "deny")
        write("/proc/self/uid_map", f"{INNER_ID} {user} 1")
        write("/proc/self/gid_map", f"{INNER_ID} {group} 1")

    child = os.fork()  # the first process of the new process namespace: all others die with it
    if child:
        _, status = os.waitpid(child, 0)
        os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
    check(libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0))

    mount(None, "/", None, MS_REC | MS_PRIVATE)
    folders = dict.fromkeys(os.path.abspath(folder) for folder in (*SYSTEM_FOLDERS, sys.prefix, sys.base_prefix))
    present = [path for path in folders if os.path.exists(path)]
    links = [(path, os.readlink(path)) for path in present if os.path.islink(path)]
    # Opened before the new root folder, which is built in /tmp, hides what lies there.
    sources = [
        (path, os.open(path, os.O_PATH | os.O_CLOEXEC)) for path in (*present, *DEVICES) if not os.path.islink(path)
    ]
    root = "/tmp"
    mount("tmpfs", root, "tmpfs", MS_NOSUID | MS_NODEV, "size=1m,mode=755")
    for path, descriptor in sources:
        target = root + path
        os.makedirs(os.path.dirname(target), exist_ok=True)
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            os.makedirs(target, exist_ok=True)
        else:
            write(target, "")
        mount(f"/proc/self/fd/{descriptor}", target, None, MS_BIND | MS_REC)
        if path not in DEVICES:
            set_read_only(target)
        os.close(descriptor)
    for path, link in links:
        os.makedirs(os.path.dirname(root + path), exist_ok=True)
        os.symlink(link, root + path)
    os.makedirs(root + SCRATCH)
    mount("tmpfs", root + SCRATCH, "tmpfs", MS_NOSUID | MS_NODEV)
    if not os.path.exists(root + "/tmp"):  # the interpreter may lie there
        os.symlink(SCRATCH, root + "/tmp")
    os.chdir(root)
    check(libc.syscall(system_calls()["pivot_root"], b".", b"."))
    check(libc.umount2(b".", MNT_DETACH))
    os.chdir("/")
    set_read_only("/", recursive=False)


def mount(source, target, kind, flags, data=""):
    check(
        libc.mount(
            source.encode() if source else None,
            target.encode(),
            kind.encode() if kind else None,
            ctypes.c_ulong(flags),
            data.encode(),
        )
    )


def set_read_only(path, recursive=True):
    attributes = struct.pack("QQQQ", MOUNT_ATTR_RDONLY, 0, 0, 0)
    flags = AT_RECURSIVE if recursive else 0
    check(libc.syscall(SYS_MOUNT_SETATTR, AT_FDCWD, path.encode(), flags, attributes, len(attributes)))


def write(path, text):
    with open(path, "w") as file:
        file.write(text)


def system_calls():
    calls = SYSTEM_CALLS.get(platform.machine())
    if calls is None:
        raise OSError(errno.ENOSYS, f"no numbers of system calls for {platform.machine()}")
    return calls


def drop_capabilities():
    header = struct.pack("Ii", 0x20080522, 0)
    check(libc.syscall(system_calls()["capset"], header, bytes(24)))


def filter_system_calls():
    """Refuse sockets other than local ones, signals, and access to other processes' memory."""
    calls = system_calls()
    load, jump_equal, jump_at_least, give_back = 0x20, 0x15, 0x35, 0x06
    allow, refuse, kill = 0x7FFF0000, 0x00050000 | errno.EPERM, 0x80000000
    program = [
        (load, 0, 0, 4),  # the architecture
        (jump_equal, 1, 0, calls["audit"]),
        (give_back, 0, 0, kill),
        (load, 0, 0, 0),  # the number of the call
        (jump_at_least, 0, 1, 0x40000000),  # x86-64's second table
        (give_back, 0, 0, kill),
    ]
    for number in calls["denied"]:
        program += [(jump_equal, 0, 1, number), (give_back, 0, 0, refuse)]
    program += [
        (jump_equal, 0, 3, calls["socket"]),
        (load, 0, 0, 16),  # the first argument: the family
        (jump_equal, 1, 0, socket.AF_UNIX),
        (give_back, 0, 0, refuse),
        (give_back, 0, 0, allow),
    ]
    code = b"".join(struct.pack("HBBI", *instruction) for instruction in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    header = struct.pack("HxxxxxxP", len(program), ctypes.addressof(buffer))
    check(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    check(libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, header, 0, 0))


def protect_files(folder):
    """Let only files below `folder` and /dev/null be changed (Landlock)."""
    version = check(libc.syscall(SYS_LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), 1))
    # Write, remove and make files of every kind; truncate them, where the kernel knows that right.
    rights = 0b1_1111_1111_0010 | (1 << 14 if version >= 3 else 0)
    attributes = struct.pack("Q", rights)
    rules = check(libc.syscall(SYS_LANDLOCK_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0))
    for path, allowed in ((folder, rights), (os.devnull, 0b10)):
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
        rule = struct.pack("=Qi", allowed, descriptor)
        check(libc.syscall(SYS_LANDLOCK_CREATE_RULESET + 1, rules, 1, rule, 0))
        os.close(descriptor)
    check(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    check(libc.syscall(SYS_LANDLOCK_CREATE_RULESET + 2, rules, 0))
    os.close(rules)


def set_limits(seconds):
    for name, value in (
        (resource.RLIMIT_CPU, int(seconds) + 1),
        (resource.RLIMIT_AS, LIMITS["memory"]),
        (resource.RLIMIT_FSIZE, LIMITS["disk"]),
        (resource.RLIMIT_NPROC, LIMITS["processes"]),
        (resource.RLIMIT_NOFILE, 256),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(name)
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(name, (value, value))


# --------------------------------------------------------------------------------------------------- running a program


def run_once(request):
    """Run the program in a fork of its own. Returns the answer: status, output, value, detail."""
    folder = make_folder()
    output, output_end = os.pipe()
    report, report_end = os.pipe()
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        os.close(output)
        os.close(report)
        run_program(request, folder, output_end, report_end)
    os.close(output_end)
    os.close(report_end)
    chunks = {output: [], report: []}
    sizes = dict.fromkeys(chunks, 0)
    limits = {output: LIMITS["output"], report: LIMITS["output"]}
    deadline = started + request["seconds"]
    status = None
    open_ends = {output, report}
    exit_code = None
    while status is None:
        ready, _, _ = select.select(list(open_ends), [], [], min(0.02, max(0, deadline - time.monotonic())))
        for end in ready:
            data = os.read(end, 65536)
            chunks[end].append(data)
            sizes[end] += len(data)
            if not data:
                open_ends.discard(end)
            if sizes[end] > limits[end]:
                status = "output limit"
        if status is None and not ready and exit_code is None:
            exit_code = poll(child)
        # The program has ended and what it wrote has been read; its own children are not waited for.
        if status is None and exit_code is not None and not ready:
            status = "ended"
        elif status is None and not open_ends:
            exit_code = wait(child, deadline) if exit_code is None else exit_code
            status = "ended" if exit_code is not None else "time limit"
        if status is None and time.monotonic() > deadline:
            status = "time limit"
    end_all(child)
    for end in (output, report):
        os.close(end)
    if ISOLATION != "namespaces":
        shutil.rmtree(folder, ignore_errors=True)
    answer = {
        "status": status,
        "output": b"".join(chunks[output])[: LIMITS["output"]].decode("utf-8", "replace"),
        "detail": "",
    }
    if status == "ended":
        answer |= read_report(b"".join(chunks[report]), exit_code)
    return answer


def read_report(data, exit_code):
    try:
        report = json.loads(data)
        return {"status": str(report["status"]), "value": report.get("value"), "detail": str(report["detail"])[:500]}
    except (ValueError, KeyError, TypeError):
        if exit_code == -signal.SIGXCPU:
            return {"status": "time limit"}
        return {"status": "error", "detail": f"ended with exit code {exit_code} and no report"}


def poll(child):
    process, status = os.waitpid(child, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if process else None


def wait(child, deadline):
    while time.monotonic() < deadline:
        code = poll(child)
        if code is not None:
            return code
        time.sleep(0.001)
    return None


def end_all(child):
    """Kill the program and whatever it started."""
    if os.getpid() == 1:
        try:
            os.kill(-1, signal.SIGKILL)  # everything in this process namespace, but not its first process
        except ProcessLookupError:
            pass
        reap()
        return
    # Orphans come to this process. New ones can appear while it kills, until the limit of processes stops them.
    while True:
        for process in descendants():
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                pass
        reap(os.WNOHANG)
        if not descendants():
            return


def reap(flags=0):
    try:
        while os.waitpid(-1, flags)[0]:
            pass
    except ChildProcessError:
        pass


def descendants():
    parents = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat") as file:
                    parents[int(name)] = int(file.read().rpartition(")")[2].split()[1])
            except (OSError, ValueError):
                continue  # it has just ended
    found = {os.getpid()}
    while True:
        more = {process for process, parent in parents.items() if parent in found} - found
        if not more:
            return found - {os.getpid()}
        found |= more


def make_folder():
    """An empty folder for one run."""
    if ISOLATION == "namespaces":
        # What the run before wrote goes with its file system, however it was named or protected.
        check(libc.umount2(SCRATCH.encode(), MNT_DETACH))
        mount("tmpfs", SCRATCH, "tmpfs", MS_NOSUID | MS_NODEV, f"size={LIMITS['disk']},mode=777")
        return SCRATCH
    return tempfile.mkdtemp(prefix="program-")


def run_program(request, folder, output_end, report_end):
    """In the fork: never returns."""
    report = {"status": "error", "detail": "", "value": None}
    try:
        os.setsid()
        os.umask(0o077)
        os.chdir(folder)
        os.environ["HOME"] = os.environ["TMPDIR"] = folder
        tempfile.tempdir = None  # asked for before
        standard_input = tempfile.TemporaryFile(dir=folder)
        standard_input.write(request.get("input", "").encode())
        standard_input.seek(0)
        os.dup2(standard_input.fileno(), 0)
        for end in (1, 2):
            os.dup2(output_end if end == 1 else os.open(os.devnull, os.O_WRONLY), end)
        report_end = os.dup2(report_end, 3)
        os.closerange(4, 65536)
        sys.stdin = io.TextIOWrapper(open(0, "rb", closefd=False), encoding="utf-8", errors="replace")
        sys.stdout = io.TextIOWrapper(
            io.BufferedWriter(io.FileIO(1, "wb", closefd=False)), encoding="utf-8", errors="replace"
        )
        sys.stderr = io.TextIOWrapper(io.FileIO(2, "wb", closefd=False), encoding="utf-8", write_through=True)
        sys.argv = ["program.py"]
        sys.setrecursionlimit(50000)
        set_limits(request["seconds"])
        if ISOLATION == "namespaces":
            drop_root()
            drop_capabilities()
            check(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        else:
            protect_files(folder)
            filter_system_calls()
        report["value"] = execute(request)
        sys.stdout.flush()
        report["status"] = "ok"
    except SystemExit as error:
        # Programs may end themselves after they printed their answer, but not before they were tested.
        finished = request["kind"] == "input" and error.code in (None, 0)
        report["status"] = "ok" if finished else "error"
        report["detail"] = f"exit({error.code!r})"
        try:
            sys.stdout.flush()
        except BaseException:
            report["status"] = "error"
    except MemoryError:
        report["status"] = "memory limit"
    except BaseException as error:
        report["detail"] = "".join(traceback.format_exception_only(error)).strip()[-400:]
    finally:
        try:
            data = json.dumps(report)
        except BaseException as error:
            data = json.dumps({"status": "error", "detail": f"not a JSON value: {error}"[:400], "value": None})
        data = data.encode()
        while data:
            data = data[os.write(report_end, data) :]
        os._exit(0)


def execute(request):
    scope = {"__name__": "__main__", "__builtins__": __builtins__}
    exec(PRELUDE, scope)
    kind = request["kind"]
    if kind != "input":
        scope["__name__"] = "program"
    exec(compile(SOURCE, "program.py", "exec"), scope)
    if kind == "assert":
        exec(compile(request["code"], "tests.py", "exec"), scope)
    if kind == "call":
        owner = scope.get("Solution")
        function = getattr(owner(), request["function"]) if owner is not None else scope[request["function"]]
        return function(*request["arguments"])
    return None


def main():
    """Read the program and its limits, isolate, answer requests until there are no more."""
    global LIMITS, SOURCE, PRELUDE, ISOLATION, SANDBOX
    SANDBOX = os.getpid()
    os.umask(0o022)  # other users must be able to walk through the new root folder
    requests = sys.stdin.buffer
    first = json.loads(requests.readline())
    LIMITS, SOURCE, ISOLATION = first["limits"], first["source"], first["isolation"]
    if ISOLATION == "namespaces":
        enter_namespaces()
    else:
        drop_root()
        if not os.access(os.__file__, os.R_OK):
            raise OSError(errno.EACCES, "other users cannot read the Python installation", sys.base_prefix)
        check(libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))
    PRELUDE = compile(first["prelude"], "prelude.py", "exec")
    exec(PRELUDE, {})  # so that its modules are imported once, and not in every run
    answer({"status": "ready"})
    check(libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0))  # programs cannot look into this process
    for line in requests:
        answer(run_once(json.loads(line)))


def answer(message):
    sys.stdout.buffer.write(json.dumps(message).encode() + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    try:
        main()
    except Exception as error:
        answer({"status": "unusable", "detail": f"{type(error).__name__}: {error}"})
        sys.exit(1)
