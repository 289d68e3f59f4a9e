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
import sys
from collections.abc import Iterable

LANDLOCK, SECCOMP = "Landlock", "seccomp"
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
_LIBRARIES = ("/usr", "/lib", "/lib64", "/etc/ld.so.cache")
_MACHINE = ("/dev/null", "/dev/urandom", "/proc/self", "/proc/cpuinfo", "/proc/meminfo",
            "/proc/stat", "/sys/devices/system/cpu", "/sys/devices/system/node")  # fmt: skip


@functools.cache
def missing() -> tuple[str, ...]:
    """Return which of the two parts this machine lacks."""
    there = {LANDLOCK: _landlock_version() > 0, SECCOMP: _libseccomp() is not None}
    return tuple(name for name, found in there.items() if not found)


def enter(readable: Iterable[str]) -> None:
    """Confine this process and the threads that it starts from now on.

    Args:
        readable: files and directories that may be read beside Python, its packages, the system's
            libraries and what says how the machine is made.

    Raises:
        OSError: the kernel offers a part and refuses to put it into force.
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None, use_errno=True)
    _check(libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0), "no_new_privs")
    if LANDLOCK not in missing():
        packages = (sys.prefix, sys.base_prefix, *filter(None, sys.path))
        search = filter(None, os.environ.get("LD_LIBRARY_PATH", "").split(":"))
        _landlock(libc, (*_LIBRARIES, *_MACHINE, *packages, *search, *readable))
    if SECCOMP not in missing():
        _seccomp()


class _Ruleset(ctypes.Structure):
    _fields_ = (("fs", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


def _landlock_version() -> int:
    if sys.platform != "linux":
        return 0
    return ctypes.CDLL(None).syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), 1)


def _landlock(libc: ctypes.CDLL, readable: Iterable[str]) -> None:
    version = _landlock_version()
    rights = sum(bits for since, bits in _RIGHTS_BY_VERSION.items() if version >= since)
    net, scopes = _NET_TCP if version >= 4 else 0, _SCOPES if version >= 6 else 0
    asked = _Ruleset(rights, net, scopes)
    size = ctypes.c_size_t(24 if version >= 6 else 16 if version >= 4 else 8)
    ruleset = _check(libc.syscall(_CREATE_RULESET, ctypes.byref(asked), size, 0), LANDLOCK)
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


@functools.cache
def _libseccomp() -> ctypes.CDLL | None:
    if sys.platform != "linux":
        return None
    try:
        library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
    except OSError:
        return None
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_rule_add_array.argtypes = (
        ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint, ctypes.c_void_p,
    )  # fmt: skip
    for name in ("seccomp_load", "seccomp_release"):
        getattr(library, name).argtypes = (ctypes.c_void_p,)
    return library


def _seccomp() -> None:
    library = _libseccomp()
    assert library is not None
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
