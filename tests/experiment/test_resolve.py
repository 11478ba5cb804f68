"""The names, options, classes and shares in a manifest."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.growth import lines_run
from support.manifests import ARCHITECTURE, DATASET, PROBLEM, TRAINING, WD, manifest_text, write_manifest
from support.plugins import fake_distribution, forget_plugins

from unlearnbench.errors import ManifestError
from unlearnbench.experiment.plan import make_plan
from unlearnbench.experiment.resolve import Resolved, resolve
from unlearnbench.metrics.standard import standard_metrics
from unlearnbench.registry.entry_points import names
from unlearnbench.registry.options import schema
from unlearnbench.unlearners.builtin.baselines import folnrc

ITS_OPTIONS = ", ".join(f"{option.name} ({option.type_name}, {option.default!r})" for option in schema(folnrc))
UNLEARNERS = ", ".join(names("unlearners"))
METRICS = ", ".join(names("metrics"))
DATASETS = ", ".join(names("datasets"))
ARCHITECTURES = ", ".join(names("architectures"))
FOLNRC = '[[unlearners]]\nname = "folnrc"'
OWN_LABEL = "\n  Give this entry a label of its own: label = ..."


def resolved(folder: Path, text: str) -> Resolved:
    return resolve(write_manifest(folder, text, "m.toml"))


def faults(folder: Path, text: str) -> str:
    """Return the whole message about a faulty manifest, without its folder."""
    with pytest.raises(ManifestError) as caught:
        resolved(folder, text)
    return str(caught.value).replace(f"{folder}/", "")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            DATASET,
            '[dataset]\nname = "digit"',
            f"m.toml:3: dataset.name: no dataset 'digit' is installed\n  Did you mean 'digits'? Valid: {DATASETS}",
        ),
        (
            DATASET,
            '[dataset]\nname = "hub:org/photos@v2"',
            "m.toml:3: dataset.name: 'hub:org/photos@v2' is a data set of the Hugging Face hub, which a manifest "
            "names by its copy on this machine\n"
            '  unlearnbench data fetch hub:org/photos@v2, and here name = "parquet", options = { source = "photos" }',
        ),
        (
            DATASET,
            f"{DATASET}\noptions = {{ size = 3 }}",
            "m.toml:4: dataset.options.size: digits has no option 'size'\n  Its options: none",
        ),
        (
            ARCHITECTURE,
            '[architecture]\nname = "digitsnet"',
            "m.toml:5: architecture.name: no architecture 'digitsnet' is installed\n"
            f"  Did you mean 'digits_net'? Valid: {ARCHITECTURES}",
        ),
        (
            "{ width = 4 }",
            "{ widht = 4 }",
            "m.toml:6: architecture.options.widht: digits_net has no option 'widht'\n"
            "  Did you mean 'width'? Its options: width (int, 16)",
        ),
        (
            "{ width = 4 }",
            '{ width = "4" }',
            "m.toml:6: architecture.options.width: '4' does not fit option 'width' (int, default 16): "
            "input should be a valid integer",
        ),
        (
            "{ width = 4 }",
            "{ width = 0 }",
            "m.toml:6: architecture.options.width: 0 does not fit option 'width' (int, default 16): "
            "input should be greater than 0",
        ),
        (
            WD,
            '[[unlearners]]\nname = "erpw"',
            "m.toml:17: unlearners.0.name: no unlearner 'erpw' is installed\n"
            f"  Did you mean 'erwp'? Valid: {UNLEARNERS}",
        ),
        (
            WD,
            f"{FOLNRC}\noptions.epoch = 1",
            "m.toml:18: unlearners.0.options.epoch: folnrc has no option 'epoch'\n"
            f"  Did you mean 'epochs'? Its options: {ITS_OPTIONS}",
        ),
        (
            WD,
            f"{FOLNRC}\noptions.learning_rate = inf",
            "m.toml:18: unlearners.0.options.learning_rate: inf does not fit option 'learning_rate' (float, default "
            "0.0001): input should be a finite number",
        ),
        (
            WD,
            '[[unlearners]]\nname = "erwp"\n[unlearners.options]\nreduction = "batch"',
            "m.toml:19: unlearners.0.options.reduction: 'batch' does not fit option 'reduction' ('batch_mean' | "
            "'element_mean', default 'batch_mean'): input should be 'batch_mean' or 'element_mean'",
        ),
        (
            WD,
            '[[metrics]]\nname = "retain_acuracy"',
            "m.toml:17: metrics.0.name: no metric 'retain_acuracy' is installed\n"
            f"  Did you mean 'retain_accuracy'? Valid: {METRICS}",
        ),
        (
            WD,
            '[[metrics]]\nname = "forget_prototype_accuracy"\noptions.distance = "cosin"',
            "m.toml:18: metrics.0.options.distance: 'cosin' does not fit option 'distance' ('euclidean' | 'cosine', "
            "default 'euclidean'): input should be 'euclidean' or 'cosine'",
        ),
        (
            "padding = 1",
            "crop = 9",
            "m.toml:15: training.crop: 9 is more than the 8x8 images of digits have",
        ),
        ("padding = 1", "padding = 9", "m.toml:15: training.padding: 9 is more than the 8 pixels of the shorter side"),
        (
            "padding = 1",
            "resolutions = [[1, 8]]",
            "m.toml:15: training.resolutions: 8 is no less than the 8 pixels at full size; give smaller sides",
        ),
        (
            "padding = 1",
            "resolutions = [[1, 7]]\ncrop = 6",
            "m.toml:15: training.resolutions: 7 is no less than the 6 pixels at full size; give smaller sides",
        ),
        (
            "seeds = [0]",
            "seeds = [0]\ndevices_per_training = 65",
            "m.toml:2: devices_per_training: 65 devices share the 128 images of a batch, and each needs two at least\n"
            "  Give 64 devices, or a batch_size of 130",
        ),
    ],
)
def test_a_name_or_option_that_is_not_there_is_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = manifest_text()
    assert text.count(old) == 1
    assert faults(tmp_path, text.replace(old, new)) == message


@pytest.mark.parametrize(
    ("lines", "messages"),
    [
        (
            "forget_classes = [10]\nlimited_share = 0",
            [
                "8: problem.forget_classes: digits has no class 10: its classes are 0 to 9",
                "9: problem.limited_share: 0 is not a share of the training images; above 0, at most 1",
            ],
        ),
        (
            "forget_classes = [-1]\nlimited_share = 1.1",
            [
                "8: problem.forget_classes: digits has no class -1: its classes are 0 to 9",
                "9: problem.limited_share: 1.1 is not a share of the training images; above 0, at most 1",
            ],
        ),
        (
            'forget_classes = ["8", "nine"]\nlimited_share = -0.5',
            [
                "8: problem.forget_classes: digits has no class 'nine': its classes are 0 to 9",
                "  Valid: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9",
                "9: problem.limited_share: -0.5 is not a share of the training images; above 0, at most 1",
            ],
        ),
        (
            "forget_classes = []\nlimited_images_per_class = 0",
            [
                "8: problem.forget_classes: no class is forgotten; name 1 to 9 of the 10 classes of digits",
                "9: problem.limited_images_per_class: 0 images of class '0' cannot be left: 1 to 134 are there",
            ],
        ),
        (
            "forget_classes = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]\nlimited_images_per_class = 132",
            [
                "8: problem.forget_classes: all 10 classes of digits are forgotten; at least one must stay",
                "9: problem.limited_images_per_class: 132 images of class '8' cannot be left: 1 to 131 are there",
            ],
        ),
        (
            'forget_classes = [8, "8"]\nlimited_images_per_class = -1',
            [
                "8: problem.forget_classes: a class is named twice",
                "9: problem.limited_images_per_class: -1 images of class '0' cannot be left: 1 to 134 are there",
            ],
        ),
        (
            "forget_last = 10\nlimited_share = 0.1",
            ["8: problem.forget_last: 10 is not possible: digits has 10 classes; 1 to 9 can go"],
        ),
        (
            "forget_last = 0\nlimited_share = 0.1",
            ["8: problem.forget_last: 0 is not possible: digits has 10 classes; 1 to 9 can go"],
        ),
        (
            "forget_last = 1\nforget_classes = [1]\nlimited_share = 0.1\nlimited_images_per_class = 1",
            [
                "8: problem.forget_last: both forget_classes and forget_last are given; keep one",
                "11: problem.limited_images_per_class: both limited_share and limited_images_per_class are given; "
                "keep one",
            ],
        ),
        (
            "",
            [
                "7: problem: forget_classes or forget_last is missing",
                "7: problem: limited_share or limited_images_per_class is missing",
            ],
        ),
        (
            "limited_share = 0.2\n[problem.matrix]\nforget_last = [1, 0]\nlimited_image = [1]",
            [
                "11: problem.matrix.limited_image: unknown key",
                "  Did you mean 'limited_share'? Valid: forget_classes, forget_last, "
                "limited_images_per_class, limited_share",
            ],
        ),
        (
            "[problem.matrix]\nforget_last = [1, 0]\nlimited_share = [0.1, 0.2]",
            ["9: problem.matrix.forget_last: 0 is not possible: digits has 10 classes; 1 to 9 can go"],
        ),
        (
            'limited_share = 0.2\n[problem.matrix]\nforget_last = [1, "x"]',
            ["10: problem.matrix.forget_last: 'x' is not a value of forget_last"],
        ),
        (
            "limited_share = 0.2\n[problem.matrix]\nforget_last = [1]\nlimited_share = [0.1]",
            ["11: problem.matrix.limited_share: 'limited_share' stands in [problem] too; keep one"],
        ),
        (
            "limited_share = 0.2\n[problem.matrix]\nforget_last = [1, 2]\nforget_classes = [[1], [2]]",
            ["10: problem.matrix.forget_last: both forget_classes and forget_last are given; keep one"],
        ),
        (
            "limited_share = 0.2\n[problem.matrix]\nforget_classes = [[8, 9], [9, 8]]",
            ["9: problem.matrix: two combinations are the same problem; remove one"],
        ),
    ],
)
def test_an_impossible_problem_is_refused(tmp_path: Path, lines: str, messages: list[str]) -> None:
    text = manifest_text(problem=f"[problem]\n{lines}".rstrip())
    expected = [line if line.startswith(" ") else f"m.toml:{line}" for line in messages]
    assert faults(tmp_path, text).splitlines() == expected


@pytest.mark.parametrize(
    ("unlearners", "message"),
    [
        ((WD, WD), f"19: unlearners.1.name: the label 'wd' is taken by unlearners.0{OWN_LABEL}"),
        (
            (WD, f'{FOLNRC}\nlabel = "wd"'),
            f"20: unlearners.1.label: the label 'wd' is taken by unlearners.0{OWN_LABEL}",
        ),
        (
            (f'{WD}\nlabel = "a b"', f'{FOLNRC}\nlabel = "a-b"'),
            f"21: unlearners.1.label: the label 'a-b' is taken by unlearners.0{OWN_LABEL}",
        ),
        (
            (f'{WD}\nlabel = "original"',),
            f"18: unlearners.0.label: 'original' is the name of a reference, which is always there{OWN_LABEL}",
        ),
        (
            (f'{WD}\nlabel = "FDR"',),
            f"18: unlearners.0.label: 'FDR' is the name of a reference, which is always there{OWN_LABEL}",
        ),
        (
            (WD, f'{FOLNRC}\nlabel = "WD"'),
            f"20: unlearners.1.label: the label 'WD' is taken by unlearners.0{OWN_LABEL}",
        ),
        (
            ('[[metrics]]\nname = "speed_up"\nlabel = "fpae"',),
            "18: metrics.0.label: 'fpae' reads like FPAe, which every record holds\n  Give this entry another label",
        ),
        (
            ('[[metrics]]\nname = "speed_up"\nlabel = "Forget_Accuracy"',),
            "18: metrics.0.label: 'Forget_Accuracy' reads like forget_accuracy, which every record holds\n"
            "  Give this entry another label",
        ),
        (
            ('[[metrics]]\nname = "speed_up"\nlabel = "forget_accuracy"',),
            "18: metrics.0.label: 'forget_accuracy' reads like forget_accuracy, which every record holds\n"
            "  Give this entry another label",
        ),
        (
            ('[[unlearners]]\nname = "fdr"',),
            f"17: unlearners.0.name: no unlearner 'fdr' is installed\n  Valid: {UNLEARNERS}",
        ),
        (
            (f"{FOLNRC}\nmatrix = {{ epochs = [1, 2, 1] }}",),
            "17: unlearners.0.name: two combinations of the matrix have the label 'folnrc epochs=1'; remove one",
        ),
        (
            (f"{FOLNRC}\noptions = {{ epochs = 3 }}\nmatrix = {{ epochs = [1, 2] }}",),
            "19: unlearners.0.matrix.epochs: 'epochs' stands among the options too; keep one",
        ),
    ],
)
def test_labels_and_options_do_not_clash(tmp_path: Path, unlearners: tuple[str, ...], message: str) -> None:
    assert faults(tmp_path, manifest_text(*unlearners)) == f"m.toml:{message}"


def look_up(folder: Path, number: int) -> int:
    """Look up a manifest of that many entries and return its number of cells."""
    entries = [
        f'[[unlearners]]\nname = "erwp"\nlabel = "e{epochs}"\noptions = {{ epochs = {epochs} }}'
        for epochs in range(1, number + 1)
    ]
    found = resolved(folder, manifest_text(*entries, head="seeds = [0, 1, 2]"))
    assert found.number_of_cells == len(make_plan(found).cells)
    return found.number_of_cells


def test_a_thousand_entries_are_looked_up(tmp_path: Path) -> None:
    assert look_up(tmp_path, 1000) == 3006


def test_looking_up_grows_with_the_number_of_entries(tmp_path: Path) -> None:
    look_up(tmp_path, 1)
    small, large = (lines_run(lambda number=number: look_up(tmp_path, number)) for number in (50, 200))
    # What grows with the square of the number would take sixteen times the lines.
    assert large < 5 * small


def test_the_faults_of_all_entries_are_told_at_once(tmp_path: Path) -> None:
    text = manifest_text(
        f'{FOLNRC}\nlabels = "x"',
        '[[unlearners]]\nname = "nope"',
        f'{FOLNRC}\noptions = {{ epoch = 1, learning_rate = "x" }}',
        head="seeds = []",
        problem=PROBLEM.replace('"9"', '"x"'),
        architecture='[architecture]\nname = "digits_net"\noptions.width = 0',
    )
    assert faults(tmp_path, text).splitlines() == [
        "m.toml:1: seeds: [] is empty; it needs at least one value",
        "m.toml:6: architecture.options.width: 0 does not fit option 'width' (int, default 16): input should be "
        "greater than 0",
        "m.toml:8: problem.forget_classes: digits has no class 'x': its classes are 0 to 9",
        "  Valid: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9",
        "m.toml:18: unlearners.0.labels: unknown key",
        "  Did you mean 'label'? Valid: keep, label, matrix, name, options",
        "  Options of the plugin stand in options = { labels = ... }",
        "m.toml:20: unlearners.1.name: no unlearner 'nope' is installed",
        f"  Valid: {UNLEARNERS}",
        "m.toml:23: unlearners.2.options.epoch: folnrc has no option 'epoch'",
        f"  Did you mean 'epochs'? Its options: {ITS_OPTIONS}",
        "m.toml:23: unlearners.2.options.learning_rate: 'x' does not fit option 'learning_rate' (float, default "
        "0.0001): input should be a valid number",
    ]


def test_the_valid_names_are_listed_once(tmp_path: Path) -> None:
    text = manifest_text(*(f'[[unlearners]]\nname = "{name}"' for name in ("nope", "ERWP", "never")))
    assert faults(tmp_path, text).splitlines() == [
        "m.toml:17: unlearners.0.name: no unlearner 'nope' is installed",
        f"  Valid: {UNLEARNERS}",
        "m.toml:19: unlearners.1.name: no unlearner 'ERWP' is installed",
        "  Did you mean 'erwp'?",
        "m.toml:21: unlearners.2.name: no unlearner 'never' is installed",
    ]


def test_a_fault_of_a_matrix_is_told_once(tmp_path: Path) -> None:
    text = manifest_text(f"{FOLNRC}\nmatrix = {{ epochs = [1, -1, 2], epoch = [1, 2] }}")
    assert faults(tmp_path, text).splitlines() == [
        "m.toml:18: unlearners.0.matrix.epoch: folnrc has no option 'epoch'",
        f"  Did you mean 'epochs'? Its options: {ITS_OPTIONS}",
        "m.toml:18: unlearners.0.matrix.epochs: -1 does not fit option 'epochs' (int, default 10): input should be "
        "greater than or equal to 0",
    ]


@pytest.mark.parametrize(
    ("problem", "classes"),
    [('forget_classes = ["9", 3]', (3, 9)), ("forget_last = 3", (7, 8, 9)), ("forget_classes = [0]", (0,))],
)
def test_forget_classes_come_by_index_by_name_or_from_the_end(
    tmp_path: Path, problem: str, classes: tuple[int, ...]
) -> None:
    found = resolved(tmp_path, manifest_text(problem=f"[problem]\n{problem}\nlimited_share = 1"))
    assert found.problems[0].forget_classes == classes
    assert sorted(classes + found.problems[0].retain_classes) == list(range(10))


def test_a_tiny_share_leaves_one_image_of_each_class(tmp_path: Path) -> None:
    text = manifest_text(problem=PROBLEM.replace("0.1", "0.00001"))
    assert resolved(tmp_path, text).problems[0].limited_counts == (1,) * 10


def test_limited_counts_round_up_class_by_class(tmp_path: Path) -> None:
    assert resolved(tmp_path, manifest_text()).problems[0].limited_counts == (14, 14, 14, 14, 14, 14, 14, 14, 14, 14)
    tenth_and_more = resolved(tmp_path, manifest_text(problem=PROBLEM.replace("0.1", "0.5"))).problems[0]
    assert tenth_and_more.limited_counts == (67, 69, 67, 69, 68, 69, 68, 68, 66, 68)


@pytest.mark.parametrize(
    ("limited", "text"),
    [
        ("limited_share = 0.1", "10 %"),
        ("limited_share = 0.07", "7 %"),
        ("limited_share = 1", "100 %"),
        ("limited_images_per_class = 1", "1 image"),
        ("limited_images_per_class = 3", "3 images"),
    ],
)
def test_limited_data_are_told_as_the_manifest_says(tmp_path: Path, limited: str, text: str) -> None:
    found = resolved(tmp_path, manifest_text(problem=f"[problem]\nforget_last = 1\n{limited}"))
    assert found.problems[0].limited_text == text


def test_a_method_matrix_gives_one_entry_for_every_combination(tmp_path: Path) -> None:
    matrix = "matrix = { epochs = [1, 2], batch_size = [8, 16], l_kd = [true] }"
    text = manifest_text(f'[[unlearners]]\nname = "erwp"\nlabel = "E"\noptions = {{ beta = 3 }}\n{matrix}')
    methods = resolved(tmp_path, text).methods
    assert [method.label for method in methods] == [
        "original",
        "fdr",
        "E epochs=1 batch_size=8 l_kd=true",
        "E epochs=1 batch_size=16 l_kd=true",
        "E epochs=2 batch_size=8 l_kd=true",
        "E epochs=2 batch_size=16 l_kd=true",
    ]
    assert [(method.options["epochs"], method.options["batch_size"]) for method in methods[2:]] == [
        (1, 8),
        (1, 16),
        (2, 8),
        (2, 16),
    ]
    assert all(method.options["beta"] == 3 for method in methods[2:])


def test_a_problem_matrix_gives_one_problem_for_every_combination(tmp_path: Path) -> None:
    problem = "[problem.matrix]\nforget_last = [1, 2]\nlimited_share = [0.1, 0.5]"
    problems = resolved(tmp_path, manifest_text(problem=problem)).problems
    assert [(len(found.forget_classes), found.limited_text) for found in problems] == [
        (1, "10 %"),
        (1, "50 %"),
        (2, "10 %"),
        (2, "50 %"),
    ]
    assert len({found.id for found in problems}) == len({found.slug for found in problems}) == 4


def test_headline_metrics_are_always_there_and_come_first(tmp_path: Path) -> None:
    cosine = '[[metrics]]\nname = "forget_prototype_accuracy"\nlabel = "cosine"\noptions.distance = "cosine"'
    metrics = resolved(tmp_path, manifest_text(WD, cosine)).metrics
    standard = [metric.label for metric in standard_metrics()]
    assert standard[:3] == ["forget_accuracy", "forget_prototype_accuracy", "retain_accuracy"]
    assert [metric.label for metric in metrics] == [*standard, "cosine"]
    assert [metrics[place].options.get("distance") for place in (0, 1, 2, -1)] == [None, "euclidean", None, "cosine"]


def test_a_headline_metric_can_have_other_options(tmp_path: Path) -> None:
    cosine = '[[metrics]]\nname = "forget_prototype_accuracy"\noptions.distance = "cosine"'
    metrics = resolved(tmp_path, manifest_text(WD, cosine)).metrics
    assert [metric.options.get("distance") for metric in metrics[:3]] == [None, "cosine", None]
    assert len(metrics) == len(standard_metrics())


def test_options_are_complete(tmp_path: Path) -> None:
    found = resolved(tmp_path, manifest_text(f"{FOLNRC}\noptions = {{ epochs = 3 }}"))
    assert found.methods[-1].options == {**{option.name: option.default for option in schema(folnrc)}, "epochs": 3}
    assert found.problems[0].architecture.options == {"width": 4}
    assert found.problems[0].recipe["momentum"] == 0.9


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"9"]', '"7"]'),
        ("share = 0.1", "share = 0.2"),
        ("epochs = 2", "epochs = 3"),
        ("width = 4", "width = 5"),
    ],
)
def test_what_changes_a_result_changes_the_problem_s_id(tmp_path: Path, old: str, new: str) -> None:
    text = manifest_text()
    assert text.count(old) == 1
    assert resolved(tmp_path, text).problems[0].id != resolved(tmp_path, text.replace(old, new)).problems[0].id


def test_what_leaves_the_result_alone_leaves_the_problem_s_id(tmp_path: Path) -> None:
    text = manifest_text()
    same = text.replace('["8", "9"]', "[9, 8]").replace("[0]", '[4]\nname = "other"').replace("0.1", "0.10")
    assert resolved(tmp_path, text).problems[0].id == resolved(tmp_path, same).problems[0].id


@pytest.mark.parametrize(
    ("requirement", "message"),
    [
        ("numpy", ""),
        ("numpy>=1; python_version < '3'", ""),
        ("no-such-plugin; python_version < '3'", ""),
        ("no-such-plugin", "no-such-plugin is not installed\n  pip install no-such-plugin"),
        ("no-such-plugin>=2", "no-such-plugin is not installed\n  pip install 'no-such-plugin>=2'"),
        (
            "unlearnbench>=99",
            "unlearnbench 0.1.0 is installed, >=99 is required\n"
            "  pip install -e .   (in the repository of unlearnbench; it is on no index)",
        ),
        ("not a name", "'not a name' is not a requirement as pip takes it, such as \"unlearnbench-zoo>=0.1\""),
    ],
)
def test_a_plugin_s_distribution_that_is_not_here_is_named_with_its_command(
    tmp_path: Path, requirement: str, message: str
) -> None:
    text = manifest_text(head=f'requires = ["{requirement}"]\nseeds = [0]')
    if not message:
        assert resolved(tmp_path, text).manifest.requires == (requirement,)
        return
    assert faults(tmp_path, text).startswith(f"m.toml:1: requires.0: {message}")


def test_a_plugin_of_another_version_is_not_taken_for_the_one_required(tmp_path: Path, search_path: Path) -> None:
    fake_distribution(search_path, "some-plugin", {"unlearners": {"some": "some_plugin:f"}}, {"some_plugin": ""})
    assert faults(tmp_path, manifest_text(head='requires = ["some-plugin>=2,<3"]\nseeds = [0]')) == (
        "m.toml:1: requires.0: some-plugin 1.0 is installed, <3,>=2 is required\n  pip install 'some-plugin>=2,<3'"
    )
    assert resolved(tmp_path, manifest_text(head='requires = ["some_plugin~=1.0"]\nseeds = [0]'))


GROWING = """
from typing import Annotated
from unlearnbench.registry.declare import ADDED_LATER
def growing(model, task, *, epochs: int = 5{more}): return model
"""


def test_an_option_that_was_added_later_changes_no_result_at_its_default(tmp_path: Path, search_path: Path) -> None:
    def cells(text: str, more: str) -> list[str]:
        (search_path / "growing.py").write_text(GROWING.format(more=more))
        forget_plugins()
        return [cell.id for cell in make_plan(resolved(tmp_path, text), precision="float32").cells]

    entry = '[[unlearners]]\nname = "growing"'
    fake_distribution(search_path, "growing", {"unlearners": {"growing": "growing:growing"}})
    before = cells(manifest_text(entry), "")
    later = ", sizes: Annotated[tuple[int, ...], ADDED_LATER] = (1, 2)"
    assert cells(manifest_text(entry), later) == before
    assert cells(manifest_text(f"{entry}\noptions = {{ sizes = [1, 2] }}"), later) == before
    other = cells(manifest_text(f"{entry}\noptions = {{ sizes = [1, 3] }}"), later)
    assert len(set(before) - set(other)) == 1
    assert len(set(before) - set(cells(manifest_text(entry), ", sizes: tuple[int, ...] = (1, 2)"))) == 1


def test_a_plugin_that_cannot_be_imported_is_a_fault_at_its_name(tmp_path: Path, search_path: Path) -> None:
    fake_distribution(
        search_path, "broken-unlearner", {"unlearners": {"broken": "broken_unlearner:f"}}, {"broken_unlearner": "1 / 0"}
    )
    text = manifest_text('[[unlearners]]\nname = "broken"', WD, head="seeds = [0, 0]", training=TRAINING)
    assert faults(tmp_path, text).splitlines() == [
        "m.toml:1: seeds: 0 stands there 2 times; every seed is run once",
        "m.toml:17: unlearners.0.name: unlearner 'broken' of broken-unlearner 1.0 cannot be loaded from "
        "broken_unlearner:f: ZeroDivisionError: division by zero",
    ]


def test_a_class_name_among_many_is_answered_with_the_first_ones(tmp_path: Path, search_path: Path) -> None:
    source = """
from unlearnbench.datasets.dataset import Dataset, DatasetInfo
NAMES = tuple(f"class{i:03}" for i in range(100))
def many(folder):
    info = DatasetInfo("many", "1", NAMES, (5,) * 100, (5,) * 100, (1, 8, 8), (0.5,), (0.5,))
    return Dataset(info, None, None)
"""
    fake_distribution(search_path, "many", {"datasets": {"many": "many_data:many"}}, {"many_data": source})
    problem = '[problem]\nforget_classes = ["class9"]\nlimited_share = 1'
    message = faults(tmp_path, manifest_text(dataset='[dataset]\nname = "many"', problem=problem))
    shown = ", ".join(f"class{i:03}" for i in range(40))
    assert message == (
        "m.toml:8: problem.forget_classes: many has no class 'class9': its classes are 0 to 99\n"
        f"  Did you mean 'class099'? Valid: {shown}, ... (100 in all)"
    )
