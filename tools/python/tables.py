"""Markdown tables that are also readable as plain text."""

from pathlib import Path


def render(header, rows):
    """A table; a column whose title starts with '>' is set to the right."""
    titles = [h.lstrip(">") for h in header]
    right = [h.startswith(">") for h in header]
    cells = [[str(c).replace("|", "\\|").replace("\n", " ") for c in row] for row in rows]
    widths = [max(3, len(t), *(len(row[i]) for row in cells)) for i, t in enumerate(titles)]

    def line(row):
        return "| " + " | ".join(c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right)) + " |"

    rule = ["-" * (w - 1) + (":" if r else "-") for w, r in zip(widths, right)]
    return "\n".join(line(row) for row in [titles, rule, *cells]) + "\n"


def write(path, text):
    """Write a text file, making its folder."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
