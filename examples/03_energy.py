"""Joules of all-MiniLM-L6-v2 in float32, int8 and int4, beside what the quantization cost.

Makes the three models, embeds sentences with each, and profiles them in turns with the first meter that this machine has.  Where
there is none, the figures are of class X (unavailable) with the reasons, and the same is estimated: class D, from operations and
bytes, ×/÷ 3.  Writes energy.html and energy.json beside the models.

    python examples/03_energy.py [--meter SPEC] [--windows N] [--seconds S]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from fetch import minilm, work_folder

SCHEMES = ("float", "int8", "int4")
SENTENCES = [
    "The train to Lyon leaves at noon.",
    "At twelve o'clock the train departs for Lyon.",
    "Where can I buy a ticket?",
    "Le chat dort sur le canapé.",
    "A cat sleeps on the couch.",
    "The court rejected the appeal.",
    "Il faut arroser les tomates le soir.",
    "Our flight was cancelled because of snow.",
]


def build(folder: Path) -> dict[str, Path]:
    """Scheme -> folder of its model; made once, then found again."""
    from frugal.quantize import export, quantize

    if not (folder / "float" / "model.onnx").exists():
        export(minilm(), folder / "float")
    for scheme in SCHEMES[1:]:
        if not (folder / scheme / "model.onnx").exists():
            quantize(folder / "float", folder / scheme, scheme=scheme)
    return {scheme: folder / scheme for scheme in SCHEMES}


def cosines(models: dict[str, Path]) -> dict[str, float]:
    """Scheme -> mean cosine of its embeddings to those of the float model."""
    import numpy as np

    import frugal

    vectors = {}
    for scheme, path in models.items():
        found = np.asarray(frugal.EmbeddingModel.open(path).encode(SENTENCES), np.float64)
        vectors[scheme] = found / np.linalg.norm(found, axis=1, keepdims=True)
    return {scheme: float((v * vectors["float"]).sum(axis=1).mean()) for scheme, v in vectors.items()}


def profile(models: dict[str, Path], quality: dict[str, float], meter: str, *options: str) -> dict:
    """What `frugal profile --json` says of the three, in turns."""
    first, *others = (str(path) for path in models.values())
    command = [
        sys.executable,
        "-m",
        "frugal",
        "profile",
        first,
        "--meter",
        meter,
        "--shape",
        "input_ids=1x128",
        "--json",
        *options,
    ]
    for other in others:
        command += ["--against", other]
    for scheme, value in quality.items():
        command += ["--quality", f"{scheme}:cosine={value:.4f}"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout)


def show(about: dict) -> None:
    """A table of one run."""
    print(f"{'':8}{'class':>6}{'gross':>12}{'95 % interval':>26}{'net':>12}{'ms':>9}{'cosine':>9}")
    for name, v in about["variants"].items():
        gross = "X" if v["gross_joules"] is None else f"{v['gross_joules'] * 1e3:.2f} mJ"
        between = "" if v["interval"] is None else "{:.2f} to {:.2f} mJ".format(*(x * 1e3 for x in v["interval"]))
        net = "X" if v["net_joules"] is None else f"{v['net_joules'] * 1e3:.2f} mJ"
        cosine = v["quality"].get("cosine", "-")
        print(f"{name:8}{v['evidence_class']:>6}{gross:>12}{between:>26}{net:>12}{v['seconds'] * 1e3:9.2f}{cosine:>9}")
    for c in about["comparisons"]:
        ratio = c["ratio"]["value"] if c["ratio"] else None
        print(f"{c['other']} / {c['first']}: " + (f"{ratio:.3f}, " if ratio is not None else "") + c.get("verdict", "X"))


def main() -> None:
    """Build, measure, show."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--meter", default="auto", help="as of `frugal profile` (default: auto)")
    parser.add_argument("--windows", default="5")
    parser.add_argument("--seconds", default="0.5")
    args = parser.parse_args()
    folder = work_folder("energy")
    models = build(folder)
    quality = cosines(models)
    protocol = ("--windows", args.windows, "--seconds", args.seconds)
    reports = [f"{folder}/energy.html", f"{folder}/energy.json"]
    about = profile(models, quality, args.meter, *protocol, "--report", reports[0], "--report", reports[1])
    print(f"{about['machine']['cpu']}, {about['machine']['isa']}, {about['machine']['threads']} threads, 128 tokens\n")
    show(about)
    if about["evidence_class"] == "X":
        print(f"\nX: {about['reason']}\n\nEstimated instead (class D: from operations and bytes, within a factor of three):\n")
        show(profile(models, quality, "model", "--report", reports[0], "--report", reports[1]))
    print(f"\n{reports[0]}\n{reports[1]}")


if __name__ == "__main__":
    main()
