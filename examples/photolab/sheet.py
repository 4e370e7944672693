"""The contact sheet: one row per photograph, one column per rendition, in one picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

__all__ = ["ContactSheet"]

BACKGROUND = (21, 23, 27)
EMPTY = (33, 36, 42)
BRIGHT = (238, 235, 228)
MUTED = (142, 147, 157)
ACCENT = (240, 163, 78)

MARGIN = 40
GAP = 12
HEADER = 128
FOOTER = 36
LABEL = 150
MAX_ROWS = 24  # a folder of thousands would make a picture that no viewer opens

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True, slots=True)
class ContactSheet:
    """A labelled grid of square thumbnails.

    ``thumbnails`` maps (row, column) to the picture; a missing one leaves its place empty.
    """

    title: str
    subtitle: str
    rows: Sequence[str]
    columns: Sequence[str]
    thumbnails: Mapping[tuple[str, str], Path]
    size: int

    def save(self, target: Path) -> Path:
        """Draw the sheet and write it to ``target`` as a PNG."""
        shown = self.rows[:MAX_ROWS]
        step = self.size + GAP
        width = MARGIN * 2 + LABEL + step * len(self.columns) - GAP
        height = HEADER + step * len(shown) + FOOTER
        sheet = Image.new("RGB", (width, height), BACKGROUND)
        self._draw_header(ImageDraw.Draw(sheet), len(shown))
        for number, row in enumerate(shown):
            self._draw_row(sheet, row, HEADER + step * number)
        sheet.save(target, optimize=True)
        return target

    def _draw_header(self, draw: ImageDraw.ImageDraw, shown: int) -> None:
        subtitle = self.subtitle
        if shown < len(self.rows):
            subtitle += f" · here: the first {shown} of {len(self.rows)}"
        draw.text((MARGIN, 30), self.title, BRIGHT, _font(26))
        draw.text((MARGIN, 66), subtitle, MUTED, _font(15))
        for number, column in enumerate(self.columns):
            middle = self._left(number) + self.size / 2
            draw.text((middle, HEADER - 12), column, ACCENT, _font(14), anchor="ms")

    def _draw_row(self, sheet: Image.Image, row: str, top: int) -> None:
        draw = ImageDraw.Draw(sheet)
        label = _shortened(row.replace("_", " "), _font(15), LABEL - GAP)
        draw.text((MARGIN, top + self.size / 2), label, BRIGHT, _font(15), anchor="lm")
        for number, column in enumerate(self.columns):
            self._draw_cell(sheet, self.thumbnails.get((row, column)), self._left(number), top)

    def _draw_cell(self, sheet: Image.Image, path: Path | None, left: int, top: int) -> None:
        box = (left, top, left + self.size - 1, top + self.size - 1)
        if path is None:
            draw = ImageDraw.Draw(sheet)
            draw.rounded_rectangle(box, 8, EMPTY)
            middle = self.size / 2
            draw.text((left + middle, top + middle), "failed", MUTED, _font(14), anchor="mm")
            return
        with Image.open(path) as thumbnail:
            sheet.paste(thumbnail, (left, top), _rounded(thumbnail.size))

    def _left(self, column: int) -> int:
        return MARGIN + LABEL + column * (self.size + GAP)


def _font(size: int) -> Font:
    return ImageFont.load_default(size)  # the typeface inside Pillow: the same on every machine


def _rounded(size: tuple[int, int]) -> Image.Image:
    """A mask with round corners, drawn large and reduced so that their edge is smooth."""
    mask = Image.new("L", (size[0] * 4, size[1] * 4))
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, mask.width - 1, mask.height - 1), 32, 255)
    return mask.resize(size, Image.Resampling.LANCZOS)


def _shortened(text: str, font: Font, width: float) -> str:
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"
