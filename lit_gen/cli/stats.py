"""lit-gen stats: mean and covariance of the features of a set of images, which FID needs of real images."""

from __future__ import annotations

import logging
from pathlib import Path

from lit_gen.cli.config import compose
from lit_gen.cli.devices import KEYS, launched, without_choice
from lit_gen.cli.log import log_to
from lit_gen.cli.open_run import refuse_unused
from lit_gen.cli.run_folder import rank
from lit_gen.cli.words import own_words
from lit_gen.core.files import writable_folder
from lit_gen.core.processes import ImageBar, wrong_for_all
from lit_gen.core.types import InputError
from lit_gen.evaluation.folders import seen_by
from lit_gen.evaluation.image_sets import image_set
from lit_gen.evaluation.statistics import Statistics, write_statistics
from lit_gen.metrics.frechet import FrechetDistance

HELP = """lit-gen stats real=IMAGES out=FILE.npz [extractor=NAME] [background=black] [KEY=VALUE ...]

Mean ("mu") and covariance ("sigma") of the features of images, with the extractor's name and hash beside
them: what lit-gen evaluate real=FILE.npz, pytorch-fid and others compare with. No image is needed then.

  real       a folder (searched through), an .npz archive of uint8 NHWC or a folder of such archives
  out        in place of a file that is there
  extractor  inception, lenet_mnist, lenet_digits
  background the colour behind transparent pixels: a name, or a number (#ff8800)
  KEY        extractor.*, judges.quality.batch_size and the devices, as in training: trainer=gpu, trainer=ddp
             trainer.devices=4

Examples
  lit-gen stats real=photos/train out=photos.npz
  lit-gen stats real=photos/train extractor=lenet_digits out=photos.npz trainer=ddp trainer.devices=2
"""

_OWN = {"real": Path, "out": Path, "background": str}
_USED = ("extractor", "judges.quality.batch_size", *(key for key in KEYS if key != "trainer.precision"))


def run(words: list[str]) -> int:
    log_to(None, logging.WARNING if rank() == 0 else None)
    own, others = own_words(words, _OWN, needed=("real", "out"), others=("extractor", "judges", "trainer"))
    out = own["out"]
    if out.suffix != ".npz" or out.is_dir():
        raise InputError(f"out={out}: expected the name of a file that ends in .npz")
    writable_folder("out", out.parent)
    refuse_unused(without_choice(others), _USED, "lit-gen stats")
    composed = compose("evaluate", others)
    extractor, size = composed.build("extractor"), composed.config["judges"]["quality"]["batch_size"]
    fabric = launched(composed.config["trainer"])
    moments = FrechetDistance(extractor.num_features).to(fabric.device)
    extractor.to(fabric.device)
    with wrong_for_all():
        images = image_set("real", own["real"], own.get("background", "black"))
        if images.total < 2:
            raise InputError(f"real={own['real']}: one image has no covariance; two are the least")
        with ImageBar("features", images.total) as bar:
            for seen in seen_by(extractor, images, size, fabric.device):
                moments.update(seen.features, True)
                bar.count(len(seen.places))
    mean, covariance, total = moments.statistics()
    if not (mean.isfinite().all() and covariance.isfinite().all()):
        raise InputError(f"real={own['real']}: some features of these images are infinite or NaN")
    if fabric.is_global_zero:
        found = Statistics(mean.cpu(), covariance.cpu(), total, extractor.weights_hash)
        write_statistics(out, found, extractor)
        print(f"{total} images, {extractor.name} ({extractor.weights_hash}): {out}")
    return 0
