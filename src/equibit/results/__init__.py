"""What was measured, in one page: recorded runs beside what the papers print, comparisons, figures, timings.

`draw(records)` draws the pictures, `collect(records)` reads everything, `write(found, records, page)` writes the page.
"""

from equibit.results.collect import FIGURES, Collection, collect
from equibit.results.page import render, write
from equibit.results.pictures import draw
from equibit.results.published import papers

__all__ = ["FIGURES", "Collection", "collect", "draw", "papers", "render", "write"]
