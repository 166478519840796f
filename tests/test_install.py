"""Nobody is sent to the stranger's package that is called bgx on the Python package index."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from bgx.install import explain_other_bgx, install_hint
from bgx.model.engines import explain_install
from bgx.settings import DEVICES
from support.shell import bgx

REPOSITORY = Path(__file__).parents[1]


def install(folder: Path, name: str, version: str, origin: object = None) -> None:
    """Make Python's metadata say that a distribution is installed in `folder`.

    origin: what pip notes about where it came from, None for a package index.
    """
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    (info / "METADATA").write_text(text, encoding="utf-8")
    if origin is not None:
        (info / "direct_url.json").write_text(json.dumps(origin), encoding="utf-8")


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to install into, the only one that counts."""
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    return tmp_path


CLONE = "file:///home/me/bgx"
WHEEL = {"url": f"{CLONE}/dist/bgx_cutout-0.2.0-py3-none-any.whl", "archive_info": {}}


@pytest.mark.parametrize(
    ("origin", "hint"),
    [
        (None, 'pip install "bgx-cutout[gpu]"'),
        (WHEEL, 'pip install "bgx-cutout[gpu]"'),
        ({"url": CLONE, "dir_info": {}}, 'pip install "bgx-cutout[gpu]"'),
        ({"url": CLONE, "dir_info": {"editable": True}}, 'pip install -e ".[gpu]"'),
    ],
)
def test_an_extra_is_that_of_what_is_installed(
    origin: object, hint: str, environment: Path
) -> None:
    install(environment, "bgx-cutout", "0.2.0", origin)

    assert install_hint("gpu") == hint
    assert hint in explain_install("cuda")


def test_what_is_not_installed_at_all_comes_from_the_index(environment: Path) -> None:
    assert install_hint("heif") == 'pip install "bgx-cutout[heif]"'
    assert not list(environment.iterdir())


@pytest.mark.parametrize("kind", sorted(set(DEVICES) - {"auto"}))
def test_every_device_has_a_command(kind: str) -> None:
    assert "pip install" in explain_install(kind)


def test_the_strangers_package_is_noticed(environment: Path) -> None:
    install(environment, "bgx-cutout", "0.2.0")
    assert explain_other_bgx() is None

    install(environment, "bgx", "0.3.1")

    said = explain_other_bgx()
    assert said is not None
    assert "bgx 0.3.1" in said
    assert "pip uninstall -y bgx, then: pip install --force-reinstall --no-deps bgx-cutout" in said


def test_a_clone_is_installed_again_as_a_clone(environment: Path) -> None:
    install(environment, "bgx-cutout", "0.2.0", {"url": CLONE, "dir_info": {"editable": True}})
    install(environment, "bgx", "0.3.1")

    assert (explain_other_bgx() or "").endswith("then: pip install -e .")


def test_info_says_what_to_do_about_the_strangers_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "bgx", "0.3.1")
    monkeypatch.syspath_prepend(str(tmp_path))

    text = bgx("info").out.decode()
    facts = json.loads(bgx("info", "--json").out)

    assert "trouble    another package, bgx 0.3.1," in text
    assert "pip uninstall -y bgx" in facts["trouble"]


OLD_WORDS = re.compile(r"""pip3? install\b[^\n`&;|]*?["' ]bgx(?![-\w./:])|["']bgx\[""")


def test_the_old_words_are_recognised() -> None:
    # In two pieces, so that this file passes its own test.
    for package in ("bgx", "'bgx'", "--upgrade bgx"):
        assert OLD_WORDS.search("pip install " + package)
    for extra in ('"bgx' + '[gpu]"', "'bgx" + "[cpu,heif]'"):
        assert OLD_WORDS.search(extra)
    for good in ('pip install "bgx-cutout[gpu]"', "pip install . && bgx info", "pip install ./bgx"):
        assert not OLD_WORDS.search(good)


def test_no_text_names_the_strangers_package() -> None:
    skipped = {".git", "build", "dist", "__pycache__", "results"}
    files = [
        path
        for path in REPOSITORY.rglob("*")
        if path.suffix in {".py", ".md", ".toml", ".yml", ".yaml", ".conf", ".service", ".sh", ""}
        and path.is_file()
        and not any(
            part in skipped or part.startswith((".venv", ".mypy", ".ruff", ".pytest", ".hypo"))
            for part in path.relative_to(REPOSITORY).parts
        )
    ]
    assert REPOSITORY / "README.md" in files
    assert REPOSITORY / ".ci" / "run" in files

    found = [
        f"{path.relative_to(REPOSITORY)}: {match[0]}"
        for path in files
        for match in OLD_WORDS.finditer(path.read_text(encoding="utf-8"))
    ]

    assert found == []
