"""The problems that trials run on: other seeds, and training images in the place of the test images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from unlearnbench.datasets.dataset import DatasetInfo
from unlearnbench.datasets.held_out import on_limited_images, without_test_images
from unlearnbench.engine.tuning.score import LIMITED_METRICS, ORACLE_METRICS
from unlearnbench.errors import UnlearnBenchError
from unlearnbench.experiment.problem import Problem
from unlearnbench.experiment.resolve import Resolved

HELD_OUT_EVERY = 5
# Of limited images fewer are held out: with a fifth less to learn from, a method makes fewer steps, and the number of
# epochs that is right then is too large on all of them.
LIMITED_HELD_OUT_EVERY = 10


def oracle_trial(resolved: Resolved, seeds: tuple[int, ...]) -> Resolved:
    """Return the manifest on other seeds, with a fifth of the training images in the place of the test images."""
    dataset = without_test_images(resolved.dataset, HELD_OUT_EVERY)

    def moved(problem: Problem) -> Problem:
        counts = zip(problem.limited_counts, dataset.info.train_counts, strict=True)
        return replace(problem, info=dataset.info, limited_counts=tuple(min(pair) for pair in counts))

    found = _on_seeds(resolved, seeds, ORACLE_METRICS)
    return replace(found, dataset=dataset, problems=tuple(moved(problem) for problem in resolved.problems))


def limited_trials(resolved: Resolved, seeds: Sequence[int]) -> list[list[Resolved]]:
    """Return for each problem a manifest for each seed, without FDR, judged on a tenth of the limited images.

    The method gets the others. Which images these are depends on the seed, and so does the data set.

    Raises:
        UnlearnBenchError: If a class has fewer than 2 limited images.
    """
    return [[_limited_trial(resolved, problem, seed) for seed in seeds] for problem in resolved.problems]


def _limited_trial(resolved: Resolved, problem: Problem, seed: int) -> Resolved:
    counts = problem.limited_counts
    if min(counts) < 2:
        raise UnlearnBenchError(
            f"{resolved.file}: {problem.title}: a class has a single limited image, so none can be held out\n"
            "  Use --division oracle-tuned, which holds out other training images"
        )
    given = tuple(count - max(1, count // LIMITED_HELD_OUT_EVERY) for count in counts)
    dataset = on_limited_images(resolved.dataset, counts, given, seed)
    found = _on_seeds(resolved, (seed,), LIMITED_METRICS)
    references = found.manifest.references.model_copy(update={"fdr": "none"})
    return replace(
        found,
        manifest=found.manifest.model_copy(update={"references": references}),
        dataset=dataset,
        problems=(_without_fdr(problem, dataset.info, given),),
        methods=tuple(method for method in found.methods if method.role == "unlearner" or method.name != "fdr"),
    )


def _without_fdr(problem: Problem, info: DatasetInfo, given: tuple[int, ...]) -> Problem:
    return replace(problem, info=info, limited_counts=given, fdr=None, has_fdr=False)


def _on_seeds(resolved: Resolved, seeds: tuple[int, ...], metrics: frozenset[str]) -> Resolved:
    """Return the manifest on other seeds with the metrics that a score needs."""
    changes = {"seeds": seeds, "name": f"{resolved.manifest.name}-trials", "evaluate_every": 0}
    return replace(
        resolved,
        manifest=resolved.manifest.model_copy(update=changes),
        metrics=tuple(metric for metric in resolved.metrics if metric.label in metrics),
    )
