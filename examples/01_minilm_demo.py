"""From a Hugging Face folder to int8 and int4 sentence embeddings, and what that costs and brings.

Fetches all-MiniLM-L6-v2, exports it to ONNX (without torch), quantizes it, compiles it, and prints one table: size, cold
start, milliseconds a sentence, agreement with human judgement, agreement with the float model, memory.  Every variant is
measured in processes of its own, in turns.  onnxruntime joins where it is installed.

    python examples/01_minilm_demo.py [--rounds N]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

LENGTHS = (16, 128)
SECONDS = 0.7  # of measuring, for each length and round

# (how alike, 0 to 5, by the author's judgement; sentence; sentence)
PAIRS = [
    (5.0, "The cat is sleeping on the sofa.", "A cat sleeps on the couch."),
    (4.5, "How do I reset my password?", "I forgot my password, what should I do?"),
    (4.2, "The train to Lyon leaves at noon.", "At twelve o'clock the train departs for Lyon."),
    (3.6, "She plays the violin in an orchestra.", "She is a musician in an orchestra."),
    (3.0, "The company reported higher profits.", "The company's shares rose sharply."),
    (2.4, "A man is cutting vegetables.", "A woman is cooking dinner."),
    (2.0, "It will rain tomorrow in the north.", "Yesterday was sunny in the south."),
    (1.2, "The printer is out of paper.", "The report has to be sent today."),
    (0.8, "He repaired his bicycle.", "The museum opens on Sunday."),
    (0.2, "Add two spoons of sugar to the flour.", "The satellite reached its orbit."),
    (0.0, "The court rejected the appeal.", "My dog loves swimming in the lake."),
    (4.8, "Our flight was cancelled because of snow.", "Because of the snow our plane did not take off."),
    (5.0, "Le chat dort sur le canapé.", "Un chat est endormi sur le canapé."),
    (4.4, "Où puis-je acheter un billet de train ?", "Où est-ce qu'on achète les billets de train ?"),
    (3.8, "Les prix de l'énergie augmentent.", "L'électricité et le gaz coûtent plus cher."),
    (3.2, "Il apprend à jouer du piano.", "Il prend des cours de musique."),
    (2.0, "La réunion est reportée à lundi.", "La réunion a duré trois heures."),
    (1.0, "Le pain est encore chaud.", "La boulangerie ferme à midi."),
    (0.3, "La voiture est en panne.", "Le concert commence à huit heures."),
    (0.0, "Ce livre raconte la vie d'un marin.", "Il faut arroser les tomates le soir."),
]


def measure(runtime: str, model: str, data: str) -> None:
    """Child process: cold start, embeddings of every sentence, latency, peak memory; JSON on stdout, vectors in a file."""
    start = time.perf_counter()
    if runtime == "frugal":
        import frugal as rt
    else:
        import onnxruntime as rt
    options = rt.SessionOptions()
    session = rt.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    import numpy as np

    batches = np.load(data)
    names = [i.name for i in session.get_inputs()]

    def embed(ids, mask):
        values = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        return session.run(["sentence_embedding"], {name: values[name] for name in names})[0]

    ids, mask = batches["ids"], batches["mask"]
    embed(ids[:1], mask[:1])
    about = {"cold_ms": (time.perf_counter() - start) * 1e3}
    np.save(data + ".vectors.npy", np.concatenate([embed(ids[i : i + 8], mask[i : i + 8]) for i in range(0, len(ids), 8)]))
    for length in LENGTHS:
        one = np.resize(ids[mask.astype(bool)], (1, length)), np.ones((1, length), np.int64)
        times = []
        end = time.perf_counter() + SECONDS
        while len(times) < 5 or time.perf_counter() < end:
            before = time.perf_counter()
            embed(*one)
            times.append(time.perf_counter() - before)
        about[f"ms_{length}"] = float(np.median(times)) * 1e3
    about["rss_bytes"] = peak_rss_bytes()
    print(json.dumps(about))


def peak_rss_bytes() -> int:
    """Most memory held since this process began (ru_maxrss would start with what the parent had)."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def build(folder: Path, source: Path) -> list[tuple[str, str, Path]]:
    """(label, runtime, model) of every variant; models are made in `folder`."""
    from frugal.quantize import export, quantize

    import frugal

    export(source, folder / "float")
    variants = []
    for scheme in ("float", "int8", "int4"):
        if scheme != "float":
            quantize(folder / "float", folder / scheme, scheme=scheme)
        frugal.compile(folder / scheme / "model.onnx").save(folder / f"{scheme}.frugal")
        variants.append((f"frugal {scheme}", "frugal", folder / f"{scheme}.frugal"))
    try:
        import onnxruntime  # noqa: F401
    except ImportError:
        return variants
    variants.append(("onnxruntime fp32", "onnxruntime", folder / "float" / "model.onnx"))
    variants.append(("onnxruntime int8", "onnxruntime", rival_int8(folder)))
    return variants


def rival_int8(folder: Path) -> Path:
    """onnxruntime's own int8: dynamic, per channel; without VNNI in the range that avoids its saturation."""
    import logging

    import onnxruntime
    from onnxruntime.quantization import QuantType, quantize_dynamic

    import frugal

    options = onnxruntime.SessionOptions()  # its quantizer wants the transposed weights folded first
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(folder / "float" / "onnxruntime-basic.onnx")
    onnxruntime.InferenceSession(str(folder / "float" / "model.onnx"), options, providers=["CPUExecutionProvider"])
    logging.disable(logging.WARNING)  # it recommends what was just done
    quantize_dynamic(
        str(folder / "float" / "onnxruntime-basic.onnx"),
        str(folder / "onnxruntime-int8.onnx"),
        op_types_to_quantize=["MatMul", "Gather"],  # its integer attention reads another operator
        per_channel=True,
        reduce_range="vnni" not in frugal.isa(),
        weight_type=QuantType.QInt8,
    )
    return folder / "onnxruntime-int8.onnx"


def tokenize(source: Path, out: Path) -> None:
    """All sentences as one padded batch: ids and mask, int64 [sentences, tokens]."""
    import numpy as np
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.enable_padding()
    found = tokenizer.encode_batch([text for _, *texts in PAIRS for text in texts])
    ids, mask = ([getattr(e, key) for e in found] for key in ("ids", "attention_mask"))
    np.savez(out, ids=np.array(ids, np.int64), mask=np.array(mask, np.int64))


def run_all(variants: list[tuple[str, str, Path]], data: Path, rounds: int) -> dict[str, dict]:
    """Figures of every variant: the least time of the rounds (others use this machine too), vectors of the last."""
    import numpy as np

    found: dict[str, dict] = {}
    for _ in range(rounds):
        for label, runtime, model in variants:
            command = [sys.executable, __file__, "--measure", runtime, str(model), str(data)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            figures = json.loads(done.stdout.splitlines()[-1])
            before = found.get(label, figures)
            found[label] = {key: min(value, before[key]) for key, value in figures.items()}
            found[label]["vectors"] = np.load(f"{data}.vectors.npy")
    return found


def size(model: Path) -> int:
    """Bytes of a model and of its external data."""
    return sum(p.stat().st_size for p in model.parent.glob(model.name + "*"))


def spearman(x, y) -> float:
    """Rank correlation; equal values share their mean rank."""
    import numpy as np

    def ranks(values):
        _, place, count = np.unique(values, return_inverse=True, return_counts=True)
        return (np.cumsum(count) - (count - 1) / 2)[place]

    return float(np.corrcoef(ranks(x), ranks(y))[0, 1])


def table(variants, figures: dict[str, dict]) -> list[list[str]]:
    """One row for each variant."""
    import numpy as np

    def unit(v):
        return v / np.linalg.norm(v, axis=1, keepdims=True)

    truth = unit(figures.get("onnxruntime fp32", figures["frugal float"])["vectors"])
    grades = [grade for grade, *_ in PAIRS]
    rows = []
    for label, _, model in variants:
        f = figures[label]
        vectors = unit(f["vectors"])
        alike = (vectors[0::2] * vectors[1::2]).sum(1)
        rows.append(
            [
                label,
                f"{size(model) / 1e6:.1f}",
                f"{f['cold_ms']:.0f}",
                *(f"{f[f'ms_{length}']:.2f}" for length in LENGTHS),
                f"{spearman(grades, alike):.3f}",
                f"{(vectors * truth).sum(1).mean():.4f}",
                f"{f['rss_bytes'] / 1e6:.0f}",
            ]
        )
    return rows


def main() -> None:
    """Build, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        measure(*args.measure)
        return
    import fetch

    import frugal
    from frugal.cli.system import cpu_model

    started = time.perf_counter()
    source = fetch.minilm()
    folder = fetch.work_folder("minilm-demo")
    print("quantizing and compiling ...", flush=True)
    variants = build(folder, source)
    tokenize(source, folder / "sentences.npz")
    print(f"measuring {len(variants)} variants, {args.rounds} rounds ...\n", flush=True)
    rows = table(variants, run_all(variants, folder / "sentences.npz", args.rounds))
    header = ["all-MiniLM-L6-v2", "size MB", "cold ms", "ms at 16", "ms at 128", "Spearman", "cosine", "RSS MB"]
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    for row in [header, *rows]:
        print(row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True)), sep="  ")
    print(
        f"\ncold: import, open, first sentence.  Spearman: with {len(PAIRS)} graded pairs.  cosine: mean, to the float model."
        f"\n{cpu_model()}, {frugal.isa()}, all usable CPUs, {time.perf_counter() - started:.0f} s in all"
    )


if __name__ == "__main__":
    main()
