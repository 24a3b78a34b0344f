"""TFLite (LiteRT) files become standard ONNX: int8, uint8 and int16 graphs with QDQ, float graphs plain.

`reader` parses the flatbuffer without trusting it, `converter` walks the operators, one module a group of operators
holds their handlers, `importer` writes the file. Needs the package `tflite` (extra `tflite`) when used.
"""

from __future__ import annotations
