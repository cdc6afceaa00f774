"""The documentation site builds without warnings, is complete, and needs no network."""

import html
import re
import subprocess
import sys
from importlib import import_module
from inspect import isclass, isfunction
from pathlib import Path
from urllib.parse import unquote

import pytest

from nlnet.cli.choices import choices, config_groups, group_word
from nlnet.cli.keys import every_key

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the built site. A warning is an error."""
    out = tmp_path_factory.mktemp("site")
    words = ["-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "-d", str(out / "trees")]
    done = subprocess.run(
        [sys.executable, *words, str(DOCS), str(out / "html")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return out / "html"


def text_of(page: Path) -> str:
    return html.unescape(re.sub(r"<[^>]+>", "", page.read_text()))


def test_every_page_is_built(site: Path):
    for page in DOCS.glob("*.md"):
        assert (site / f"{page.stem}.html").is_file()


def test_reading_needs_no_network(site: Path):
    """Pages load scripts, styles and pictures from the site alone; links are no loads."""
    loads = r"""<(?:script|img|iframe|source)[^>]*\bsrc=["']([^"']+)|<link[^>]*href=["']([^"']+)"""
    for page in site.rglob("*.html"):
        for source in re.findall(loads, page.read_text()):
            assert not re.match(r"(https?:)?//", "".join(source)), page
    for style in site.rglob("*.css"):
        assert not re.search(r"@import|url\([\"']?(https?:)?//", style.read_text()), style


def test_every_link_inside_the_site_has_a_target(site: Path):
    for page in site.glob("*.html"):
        for link in re.findall(r'<a [^>]*href="([^"]+)"', page.read_text()):
            path, _, anchor = html.unescape(link).partition("#")
            if re.match(r"[a-z]+:", path):
                continue
            target = page.parent / unquote(path) if path else page
            assert target.is_file(), f"{page.name}: {link}"
            if anchor and target.suffix == ".html":
                assert f'id="{unquote(anchor)}"' in target.read_text(), f"{page.name}: {link}"


def test_every_key_of_every_tool_is_in_the_reference_with_its_meaning(site: Path):
    rows = re.findall(r"<tr.*?</tr>", (site / "configuration.html").read_text(), re.DOTALL)
    cells = [re.findall(r"<td.*?>(.*?)</td>", row, re.DOTALL) for row in rows]
    plain = [[re.sub(r"<[^>]+>", "", cell).strip() for cell in row] for row in cells if row]
    meanings = {row[0]: row[3] for row in plain if len(row) == 4}
    keys = {key.name for key in every_key().values() if not key.is_config}
    assert len(keys) > 100
    assert keys <= set(meanings)
    assert [key for key in sorted(keys) if not meanings[key]] == []


def test_every_choice_of_every_group_is_in_the_reference(site: Path):
    text = text_of(site / "configuration.html")
    for group in config_groups():
        for choice in choices(group):
            assert group_word(group, choice) in text


def test_the_reference_has_every_public_name_of_its_modules(site: Path):
    page = (DOCS / "api.md").read_text()
    modules = [
        name
        for row in re.findall(r"^\| (`nlnet[^|]*) \|", page, re.MULTILINE)
        for name in re.findall(r"`([\w.]+)`", row)
    ]
    assert len(modules) > 20
    built = (site / "api.html").read_text()
    for name in modules:
        for public, value in vars(import_module(name)).items():
            is_code = isclass(value) or isfunction(value)
            if is_code and value.__module__ == name and not public.startswith("_"):
                assert f'id="{name}.{public}"' in built, f"{name}.{public}"
    assert "K names, in the order of the scores" in text_of(site / "api.html")  # a field's comment
