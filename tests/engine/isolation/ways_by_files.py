"""Ways out by files, and by what a file is besides its contents."""

import ctypes
import fcntl
import json
import os
import sys
from pathlib import Path

from ways import called, libc, way

# files


@way
def read_anothers_file(facts):
    return Path(facts["other"], "state").read_bytes()


@way
def write_anothers_file(facts):
    return Path(facts["other"], "state").open("ab").write(b"x")


@way
def list_anothers_folder(facts):
    return os.listdir(facts["other"])


@way
def make_a_file_in_anothers_folder(facts):
    return Path(facts["other"], "planted").write_bytes(b"x")


@way
def rename_anothers_file(facts):
    os.rename(Path(facts["other"], "spare"), Path(facts["other"], "spare2"))
    return True


@way
def delete_anothers_file(facts):
    Path(facts["other"], "doomed").unlink()
    return True


@way
def read_through_a_symbolic_link(facts):
    link = Path(facts["own"], f"symbolic-{os.getpid()}")
    link.symlink_to(Path(facts["other"], "state"))
    return link.read_bytes()


@way
def plant_a_symbolic_link(facts):
    Path(facts["own"], f"planted-{os.getpid()}").symlink_to("/etc")
    return True


@way
def read_through_a_hard_link(facts):
    link = Path(facts["own"], f"hard-{os.getpid()}")
    os.link(Path(facts["other"], "state"), link)
    return link.read_bytes()


@way
def truncate_anothers_file(facts):
    os.truncate(Path(facts["other"], "long"), 1)
    return True


@way
def write_the_coordinators_folder(facts):
    return Path(facts["coordinator"], f"note-{os.getpid()}").write_bytes(b"x")


@way
def write_a_temporary_folder(facts):
    return Path(facts["tmp"], f"note-{os.getpid()}").write_bytes(b"x")


@way
def write_shared_memory(facts):
    path = Path("/dev/shm", f"fedge-test-{os.getpid()}")
    path.write_bytes(b"x")
    path.unlink()
    return True


@way
def read_the_systems_files(facts):
    return Path("/etc/passwd").read_bytes()


@way
def write_a_library(facts):
    with open(json.__file__, "ab"):
        return True


@way
def read_by_its_process_root(facts):
    return Path(f"/proc/self/root{facts['other']}", "state").read_bytes()


@way
def read_by_a_handle(facts):
    handle, mount = ctypes.create_string_buffer(136), ctypes.c_int()
    ctypes.memmove(handle, (128).to_bytes(4, sys.byteorder), 4)
    path = str(Path(facts["other"], "state")).encode()
    return called(303, -100, path, handle, ctypes.byref(mount), 0)


@way
def make_a_queue_in_its_folder(facts):
    os.mkfifo(Path(facts["own"], f"fifo-{os.getpid()}"))
    return True


# what a file is besides its contents


@way
def change_a_mode(facts):
    os.chmod(Path(facts["other"], "state"), 0o640)
    return True


@way
def change_a_librarys_mode(facts):
    with open(json.__file__, "rb") as file:
        os.fchmod(file.fileno(), os.fstat(file.fileno()).st_mode & 0o7777)
    return True


@way
def change_a_time(facts):
    os.utime(Path(facts["other"], "state"), (1, 193))
    return True


@way
def set_an_attribute(facts):
    os.setxattr(Path(facts["other"], "state"), "user.fedge", b"193")
    return True


@way
def lock_a_library(facts):
    with open(json.__file__, "rb") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
    return True


@way
def lock_a_part_of_a_library(facts):
    with open(json.__file__, "rb") as file:
        fcntl.lockf(file, fcntl.LOCK_SH, 1, 193)
    return True


@way
def watch_anothers_folder(facts):
    watch = libc.inotify_init1(0)
    return watch >= 0 and libc.inotify_add_watch(watch, str(facts["other"]).encode(), 0xFFF) >= 0
