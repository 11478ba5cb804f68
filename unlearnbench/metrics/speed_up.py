"""How many times fewer images a method reads than full data retraining."""

from __future__ import annotations

from unlearnbench.errors import MetricError
from unlearnbench.measurement import Costs, Measurement


def speed_up(costs: Costs) -> Measurement:
    """Speed-up against FDR in image passes: FDR's image passes / the method's.

    A pass is one training image that goes through the network once; forget and retain images count alike, those of
    ERwP's relevance search are included. The speed-up in measured seconds differs from run to run and stands in the
    record as `measured.speed_up_seconds`, the passes by kind as `image_reads`, the seconds of each stage and the peak
    memory in `measured`.

    Args:
        costs: The image passes of the judged model and of FDR.

    Returns:
        At least 0, higher is better; 1 for FDR itself.

    Raises:
        MetricError: If the method reads no image at all: there is no ratio.

    Source: ERwP (ECCV 2022), section 4.2, where the factor is epochs x images. Known weakness: a pass that only goes
    forward costs a third of one that trains, and a teacher's passes are not counted; the measured seconds tell.
    """
    judged, retrained = sum(costs.judged.values()), sum(costs.retrained.values())
    if judged == 0:
        raise MetricError("no training image was read: there is no ratio to FDR's image passes")
    return Measurement(retrained / judged, {"judged": costs.judged, "retrained": costs.retrained})
