"""A seccomp filter: system calls that reach other processes, the network or the machine's settings fail with EPERM.

It stands beside Landlock, which says nothing of sockets but TCP, of a file's mode, times and attributes, of locks,
shared memory, queues and keyrings. What is not named here is let through; calls that are newer than this list do not
exist for the process. For x86-64 alone, as the calls' numbers are the processor's.
"""

import ctypes
import errno
import os
import platform

LAST_CALL = 469  # of Linux 6.17; what is above does not exist for the process

_ARCHITECTURE = 0xC000003E  # AUDIT_ARCH_X86_64
_X32 = 0x40000000
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_NO_NEW_PRIVS, _SET_SECCOMP, _FILTER = 38, 22, 2
_LOAD, _JUMP_IF_EQUAL, _JUMP_IF_AT_LEAST, _JUMP_IF_ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_CALL, _ARCH, _ARGUMENTS = 0, 4, 16  # places in struct seccomp_data

DENIED: dict[str, tuple[int, ...]] = {
    "sockets": (41, 53, 42, 49, 50, 43, 288),
    "processes": (57, 58, 59, 322, 434, 424, 438),  # fork, vfork, execve, execveat, pidfd_*
    "other processes' memory": (101, 310, 311, 440, 448, 312, 256, 279, 323),  # ptrace, process_vm_*, kcmp
    "io_uring": (425, 426, 427),
    "System V shared memory, semaphores and queues": (29, 30, 31, 67, 64, 65, 66, 220, 68, 69, 70, 71),
    "POSIX queues": (240, 241, 242, 243, 244, 245),
    "keyrings": (248, 249, 250),
    "modes and owners": (90, 91, 92, 93, 94, 260, 268, 452),
    "times": (132, 235, 261, 280),
    "attributes": (188, 189, 190, 197, 198, 199, 463, 466, 469),
    "locks and watches of files": (73, 253, 294, 254, 300, 301),
    "mounts and namespaces": (155, 161, 165, 166, 272, 308, 428, 429, 430, 431, 432, 433, 442, 467),
    "its settings and clock": (103, 153, 159, 163, 164, 167, 168, 169, 170, 171, 172, 173, 179, 227, 305, 443),
    "the kernel itself": (175, 176, 246, 298, 303, 304, 313, 320, 321),
    "priorities": (141, 142, 144, 251, 314),
}  # fmt: skip
"""By what they reach: numbers in Linux's table for x86-64."""

_CLONE, _CLONE3, _CLONE_THREAD = 56, 435, 0x00010000
_OF_OWN_PROCESS = (62, 200, 234, 129, 297)  # kill, tkill, tgkill, rt_sigqueueinfo, rt_tgsigqueueinfo
_OF_SELF = (302, 203)  # prlimit64, sched_setaffinity: of process 0, which is the caller
_FCNTL, _FCNTL_DENIED = 72, (6, 7, 8, 10, 15, 37, 38, 1024, 1026)  # locks, owners of signals, leases
_IOCTL, _IOCTL_DENIED = 16, (0x5412, 0x8901, 0x8902)  # a terminal's input, owners of signals


class _Instruction(ctypes.Structure):
    _fields_ = (
        ("code", ctypes.c_uint16),
        ("jt", ctypes.c_uint8),
        ("jf", ctypes.c_uint8),
        ("k", ctypes.c_uint32),
    )


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint16), ("filter", ctypes.POINTER(_Instruction)))


Code = list[tuple[int, int, int, int]]

_libc = ctypes.CDLL(None, use_errno=True)


def is_known_here() -> bool:
    """Whether the filter is of this machine's processor."""
    return platform.system() == "Linux" and platform.machine() == "x86_64"


def no_new_privileges() -> None:
    """From here on no program that is run has more rights than this process: what both fences ask for first."""
    _prctl(_NO_NEW_PRIVS, 1, 0)


def install() -> None:
    """Filter this process's calls, and those of threads that it starts, for good. OSError where the kernel refuses."""
    code = _code(os.getpid())
    instructions = (_Instruction * len(code))(*(_Instruction(*line) for line in code))
    program = _Program(len(code), ctypes.cast(instructions, ctypes.POINTER(_Instruction)))
    _prctl(_SET_SECCOMP, _FILTER, ctypes.byref(program))


def _code(process: int) -> Code:
    code: Code = [
        (_LOAD, 0, 0, _ARCH),
        (_JUMP_IF_EQUAL, 1, 0, _ARCHITECTURE),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _CALL),
        (_JUMP_IF_AT_LEAST, 0, 1, _X32),
        (_RETURN, 0, 0, _KILL),
        (_JUMP_IF_AT_LEAST, 0, 1, LAST_CALL + 1),
        (_RETURN, 0, 0, _ERRNO | errno.ENOSYS),
    ]
    code += _refused((_CLONE3,), errno.ENOSYS)  # its flags cannot be seen; the C library then takes clone
    for numbers in DENIED.values():
        code += _refused(numbers, errno.EPERM)
    code += _unless(_CLONE, 0, [(_JUMP_IF_ANY_BIT, 1, 0, _CLONE_THREAD)])
    for number in _OF_OWN_PROCESS:
        code += _unless(number, 0, [(_JUMP_IF_EQUAL, 1, 0, process)])
    for number in _OF_SELF:
        code += _unless(number, 0, [(_JUMP_IF_EQUAL, 2, 0, 0), (_JUMP_IF_EQUAL, 1, 0, process)])
    for number, commands in ((_FCNTL, _FCNTL_DENIED), (_IOCTL, _IOCTL_DENIED)):
        code += _where(number, 1, commands)
    return [*code, (_RETURN, 0, 0, _ALLOW)]


def _refused(numbers: tuple[int, ...], error: int) -> Code:
    code: Code = []
    for number in numbers:
        code += [(_JUMP_IF_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ERRNO | error)]
    return code


def _unless(number: int, argument: int, tests: Code) -> Code:
    """Refuse call `number` unless a test of an argument's low word jumps over the refusal."""
    body: Code = [
        (_LOAD, 0, 0, _ARGUMENTS + 8 * argument),
        *tests,
        (_RETURN, 0, 0, _ERRNO | errno.EPERM),
        (_LOAD, 0, 0, _CALL),
    ]
    return [(_JUMP_IF_EQUAL, 0, len(body), number), *body]


def _where(number: int, argument: int, values: tuple[int, ...]) -> Code:
    """Refuse call `number` where an argument's low word is one of `values`."""
    body: Code = [
        (_LOAD, 0, 0, _ARGUMENTS + 8 * argument),
        *_refused(values, errno.EPERM),
        (_LOAD, 0, 0, _CALL),
    ]
    return [(_JUMP_IF_EQUAL, 0, len(body), number), *body]


def _prctl(option: int, first: object, second: object) -> None:
    if _libc.prctl(ctypes.c_int(option), first, second, 0, 0) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"seccomp: {os.strerror(error)}")
