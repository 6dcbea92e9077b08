"""The page's section of pictures."""

from base64 import b64encode
from html import escape

from mrbench.report.gallery import Gallery, Panel, Row

OPEN_ARMS = 2  # the pictures of further arms are folded away


def render(gallery: Gallery) -> str:
    """A section, or nothing where there is nothing to say."""
    if not gallery.rows and not gallery.notes:
        return ""
    parts = ['<section aria-labelledby="pictures">', '<h2 id="pictures">Pictures on which they differ</h2>']
    parts += [f'<p class="note">{escape(line)}</p>' for line in gallery.notes]
    for place, arm in enumerate(dict.fromkeys(row.arm for row in gallery.rows)):
        rows = "\n".join(_row(row) for row in gallery.rows if row.arm == arm)
        opened = " open" if place < OPEN_ARMS else ""
        parts.append(f"<details{opened}><summary>{escape(arm)}</summary>\n{rows}\n</details>")
    return "\n".join([*parts, "</section>"])


def _row(row: Row) -> str:
    panels = "\n".join(_panel(row, panel) for panel in row.panels)
    caption = f"{escape(row.name)}, seed {row.seed}"
    return f'<figure><div class="panels large">\n{panels}\n</div>\n<figcaption>{caption}</figcaption></figure>'


def _panel(row: Row, panel: Panel) -> str:
    width, height = panel.size
    source = b64encode(panel.picture).decode()
    alt = escape(f"{row.name}, {panel.title}: {panel.said}")
    return (
        f'<div><img alt="{alt}" width="{width}" height="{height}" src="data:image/jpeg;base64,{source}">'
        f"<p><strong>{escape(panel.title)}</strong> {escape(panel.said)}</p></div>"
    )
