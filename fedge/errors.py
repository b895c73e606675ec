"""The two ways a run can end badly, each with one clear line for the person who started it.

A message says what, what was got, what is allowed and what to do:
`data.partition.alpha is -1; it must be above 0 (0.1: very unlike clients, 100: all alike)`.
"""


class FedgeError(Exception):
    """Base of both; `exit_code` is what the command line ends with."""

    exit_code = 3


class UserError(FedgeError, ValueError):
    """The input is wrong and the person can mend it. Exit code 2."""

    exit_code = 2


class RunError(FedgeError, RuntimeError):
    """The input was right and the run failed all the same. Exit code 3."""

    exit_code = 3


_ALLOCATOR_ERRORS = ("can't allocate memory", "not enough memory", "std::bad_alloc", "out of memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error is Python's, torch's or a C++ library's way to say that memory ran out."""
    return isinstance(error, MemoryError) or any(text in str(error) for text in _ALLOCATOR_ERRORS)
