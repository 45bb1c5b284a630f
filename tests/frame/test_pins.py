"""pyproject.toml, constraints.txt, environment.yml and what the code imports: four lists that must agree."""

import ast
import json
import re
import sys
import tomllib
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import pytest
import yaml
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from rattler import MatchSpec

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
CONDA_NAMES = {"torch": "pytorch", "matplotlib": "matplotlib-base"}
PLATFORMS = {
    "linux": {"sys_platform": "linux", "os_name": "posix", "platform_system": "Linux"},
    "macos": {"sys_platform": "darwin", "os_name": "posix", "platform_system": "Darwin"},
    "windows": {"sys_platform": "win32", "os_name": "nt", "platform_system": "Windows"},
}


def requirements(*extras: str) -> dict[str, SpecifierSet]:
    """Ranges by name; the package's own and those of the named extras."""
    lines = PROJECT["dependencies"] + [line for extra in extras for line in EXTRAS[extra]]
    ranges: dict[str, SpecifierSet] = {}
    for requirement in map(Requirement, lines):
        name = canonicalize_name(requirement.name)
        assert ranges.get(name, requirement.specifier) == requirement.specifier, f"two ranges for {name}"
        ranges[name] = requirement.specifier
    return ranges


def pins(platform: str, python: str) -> dict[str, str]:
    """The version that constraints.txt gives each name there."""
    where = {key: str(value) for key, value in default_environment().items()} | PLATFORMS[platform]
    where |= {"python_version": ".".join(python.split(".")[:2]), "python_full_version": python}
    found: dict[str, str] = {}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("#") or not line:
            continue
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate(where):
            name = canonicalize_name(requirement.name)
            assert name not in found, f"two pins for {name}"
            (specifier,) = requirement.specifier
            assert specifier.operator == "=="
            found[name] = specifier.version
    return found


def test_the_package_alone_needs_six_libraries():
    assert set(requirements()) == {"numpy", "torch", "matplotlib", "tqdm", "jaxtyping", "safetensors"}


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("python", ["3.11.2", "3.12.1", "3.13.0"])
def test_every_direct_dependency_is_pinned_within_its_range(platform, python):
    pinned = pins(platform, python)
    for name, wanted in requirements(*EXTRAS).items():
        assert wanted.contains(pinned[name]), f"{name}=={pinned[name]} is outside {wanted}"
    assert pinned["torch"] == "2.13.0"


def test_constraints_name_no_address_and_no_file():
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        assert line.startswith("#") or re.fullmatch(r"[a-z0-9-]+==[a-z0-9.]+( ; [^/@]+)?", line), line


def test_katex_is_the_version_that_its_sphinx_extension_asks_for():
    """Another stylesheet than the script's garbles subscripts without a word."""
    assert pins("linux", "3.11.2")["sphinxcontrib-katex"] == "0.9.11"
    assert json.loads((ROOT / "package.json").read_text())["devDependencies"]["katex"] == "0.16.22"


@pytest.mark.parametrize("folder", [ROOT, ROOT / "tools" / "lighthouse"], ids=["root", "lighthouse"])
def test_npm_locks_pin_by_hash_and_name_no_address(folder):
    wanted = json.loads((folder / "package.json").read_text())
    assert wanted["private"] is True
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", version) for version in wanted["devDependencies"].values())
    text = (folder / "package-lock.json").read_text()
    locked = json.loads(text)["packages"]
    assert locked[""]["devDependencies"] == wanted["devDependencies"]
    assert '"resolved"' not in text
    assert all("integrity" in package for path, package in locked.items() if path)


def conda_environment() -> tuple[dict[str, str], dict[str, str]]:
    """Ranges by name: those that conda brings, and those that pip brings there."""
    listed = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))["dependencies"]
    (by_pip,) = [entry["pip"] for entry in listed if isinstance(entry, dict)]
    specs = [MatchSpec(entry) for entry in listed if isinstance(entry, str)]
    conda = {spec.name.normalized: str(spec.version or "") for spec in specs}
    assert len(conda) == len(specs)
    pip = {str(canonicalize_name(r.name)): str(r.specifier) for r in map(Requirement, by_pip)}
    return conda, pip


def test_conda_users_get_the_same_ranges():
    conda, pip = conda_environment()
    assert SpecifierSet(conda.pop("python")) == SpecifierSet(PROJECT["requires-python"])
    assert conda.pop("pip") == ""
    names = {conda_name: name for name, conda_name in CONDA_NAMES.items()}
    both = {names.get(name, name): SpecifierSet(version) for name, version in conda.items()}
    assert not set(both) & set(pip)
    both |= {name: SpecifierSet(version) for name, version in pip.items()}
    assert both == requirements("book", "test", "assignments")


OURS = {"lecturecode", "make"} | {file.stem for file in (ROOT / "book" / "_extensions").glob("*.py")}


def imported_by(folder: Path) -> dict[str, Path]:
    """Top-level modules that a folder's programs cannot do without, besides Python's own and ours."""
    files = sorted(folder.rglob("*.py"))
    siblings = {file.stem for file in files} | {file.parent.name for file in files}
    found: dict[str, Path] = {}
    for file in files:
        tree = ast.parse(file.read_text(encoding="utf-8"))
        tries = [node for node in ast.walk(tree) if isinstance(node, ast.Try)]
        able = [t for t in tries if any(ast.unparse(h.type or t) == "ImportError" for h in t.handlers)]
        optional = {inner for t in able for statement in t.body for inner in ast.walk(statement)}
        for node in set(ast.walk(tree)) - optional:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                names = [node.module]
            for name in names:
                top = name.split(".")[0]
                if top not in sys.stdlib_module_names | OURS | siblings:
                    found[top] = file
    return found


def brought_by(name: str, seen: set[str]) -> set[str]:
    """The distributions that come with one: what it requires, what that requires, and so on."""
    for requirement in map(Requirement, requires(name) or []):
        needed = canonicalize_name(requirement.name)
        if needed not in seen and (requirement.marker is None or requirement.marker.evaluate({"extra": ""})):
            seen.add(needed)
            brought_by(needed, seen)
    return seen


@pytest.mark.parametrize(
    ("folder", "extras"),
    [
        ("lecturecode", []),
        ("book/_extensions", ["book"]),
        ("grading", ["book", "assignments"]),
        ("tests", ["book", "test", "assignments"]),
    ],
)
def test_what_the_code_imports_is_declared(folder, extras):
    declared = set(requirements(*extras)) | (brought_by("jupyter-book", set()) if extras else set())
    declared |= brought_by("nbgrader", set()) if "assignments" in extras else set()
    distributions = packages_distributions()
    for module, file in imported_by(ROOT / folder).items():
        providers = {canonicalize_name(name) for name in distributions.get(module, [module])}
        assert providers & declared, f"{file} imports {module}, of {sorted(providers)}, which is not declared"
