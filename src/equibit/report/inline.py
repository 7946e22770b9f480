"""Matplotlib figures as SVG elements inside a page, whose colours and fonts they take."""

import io
from xml.etree import ElementTree

import matplotlib
from matplotlib.figure import Figure

from equibit.figures import style

_SVG, _XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
_REM_PER_INCH = 7.4  # up to which a picture grows with the page: text of 10 points is then 16 pixels high
INK, FAINT = "#010203", "#040506"  # stand for the page's text and line colours, which differ in the dark
_VARIABLES = {
    INK: "currentColor",
    FAINT: "var(--faint)",
    style.BLUE: "var(--blue)",
    style.ORANGE: "var(--orange)",
    style.VERMILION: "var(--vermilion)",
    style.GREEN: "var(--green)",
}
STYLE = {
    **style.STYLE,
    "svg.fonttype": "none",  # text stays text, in the page's font
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.grid": False,
    "grid.color": FAINT,
    "grid.alpha": 0.35,
    "grid.linewidth": 0.6,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "font.size": 10,
    "axes.titlesize": 10,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.fontsize": 9,
}


def svg(figure: Figure, name: str, about: str) -> str:
    """The figure as an `<svg>` element.

    Args:
        figure: Drawn in `STYLE`.
        name: Tells its ids from those of the other figures of the page.
        about: What can be seen, for those who cannot.
    """
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    ElementTree.register_namespace("", _SVG)
    ElementTree.register_namespace("xlink", _XLINK)
    root = ElementTree.fromstring(buffer.getvalue())
    widest = f"max-width: {_REM_PER_INCH * figure.get_figwidth():.0f}rem"
    root.attrib.update({"role": "img", "aria-label": about, "style": widest})
    for size in ("width", "height"):
        del root.attrib[size]
    _tidy(root)
    text = ElementTree.tostring(root, encoding="unicode")
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour.lower(), variable)
    return text


def _tidy(root: ElementTree.Element) -> None:
    """Drops ids that nothing refers to, which repeat from figure to figure, metadata, and styles of the whole page."""
    used = {value.split("#")[1].rstrip(")") for e in root.iter() for value in e.attrib.values() if "#" in value[:5]}
    for element in root.iter():
        if element.get("id") not in used:
            element.attrib.pop("id", None)
        for child in list(element):
            if child.tag in (f"{{{_SVG}}}metadata", f"{{{_SVG}}}style"):
                element.remove(child)
