"""The one-import change: a script written for onnxruntime, running on frugal.

python examples/02_drop_in.py [model.onnx]
"""

import sys

import numpy as np

import frugal as ort  # was: import onnxruntime as ort

if len(sys.argv) > 1:
    model = sys.argv[1]
else:
    import fetch
    from frugal.quantize import export

    model = str(fetch.work_folder("drop-in") / "minilm.onnx")
    export(fetch.minilm(), model)

options = ort.SessionOptions()
options.intra_op_num_threads = 2
session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])

feeds = {}
for i in session.get_inputs():
    shape = [d if isinstance(d, int) else (1, 8)[axis > 0] for axis, d in enumerate(i.shape)]
    feeds[i.name] = np.ones(shape, np.int64 if i.type == "tensor(int64)" else np.float32)
    print("input ", i.name, i.shape, i.type)
for o, value in zip(session.get_outputs(), session.run(None, feeds), strict=True):
    print("output", o.name, value.shape, value.dtype)
