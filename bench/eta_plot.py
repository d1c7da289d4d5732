"""Plot the results of `bench.eta`: errors, and the learned speeds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt

from eta.model import HOURS, STREET_CLASSES

VARIANTS = {
    "straight": ("straight line, constant speed", "#b0b0b0"),
    "constant": ("road, constant speed", "#e08b3e"),
    "learned": ("learned", "#1f6fb2"),
}
SHOWN = ("primary", "tertiary", "residential", "service")


def draw(runs: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw all seeds' errors together, and the speeds of the first."""
    mpl.rcParams |= {"svg.hashsalt": "doorstep", "font.size": 9, "svg.fonttype": "none"}
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4))
    shares = np.linspace(0, 1, 201)
    for variant, (label, colour) in VARIANTS.items():
        errors = np.concatenate([np.abs(run["errors"][variant]) for run in runs]) / 60
        left.plot(np.quantile(errors, shares), 100 * shares, color=colour, label=label)
    left.set(xlim=(0, 8), ylim=(0, 100), xlabel="off by at most, minutes", ylabel="% of estimates")
    left.set_title("to the customer, on held-out days")
    left.legend(frameon=False)
    left.grid(alpha=0.3)
    for name in SHOWN:
        mps = np.array(runs[0]["model"].street_mps[STREET_CLASSES.index(name)])
        right.plot(range(HOURS), mps * 3.6, label=name)
    right.set(xlim=(9, 23), xlabel="hour of the day", ylabel="km/h")
    right.set_title("speeds learned")
    right.legend(frameon=False)
    right.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
