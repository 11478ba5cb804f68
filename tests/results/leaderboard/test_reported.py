"""What others report, beside what was measured, and never ranked."""

from __future__ import annotations

from unlearnbench.results.leaderboard.reported import reported, reported_sections
from unlearnbench.results.leaderboard.view import make_board


def test_every_value_has_protocol_images_source_and_grade() -> None:
    assert len(reported()) > 30
    for one in reported():
        assert one.protocol
        assert one.source
        assert one.images in ("training", "test", "not said")
        assert one.grade in ("P", "C")
        assert all(0 <= value <= 100 for value in one.retains)
        assert one.forget == "" or 0 <= float(one.forget) <= 100


def test_the_spread_over_sources_stands_before_the_values() -> None:
    text = "\n".join(reported_sections(make_board([])))
    # SalUn on CIFAR-10: 99.60 on training images in one source, 89.57 on test images in another.
    assert "| cifar10 | resnet18 | salun | 89.57 to 99.60 | 2 | - |" in text
    assert "| cifar10 | resnet18 | ssd | 12.53 to 95.26 | 1 | - |" in text
    assert text.index("How far apart") < text.index("| salun | SalUn | 99.60 | 0.00 | training |")
