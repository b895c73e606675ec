"""One random generator per (run seed, client, round, purpose); nothing seeds a global generator.

`derive_seed(7, client, round, "shuffle")` is a function of its arguments alone, so a round gives the
same numbers on any host, in any order, and again after a crash.
"""

import hashlib


def derive_seed(*parts: int | str) -> int:
    """Hash the parts to a seed in 0 .. 2**63 - 1. Equal parts give equal seeds; order and type count."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) >> 1
