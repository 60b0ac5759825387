"""A chart of small panels with bars, as SVG that reads on light and dark pages."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

COLUMNS, PANEL, GAP, LABEL, BAR = 3, 320, 24, 150, 18
STYLE = (
    "text{font:11px system-ui,sans-serif;fill:#333}.title{font-weight:600;font-size:12px}"
    ".head{font-weight:600;font-size:15px}.ours{fill:#0b6e4f}.peer{fill:#8fa3b5}.limit{fill:#d9c38f}"
    "@media(prefers-color-scheme:dark){text{fill:#ddd}.ours{fill:#35b98b}.peer{fill:#66788a}.limit{fill:#8a7740}}"
)


@dataclass(frozen=True)
class Bar:
    """A bar; its kind chooses the colour."""

    label: str
    value: float
    kind: str


def draw(title: str, panels: Mapping[str, Sequence[Bar]]) -> str:
    """Return the drawing; each panel has its own scale."""
    height = (max(map(len, panels.values()), default=0) + 2) * BAR + GAP
    rows = -(-len(panels) // COLUMNS)
    width, whole = COLUMNS * (PANEL + GAP) + GAP, rows * height + 3 * GAP
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {whole}" role="img">',
        f"<title>{escape(title)}</title><style>{STYLE}</style>",
        f'<text class="head" x="{GAP}" y="{GAP}">{escape(title)}</text>',
    ]
    for index, (name, bars) in enumerate(panels.items()):
        left = GAP + index % COLUMNS * (PANEL + GAP)
        top = 2 * GAP + index // COLUMNS * height
        parts.append(f'<g transform="translate({left} {top})">{_panel(name, bars)}</g>')
    return "\n".join([*parts, "</svg>", ""])


def _panel(name: str, bars: Sequence[Bar]) -> str:
    most = max(bar.value for bar in bars) or 1
    parts = [f'<text class="title" y="{BAR - 6}">{escape(name)}</text>']
    for index, bar in enumerate(bars, start=1):
        top = index * BAR
        length = max(1.0, bar.value / most * (PANEL - LABEL - 50))
        parts.append(
            f'<text x="{LABEL - 6}" y="{top + 11}" text-anchor="end">{escape(bar.label)}</text>'
            f'<rect class="{bar.kind}" x="{LABEL}" y="{top}" width="{length:.1f}" height="{BAR - 4}"/>'
            f'<text x="{LABEL + length + 4:.1f}" y="{top + 11}">{bar.value:,.0f}</text>'
        )
    return "".join(parts)
