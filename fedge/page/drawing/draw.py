"""A chart's specification as inline SVG: by vl-convert-python where it is installed, else by matplotlib.

Either way the picture is the specification's; the SVG holds no script, no style of the page's, and no address.
"""

import json
import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from fedge.page.drawing.marks import INK

Spec = Mapping[str, Any]

VEGA_LITE = "5.21"
_CONFIG = {
    "font": "Helvetica, Arial, sans-serif",
    "aria": False,
    "background": None,
    "view": {"stroke": None},
    "axis": {
        "labelColor": INK, "titleColor": INK, "titleFontWeight": "normal", "gridColor": "#E6E6E6", "labelFontSize": 11,
        "titleFontSize": 12,
    },
    "legend": {"labelColor": INK, "labelFontSize": 11, "columnPadding": 18},
}  # fmt: skip


def draw(name: str, spec: Spec) -> str:
    """The SVG of a chart; `name` keeps its identifiers apart from those of the page's other charts."""
    svg = by_vega(spec) if vega() else by_matplotlib(spec)
    return tidy(name, svg)


@cache
def vega() -> bool:
    """Whether vl-convert-python can be had."""
    try:
        import vl_convert  # noqa: F401
    except ImportError:
        return False
    return True


def by_vega(spec: Spec) -> str:
    import vl_convert

    text = json.dumps({**spec, "config": _CONFIG})
    svg: str = vl_convert.vegalite_to_svg(text, vl_version=VEGA_LITE)
    return svg


def by_matplotlib(spec: Spec) -> str:
    from fedge.page.drawing.by_matplotlib import picture

    return picture(spec)


def tidy(name: str, svg: str) -> str:
    """Made fit to stand inside a page: without prologue, metadata and name spaces, with identifiers of its own."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r"url\(#", f"url(#{name}-", svg)
    svg = re.sub(r'href="#', f'href="#{name}-', svg)
    svg = re.sub(r"(?<=\d\.\d\d)\d+", "", svg)  # a hundredth of a pixel is enough
    return _fluid(svg)


def _fluid(svg: str) -> str:
    """As wide as it was drawn, or as the page where that is narrower."""
    opening = svg[: svg.index(">") + 1]
    width = re.search(r'\bwidth="([\d.]+)(pt)?"', opening)
    fluid = re.sub(r' (?:width|height)="[^"]*"', "", opening)
    most = f"{float(width[1]) * (4 / 3 if width[2] else 1):.0f}px" if width else "100%"
    return fluid[:-1] + f' style="width:100%;max-width:{most};height:auto" role="img">' + svg[len(opening) :]
