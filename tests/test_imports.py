"""Which modules may import which, where third-party libraries are used, and what startup loads."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image

import bgx

if TYPE_CHECKING:
    from collections.abc import Collection

PACKAGE = Path(bgx.__file__).parent

# A room may import from the rooms below it and from itself. Rooms side by side do not know each
# other.
FLOORS = [
    {"allocator", "errors", "install", "machine", "signals", "threads"},
    {"settings", "tables", "files"},
    {"parsers"},
    {"options"},
    {"presets"},
    {"image", "model", "storage"},
    {"run"},
    {"train", "serve", "cluster"},
    {"cli", "api"},
    {"__main__"},
]

# Third parties that have one room, or one module, each.
OWNERS = {
    "click": ["bgx.cli"],
    "tqdm": ["bgx.cli.console", "bgx.model.fetch"],
    "pooch": ["bgx.model.fetch"],
    "requests": ["bgx.model.fetch"],
    "urllib3": ["bgx.model.fetch"],
    "platformdirs": ["bgx.model.store"],
    "onnxruntime": ["bgx.model.optimize.fp16", "bgx.model.providers"],
    "onnx": [
        "bgx.model.edit",
        "bgx.model.float32",
        "bgx.model.mapped",
        "bgx.model.optimize",
        "bgx.model.prepare",
        "bgx.model.rewrite",
        "bgx.model.unknown.adapt",
        "bgx.model.unknown.look",
        "bgx.model.unknown.scaling",
        "bgx.model.winograd",
        "bgx.train.export",
    ],
    "openvino": ["bgx.model.openvino"],
    "pillow_heif": ["bgx.image"],
    "isal": ["bgx.image"],
    "simplejpeg": ["bgx.image"],
    "torch": ["bgx.train"],
    "obstore": ["bgx.storage.client", "bgx.storage.listing", "bgx.storage.objects"],
    "watchfiles": ["bgx.run.arrivals"],
    "starlette": ["bgx.serve"],
    "uvicorn": ["bgx.serve.server"],
    "python_multipart": ["bgx.serve.forms"],
    "h11": ["bgx.serve.fetch"],
    "prometheus_client": ["bgx.serve.metrics"],
    "celery": ["bgx.cluster"],
    "kombu": ["bgx.cluster"],
    "billiard": ["bgx.cluster"],
}

HEAVY = {"numpy", "PIL", "onnxruntime", "onnx", "openvino", "watchfiles"}
HEAVY |= {"pooch", "requests", "tqdm", "platformdirs"}

SERVER = {"starlette", "uvicorn", "h11", "python_multipart", "prometheus_client", "asyncio"}
"""What the server alone needs."""

BROKER = {"celery", "kombu", "billiard", "redis"}
"""What more than one machine needs."""


@dataclass(frozen=True)
class Import:
    """One name a module imports. at_load: when the module itself is imported."""

    module: str
    name: str
    at_load: bool


@cache
def all_imports() -> list[Import]:
    return [found for path in sorted(PACKAGE.rglob("*.py")) for found in imports_of(path)]


def imports_of(path: Path) -> list[Import]:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    module = ".".join(["bgx", *(part for part in parts if part != "__init__")])
    tree = ast.parse(path.read_text(encoding="utf-8"))
    deferred = {
        id(node)
        for outer in ast.walk(tree)
        if isinstance(outer, ast.FunctionDef | ast.AsyncFunctionDef)
        or (isinstance(outer, ast.If) and ast.unparse(outer.test) == "TYPE_CHECKING")
        for node in ast.walk(outer)
    }
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: imports are absolute"
            # `from bgx import api` names a room, `from bgx import __version__` does not.
            names = [
                f"bgx.{alias.name}" if node.module == "bgx" and is_room(alias.name) else node.module
                for alias in node.names
                if node.module
            ]
        else:
            continue
        found += [Import(module, name, id(node) not in deferred) for name in names]
    return found


def is_room(name: str) -> bool:
    return (PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").is_file()


def room(module: str) -> str:
    """The part of a module's name below bgx; empty for the package itself."""
    return [*module.split("."), ""][1]


def floor(name: str) -> int:
    return next(number for number, rooms in enumerate(FLOORS) if name in rooms)


def test_every_room_has_its_floor() -> None:
    rooms = {room(found.module) for found in all_imports()} - {""}

    assert rooms <= set().union(*FLOORS)


def test_imports_go_one_way() -> None:
    wrong = [
        found
        for found in all_imports()
        if found.name.startswith("bgx.")
        and room(found.module) not in {"", room(found.name)}
        and not floor(room(found.name)) < floor(room(found.module))
    ]

    assert wrong == []


def test_training_is_imported_by_its_command_alone_and_when_it_is_used() -> None:
    assert {
        (found.module, found.at_load)
        for found in all_imports()
        if found.name.startswith("bgx.train") and room(found.module) != "train"
    } == {("bgx.cli.train", False)}


def test_a_pictures_way_and_optimizing_alone_know_pictures_and_network() -> None:
    knows = {
        module: {room(found.name) for found in all_imports() if found.module == module}
        for module in {found.module for found in all_imports() if room(found.module) == "run"}
    }

    assert {module for module, rooms in knows.items() if {"image", "model"} <= rooms} == {
        "bgx.run.optimize",
        "bgx.run.picture",
    }


@pytest.mark.parametrize("library", sorted(OWNERS))
def test_a_library_has_its_room(library: str) -> None:
    users = {found.module for found in all_imports() if found.name.split(".")[0] == library}

    assert not [
        module
        for module in users
        if not any(module == owner or module.startswith(f"{owner}.") for owner in OWNERS[library])
    ]


def test_runtimes_are_imported_when_they_are_used() -> None:
    heavy = (HEAVY - {"numpy", "PIL"}) | {"torch", "pillow_heif"}

    assert not [
        found
        for found in all_imports()
        # The room of training is imported when it is used, and that is what it uses.
        if room(found.module) != "train" and found.at_load and found.name.split(".")[0] in heavy
    ]


def test_the_room_of_training_can_be_imported_without_torch() -> None:
    assert not {"torch", "onnx"} & loaded_by("import bgx.train")


def loaded_by(code: str, libraries: Collection[str] = HEAVY) -> set[str]:
    """Those of the libraries that are in a new Python after it ran this."""
    script = f"import sys; {code}; print(); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, check=True, text=True
    )
    return set(libraries) & set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    "arguments",
    [
        *(
            ["--help"],
            ["--version"],
            ["remove", "--help"],
            ["batch", "--help"],
            ["bench", "--help"],
        ),
        ["serve", "--help"],
        ["watch", "--help"],
        ["worker", "--help"],
    ],
)
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    code = f"from bgx.cli.main import run; run({json.dumps(arguments)})"
    assert loaded_by(code, HEAVY | SERVER | BROKER) == set()


def test_a_batch_loads_no_server_and_no_broker(stocked_home: Path, tmp_path: Path) -> None:
    Image.new("RGB", (64, 48), "white").save(tmp_path / "a.png")
    arguments = ["batch", str(tmp_path / "a.png"), "-o", str(tmp_path / "cut")]

    code = f"from bgx.cli.main import run; run({arguments!r})"
    assert loaded_by(code, SERVER | BROKER) == set()
    assert (tmp_path / "cut" / "a.png").is_file()


def test_the_package_itself_is_light() -> None:
    assert (
        loaded_by("import bgx; bgx.__version__; from bgx import errors, options, presets, settings")
        == set()
    )


def test_the_registry_is_read_without_numpy() -> None:
    assert loaded_by(
        "from bgx.model.registry import load_registry; load_registry();"
        "from bgx.model.store import Store; Store().registry()"
    ) <= {"platformdirs"}


def test_listing_models_loads_neither_numpy_nor_a_runtime() -> None:
    assert loaded_by("from bgx.cli.main import run; run(['models', 'list'])") <= {"platformdirs"}
