"""Confinement of the decoding child by the kernel: no network, no other files, no other programs.

Two parts of Linux, each used where it is there:

- Landlock (5.13 and later) leaves of all files those that are named, to be read.
- seccomp, through libseccomp, refuses system calls: sockets, programs, processes, signals to
  others, and whatever changes files, mounts, keys or namespaces. Threads and memory stay.

Both hold for the rest of the process' life. A refused call fails with "permission denied".
"""

import ctypes
import errno
import functools
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from infra.errors import one_line

PARTS = LANDLOCK, SECCOMP = "Landlock", "seccomp"
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on every architecture
_NO_NEW_PRIVILEGES = 38
_RIGHTS_BY_VERSION = {1: (1 << 13) - 1, 2: 1 << 13, 3: 1 << 14, 5: 1 << 15}
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
_NET_TCP, _SCOPES = 0b11, 0b11
_ALLOW, _DENY, _ABSENT = 0x7FFF0000, 0x00050000 | errno.EACCES, 0x00050000 | errno.ENOSYS
_NOT_EQUAL, _MASKED_EQUAL = 1, 7
_CLONE_THREAD = 0x00010000

REFUSED = {
    "network": "socket socketpair connect bind listen accept accept4",
    "programs": "execve execveat fork vfork ptrace process_vm_readv process_vm_writev kcmp "
    "pidfd_open pidfd_getfd pidfd_send_signal tkill rt_sigqueueinfo rt_tgsigqueueinfo",
    "files": "creat truncate rename renameat renameat2 unlink unlinkat rmdir mkdir mkdirat mknod "
    "mknodat link linkat symlink symlinkat chmod fchmod fchmodat fchmodat2 chown fchown lchown "
    "fchownat setxattr lsetxattr fsetxattr removexattr lremovexattr fremovexattr utime utimes "
    "utimensat futimesat open_by_handle_at name_to_handle_at",
    "system": "mount umount2 pivot_root chroot move_mount open_tree fsopen fsmount fsconfig "
    "unshare setns bpf perf_event_open keyctl add_key request_key io_uring_setup userfaultfd "
    "init_module finit_module delete_module kexec_load kexec_file_load reboot swapon swapoff acct "
    "quotactl fanotify_init personality sethostname setdomainname settimeofday clock_settime",
}
"""System calls that no decoder needs, by what they would reach."""
_ROOT = Path(__file__).resolve().parents[1]
_LIBRARIES = ("/usr", "/lib", "/lib64", "/etc/ld.so.cache")
_MACHINE = ("/dev/null", "/dev/urandom", "/proc/self", "/proc/cpuinfo", "/proc/meminfo",
            "/proc/stat", "/sys/devices/system/cpu", "/sys/devices/system/node")  # fmt: skip


@functools.cache
def missing() -> dict[str, str]:
    """Return which of the two parts this machine lacks, each with the reason.

    Both are tried, in processes that end at once: a part that is there and is refused, as some
    containers do, is one that is lacking, and not damage to every film.
    """
    found = {}
    for part in PARTS:
        command = [sys.executable, "-c", f"from {__name__} import enter; enter([], {part!r})"]
        tried = subprocess.run(command, cwd=_ROOT, capture_output=True)
        if tried.returncode:
            last = tried.stderr.decode(errors="replace").strip().rpartition("\n")[2]
            found[part] = one_line(last, 120)
    return found


def enter(readable: Iterable[str], *parts: str) -> None:
    """Confine this process and the threads that it starts from now on.

    Args:
        readable: files and directories that may be read beside Python, its packages, the system's
            libraries and what says how the machine is made.
        parts: of `PARTS`, those to use.

    Raises:
        ValueError: there is no such part.
        OSError: this machine has no such part, or refuses to put it into force.
    """
    if not parts:
        return
    if unknown := set(parts) - {LANDLOCK, SECCOMP}:
        raise ValueError(f"parts {sorted(unknown)}; allowed are {LANDLOCK} and {SECCOMP}")
    libc = ctypes.CDLL(None, use_errno=True)
    _check(libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0), "no_new_privs")
    if LANDLOCK in parts:
        code = [str(_ROOT / folder) for folder in ("data_prep", "infra")]  # not what lies beside
        elsewhere = [path for path in sys.path if path and Path(path).resolve() != _ROOT]
        packages = (sys.prefix, sys.base_prefix, *elsewhere, *code)
        search = filter(None, os.environ.get("LD_LIBRARY_PATH", "").split(":"))
        _landlock(libc, (*_LIBRARIES, *_MACHINE, *packages, *search, *readable))
    if SECCOMP in parts:
        _seccomp()


class _Ruleset(ctypes.Structure):
    _fields_ = (("fs", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


def _landlock(libc: ctypes.CDLL, readable: Iterable[str]) -> None:
    create = functools.partial(libc.syscall, _CREATE_RULESET)
    version = _check(create(None, ctypes.c_size_t(0), 1), LANDLOCK)
    rights = sum(bits for since, bits in _RIGHTS_BY_VERSION.items() if version >= since)
    net, scopes = _NET_TCP if version >= 4 else 0, _SCOPES if version >= 6 else 0
    asked = _Ruleset(rights, net, scopes)
    size = ctypes.c_size_t(24 if version >= 6 else 16 if version >= 4 else 8)
    ruleset = _check(create(ctypes.byref(asked), size, 0), LANDLOCK)
    for path in readable:
        try:
            opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:  # what is not there cannot be read
            continue
        allowed = _READ_FILE | (_READ_DIR if os.path.isdir(path) else 0)
        rule = _Beneath(allowed, opened)
        _check(libc.syscall(_ADD_RULE, ruleset, 1, ctypes.byref(rule), 0), f"{LANDLOCK}: {path}")
        os.close(opened)
    _check(libc.syscall(_RESTRICT_SELF, ruleset, 0), LANDLOCK)
    os.close(ruleset)


class _Argument(ctypes.Structure):
    _fields_ = (
        ("number", ctypes.c_uint), ("operator", ctypes.c_int),
        ("first", ctypes.c_uint64), ("second", ctypes.c_uint64),
    )  # fmt: skip


def _libseccomp() -> ctypes.CDLL:
    library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_rule_add_array.argtypes = (
        ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint, ctypes.c_void_p,
    )  # fmt: skip
    for name in ("seccomp_load", "seccomp_release"):
        getattr(library, name).argtypes = (ctypes.c_void_p,)
    return library


def _seccomp() -> None:
    library = _libseccomp()
    rules = library.seccomp_init(_ALLOW)

    def refuse(name: str, action: int = _DENY, *arguments: _Argument) -> None:
        number = library.seccomp_syscall_resolve_name(name.encode())
        if number >= 0:  # else this machine has no such call
            given = (_Argument * len(arguments))(*arguments)
            _check(
                library.seccomp_rule_add_array(rules, action, number, len(arguments), given), name
            )

    for names in REFUSED.values():
        for name in names.split():
            refuse(name)
    for name in ("clone3", "openat2"):  # callers fall back to the older ones
        refuse(name, _ABSENT)
    refuse("clone", _DENY, _Argument(0, _MASKED_EQUAL, _CLONE_THREAD, 0))  # threads may be made
    for name in ("kill", "tgkill"):
        refuse(name, _DENY, _Argument(0, _NOT_EQUAL, os.getpid(), 0))
    for name, place in (("open", 1), ("openat", 2)):
        for bits, value in ((os.O_ACCMODE, os.O_WRONLY), (os.O_ACCMODE, os.O_RDWR),
                            (os.O_CREAT, os.O_CREAT)):  # fmt: skip
            refuse(name, _DENY, _Argument(place, _MASKED_EQUAL, bits, value))
    _check(library.seccomp_load(rules), SECCOMP)
    library.seccomp_release(rules)


def _check(returned: int, what: str) -> int:
    if returned < 0:
        number = ctypes.get_errno() if returned == -1 else -returned
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return returned
