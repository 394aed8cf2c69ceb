"""The documents name only what exists: modules, flags, variants, files, links."""

import fnmatch
import importlib
import importlib.util
import json
import pathlib
import re
import shlex
import subprocess

import pytest

from experiments.configs import base, contrastive, finetune_task, flamingo, language_model
from experiments.planning import summary

ROOT = pathlib.Path(__file__).parents[1]
DOCUMENTS = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "benchmarks" / "README.md",
]
_MODULE = re.compile(r"python3? -m ([\w.]+)")
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_BLOCK = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)
_RECIPE = re.compile(r"--config=(\S+?\.py):(\w+)")


def ids(document: pathlib.Path) -> str:
    return str(document.relative_to(ROOT))


def slug(heading: str) -> str:
    """The anchor that a heading gets."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def recipe_of(path: str, variant: str):
    """A variant of a file of recipes; ValueError for one that it lacks."""
    return importlib.import_module(path.removesuffix(".py").replace("/", ".")).get_config(variant)


@pytest.mark.parametrize("document", DOCUMENTS, ids=ids)
def test_commands_name_modules_and_recipes_that_exist(document):
    text = document.read_text()
    for module in _MODULE.findall(text):
        assert importlib.util.find_spec(module), f"{document.name}: no module {module}"
    for path, variant in _RECIPE.findall(text):
        assert (ROOT / path).is_file()
        recipe_of(path, variant)


@pytest.mark.parametrize("document", DOCUMENTS, ids=ids)
def test_relative_links_resolve(document):
    for link in _LINK.findall(document.read_text()):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = document.parent / path if path else document
        assert target.exists(), f"{document.name}: {link} leads nowhere"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE)
            assert anchor in [slug(h) for h in headings], f"{document.name}: no heading for {link}"


def test_every_flag_of_the_readmes_commands_exists():
    """Flags as the command's source defines them; `--config.x.y` as keys of the recipe."""
    commands = [
        shlex.split(line)
        for block in _BLOCK.findall((ROOT / "README.md").read_text())
        for line in block.replace("\\\n", " ").split("\n")
        for line in line.split("&&")
        if " -m experiments." in line
    ]
    assert len(commands) >= 4
    for words in commands:
        words = words[words.index("--") + 1 :] if "--" in words else words  # behind a launcher
        module = words[words.index("-m") + 1]
        names = ("prompting", "asked_model", "mesh_flag")
        shared = [f"experiments/asking/{name}.py" for name in names]
        sources = [f"{module.replace('.', '/')}.py", *shared]
        text = "".join((ROOT / source).read_text() for source in sources)
        recipe = next((_RECIPE.match(w) for w in words if _RECIPE.match(w)), None)
        for word in words:
            if word.startswith("--config."):
                value = recipe_of(*recipe.groups()) if recipe else base.base()
                for key in word.removeprefix("--config.").partition("=")[0].split("."):
                    value = value[key]
            elif word.startswith("--"):
                name = word.removeprefix("--").partition("=")[0]
                assert re.search(rf'DEFINE_\w+\(\s*"{name}"', text), f"{module} has no --{name}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=ids)
def test_every_key_of_a_recipe_exists(document):
    """In one of the recipes; NAME stands for a dataset's name."""
    recipes = [flamingo.get_config(v) for v in ("micro", "demo", "80b", "80b_public")]
    recipes += [contrastive.get_config("f6"), language_model.get_config("chinchilla_1b")]
    recipes += [finetune_task.get_config("80b")]
    flat = {
        re.sub(r"^data\.train\.\w+", "data.train.NAME", key)
        for recipe in recipes
        for key in _keys(recipe.to_dict())
    }
    for key in re.findall(r"--config\.([a-z][\w.]*\w)", document.read_text()):
        key = re.sub(r"^data\.train\.\w+", "data.train.NAME", key)
        assert key in flat, f"{document.name}: no recipe has {key}"


def _keys(values: dict, prefix: str = "") -> set[str]:
    found = set()
    for name, value in values.items():
        found.add(prefix + name)
        if isinstance(value, dict):
            found |= _keys(value, f"{prefix}{name}.")
    return found


def test_the_recipe_that_the_readme_shows_can_be_summarized(tmp_path):
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S)
    (recipe,) = [block for block in blocks if "def get_config" in block]
    names: dict = {}
    exec(compile(recipe, "mine.py", "exec"), names)
    assert summary.summarize(names["get_config"]())["parameters"]["language_model"]["count"] > 1e8


def test_the_prompts_of_the_readme_are_the_files_in_examples():
    text = (ROOT / "README.md").read_text()
    (shown,) = re.findall(r"^```json\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert json.loads(shown) == json.loads((ROOT / "examples" / "few_shot.json").read_text())
    for name in re.findall(r"--prompt=(\S+)", text):
        assert (ROOT / name).is_file()


def test_ci_runs_the_readmes_tests():
    readme, ci = (ROOT / "README.md").read_text(), (ROOT / ".ci" / "run").read_text()
    assert "python -m pytest -q\n" in readme
    assert "python -m pytest -q " in ci
    assert "'.[test]'" in readme
    assert "'.[test]'" in ci


def test_no_machine_of_ours_is_named():
    """Paths and hosts of the machine this was written on have no place in the repository."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    private = re.compile("|".join(("/" + "work/", "/" + "tmp/venv", r"\." + "library/")))
    for name in filter(None, listed.stdout.split("\0")):
        path = ROOT / name
        if path.is_file():
            assert not private.search(path.read_text(errors="ignore")), name


@pytest.mark.parametrize("package", ["flamingo_jax", "data_pipelines", "experiments", "launch"])
def test_every_module_is_on_the_map(package):
    """By its name, a pattern of names, or its folder, in docs/architecture.md."""
    names = re.findall(r"`([\w/*.]+)`", (ROOT / "docs" / "architecture.md").read_text())
    folders = tuple(name for name in names if name.endswith("/"))
    for file in sorted((ROOT / package).rglob("*.py")):
        path = str(file.relative_to(ROOT / package))
        if file.name == "__init__.py" or path.startswith(folders):
            continue
        named = any(fnmatch.fnmatch(path, n) or fnmatch.fnmatch(file.name, n) for n in names)
        assert named, f"docs/architecture.md lacks {package}/{path}"
