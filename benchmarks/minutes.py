"""What a family has learned of MNIST after so many minutes of one thread: FID, precision and recall.

Minutes are processor time of training, without scoring, so that a machine that does other work gives the same
ones. A checkpoint is kept at every mark, which `lit-gen evaluate` and `lit-gen sample` take; scores are those
of 2,000 samples. All that lies in `out` goes into one picture.

    OMP_NUM_THREADS=1 python benchmarks/minutes.py [kinds=vae,wgan_gp,r3gan,flow] [root=data] [seed=0] \
        [minutes=2,5,10,20,30] [out=runs/minutes]
"""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer, seed_everything
from matplotlib.figure import Figure
from timing import options

from callbacks.checkpoints import RunCheckpoints
from lit_gen.cli import evaluate
from lit_gen.cli.assembly import assemble
from lit_gen.cli.config import compose
from lit_gen.cli.log import log_to
from lit_gen.cli.run_folder import RunFolder
from lit_gen.core.checkpoint import LAST
from lit_gen.core.files import write_json
from lit_gen.core.stages import fit_stages

_DIFFUSION = ["experiment=diffusion_mnist", "net=unet_small"]
KINDS = {
    "vae": ["experiment=vae_mnist"],
    "wgan_gp": ["experiment=wgan_gp_mnist", "callbacks.ema.decay=0.99"],
    "r3gan": ["model=r3gan", "recipe=gan", "data=mnist", "callbacks.ema.decay=0.99"],
    "flow": _DIFFUSION,
    "ddpm": [*_DIFFUSION, "model=ddpm"],
    "edm": [*_DIFFUSION, "model=edm"],
}
SCORES = ("fid", "precision", "recall")


class Marks(Callback):
    """Keeps a checkpoint when so many minutes of processor time are spent, and ends the run at the last."""

    def __init__(self, minutes: list[float], saver: RunCheckpoints) -> None:
        self.left, self.saver = sorted(minutes), saver
        self.start, self.images = 0.0, 0
        self.rows: list[dict[str, Any]] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.start = time.process_time()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        self.images += args[1].size
        while self.left and time.process_time() - self.start >= 60 * self.left[0]:
            began = time.process_time()
            self.saver.save(trainer)
            file = self.saver.folder(trainer) / f"minutes-{self.left[0]:g}.ckpt"
            shutil.copyfile(file.with_name(LAST), file)
            self.rows.append({"minutes": self.left.pop(0), "images": self.images, "ckpt": str(file)})
            self.start += time.process_time() - began
        trainer.should_stop = trainer.should_stop or not self.left


def trained(kind: str, root: str, seed: int, minutes: list[float], place: Path) -> list[dict[str, Any]]:
    """A row for every mark, without scores."""
    words = [*KINDS[kind], f"data.root={root}", f"seed={seed}", "trainer=cpu", "cpu_threads=1", "logger=csv"]
    words += ["trainer.max_epochs=1000", "trainer.limit_val_batches=0", "checkpoint.min_seconds=1e9"]
    folder = RunFolder(place.absolute())
    folder.make()
    composed = compose("train", [*words, f"output_dir={folder.path}"])
    seed_everything(seed, verbose=False)
    parts = assemble(composed, folder, None, {})
    marks = Marks(minutes, parts.saver)
    parts.trainer.callbacks.append(marks)
    fit_stages(parts.trainer, parts.module, parts.data)
    parts.record.finish("FINISHED")
    return marks.rows


def scored(row: dict[str, Any]) -> dict[str, Any]:
    out = Path(row["ckpt"]).with_suffix(".json")
    words = [f"ckpt={row['ckpt']}", f"out={out}", "judges.quality.num_samples=2000", "trainer=cpu"]
    evaluate.run([*words, "judges.quality.floor=false", "judges=quality"])
    found = {score["metric"]: score["value"] for score in json.loads(out.read_text())}
    return row | {name: found[name] for name in SCORES}


def draw(out: Path) -> None:
    figure = Figure((10, 4), layout="constrained")
    axes = figure.subplots(1, len(SCORES))
    for file in sorted(out.glob("*.json")):
        rows = json.loads(file.read_text())
        for axis, name in zip(axes, SCORES, strict=True):
            axis.plot([row["minutes"] for row in rows], [row[name] for row in rows], "o-", label=file.stem)
            axis.set(xlabel="minutes of training", ylabel=name)
    axes[0].set_yscale("log")
    axes[0].legend()
    figure.savefig(out / "minutes.png", dpi=120)


def main() -> None:
    given = options(
        kinds="vae,wgan_gp,r3gan,flow", root="data", seed=0, minutes="2,5,10,20,30", out="runs/minutes"
    )
    out, minutes = Path(given["out"]), [float(each) for each in str(given["minutes"]).split(",")]
    log_to(None)
    for kind in given["kinds"].split(","):
        name = f"{kind}-seed-{given['seed']}"
        if not (out / f"{name}.json").exists():
            rows = trained(kind, given["root"], given["seed"], minutes, out / name)
            write_json(out / f"{name}.json", [scored(row) for row in rows])
    draw(out)


if __name__ == "__main__":
    main()
