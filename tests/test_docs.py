"""Every example of the documentation runs, page by page, as a reader would type it."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

DOCS = Path(__file__).parent.parent / "docs"
BLOCKS = {
    page.name: re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL) for page in sorted(DOCS.glob("*.md"))
}


@pytest.mark.parametrize("page", [name for name, blocks in BLOCKS.items() if blocks])
def test_examples(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    # A module, as a reader's own: files name classes by the module in which they can be found again.
    module = ModuleType(f"page_of_{page.removesuffix('.md')}")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    for block in BLOCKS[page]:
        if name := re.match(r"# (\w+)\.py\n", block):  # a file that later blocks, or the processes they start, import
            (tmp_path / f"{name[1]}.py").write_text(block)
            monkeypatch.delitem(sys.modules, name[1], raising=False)
            monkeypatch.syspath_prepend(tmp_path)
            continue
        exec(compile(block, page, "exec"), module.__dict__)
    assert capsys.readouterr().out
    for picture in re.findall(r"savefig\(\"([^\"]+)\"", "".join(BLOCKS[page])):
        assert (tmp_path / picture).stat().st_size > 10_000
        assert (DOCS / picture).exists()


def test_links_lead_somewhere():
    for page in BLOCKS:
        for target in re.findall(r"\]\(([^)#]+)\)", (DOCS / page).read_text()):
            assert target.startswith("https://") or (DOCS / target).exists(), f"{page}: {target}"


def test_parts_of_ones_own_take_no_more_than_sixty_lines():
    assert len(BLOCKS["extending.md"]) == 5
    assert all(len(block.splitlines()) <= 60 for block in BLOCKS["extending.md"])
