"""What is published is what the repository says: metadata, wheel, changelog, workflows, versions."""

import re
import shlex
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version
from trl.scripts.vllm_serve import ScriptArguments, build_command

import repro_trl

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))


def pins(name: str) -> dict[str, Version]:
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {package: Version(version) for package, version in pairs}


def requirements() -> list[Requirement]:
    project = PROJECT["project"]
    lists = [project["dependencies"], *project["optional-dependencies"].values()]
    return [Requirement(text) for texts in lists for text in texts]


# ------------------------------------------------------------------------------------------------------------ versions


def test_the_version_has_one_source_and_stands_in_changelog_and_citation():
    assert "version" not in PROJECT["project"]
    assert PROJECT["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "repro_trl.__version__"}
    version = Version(repro_trl.__version__)
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## \[{re.escape(str(version))}\] - \d{{4}}-\d\d-\d\d$", changelog, re.MULTILINE)
    assert f"[{version}]: https://" in changelog
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == str(version)
    assert f"{citation['date-released']}" in changelog


def test_the_version_is_read_without_torch():
    program = "import sys, repro_trl; assert repro_trl.__version__; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_floors_are_the_oldest_versions_that_are_tested():
    oldest = pins("constraints-oldest.txt")
    for name in oldest:
        specifiers = [r.specifier for r in requirements() if r.name == name and r.specifier]
        assert specifiers, f"constraints-oldest.txt pins {name}, which pyproject.toml does not name"
        for specifier in specifiers:
            floors = [Version(s.version) for s in specifier if s.operator == ">="]
            assert floors == [oldest[name]], f"{name}: pyproject.toml has {specifier}, tested is {oldest[name]}"


@pytest.mark.parametrize("file", ["constraints.txt", "constraints-oldest.txt", "constraints-newest.txt"])
def test_tested_versions_are_within_the_ranges(file):
    pinned = pins(file)
    for requirement in requirements():
        if requirement.name in pinned:
            assert pinned[requirement.name] in requirement.specifier, requirement


def test_the_page_of_versions_has_what_is_pinned():
    page = (ROOT / "docs" / "versions.md").read_text(encoding="utf-8")
    oldest, pinned, newest = (pins(f"constraints{end}.txt") for end in ("-oldest", "", "-newest"))
    assert oldest.keys() == newest.keys()
    for name in oldest:
        row = rf"^\| {name} \| {oldest[name]} \| {pinned[name]} \| {newest[name]} \|$"
        assert re.search(row, page, re.MULTILINE | re.IGNORECASE), name


def test_python_versions_agree():
    classifiers = PROJECT["project"]["classifiers"]
    named = {c.rpartition(" ")[2] for c in classifiers if re.fullmatch(r"Programming Language :: Python :: 3\.\d+", c)}
    jobs = yaml.safe_load((ROOT / ".github/workflows/tests.yml").read_text(encoding="utf-8"))["jobs"]
    tested = {entry["python"] for entry in jobs["tests"]["strategy"]["matrix"]["include"]}
    assert tested == named
    assert PROJECT["project"]["requires-python"] == f">={min(named, key=Version)}"


# --------------------------------------------------------------------------------------------------------------- wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from what is committed or about to be, as setuptools does it, without a network."""
    pytest.importorskip("setuptools", "77", reason="the build backend is not installed")
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    # A copy without its history has nothing but its own files.
    names = listed.stdout.splitlines() if listed.returncode == 0 else _package_files()
    for name in names:
        if (ROOT / name).is_file() and name.startswith(("repro_trl/", "pyproject", "README", "LICENSE")):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    program = f"import setuptools.build_meta as b; print(b.build_wheel({str(folder)!r}))"
    done = subprocess.run([sys.executable, "-c", program], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return zipfile.ZipFile(folder / done.stdout.splitlines()[-1]), source


def _package_files() -> list[str]:
    files = [path.relative_to(ROOT).as_posix() for path in (ROOT / "repro_trl").rglob("*")]
    return [*(name for name in files if "__pycache__" not in name), "pyproject.toml", "README.md", "LICENSE"]


def test_the_wheel_holds_every_file_of_the_package_and_nothing_else(wheel):
    archive, source = wheel
    packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    expected = {path.relative_to(source).as_posix() for path in (source / "repro_trl").rglob("*") if path.is_file()}
    assert packed == expected
    assert "repro_trl/py.typed" in packed


def test_the_metadata_says_who_what_and_where(wheel):
    archive, _ = wheel
    (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
    metadata = archive.read(name).decode()
    for line in (
        f"Version: {repro_trl.__version__}",
        "Author: repro_trl contributors",
        "License-Expression: Apache-2.0",
        "Classifier: Typing :: Typed",
        "Project-URL: Changelog, ",
        "Project-URL: Issues, ",
        "Description-Content-Type: text/markdown",
    ):
        assert line in metadata
    assert "License ::" not in metadata  # not beside a license expression
    (name,) = [name for name in archive.namelist() if name.endswith("entry_points.txt")]
    assert "repro-trl = repro_trl.cli:main" in archive.read(name).decode()


def test_the_server_is_started_as_trl_starts_it():
    text = (ROOT / "docs/howto/vllm.md").read_text(encoding="utf-8").replace("\\\n", " ")
    (line,) = [line for line in text.splitlines() if "vllm serve" in line]
    words = shlex.split(line)
    assert "VLLM_SERVER_DEV_MODE=1" in words
    started = build_command(ScriptArguments(model="model"))
    imposed = started[started.index("--weight-transfer-config") :]
    assert " ".join(imposed) in " ".join(words)
    assert "trl vllm-serve --" not in text


def test_one_address_everywhere():
    address = PROJECT["project"]["urls"]["Homepage"]
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["repository-code"] == address
    assert (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").count(address) == 2
    assert address in (ROOT / ".github/ISSUE_TEMPLATE/config.yml").read_text(encoding="utf-8")


# ----------------------------------------------------------------------------------------------------------- workflows


def commands(workflow: Path) -> list[str]:
    jobs = yaml.safe_load(workflow.read_text(encoding="utf-8"))["jobs"]
    return [line for job in jobs.values() for step in job["steps"] for line in step.get("run", "").splitlines()]


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_are_whole(workflow):
    content = yaml.safe_load(workflow.read_text(encoding="utf-8"))
    assert content["name"] and content[True]  # YAML 1.1 reads the key "on" as true
    assert content["permissions"] == {"contents": "read"}
    for name, job in content["jobs"].items():
        assert job["runs-on"], name
        for step in job["steps"]:
            assert ("uses" in step) != ("run" in step), f"{name}: {step}"
        missing = set(job["needs"].split() if "needs" in job else []) - set(content["jobs"])
        assert not missing, f"{name} needs {missing}"


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_run_what_exists(workflow):
    known = nox_sessions()
    for command in commands(workflow):
        words = shlex.split(command)
        if words[0] == "nox":
            session = words[words.index("-s") + 1]
            matrix = re.search(r"\$\{\{ matrix\.\w+ \}\}", session)
            wanted = (
                {session.replace(matrix[0], name) for name in ("oldest", "pinned", "newest")} if matrix else {session}
            )
            assert wanted <= known, f"{command}: noxfile.py has {sorted(known)}"
        else:
            assert words[0] in {"pip", "ruff", "test"}, command


def nox_sessions() -> set[str]:
    """Names of sessions, read from the text: nox may not be installed where the tests run."""
    text = (ROOT / "noxfile.py").read_text(encoding="utf-8")
    names = set()
    for decorators, name in re.findall(r"((?:^@nox\..*\n)+)def (\w+)\(", text, re.MULTILINE):
        names |= {name}
        if "parametrize" in decorators:
            names |= {f"{name}({end})" for end in re.findall(r'"(\w+)": "constraints', text)}
    return names


def test_nox_reads_its_file():
    pytest.importorskip("nox", reason="nox is not installed")
    command = [sys.executable, "-m", "nox", "--list", "-f", str(ROOT / "noxfile.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in nox_sessions())


def test_files_that_scripts_name_are_there():
    texts = [
        (ROOT / name).read_text(encoding="utf-8") for name in ("noxfile.py", ".ci/run", ".ci/wheel", "CONTRIBUTING.md")
    ]
    names = {name for text in texts for name in re.findall(r"(?<![\w/])(?:tests|\.ci|benchmarks|study)/[\w/.]+", text)}
    assert len(names) > 5
    for name in names:
        assert (ROOT / name).exists(), name


@pytest.mark.parametrize("script", ["run", "wheel"])
def test_ci_scripts_are_valid_and_executable(script):
    path = ROOT / ".ci" / script
    subprocess.run(["bash", "-n", path], check=True)
    assert path.stat().st_mode & 0o111


@pytest.mark.parametrize("form", FORMS, ids=lambda path: path.name)
def test_issue_forms_have_what_github_asks_for(form):
    content = yaml.safe_load(form.read_text(encoding="utf-8"))
    if form.name == "config.yml":
        assert all({"name", "url", "about"} == set(link) for link in content["contact_links"])
        return
    assert content["name"] and content["description"]
    ids = [element["id"] for element in content["body"]]
    assert len(ids) == len(set(ids))
    for element in content["body"]:
        assert element["type"] in {"textarea", "input", "dropdown", "checkboxes", "markdown"}
        assert element["attributes"]["label"]


# ------------------------------------------------------------------------------------------------------------ warnings


def test_no_kind_of_warning_is_ignored_as_a_whole():
    """An entry names the message that it is about."""
    for entry in PROJECT["tool"]["pytest"]["ini_options"]["filterwarnings"]:
        action, message, *_ = entry.split(":")
        assert action != "ignore" or message, entry


def test_deprecations_of_upstream_are_not_silenced_at_import():
    program = "import warnings; before = list(warnings.filters); import repro_trl; assert warnings.filters == before"
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)
