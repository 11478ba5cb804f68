"""The format of a manifest."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError
from support.manifests import DATASET, PROBLEM, TRAINING, WD, manifest_text, write_manifest

from unlearnbench.errors import InvalidFileError, ManifestError
from unlearnbench.experiment.manifest import Manifest
from unlearnbench.experiment.reader import read_manifest

TRAINING_KEYS = (
    "batch_size, crop, epochs, factor, horizontal_flip, learning_rate, mean, milestones, momentum, nesterov, padding, "
    "precision, resolutions, schedule, std, weight_decay"
)
NO_MILESTONES = 'missing; schedule = "steps" lowers the rate after these epochs (schedule = "constant" keeps it)'
NAME_RULE = "is not a name: a letter or digit, then letters, digits and"


def read(folder: Path, text: str) -> Manifest:
    return read_manifest(write_manifest(folder, text, "m.toml")).manifest()


def faults(folder: Path, text: str) -> str:
    """Return the whole message about a faulty manifest, without its folder."""
    with pytest.raises(ManifestError) as caught:
        read(folder, text)
    assert caught.value.exit_code == 1
    return str(caught.value).replace(f"{folder}/", "")


def test_what_a_manifest_leaves_out_has_its_default(tmp_path: Path) -> None:
    manifest = read(tmp_path, manifest_text())
    assert manifest.name == "m"
    assert manifest.description == ""
    assert manifest.training.milestones == ()
    assert (manifest.training.momentum, manifest.training.weight_decay, manifest.training.factor) == (0.9, 0.0, 0.1)
    assert (manifest.training.crop, manifest.training.horizontal_flip) == (None, False)
    assert manifest.training.precision == "auto"
    assert manifest.metrics == ()
    assert manifest.unlearners[0].label is None


def test_arrays_and_whole_numbers_fit_tuples_and_fractions(tmp_path: Path) -> None:
    training = TRAINING.replace("0.1", "1").replace("one_cycle", "steps") + "\nmilestones = [1, 2]"
    manifest = read(tmp_path, manifest_text(head="seeds = [3, 1]", training=training))
    assert manifest.seeds == (3, 1)
    assert manifest.training.milestones == (1, 2)
    assert manifest.training.learning_rate == 1.0


def test_a_manifest_cannot_be_changed(tmp_path: Path) -> None:
    manifest = read(tmp_path, manifest_text())
    with pytest.raises(ValidationError, match="frozen"):
        manifest.training.epochs = 5


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ("seeds = [0", "m.toml:2: not valid TOML at column 1: unclosed array"),
        ("seeds = \n", "m.toml:1: not valid TOML at column 9: invalid value\n  A value is missing there"),
        (
            "name = digits  # ours\nseeds = [0]",
            'm.toml:1: not valid TOML at column 8: invalid value\n  Text stands in quotes: "digits"',
        ),
        (
            "seeds = [0]\nname = C:\\data",
            "m.toml:2: not valid TOML at column 8: invalid value\n  Text stands in quotes: 'C:\\data'",
        ),
        ("seeds = True", "m.toml:1: not valid TOML at column 9: invalid value\n  Write true"),
        ("seeds = .5", "m.toml:1: not valid TOML at column 9: invalid value"),
        (
            "seeds = [0]  # the first\nseeds = [1]",
            "m.toml:2: not valid TOML at column 12: cannot overwrite a value\n"
            "  seeds stands in line 1 already; keep one",
        ),
        (
            "[tuning]\ntrials = 3\n[tuning]",
            "m.toml:3: not valid TOML at column 8: cannot declare ('tuning',) twice\n"
            "  [tuning] stands in line 1 already; keep one",
        ),
        (
            '[unlearners]\nname = "wd"\n[unlearners]\nname = "folnrc"',
            "m.toml:3: not valid TOML at column 12: cannot declare ('unlearners',) twice\n"
            "  Each entry begins with [[unlearners]]",
        ),
        (
            'device = "cuda"\nseeds = [0]',
            "m.toml:1: device: stands on the command line\n  unlearnbench run MANIFEST --device ...",
        ),
        (
            "seeds = [0]\ndescripton = 1",
            "m.toml:2: descripton: unknown key\n  Did you mean 'description'? Valid: architecture, "
            "cell_memory, cell_time_limit, dataset, description, devices_per_training, evaluate_every, expect, "
            "feature_dtype, federation, metrics, name, problem, references, requires, seeds, training, tuning, "
            "unlearners",
        ),
        ("", "m.toml:1: seeds: missing"),
        ("seeds = []", "m.toml:1: seeds: [] is empty; it needs at least one value"),
        ("seeds = 3", "m.toml:1: seeds: 3 is not an array\n  Write seeds = [3]"),
        ('seeds = ["a"]', 'm.toml:1: seeds.0: "a" is not a whole number'),
        ("seeds = [0.5]", "m.toml:1: seeds.0: 0.5 is not a whole number"),
        ("seeds = [true]", "m.toml:1: seeds.0: true is not a whole number"),
        ("seeds = [0, -1]", "m.toml:1: seeds.1: -1 should be greater than or equal to 0"),
        (
            "seeds = [9223372036854775808]",
            "m.toml:1: seeds.0: 9223372036854775808 should be less than 9223372036854775808",
        ),
        ("seeds = [1, 0, 1]", "m.toml:1: seeds: 1 stands there 2 times; every seed is run once"),
        ('seeds = [0]\nname = "a/b"', f"m.toml:2: name: \"a/b\" {NAME_RULE} '._-' are allowed"),
        ("seeds = [0]\ndescription = 3", "m.toml:2: description: 3 is not a string"),
    ],
)
def test_a_fault_at_the_top_is_named(tmp_path: Path, head: str, message: str) -> None:
    assert faults(tmp_path, manifest_text(head=head)) == message


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (DATASET, 'dataset = "digits"', 'm.toml:2: dataset: "digits" is not a table'),
        (DATASET, "[dataset]", "m.toml:2: dataset.name: missing"),
        (
            DATASET,
            '[dataset]\nname = "digits"\noption = {}',
            "m.toml:4: dataset.option: unknown key\n  Did you mean 'options'? Valid: name, options\n"
            "  Options of the plugin stand in options = { option = ... }",
        ),
        ("epochs = 2", "epochs = 0", "m.toml:11: training.epochs: 0 should be greater than 0"),
        ("epochs = 2", 'epochs = "2"', 'm.toml:11: training.epochs: "2" is not a whole number'),
        ("epochs = 2", "epochs = true", "m.toml:11: training.epochs: true is not a whole number"),
        ("epochs = 2\n", "", "m.toml:10: training.epochs: missing"),
        (
            "epochs = 2",
            "epochs = 2\nmilestones = [1, 0]",
            "m.toml:12: training.milestones.1: 0 should be greater than 0",
        ),
        (
            "epochs = 2",
            "epochs = 2\nmilestone = [1]",
            f"m.toml:12: training.milestone: unknown key\n  Did you mean 'milestones'? Valid: {TRAINING_KEYS}",
        ),
        ("rate = 0.1", "rate = 0", "m.toml:13: training.learning_rate: 0 should be greater than 0"),
        ("rate = 0.1", "rate = inf", "m.toml:13: training.learning_rate: Infinity is not a finite number"),
        ("rate = 0.1", "rate = nan", "m.toml:13: training.learning_rate: NaN is not a finite number"),
        ("rate = 0.1", "rate = [0.1]", "m.toml:13: training.learning_rate: [0.1] is not a number"),
        ("rate = 0.1", "rate = 0.1\nmomentum = 1", "m.toml:14: training.momentum: 1 should be less than 1"),
        ("padding = 1", "padding = -1", "m.toml:15: training.padding: -1 should be greater than or equal to 0"),
        ("padding = 1", 'horizontal_flip = "no"', 'm.toml:15: training.horizontal_flip: "no" is not true or false'),
        (
            "one_cycle",
            "cosine",
            "m.toml:14: training.schedule: \"cosine\" should be 'steps', 'one_cycle' or 'constant'",
        ),
        (
            "limited_share = 0.1",
            'limited_share = "a tenth"',
            'm.toml:9: problem.limited_share: "a tenth" is not a number',
        ),
        (
            "limited_share = 0.1",
            "limited_shares = 0.1",
            "m.toml:9: problem.limited_shares: unknown key\n  Did you mean 'limited_share'? Valid: forget_classes, "
            "forget_last, limited_images_per_class, limited_share, matrix",
        ),
        (
            '["8", "9"]',
            "[8, 8.5]",
            "m.toml:8: problem.forget_classes.1: 8.5 is not a whole number and 8.5 is not a string",
        ),
        (
            "limited_share = 0.1",
            "matrix = { limited_share = 0.1 }",
            "m.toml:9: problem.matrix.limited_share: 0.1 is not an array\n  Write limited_share = [0.1]",
        ),
        (
            "limited_share = 0.1",
            "matrix = { limited_share = [] }",
            "m.toml:9: problem.matrix.limited_share: [] is empty; it needs at least one value",
        ),
        (
            WD,
            '[unlearners]\nname = "wd"',
            'm.toml:16: unlearners: {"name": "wd"} is not an array\n  Each entry begins with [[unlearners]]',
        ),
        (
            WD,
            '[[unlearners]]\nname = "wd"\nlabels = "a"',
            "m.toml:18: unlearners.0.labels: unknown key\n  Did you mean 'label'? Valid: keep, label, matrix, name, "
            "options\n  Options of the plugin stand in options = { labels = ... }",
        ),
        (
            WD,
            '[[metrics]]\nname = "speed_up"\nshots = 3',
            "m.toml:18: metrics.0.shots: unknown key\n  Valid: label, matrix, name, options\n"
            "  Options of the plugin stand in options = { shots = ... }",
        ),
        ('schedule = "one_cycle"\n', "", f"m.toml:10: training.milestones: {NO_MILESTONES}"),
        ('schedule = "one_cycle"\n', 'schedule = "steps"\n', f"m.toml:10: training.milestones: {NO_MILESTONES}"),
        (
            "padding = 1",
            "milestones = [1]",
            'm.toml:15: training.milestones: schedule = "one_cycle" has none; remove it',
        ),
        (
            'schedule = "one_cycle"',
            'schedule = "constant"\nfactor = 0.5',
            'm.toml:15: training.factor: schedule = "constant" has none; remove it',
        ),
        (
            "padding = 1",
            "nesterov = true\nmomentum = 0.0",
            "m.toml:15: training.nesterov: there is no momentum; give a momentum above 0 or remove nesterov",
        ),
        (
            "padding = 1",
            "resolutions = [[1, 4], [1, 6]]",
            "m.toml:15: training.resolutions: [1, 6] after [1, 4]: epochs and sides have to grow",
        ),
        (
            "padding = 1",
            "resolutions = [[2, 6]]",
            "m.toml:15: training.resolutions: [2, 6] is no less than 2 epochs; the last epochs have the full size",
        ),
        (
            "padding = 1",
            "resolutions = [[1, 0]]",
            "m.toml:15: training.resolutions.0.1: 0 should be greater than 0",
        ),
        (
            "padding = 1",
            "resolutions = [1, 4]",
            "m.toml:15: training.resolutions.0: 1 is not an array\n"
            "m.toml:15: training.resolutions.1: 4 is not an array",
        ),
        (
            WD,
            '[[unlearners]]\nname = "wd"\nlabel = ""',
            f"m.toml:18: unlearners.0.label: \"\" {NAME_RULE} '._=+, -' are allowed",
        ),
    ],
)
def test_a_fault_in_a_table_is_named_with_its_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = manifest_text()
    assert text.count(old) == 1
    assert faults(tmp_path, text.replace(old, new)) == message


def test_a_recipe_out_of_a_record_says_its_defaults_too(tmp_path: Path) -> None:
    manifest = read(tmp_path, manifest_text(training=f"{TRAINING}\nmilestones = []\nfactor = 0.1"))
    assert manifest.training.schedule == "one_cycle"


def test_all_faults_are_told_at_once_in_the_order_of_their_lines(tmp_path: Path) -> None:
    text = manifest_text(
        head="seeds = []",
        problem=PROBLEM.replace("0.1", '"x"'),
        training=TRAINING.replace("epochs = 2", "epochs = 0").replace("0.1", "-1"),
    )
    assert faults(tmp_path, text).splitlines() == [
        "m.toml:1: seeds: [] is empty; it needs at least one value",
        'm.toml:9: problem.limited_share: "x" is not a number',
        "m.toml:11: training.epochs: 0 should be greater than 0",
        "m.toml:13: training.learning_rate: -1 should be greater than 0",
    ]


def test_an_empty_file_lacks_every_section(tmp_path: Path) -> None:
    keys = ("architecture", "dataset", "problem", "seeds", "training")
    assert faults(tmp_path, "") == "\n".join(f"m.toml:1: {key}: missing" for key in keys)


@pytest.mark.parametrize(
    ("file", "name"),
    [("a.b.toml", "a.b"), ("my file (2).toml", "my-file-2-"), ("_x.toml", "x"), ("ä.toml", "manifest")],
)
def test_a_manifest_without_a_name_has_its_file_s(tmp_path: Path, file: str, name: str) -> None:
    assert read_manifest(write_manifest(tmp_path, manifest_text(), file)).manifest().name == name


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidFileError) as caught:
        read_manifest(tmp_path / "none.toml")
    assert str(caught.value) == f"{tmp_path}/none.toml: cannot be read: No such file or directory"


def test_a_folder_is_no_manifest(tmp_path: Path) -> None:
    with pytest.raises(InvalidFileError) as caught:
        read_manifest(tmp_path)
    assert str(caught.value) == f"{tmp_path}: cannot be read: Is a directory"


def test_text_that_is_not_utf_8_is_named(tmp_path: Path) -> None:
    path = tmp_path / "m.toml"
    path.write_bytes(b"# caf\xe9\n")
    with pytest.raises(InvalidFileError) as caught:
        read_manifest(path)
    assert str(caught.value) == f"{path}: not UTF-8 text (byte 5)\n  Save it as UTF-8"


def test_a_mark_of_utf_8_is_read_and_utf_16_is_named(tmp_path: Path) -> None:
    path = tmp_path / "m.toml"
    path.write_text(manifest_text(), encoding="utf-8-sig")
    assert read_manifest(path).manifest().seeds == (0,)
    for encoding in ("utf-16", "utf-16-be"):
        path.write_bytes(manifest_text(head="\ufeffseeds = [0]").encode(encoding))
        with pytest.raises(InvalidFileError) as caught:
            read_manifest(path)
        assert str(caught.value) == f"{path}: UTF-16 text\n  Save it as UTF-8"


DEEP = "tables and arrays lie in each other more than 32 levels deep"
NUMBERS = ", ".join(map(str, range(1, 1001)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"seeds = {'[' * 33}{']' * 33}", f"m.toml:1: seeds: {DEEP}"),
        (f"seeds = {'[' * 400}0{']' * 400}", f"m.toml:1: seeds: {DEEP}"),
        (f"seeds = {'[' * 5000}0{']' * 5000}", f"m.toml:1: {DEEP}"),
        (f"seeds = [0]\n{'.'.join('a' * 40)} = 0", f"m.toml:2: a: {DEEP}"),
        (f"seeds = [0]\n[{'.'.join('a' * 900)}]\nb = 0", f"m.toml:2: a: {DEEP}"),
        (f"{'.'.join('a' * 5000)} = 0", f"m.toml:1: {DEEP}"),
        (
            f"seeds = [{', '.join(map(str, range(40_000)))}]",
            "m.toml:1: seeds: a plan of 120,000 cells, and 100,000 are the most: 1 problems, 40,000 seeds, 3 methods "
            "with the references\n  Make several manifests of it",
        ),
    ],
)
def test_what_nobody_could_run_is_refused_with_one_message(tmp_path: Path, text: str, message: str) -> None:
    assert faults(tmp_path, manifest_text(head=text)) == message


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (
            f'[[unlearners]]\nname = "erwp"\nmatrix = {{ epochs = [{NUMBERS}], batch_size = [{NUMBERS}] }}',
            "m.toml:16: unlearners: a plan of 1,000,002 cells, and 100,000 are the most: 1 problems, 1 seeds, "
            "1,000,002 methods with the references\n  Make several manifests of it",
        ),
        (
            f'[[metrics]]\nname = "probe_recovery"\nmatrix = {{ shots = [{NUMBERS}], ridge = [1.0, 2.0] }}',
            "m.toml:16: metrics: 2,000 metrics, and 1,000 are the most",
        ),
    ],
)
def test_a_matrix_is_counted_before_it_is_expanded(tmp_path: Path, entry: str, message: str) -> None:
    assert faults(tmp_path, manifest_text(entry)) == message


def test_a_problem_matrix_counts_too(tmp_path: Path) -> None:
    problem = f"[problem]\nmatrix = {{ forget_last = [{NUMBERS}], limited_images_per_class = [{NUMBERS}] }}"
    assert faults(tmp_path, manifest_text(problem=problem)) == (
        "m.toml:7: problem: a plan of 3,000,000 cells, and 100,000 are the most: 1,000,000 problems, 1 seeds, "
        "3 methods with the references\n  Make several manifests of it"
    )


def test_a_file_of_megabytes_is_no_manifest(tmp_path: Path) -> None:
    path = write_manifest(tmp_path, f"description = '{'x' * 2**21}'\n{manifest_text()}")
    with pytest.raises(InvalidFileError) as caught:
        read_manifest(path)
    assert str(caught.value) == f"{path}: more than 2 MiB; no manifest is that long"


def test_a_number_of_thousands_of_digits_is_named(tmp_path: Path) -> None:
    assert faults(tmp_path, f"\nseeds = [{'1' * 5000}]") == "m.toml:2: a number has thousands of digits"


def test_a_date_is_no_text(tmp_path: Path) -> None:
    text = manifest_text(head="seeds = [0]\nname = 07:32:00", dataset="[dataset]\nname = 1979-05-27")
    assert faults(tmp_path, text) == (
        "m.toml:2: name: 07:32:00 is a date or time, which no key takes; text stands in quotes\n"
        f"m.toml:2: name: \"07:32:00\" {NAME_RULE} '._-' are allowed\n"
        "m.toml:4: dataset.name: 1979-05-27 is a date or time, which no key takes; text stands in quotes"
    )
