"""What surrounds the package agrees with it: workflows, pins, citation, checks before a commit."""

import re
import sys
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
MAKEFILE = (ROOT / "Makefile").read_text()
UNPINNED = {"3.10": {"docs", "no-reference"}, "3.13": {"no-reference"}}  # extras whose packages constraints.txt lacks
JOBS = {
    f"{path.stem}: {name}": job
    for path in sorted(ROOT.glob(".github/workflows/*.yml"))
    for name, job in yaml.safe_load(path.read_text())["jobs"].items()
}


def commands(job: dict) -> list[str]:
    return [step["run"] for step in job["steps"] if "run" in step]


def pythons(job: dict) -> list[str]:
    versions = [step["with"]["python-version"] for step in job["steps"] if "setup-python" in step.get("uses", "")]
    return job["strategy"]["matrix"]["python"] if "strategy" in job else versions


def requirements(*extras: str) -> list[Requirement]:
    texts = [text for extra in extras for text in PROJECT["optional-dependencies"][extra]] or PROJECT["dependencies"]
    return [requirement for requirement in map(Requirement, texts) if requirement.name != PROJECT["name"]]


@pytest.mark.parametrize("job", JOBS.values(), ids=JOBS)
def test_jobs_run_targets_that_exist_in_bounded_time_on_supported_pythons(job):
    targets = [match[1] for command in commands(job) if (match := re.match(r"make (\S+)", command))]
    assert all(f"\n{target}:" in MAKEFILE for target in targets)
    assert job["timeout-minutes"] < 360  # what GitHub takes without it
    assert pythons(job)
    assert all(version in SpecifierSet(PROJECT["requires-python"]) for version in pythons(job))


@pytest.mark.parametrize("path", sorted(ROOT.glob(".github/workflows/*.yml")), ids=lambda path: path.name)
def test_workflows_can_only_read_the_repository(path):
    assert yaml.safe_load(path.read_text())["permissions"] == {"contents": "read"}


def test_one_job_has_the_oldest_python_and_pytorch_that_are_supported():
    job = JOBS["ci: oldest-torch"]
    (oldest,) = SpecifierSet(PROJECT["requires-python"])
    assert pythons(job) == [oldest.version]
    for requirement in requirements():
        if requirement.name in ("torch", "torchvision"):
            (least,) = requirement.specifier
            assert f"{requirement.name}=={least.version}." in " ".join(commands(job))


@pytest.mark.parametrize("python", ["3.10", "3.13"])
def test_every_dependency_has_one_pin_that_fits_its_range(python):
    lines = [line.partition("  #")[0].strip() for line in (ROOT / "constraints.txt").read_text().splitlines()]
    pins: dict[str, list[str]] = {}
    for pin in map(Requirement, filter(None, (line.partition("#")[0] for line in lines))):
        if pin.marker is None or pin.marker.evaluate({"python_version": python}):
            pins.setdefault(pin.name, []).extend(specifier.version for specifier in pin.specifier)
    assert [name for name, versions in pins.items() if len(versions) != 1] == []
    extras = set(PROJECT["optional-dependencies"]) - UNPINNED[python]
    for requirement in [*requirements(), *requirements(*sorted(extras))]:
        assert requirement.specifier.contains(pins[requirement.name][0], prereleases=True), str(requirement)


def test_checks_before_a_commit_are_those_of_make_lint():
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    hooks = [hook["entry"].replace(" --force-exclude", "") for hook in repository["hooks"]]
    recipe = re.search(r"^lint:.*\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE)[1].replace("$(BIN)", ".venv/bin")
    assert hooks == [line.strip().removesuffix(" .") for line in recipe.splitlines()]


def test_form_for_a_bug_asks_for_what_kpac_env_prints():
    form = yaml.safe_load((ROOT / ".github/ISSUE_TEMPLATE/bug.yml").read_text())
    (field,) = (item for item in form["body"] if item["id"] == "env")
    assert "kpac env" in field["attributes"]["label"]
    assert field["validations"]["required"]
