"""
How the inner side of the sandbox cuts itself off from the machine: namespaces or filters, users, limits.

`sandbox_child.py` imports it, with the standard library alone.
"""

import ctypes
import errno
import os
import platform
import resource
import signal
import socket
import struct
import sys

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
INPUT = "/input"  # holds what it reads
DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")

libc = ctypes.CDLL(None, use_errno=True)


def check(result):
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def drop_root(number):
    """Become a user that nobody else is, by the sandbox's `number`: the program owns nothing on the machine."""
    if os.geteuid() == 0:
        user = 50000 + number % 15000
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
    for folder in (SCRATCH, INPUT):
        os.makedirs(root + folder)
        mount("tmpfs", root + folder, "tmpfs", MS_NOSUID | MS_NODEV)
    os.symlink(f"{INPUT}/stdin", root + "/dev/stdin")
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
        raise OSError(errno.ENOSYS, f"the numbers of the system calls on {platform.machine()} are unknown")
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


def fresh_folder(path, options):
    """An empty file system. What the run before wrote goes with its own, however it was named or protected."""
    check(libc.umount2(path.encode(), MNT_DETACH))
    mount("tmpfs", path, "tmpfs", MS_NOSUID | MS_NODEV, options)


def set_limits(limits, seconds):
    for name, value in (
        (resource.RLIMIT_CPU, int(seconds) + 1),
        (resource.RLIMIT_AS, limits["memory"]),
        (resource.RLIMIT_FSIZE, limits["disk"]),
        (resource.RLIMIT_NPROC, limits["processes"]),
        (resource.RLIMIT_NOFILE, 256),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(name)
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(name, (value, value))
