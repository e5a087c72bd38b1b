"""docs/picture.png, for the README: python docs/picture.py (needs requirements-dev.txt).

The two losses act on the bare start logits of one question without an answer: no model between,
the same random beginning, gradient descent until little changes.
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from robust_eqa import default_loss, robust_loss

WORDS = "[CLS] Where was Ben born ? [SEP] Ada was born in Oslo . [SEP]".split()


def descend(loss, steps=2000, rate=0.05):
    """Start and end logits (2, 1, T) after so many steps down the loss."""
    logits = 2 * torch.randn(2, 1, len(WORDS), generator=torch.Generator().manual_seed(4))
    logits.requires_grad_()
    for _ in range(steps):
        (gradient,) = torch.autograd.grad(loss(logits), logits)
        logits.data -= rate * gradient
    return logits.detach()


def main():
    mask = torch.ones(1, len(WORDS), dtype=torch.bool)
    nothing = torch.zeros(2, 1, len(WORDS))  # no position is labelled
    cls = torch.zeros(2, 1, dtype=torch.long)  # position 0
    panels = {
        "default loss: point at [CLS]": lambda logits: default_loss(logits, cls, mask),
        "robust loss: point at nothing": lambda logits: robust_loss(logits, nothing, mask),
    }
    before = descend(panels["default loss: point at [CLS]"], steps=0)[0, 0]
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.4), layout="constrained", sharey=True)
    places = range(len(WORDS))
    for axis, (title, loss) in zip(axes, panels.items()):
        after = descend(loss)[0, 0]
        axis.bar(places, after, color="black", width=0.6, label="after")
        axis.plot(places, before, "o", color="white", mec="grey", label="before")
        axis.axhline(0, color="black", lw=0.8)
        axis.set_xticks(places, WORDS, rotation=60)
        axis.set_title(title)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("start logit")
    axes[1].legend(frameon=False)
    figure.savefig(Path(__file__).with_name("picture.png"), dpi=90)


if __name__ == "__main__":
    main()
