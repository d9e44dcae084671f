"""The frame: import direction, dependencies, README's commands and paths."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from functools import cache
from importlib.metadata import packages_distributions
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PACKAGES = ("core", "trainers", "studio", "tests")
TOP_LEVEL = {
    *("studio", "core", "trainers", "assets", "tests", "app.py", "requirements.txt", "requirements-dev.txt"),
    *("pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", ".gitignore", ".ci"),
}


def source_files() -> list[Path]:
    return [ROOT / "app.py", *(path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py")))]


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def imports(path: Path) -> frozenset[str]:
    """Full names of everything a file imports, inside functions as well."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*parents, *([node.module] if node.module else [])])
            found.update([module, *(f"{module}.{alias.name}" for alias in node.names)])
    return frozenset(found)


def inside(module: str, *packages: str) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def pins(file: str) -> dict[str, str]:
    """Distribution -> version of a requirements file."""
    lines = (line.strip() for line in (ROOT / file).read_text().splitlines())
    requirements = [line for line in lines if line and not line.startswith(("#", "-r "))]
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][A-Za-z0-9.]*", line) for line in requirements), requirements
    return {normal(distribution): version for distribution, version in (line.split("==") for line in requirements)}


def normal(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


@pytest.mark.parametrize("path", source_files(), ids=name)
def test_imports_go_one_way(path: Path):
    where = name(path)
    if where.startswith("core/"):
        wrong = {module for module in imports(path) if inside(module, "trainers", "studio", "app", "tests", "gradio")}
    elif where.startswith("trainers/"):
        wrong = {module for module in imports(path) if inside(module, "studio", "app", "tests", "gradio")}
        wrong = {module for module in wrong if module != "studio" and not inside(module, "studio.store")}
    elif where.startswith("studio/store/"):
        wrong = {module for module in imports(path) if inside(module, "trainers", "studio", "app", "tests", "gradio")}
        wrong = {module for module in wrong if module != "studio" and not inside(module, "studio.store")}
    else:
        wrong = {module for module in imports(path) if where.startswith("studio/") and inside(module, "app", "tests")}
    assert not wrong


@pytest.mark.parametrize("path", source_files(), ids=name)
def test_nothing_imports_torchvision(path: Path):
    assert not {module for module in imports(path) if inside(module, "torchvision")}


def test_every_imported_package_is_pinned():
    """By the package's own requirement: what another package happens to bring along may leave with it."""
    runtime = pins("requirements.txt")
    development = {**runtime, **pins("requirements-dev.txt")}
    distributions = packages_distributions()
    for path in source_files():
        known = development if name(path).startswith("tests/") else runtime
        for module in {module.split(".")[0] for module in imports(path)} - {*PACKAGES, "app", ""}:
            if module not in sys.stdlib_module_names:
                owners = {normal(owner) for owner in distributions.get(module, [module])}
                # the GPU package of ONNX Runtime takes the place of the other one, see README
                owners = {"onnxruntime" if owner == "onnxruntime-gpu" else owner for owner in owners}
                assert owners & known.keys(), f"{name(path)} imports {module}, which no requirements file pins"


def test_python_files_stay_readable():
    """Past 400 lines a file asks to be split, past 600 it has to be; a migration is one step of history."""
    files = [path for path in source_files() if path.parent.name != "versions"]
    long = {name(path): len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    assert {file: lines for file, lines in long.items() if lines > 600} == {}


def test_no_path_of_one_persons_machine():
    for path in [*source_files(), ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / ".ci" / "run"]:
        found = re.findall(r"(?<![\w.~}])/(?:home|root|work|Users|mnt)/\w+", path.read_text(encoding="utf-8"))
        assert not found, f"{name(path)} names {found}"


def test_the_first_two_commands_of_the_readme():
    commands = re.findall(r"^```\n(.*?)\n```$", README, flags=re.DOTALL | re.MULTILINE)
    assert commands[:2] == [
        "pip install -r requirements.txt && python app.py",
        "pip install -r requirements-dev.txt && python -m pytest",
    ]
    assert all("\n" not in command for command in commands[:2])


def test_the_paths_that_the_documents_name_exist():
    for document in (README, (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")):
        linked = re.findall(r"\]\((?!https?:|#|mailto:)([^)#]+)", document)
        quoted = re.findall(r"`((?:core|trainers|studio|assets|tests)/[\w./-]*)`", document)
        assert [path for path in [*linked, *quoted] if not (ROOT / path).exists()] == []


def test_the_modules_that_the_readme_runs_exist():
    modules = set(re.findall(r"python -m ([\w.]+)", README))
    assert [module for module in modules if find_spec(module) is None] == []


def test_the_gpu_command_names_the_pinned_version():
    assert set(re.findall(r"onnxruntime-gpu\[[\w,]+\]==([\d.]+)", README)) == {pins("requirements.txt")["onnxruntime"]}


def test_the_space_header_agrees_with_the_project():
    header = dict(re.findall(r"^(\w+): (.+)$", README.split("---")[1], flags=re.MULTILINE))
    assert header["sdk"] == "gradio"
    assert header["sdk_version"] == pins("requirements.txt")["gradio"]
    assert header["app_file"] == "app.py"
    assert header["python_version"] == '"3.11"'


def test_the_licence_is_the_one_that_is_named():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    licence = (ROOT / "LICENSE").read_text()
    assert project["license"] == "Apache-2.0"
    assert "Apache License" in licence
    assert "END OF TERMS AND CONDITIONS" in licence


def test_the_check_of_an_empty_machine_is_runnable():
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", script], check=True)
    command = re.search(r"grep -m 1 -x '(.+)' README\.md", script.read_text())[1]
    assert command in README.splitlines()


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="this copy is not a git checkout")
def test_tracked_files():
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    tracked = [path for path in listing.split("\0") if path]
    assert {Path(path).parts[0] for path in tracked} <= TOP_LEVEL
    for path in (ROOT / path for path in tracked):
        if path.exists():
            assert path.stat().st_size < 95_000_000, f"{name(path)} is too large to be cloned everywhere"
            with path.open("rb") as file:
                assert not file.read(40).startswith(b"version https://git-lfs"), f"{name(path)} is a pointer"


def test_the_start_names_the_execution_providers():
    import app

    assert "CPUExecutionProvider" in app.describe_devices()


def test_the_page_waits_for_no_model_library():
    heavy = ("diffusers", "transformers", "peft", "accelerate")
    program = f"import app, sys; print([name for name in {heavy} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == "[]"
