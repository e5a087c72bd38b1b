"""picture.png, for the README: python notebooks/picture.py (needs requirements-dev.txt).

The two losses act on the bare start logits of one question without an answer: no model between,
the same random beginning, gradient descent until little changes.
"""

import matplotlib.pyplot as plt
import torch
from show import ROOT, descend

from robust_eqa import default_loss, robust_loss

WORDS = "[CLS] Where was Ben born ? [SEP] Ada was born in Oslo . [SEP]".split()
mask = torch.ones(1, len(WORDS), dtype=torch.bool)
nothing = torch.zeros(2, 1, len(WORDS))  # no position is labelled
cls = torch.zeros(2, 1, dtype=torch.long)  # position 0
panels = {
    "default loss: point at [CLS]": lambda logits: default_loss(logits, cls, mask),
    "robust loss: point at nothing": lambda logits: robust_loss(logits, nothing, mask),
}
logits = 2 * torch.randn(2, 1, len(WORDS), generator=torch.Generator().manual_seed(4))
figure, axes = plt.subplots(1, 2, figsize=(10, 3.4), sharey=True)
places = range(len(WORDS))
for axis, (title, loss) in zip(axes, panels.items()):
    path = descend(loss, logits, steps=2000, rate=0.05)[:, 0, 0]  # of the start logits
    axis.bar(places, path[-1], color="black", width=0.6, label="after")
    axis.plot(places, path[0], "o", color="white", mec="grey", label="before")
    axis.axhline(0, color="black", lw=0.8)
    axis.set_xticks(places, WORDS, rotation=60)
    axis.set_title(title)
    axis.legend()
axes[0].set_ylabel("start logit")
figure.savefig(ROOT / "notebooks" / "picture.png", dpi=90)
