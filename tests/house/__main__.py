"""``make house``: draw the picture of the house, and print its figures."""

from tests.house.code import ROOT, read
from tests.house.picture import draw
from tests.house.rules import figures, limit

PICTURE = ROOT / "docs" / "explanation" / "house.svg"

if __name__ == "__main__":
    modules = read()
    PICTURE.write_text(draw(modules), "utf-8")
    print(f"drawn: {PICTURE.relative_to(ROOT)}")
    for rule, figure in figures(modules).items():
        print(f"{figure:8.1f} of at most {limit(rule):5.1f}  {rule}")
