"""Tenants as numbers: the group that a tenant's devices are counted in, and a hash that tells tenants apart.

Used by grouping, by detection, and by scopes of the kill switch. Invariant: both depend on the name alone, so every
process of every release gets the same numbers.
"""

from hashlib import blake2b

GROUPS = 32


def tenant_group(tenant: str) -> int:
    """Return a tenant's group, 0 to 31, by a hash of its name."""
    return blake2b(tenant.encode(), digest_size=1, person=b"tenant-group").digest()[0] % GROUPS


def tenant_hash(tenant: str) -> int:
    """Return a number for a tenant that counts distinct tenants without naming them (48 bits)."""
    return int.from_bytes(blake2b(tenant.encode(), digest_size=6, person=b"tenant").digest(), "big")
