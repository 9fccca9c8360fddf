"""What a trained model can be used for, and how well: by name, what `lit-gen analyse what=` takes."""

from lit_gen.evaluation.uses.anomaly import Anomaly
from lit_gen.evaluation.uses.augmentation import Augmentation
from lit_gen.evaluation.uses.clusters import Clusters
from lit_gen.evaluation.uses.code_map import CodeMap
from lit_gen.evaluation.uses.counterfactual import Counterfactual
from lit_gen.evaluation.uses.denoise import Denoise
from lit_gen.evaluation.uses.diffusion_steps import Noising, SignalToNoise, Transfer
from lit_gen.evaluation.uses.drift import Drift
from lit_gen.evaluation.uses.probe import Probe
from lit_gen.evaluation.uses.reconstruction import Compression, Reconstruction
from lit_gen.evaluation.uses.step_probes import StepProbes
from lit_gen.evaluation.uses.translation import Translation
from lit_gen.evaluation.uses.walks import Interpolation, Traversal

USES: dict[str, type] = {
    "interpolation": Interpolation,
    "traversal": Traversal,
    "reconstruction": Reconstruction,
    "anomaly": Anomaly,
    "map": CodeMap,
    "clusters": Clusters,
    "probe": Probe,
    "compression": Compression,
    "denoise": Denoise,
    "augmentation": Augmentation,
    "translation": Translation,
    "snr": SignalToNoise,
    "noising": Noising,
    "transfer": Transfer,
    "probe_steps": StepProbes,
    "drift": Drift,
    "counterfactual": Counterfactual,
}
