"""One look for every figure: transparent SVG in mid-grey ink, legible on a light and on a dark page and on a phone."""

from importlib.util import find_spec
from typing import TYPE_CHECKING

from ftkit.errors import MissingDependency

if TYPE_CHECKING:
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

INK = "#757d86"
COLOURS = ("#3b82f6", "#f59e0b", "#10b981", "#ef4444", "#8b5cf6", "#14b8a6")


def use_style() -> None:
    """Set matplotlib's defaults, and SVG as the notebook's figure format.

    Raises:
        MissingDependency: matplotlib is not installed.
    """
    if find_spec("matplotlib") is None:
        raise MissingDependency("figures need matplotlib; run: pip install 'ftkit[plot]'")
    import matplotlib as mpl
    from cycler import cycler

    mpl.rcParams.update(
        {
            "axes.edgecolor": INK,
            "axes.facecolor": "none",
            "axes.grid": True,
            "axes.labelcolor": INK,
            "axes.prop_cycle": cycler(color=COLOURS),
            "axes.spines.right": False,
            "axes.spines.top": False,
            "figure.constrained_layout.use": True,
            "figure.facecolor": "none",
            "figure.figsize": (5.4, 3.2),
            "font.family": "sans-serif",
            "font.size": 11,
            "grid.alpha": 0.25,
            "grid.color": INK,
            "legend.framealpha": 0,
            "legend.labelcolor": INK,
            "savefig.facecolor": "none",
            "savefig.transparent": True,
            "svg.fonttype": "none",
            "svg.hashsalt": "ftkit",
            "text.color": INK,
            "xtick.color": INK,
            "ytick.color": INK,
        }
    )
    if find_spec("IPython") is not None:
        from IPython import get_ipython

        if get_ipython() is not None:
            from matplotlib_inline.backend_inline import set_matplotlib_formats

            set_matplotlib_formats("svg", metadata={"Date": None})


def plain_ticks(axis: "Axis") -> None:
    """Label a logarithmic axis with plain numbers: exponents would be too small on a phone. Call it after plotting."""
    from matplotlib.ticker import LogLocator, NullFormatter

    low, high = axis.get_view_interval()
    subs = (1, 2, 5) if high < 10 * low else (1, 3) if high < 100 * low else (1,)
    axis.set_major_locator(LogLocator(subs=subs))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def show(figure: "Figure", alt: str) -> None:
    """Display `figure` in a notebook, described by `alt` for those who cannot see it, and close it."""
    import matplotlib.pyplot as plt
    from IPython.display import display

    display(figure, metadata={"image/svg+xml": {"alt": alt}})
    plt.close(figure)
