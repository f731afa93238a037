"""Prepares the heap for forks, so that children do not copy pages that they could share.

A child that puts a new object into a gap between shared ones gets a copy of that page. Imports leave thousands of
gaps. So whole free pages are returned to the kernel, and the remaining gaps are allocated and never used: then
children put their objects next to each other, on pages of their own.

Works with Python's own allocator and glibc's, and does nothing with others.
"""

import ctypes
import gc
import os
from collections.abc import Iterator

# Of Python's allocator for small objects (Objects/obmalloc.c): blocks of one size share a pool.
_POOL_BITS, _POOL_HEADER = 14, 48
_BLOCK_SIZES = range(16, 513, 16)
_TEMPORARY = 16  # blocks that the loop below uses for its own numbers
_MOST_BLOCKS = 100_000  # of one size
_MOST_CHUNKS = 20_000
_LONGEST_GAP = 64 * 1024  # longer ones are pages that were returned to the kernel


class _HeapInfo(ctypes.Structure):
    """struct mallinfo2 (malloc.h); the last field is the size of the free end of the heap."""

    _fields_ = [(f"field{number}", ctypes.c_size_t) for number in range(9)] + [("free_end", ctypes.c_size_t)]


def settle() -> None:
    """Settles the heap: garbage collection then ignores existing objects, and no new ones come next to them."""
    gc.collect()
    gc.freeze()
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallinfo2") or "PYTHONMALLOC" in os.environ:
        return
    libc.malloc_trim(0)
    for size in _BLOCK_SIZES:
        _fill_pools(size)
    _fill_heap(libc)


def _fill_pools(size: int) -> None:
    """Allocates blocks of this size until one pool has given all of its own: then no partly used one was left."""
    allocate = ctypes.pythonapi.PyObject_Malloc
    allocate.restype, allocate.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    whole = ((1 << _POOL_BITS) - _POOL_HEADER) // size - _TEMPORARY
    pool, taken = 0, 0
    for _ in range(_MOST_BLOCKS):
        found = allocate(size) >> _POOL_BITS
        pool, taken = found, taken + 1 if found == pool else 1
        if taken >= whole:
            return


def _fill_heap(libc: ctypes.CDLL) -> None:
    """Allocates the gaps, longest first. A chunk from the heap's end shows that no gap of this size is left."""
    allocate, end = libc.malloc, libc.sbrk
    allocate.restype, allocate.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    end.restype, end.argtypes = ctypes.c_void_p, [ctypes.c_ssize_t]
    libc.mallinfo2.restype = _HeapInfo
    free_end = end(0) - libc.mallinfo2().free_end
    sizes, taken = _gap_sizes(), 0
    for size in sizes:
        while taken < _MOST_CHUNKS and (chunk := allocate(size)) and chunk < free_end:
            taken += 1


def _gap_sizes() -> Iterator[int]:
    size = _LONGEST_GAP
    while size >= 24:
        yield size
        size -= max(16, size // 32 // 16 * 16)
