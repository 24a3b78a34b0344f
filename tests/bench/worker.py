"""One engine with one model in a process of its own; run by bench/driver.py with the interpreter that has the engine.

    python worker.py '{"engine": "onnxruntime", "model": PATH, "feeds": PATH.npz, "threads": 1, "outputs": [..], "thin": true}'

Prints {"ready": engine}; for every line "N" of its input runs once unmeasured, then N times, and prints {"wall": s, "cpu": s} of
the N runs (cpu: of the whole process).  "save FILE" writes the outputs of one more run to FILE, an .npz.  thin: inputs stay bound
and outputs are not handed out, where the engine can do that: its shortest way through Python.  Language models: see TEXT.
Nothing here is imported from elsewhere in the repository, nor needs more than the engine and numpy.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

Spec = dict[str, Any]
Loaded = tuple[Callable[[], Any], Callable[[], Any]]  # run once; the outputs of a run, a dict of arrays


def frugal(spec: Spec, feeds: dict[str, Any]) -> Loaded:
    import frugal

    options = frugal.SessionOptions()
    options.intra_op_num_threads = spec["threads"]
    session = frugal.InferenceSession(spec["model"], options)
    wanted = spec.get("outputs") or [o.name for o in session.get_outputs()]
    feeds = {i.name: feeds[i.name] for i in session.get_inputs()}
    return lambda: session.run(wanted, feeds), lambda: dict(zip(wanted, session.run(wanted, feeds), strict=True))


def onnxruntime(spec: Spec, feeds: dict[str, Any]) -> Loaded:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = spec["threads"], 3
    session = onnxruntime.InferenceSession(spec["model"], options, providers=["CPUExecutionProvider"])
    wanted = spec.get("outputs") or [o.name for o in session.get_outputs()]
    feeds = {i.name: feeds[i.name] for i in session.get_inputs()}
    binding = session.io_binding()
    for name, value in feeds.items():
        binding.bind_cpu_input(name, value)
    for name in wanted:
        binding.bind_output(name, "cpu")
    thin, plain = lambda: session.run_with_iobinding(binding), lambda: session.run(wanted, feeds)
    return thin if spec.get("thin") else plain, lambda: dict(zip(wanted, session.run(wanted, feeds), strict=True))


def litert(spec: Spec, feeds: dict[str, Any]) -> Loaded:
    from ai_edge_litert.interpreter import Interpreter

    session = Interpreter(spec["model"], num_threads=spec["threads"])
    inputs, values = session.get_input_details(), list(feeds.values())
    for detail, value in zip(inputs, values, strict=True):
        session.resize_tensor_input(detail["index"], value.shape)
    session.allocate_tensors()

    def give() -> None:
        for detail, value in zip(inputs, values, strict=True):
            session.set_tensor(detail["index"], value)

    def whole() -> dict[str, Any]:
        give()
        session.invoke()
        return {d["name"]: session.get_tensor(d["index"]) for d in session.get_output_details()}

    give()
    return session.invoke if spec.get("thin") else whole, whole


def openvino(spec: Spec, feeds: dict[str, Any]) -> Loaded:
    import openvino

    core = openvino.Core()
    model = core.read_model(spec["model"])
    model.reshape({i.any_name: list(feeds[i.any_name].shape) for i in model.inputs})
    settings = {"INFERENCE_NUM_THREADS": spec["threads"], "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(model, "CPU", settings)
    request = compiled.create_infer_request()
    for i in compiled.inputs:
        request.set_tensor(i, openvino.Tensor(feeds[i.any_name]))
    named = {i.any_name: feeds[i.any_name] for i in compiled.inputs}

    def outputs() -> dict[str, Any]:
        return {o.any_name: value for o, value in request.infer(named).items()}

    return request.infer if spec.get("thin") else outputs, outputs


def ncnn(spec: Spec, feeds: dict[str, Any]) -> Loaded:
    import ncnn
    import numpy as np

    net = ncnn.Net()
    net.opt.num_threads = spec["threads"]
    if net.load_param(spec["model"]) or net.load_model(spec["model"].removesuffix(".param") + ".bin"):
        raise RuntimeError("ncnn cannot load this model")
    (value,) = feeds.values()  # batch 1, channels first; ncnn has no axis for the batch
    given = ncnn.Mat(np.ascontiguousarray(value[0]))

    def run() -> Any:
        extractor = net.create_extractor()
        extractor.input("input", given)
        return extractor.extract("output")[1]

    return run, lambda: {"output": np.array(run())[None]}


def text_frugal(spec: Spec, _: dict[str, Any]) -> Callable[[int], float]:
    """frugal.TextModel on a folder; what a prompt shares with the last one is not read again, so only a prefill starts anew."""
    from frugal.text import TextModel

    model = TextModel.open(spec["model"], threads=spec["threads"], context=2048)
    turn = 0

    def measured(n: int) -> float:
        nonlocal turn
        turn += 1
        prompt = list(range(1000, 1000 + max(spec.get("depth", 0), 1)))
        prefill = spec["text"] == "prefill"
        if prefill:
            prompt = [2000 + turn % 1000, *range(1000, 999 + n)]
        else:
            model.generate(prompt, max_new_tokens=1, ignore_eos=True)
        start = time.perf_counter()
        model.generate(prompt, max_new_tokens=1 if prefill else n, ignore_eos=True)  # n steps: the prompt's last token is one
        return time.perf_counter() - start

    return measured


def text_llama(spec: Spec, _: dict[str, Any]) -> Callable[[int], float]:
    """llama.cpp through xllamacpp's server, whose own clock it gives; the cache of a prompt is kept between requests."""
    import xllamacpp

    options = xllamacpp.CommonParams()
    options.model.path, options.n_ctx, options.n_parallel, options.verbosity = spec["model"], 2048, 1, 0
    options.cpuparams.n_threads = options.cpuparams_batch.n_threads = spec["threads"]
    server = xllamacpp.Server(options)

    def ask(prompt: int, tokens: int, keep: bool) -> dict[str, float]:
        request = {"prompt": list(range(1000, 1000 + prompt)), "n_predict": tokens, "cache_prompt": keep}
        answer = server.handle_completions({**request, "temperature": 0, "ignore_eos": True})
        timings: dict[str, float] = answer["timings"]
        return timings

    def measured(n: int) -> float:
        if spec["text"] == "prefill":
            return ask(n, 1, False)["prompt_ms"] / 1e3
        timings = ask(max(spec["depth"], 1), n + 1, True)  # the first of the tokens comes with the prompt
        return timings["predicted_ms"] / 1e3 * n / (n + 1)

    return measured


def text_ik_llama(spec: Spec, _: dict[str, Any]) -> Callable[[int], float]:
    """ik_llama.cpp's llama_decode, called token by token."""
    import ik_llama_cpp
    from ik_llama_cpp._internals import C, make_batch_range

    model = ik_llama_cpp.IkLlama(spec["model"], n_ctx=2048, n_threads=spec["threads"], verbose=False)

    def feed(first: int, tokens: int, step: int) -> None:
        for at in range(first, first + tokens, step):
            batch = make_batch_range(list(range(1000 + at, 1000 + at + min(step, first + tokens - at))), pos_start=at)
            failed = model._context.decode(batch)
            C.llama_batch_free(batch)
            if failed:
                raise RuntimeError(f"llama_decode: {failed}")

    def measured(n: int) -> float:
        model._context.kv_cache_clear()
        if spec["text"] == "decode":
            feed(0, max(spec["depth"], 1), 512)
        start = time.perf_counter()
        feed(0 if spec["text"] == "prefill" else max(spec["depth"], 1), n, 512 if spec["text"] == "prefill" else 1)
        return time.perf_counter() - start

    return measured


ENGINES = {"frugal": frugal, "onnxruntime": onnxruntime, "litert": litert, "openvino": openvino, "ncnn": ncnn}
# A language model runs N tokens: "text": "prefill" in one piece, "decode" one by one behind `depth` others.
TEXT = {"frugal": text_frugal, "llama.cpp": text_llama, "ik_llama.cpp": text_ik_llama}


def serve(spec: Spec, say: Callable[[dict[str, Any]], None]) -> None:
    """Load, then answer until the input ends."""
    import numpy as np

    feeds = dict(np.load(spec["feeds"])) if spec.get("feeds") else {}
    if "text" in spec:
        measured = TEXT[spec["engine"]](spec, feeds)
        say({"ready": spec["engine"]})
        for line in sys.stdin:
            start = time.process_time()
            say({"wall": measured(int(line)), "cpu": time.process_time() - start})
        return
    run, outputs = ENGINES[spec["engine"]](spec, feeds)
    run()
    say({"ready": spec["engine"]})
    for line in sys.stdin:
        if line.startswith("save "):
            np.savez(line[5:].strip(), **{str(i): v for i, v in enumerate(outputs().values())})
            say({"saved": True})
            continue
        run()
        times = range(int(line))
        cpu, start = time.process_time(), time.perf_counter()
        for _ in times:
            run()
        wall = time.perf_counter() - start
        say({"wall": wall, "cpu": time.process_time() - cpu})


def main() -> None:
    out = os.fdopen(os.dup(1), "w")  # what engines print goes to stderr
    os.dup2(2, 1)

    def say(message: dict[str, Any]) -> None:
        out.write(json.dumps(message) + "\n")
        out.flush()

    try:
        serve(json.loads(sys.argv[1]), say)
    except Exception as e:
        say({"error": f"{type(e).__name__}: {e}"})
        raise


if __name__ == "__main__":
    main()
