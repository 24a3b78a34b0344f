"""frugal: small, exact, quantized inference on ordinary CPUs and boards."""

__version__ = "0.1.0"
