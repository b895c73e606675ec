"""`[privacy]`: what no report may tell, and what a client program may reach (docs/guide/privacy.md)."""

from typing import Literal

from fedge.scenario.section import Count, Section


class Privacy(Section):
    """The section.

    least_count: no figure in a report is of fewer samples; 1: any may be. Each part of a client's rows is cut to a
    multiple of it, so that sizes are rounded too. Part of the numbers.
    isolation: none, or client: each message is answered in a process that sees its client's folder and rows, the
    libraries, and nothing else. No part of the numbers.
    """

    least_count: Count = 1
    isolation: Literal["none", "client"] = "none"
