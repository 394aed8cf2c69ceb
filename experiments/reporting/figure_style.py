"""How every figure looks: its size, letters and colours, and how it becomes pixels.

Figures are made without pyplot, so nothing is kept between calls and no display is needed.
"""

import warnings
from typing import Literal

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, SubFigure

_DPI = 110
WIDTH_IN = 14.0
INK, GREY, GRID_LINE = "#22262b", "#7a828c", "#e4e7eb"
GREEN, BLUE, PINK, AMBER = "#1a7f4b", "#2f6db5", "#d6517d", "#c98a1b"
CYCLE = (BLUE, PINK, AMBER, GREEN, "#7a5cc0", "#4aa5a5")

STYLE = {
    "font.size": 10,
    "text.color": INK,
    "text.parse_math": False,  # a caption may hold dollar signs
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.titlesize": 11.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID_LINE,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "legend.frameon": False,
    "legend.fontsize": 9,
}


def figure_pixels(figure: Figure) -> np.ndarray:
    """A figure as u8[H, W, 3]."""
    canvas = figure.canvas
    assert isinstance(canvas, FigureCanvasAgg)
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        # The font lacks some scripts' letters; they are drawn as boxes.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def new_figure(height_in: float, layout: Literal["constrained", "none"] = "constrained") -> Figure:
    """An empty figure as wide as all; drawn in `mpl.rc_context(STYLE)`."""
    figure = Figure((WIDTH_IN, height_in), dpi=_DPI, layout=layout, facecolor="white")
    if (engine := figure.get_layout_engine()) is not None:
        engine.set(w_pad=0.12, h_pad=0.1)  # inches
    FigureCanvasAgg(figure)
    return figure


def only_axes(part: SubFigure) -> Axes:
    """The one panel of a part."""
    return part.subplots()
