"""The federation of a manifest: its faults, named before anything is trained, and what it is part of."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.federations import ENGINE, FEDERATION, FORGET, federated_text
from support.manifests import TRAINING, WD, manifest_text, write_manifest
from support.plugins import fake_distribution

from unlearnbench.errors import ManifestError
from unlearnbench.experiment.plan import Plan, make_plan
from unlearnbench.experiment.problem import Problem
from unlearnbench.experiment.reader import ManifestFile
from unlearnbench.experiment.resolve import resolve
from unlearnbench.experiment.scenarios.federation import find_engine
from unlearnbench.models.federation.federation import Federation
from unlearnbench.models.recipe import recipe_identity
from unlearnbench.registry.identity import STORE_FORMAT, TASK_PROTOCOL
from unlearnbench.store import content_id

UNLIKE = f'{FEDERATION}\nsplit = "dirichlet"\nalpha = 0.05'


def problem_of(folder: Path, text: str) -> Problem:
    return resolve(write_manifest(folder, text, "m.toml")).problems[0]


def plan_of(folder: Path, text: str) -> Plan:
    return make_plan(resolve(write_manifest(folder, text, "m.toml")), precision="float32")


def faults(folder: Path, text: str) -> list[str]:
    """Return the lines about a faulty manifest, without its folder."""
    with pytest.raises(ManifestError) as caught:
        resolve(write_manifest(folder, text, "m.toml"))
    return str(caught.value).replace(f"{folder}/", "").splitlines()


def test_a_problem_without_a_federation_keeps_its_identity(tmp_path: Path) -> None:
    # These stood in stores and on leaderboards before there were federations.
    wd = plan_of(tmp_path, manifest_text(WD)).cells[-1]
    assert (wd.problem.id, wd.original.id) == ("045408db87043972", "8834cd889c718ee7")
    assert wd.problem.limited_identity == wd.problem.limited_counts
    parts = wd.problem.forget_classes, (14,) * 10, 0, ["float32", recipe_identity(wd.problem.recipe)]
    assert wd.model_id == content_id(STORE_FORMAT, wd.original.id, *parts, wd.method.identity, TASK_PROTOCOL)


@pytest.mark.parametrize(
    "line",
    [
        "parties = 9",
        "party = 1",
        "rounds = 1\nlocal_epochs = 2",
        "rounds = 2\nparticipation = 0.5",
        'rounds = 2\nsplit = "dirichlet"\nalpha = 1.0',
        'rounds = 2\nsplit = "dirichlet"\nalpha = 2.0',
        'rounds = 2\nstrategy = "fedprox"\nproximal = 0.1',
        'rounds = 2\nstrategy = "fedprox"\nproximal = 0.2',
    ],
)
def test_every_field_makes_another_problem(tmp_path: Path, line: str) -> None:
    key = line.partition(" ")[0]
    kept = [given for given in FEDERATION.splitlines() if not given.startswith(f"{key} ")]
    plain = plan_of(tmp_path, federated_text()).cells[-1]
    other = plan_of(tmp_path, federated_text(federation="\n".join([*kept, line]))).cells[-1]
    assert other.problem.id != plain.problem.id
    assert other.problem.slug != plain.problem.slug
    assert other.model_id != plain.model_id
    assert (other.original.id == plain.original.id) == (key == "party")


def test_the_alphas_and_the_weights_of_the_proximal_term_are_told_apart(tmp_path: Path) -> None:
    texts = [f'{FEDERATION}\nsplit = "dirichlet"\nalpha = {alpha}' for alpha in (1.0, 2.0)]
    texts += [f'{FEDERATION}\nstrategy = "fedprox"\nproximal = {weight}' for weight in (0.1, 0.2)]
    ids = {plan_of(tmp_path, federated_text(federation=text)).cells[0].original.id for text in texts}
    assert len(ids) == 4


def test_what_is_left_is_the_party_s_own_share(tmp_path: Path) -> None:
    problem = problem_of(tmp_path, federated_text(federation=f'{FEDERATION}\nsplit = "dirichlet"\nalpha = 0.5'))
    assert problem.limited(0) != problem.limited(1)
    assert min(problem.limited(0)) < 14 < max(problem.limited(0))
    assert problem.slug.startswith("digits-digits_net-fedavg-alpha0.5-forget2-party0-")
    assert problem.title == (
        "digits / digits_net, federated (10 parties, alpha 0.5, fedavg, 2 rounds): forget 2 of 10 classes (8, 9), "
        "limited data the share of party 0"
    )


def test_a_random_tenth_of_all_images_shares_its_original_with_the_party_s_share(tmp_path: Path) -> None:
    own = plan_of(tmp_path, federated_text()).cells[-1]
    drawn = plan_of(
        tmp_path,
        federated_text(problem=f"{FORGET}\nlimited_share = 0.1", federation=FEDERATION.replace("party = 0\n", "")),
    ).cells[-1]
    assert drawn.problem.limited(0) == drawn.problem.limited(1) == (14,) * 10
    assert (own.original.id, own.fdr and own.fdr.id) == (drawn.original.id, drawn.fdr and drawn.fdr.id)
    assert own.problem.id != drawn.problem.id
    assert own.model_id != drawn.model_id
    assert drawn.problem.title.endswith("limited data 10 % per class")


def test_the_work_of_a_federation_is_planned(tmp_path: Path) -> None:
    text = federated_text('[[unlearners]]\nname = "folnrc"\noptions = { epochs = 3 }')
    cell = plan_of(tmp_path, text).cells[-1]
    images, forget = sum(cell.problem.info.train_counts), sum(cell.problem.info.train_counts[8:])
    assert cell.original.image_passes == 2 * images
    assert cell.fdr is not None
    assert cell.fdr.image_passes == 2 * (images - forget)
    assert cell.image_passes == 3 * sum(cell.problem.limited(0)) == 3 * 136


@pytest.mark.parametrize(
    ("federation", "messages"),
    [
        (
            FEDERATION.replace("parties = 10", "parties = 1"),
            ["m.toml:16: federation.parties: 1 should be greater than or equal to 2"],
        ),
        (
            FEDERATION.replace("parties = 10", "parties = 1353"),
            [
                "m.toml:16: federation.parties: 1,353 parties for the 1,352 training images of digits; "
                "some would hold none"
            ],
        ),
        (
            f"{FEDERATION.replace('rounds = 2', 'rounds = 1000000000')}\nparticipation = 0.5",
            [
                "m.toml:10: training.epochs: 2 epochs, but 1000000000 rounds of 1 are 1000000000; give that number, "
                "which the schedule and methods with a full schedule follow",
                "m.toml:18: federation.rounds: 1,000,000,000 rounds of 10 parties, and 1,000,000 turns are the most",
            ],
        ),
        (
            FEDERATION.replace("parties = 10", "parties = 1352"),
            ["m.toml:16: federation.parties: with seed 0 none of 1,352 parties holds 2 images to train FDR on"],
        ),
        (
            FEDERATION.replace("party = 0", "party = 10"),
            ["m.toml:17: federation.party: there is no party 10: the parties are 0 to 9"],
        ),
        (
            FEDERATION.replace("party = 0\n", ""),
            [
                "m.toml:15: federation.party: missing; the number of the party that unlearns with its own share (or "
                "limited_share in [problem], to compare with images drawn from all)"
            ],
        ),
        (
            FEDERATION.replace("rounds = 2", "rounds = 3"),
            [
                "m.toml:10: training.epochs: 2 epochs, but 3 rounds of 1 are 3; give that number, which the schedule "
                "and methods with a full schedule follow"
            ],
        ),
        (
            f'{FEDERATION}\nsplit = "dirichlet"',
            [
                'm.toml:15: federation.alpha: missing; split = "dirichlet" needs how alike the shares are: 0.1 is very '
                "unlike, 100 nearly iid"
            ],
        ),
        (
            f"{FEDERATION}\nalpha = 0.1",
            ['m.toml:19: federation.alpha: split = "iid" has none; remove it, or set split = "dirichlet"'],
        ),
        (
            f'{FEDERATION}\nstrategy = "fedprox"',
            [
                'm.toml:15: federation.proximal: missing; strategy = "fedprox" needs the weight that holds a party '
                "near the round's first weights, as 0.01"
            ],
        ),
        (
            f"{FEDERATION}\nproximal = 0.1",
            ['m.toml:19: federation.proximal: strategy = "fedavg" has none; remove it, or set strategy = "fedprox"'],
        ),
        (
            f"{FEDERATION}\nlocal_epoch = 2",
            [
                "m.toml:19: federation.local_epoch: unknown key",
                "  Did you mean 'local_epochs'? Valid: alpha, engine, local_epochs, options, participation, parties, "
                "party, proximal, rounds, split, strategy",
                "  Options of the plugin stand in options = { local_epoch = ... }",
            ],
        ),
    ],
)
def test_an_impossible_federation_is_refused(tmp_path: Path, federation: str, messages: list[str]) -> None:
    assert faults(tmp_path, federated_text(federation=federation)) == messages


def test_a_party_without_an_image_of_a_kind_is_refused_and_others_are_named(tmp_path: Path) -> None:
    lines = faults(tmp_path, federated_text(head="seeds = [0, 1]", federation=UNLIKE.replace("party = 0", "party = 3")))
    assert lines == [
        "m.toml:17: federation.party: with seed 0 party 3 holds no image of a forget class",
        "  Parties that hold both kinds with every seed: 0, 2, 6, 7, 8 and 1 more",
    ]
    many = f"seeds = {list(range(30))}"
    assert faults(tmp_path, federated_text(head=many, federation=UNLIKE))[-1] == (
        "  No party holds both kinds with every seed; raise alpha, or take fewer parties or other seeds"
    )
    # One forget class and nine others: of the latter a party may hold none.
    one = FORGET.replace('["8", "9"]', '["0", "1", "2", "3", "4", "5", "6", "7", "8"]')
    text = federated_text(problem=one, federation=UNLIKE.replace("party = 0", "party = 2"))
    message = "m.toml:17: federation.party: with seed 0 party 2 holds no image of a retain class"
    assert faults(tmp_path, text)[0] == message


def test_limited_data_stand_in_one_place(tmp_path: Path) -> None:
    text = federated_text(problem=f"{FORGET}\nlimited_share = 0.1")
    assert faults(tmp_path, text) == [
        "m.toml:9: problem.limited_share: the share of party 0 is what is left; keep one of the two"
    ]
    text = federated_text(problem=f"{FORGET}\nmatrix.limited_images_per_class = [1, 2]")
    assert faults(tmp_path, text) == [
        "m.toml:9: problem.matrix.limited_images_per_class: the share of party 0 is what is left; keep one of the two"
    ]


def test_resolutions_and_federations_do_not_go_together(tmp_path: Path) -> None:
    text = federated_text(training=f"{TRAINING}\nresolutions = [[1, 4]]")
    assert faults(tmp_path, text) == [
        "m.toml:15: training.resolutions: a federation trains on images of full size; remove it"
    ]


def test_a_federation_without_an_engine_keeps_its_identity(tmp_path: Path) -> None:
    # These stood in stores before there were engines.
    wd = plan_of(tmp_path, federated_text(WD)).cells[-1]
    assert (wd.problem.id, wd.original.id) == ("e119994d94753acd", "acf35c691ed8844c")


@pytest.fixture
def engine(search_path: Path) -> None:
    """An engine that is installed, with one strategy."""
    fake_distribution(search_path, "their-engine", {"federations": {"theirs": "their_engine:theirs"}}, ENGINE)


OPTION = "\noptions = { rate = 0.5 }"
THEIRS = f'{FEDERATION}\nengine = "theirs"\nstrategy = "Mean"'


@pytest.mark.usefixtures("engine")
def test_an_engine_and_its_options_make_another_problem(tmp_path: Path) -> None:
    plain = plan_of(tmp_path, federated_text(WD)).cells[-1]
    found = [plan_of(tmp_path, federated_text(WD, federation=f"{THEIRS}{more}")).cells[-1] for more in ("", OPTION)]
    cells = [plain, *found]
    assert len({cell.problem.id for cell in cells}) == len({cell.original.id for cell in cells}) == 3
    assert found[1].problem.engine is not None
    assert found[1].problem.engine.options == {"rate": 0.5}
    assert "10 parties, iid, Mean by theirs rate 0.5, 2 rounds" in found[1].problem.title
    assert "-Mean-iid-" in found[1].problem.slug


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize(
    ("federation", "messages"),
    [
        (
            THEIRS.replace('"Mean"', '"Median"'),
            ["m.toml:20: federation.strategy: theirs has no strategy 'Median'\n  Did you mean 'Mean'? Valid: Mean"],
        ),
        (
            f"{THEIRS}\noptions = {{ rat = 0.5 }}",
            ["m.toml:21: federation.options.rat: theirs has no option 'rat'"],
        ),
        (
            f"{THEIRS}\nproximal = 0.5",
            ['m.toml:21: federation.proximal: engine = "theirs" has none; what it takes are options'],
        ),
        (
            f"{FEDERATION}{OPTION}",
            ["m.toml:19: federation.options: are those of an engine, and none is given; remove them"],
        ),
        (
            f'{FEDERATION}\nstrategy = "fedaverage"',
            [
                "m.toml:19: federation.strategy: there is no 'fedaverage' without an engine\n"
                "  Did you mean 'fedavg'? Valid: fedavg, fedprox"
            ],
        ),
        (
            f'{FEDERATION}\nengine = "their"',
            ["m.toml:19: federation.engine: no federation engine 'their' is installed\n  Did you mean 'theirs'? "],
        ),
    ],
)
def test_an_impossible_engine_is_refused(tmp_path: Path, federation: str, messages: list[str]) -> None:
    text = "\n".join(faults(tmp_path, federated_text(federation=federation)))
    assert all(message in text for message in messages), text
    assert text.count("m.toml:") == len(messages)


def test_an_engine_of_ours_that_is_missing_names_its_distribution(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unlearnbench.registry.entry_points._found", lambda: {"federations": {}})
    file = ManifestFile("m.toml", "", {})
    file.sections["federation"] = Federation(parties=2, rounds=1, engine="flower", strategy="FedAvg")
    assert find_engine(file) is None
    found = [fault.message for fault in file.faults]
    assert found == [
        "no federation engine 'flower' is installed\n  It comes with the distribution unlearnbench-flower "
        "(pip install ./plugins/unlearnbench-flower), which takes an environment of its own"
    ]
