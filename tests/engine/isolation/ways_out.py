"""What a client program could try to see or say more than its report: each way returns True where it got through.

Runs as it is in a process of its own, to see that the ways are real, and as a part of a client program, to see that
isolation closes them. `facts` says where the others are.
"""

import ctypes
import json
import mmap
import os
import resource
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import ways_by_files  # noqa: F401 - its ways
from ways import Facts, called, libc, tried, way

# other processes


@way
def read_the_hosts_command_line(facts):
    return Path(f"/proc/{facts['host']}/cmdline").read_bytes()


@way
def read_the_hosts_environment(facts):
    return Path(f"/proc/{facts['host']}/environ").read_bytes()


@way
def read_the_hosts_memory(facts):
    with open(f"/proc/{facts['host']}/maps", "rb") as file:
        return file.read(100)


@way
def read_the_hosts_descriptors(facts):
    return os.listdir(f"/proc/{facts['host']}/fd")


@way
def signal_the_host(facts):
    os.kill(facts["host"], 0)
    return True


@way
def signal_its_parent(facts):
    os.kill(os.getppid(), 0)
    return True


@way
def signal_everybody(facts):
    os.kill(-1, 0)
    return True


@way
def queue_a_signal(facts):
    about = ctypes.create_string_buffer(128)
    ctypes.memmove(ctypes.addressof(about) + 8, (-1).to_bytes(4, sys.byteorder, signed=True), 4)  # SI_QUEUE
    return called(129, facts["host"], 0, about)


@way
def hold_the_host_by_descriptor(facts):
    return os.pidfd_open(facts["host"]) >= 0


@way
def trace_the_host(facts):
    return libc.ptrace(0x4206, facts["host"], None, None) >= 0 and libc.ptrace(17, facts["host"], 0, 0) <= 0


@way
def copy_the_hosts_memory(facts):
    here = ctypes.create_string_buffer(8)
    pair = (ctypes.c_size_t * 2)(ctypes.addressof(here), 8)
    address = int(Path("/proc/self/maps").read_text().split("-")[0], 16)
    there = (ctypes.c_size_t * 2)(address, 8)
    got = libc.process_vm_readv(facts["host"], pair, 1, there, 1, 0)
    return got >= 0 or ctypes.get_errno() == 14  # allowed, and nothing is at that address


@way
def change_the_hosts_limits(facts):
    limit = (ctypes.c_uint64 * 2)()
    return called(302, facts["host"], 7, None, limit)


@way
def change_the_hosts_priority(facts):
    os.setpriority(os.PRIO_PROCESS, facts["host"], os.getpriority(os.PRIO_PROCESS, facts["host"]))
    return True


@way
def pin_the_host(facts):
    os.sched_setaffinity(facts["host"], os.sched_getaffinity(facts["host"]))
    return True


@way
def fork(facts):
    child = os.fork()
    if not child:
        os._exit(0)
    os.waitpid(child, 0)
    return True


@way
def run_a_program(facts):
    return subprocess.run(["/bin/true"], check=True)


@way
def become_a_program(facts):
    nowhere = f"{facts['tmp']}/nowhere".encode()
    return called(59, nowhere, None, None) or ctypes.get_errno() == 2  # allowed, and it is not there


# the network and what is like it


@way
def connect_by_tcp(facts):
    with socket.create_connection(("127.0.0.1", facts["tcp"]), 2):
        return True


@way
def listen_by_tcp(facts):
    with socket.socket() as own:
        own.bind(("127.0.0.1", 0))
        own.listen()
        return True


@way
def send_by_udp(facts):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as own:
        return own.sendto(b"193", ("127.0.0.1", facts["udp"]))


@way
def connect_to_a_unix_socket(facts):
    with socket.socket(socket.AF_UNIX) as own:
        own.connect(facts["unix"])
        return True


@way
def connect_to_an_abstract_socket(facts):
    with socket.socket(socket.AF_UNIX) as own:
        own.connect("\0" + facts["abstract"])
        return True


@way
def ask_the_kernel_by_netlink(facts):
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW):
        return True


@way
def use_io_uring(facts):
    return called(425, 4, ctypes.create_string_buffer(120))


@way
def share_memory_by_system_v(facts):
    identity = libc.shmget(0, 4096, 0o1600)
    return identity >= 0 and libc.shmctl(identity, 0, None) >= 0


@way
def share_a_queue_by_system_v(facts):
    identity = libc.msgget(0, 0o1600)
    return identity >= 0 and libc.msgctl(identity, 0, None) >= 0


@way
def share_a_posix_queue(facts):
    name = f"fedge-test-{os.getpid()}".encode()
    return called(240, name, os.O_CREAT | os.O_RDWR, 0o600, None) and called(241, name)


@way
def leave_a_key(facts):
    return called(248, b"user", b"fedge", b"193", ctypes.c_size_t(3), -2)


@way
def call_ray(facts):
    import ray

    return ray.is_initialized() and ray.put(193)


@way
def reach_rays_control_store(facts):
    """The first step of `ray.init`, which itself would try for minutes."""
    host, _, port = facts["ray"].rpartition(":")
    with socket.create_connection((host, int(port)), 2):
        return True


@way
def reach_rays_sockets(facts):
    """Of the node's raylet and object store, which are files."""
    for path in facts["ray_sockets"]:
        with socket.socket(socket.AF_UNIX) as own:
            own.connect(path)
            return True
    return False


# the machine


@way
def leave_its_namespace(facts):
    return libc.unshare(0x04000000) == 0


@way
def change_the_root(facts):
    return libc.chroot(b"/") == 0


@way
def rename_the_machine(facts):
    name = socket.gethostname().encode()
    return libc.sethostname(name, ctypes.c_size_t(len(name))) == 0


@way
def watch_the_processor(facts):
    attributes = ctypes.create_string_buffer(128)
    ctypes.memmove(attributes, b"\x01\x00\x00\x00\x80\x00\x00\x00", 8)
    return called(298, attributes, 0, -1, -1, 0) or ctypes.get_errno() not in (1, 13)


# what it is left with


@way
def find_a_secret_in_the_environment(facts):
    return any(facts["secret"] in value for value in os.environ.values())


@way
def find_a_descriptor(facts):
    """Besides those of /dev/null, of the place of its own process, and of the pipe that takes its answer."""
    names = []
    for number in os.listdir("/proc/self/fd"):
        try:
            names.append(os.readlink(f"/proc/self/fd/{number}"))
        except OSError:
            continue
    pipes = {name for name in names if name.startswith("pipe:")}
    others = {name for name in names if not name.startswith(("pipe:", "/dev/null", "/proc/", facts["own"]))}
    return len(pipes) > 1 or others


@way
def print_to_the_terminal(facts):
    os.write(1, b"label 193 of ways out\n")
    os.write(2, b"label 193 of ways out\n")
    return "/dev/null" not in os.readlink("/proc/self/fd/1") and facts["own"] not in os.readlink(
        "/proc/self/fd/1"
    )


def allowed(facts: Facts) -> list[str]:
    """What must go on working; the names of what does not."""
    failed = []
    own = Path(facts["own"])
    checks: dict[str, Callable[[], object]] = {
        "write its folder": lambda: (own / "kept").write_text("x"),
        "read its folder": lambda: (own / "kept").read_text(),
        "replace a file": lambda: (own / "kept").rename(own / "kept2"),
        "make a temporary file": lambda: os.close(tempfile.mkstemp()[0]),
        "read its status": lambda: Path("/proc/self/status").read_text().index("VmData"),
        "import a module": lambda: __import__("xml.dom.minidom"),
        "draw from the system": lambda: os.urandom(8),
        "map memory": lambda: mmap.mmap(-1, 1 << 20),
        "start a thread": _thread,
        "limit itself": lambda: resource.setrlimit(
            resource.RLIMIT_DATA, resource.getrlimit(resource.RLIMIT_DATA)
        ),
    }
    for name, check in checks.items():
        try:
            check()
        except Exception as error:
            failed.append(f"{name}: {error}")
    return failed


def _thread() -> None:
    import threading

    thread = threading.Thread(target=lambda: None)
    thread.start()
    thread.join()


if __name__ == "__main__":
    print(json.dumps(tried(json.loads(sys.argv[1]))))
