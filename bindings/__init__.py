"""The C library in kernels/ through cffi."""
