"""The C library in kernels/ through cffi: cdef (made from the headers), thin checked wrappers, and nothing friendly.

_ffi      the compiled module (cffi API mode)
library   instruction sets, CPU count, thread pool
status    one frugal_status -> one exception, with names instead of indices
plan      a plan opened over a buffer
session   a plan made ready to run, in memory that Python owns
"""
