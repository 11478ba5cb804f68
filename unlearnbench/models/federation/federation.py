"""The federation of a manifest: how many parties there are, how they share the images, and how they train together."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt

from unlearnbench.models.recipe import PositiveInt, Section

# Engines and strategies stand in titles, and in the names of files.
Word = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]*$", max_length=40)]


class Federation(Section):
    """Parties that train one network together, of which one has to unlearn with its own images alone.

    Attributes:
        parties: Number of parties, which hold all training images between them.
        party: Party that unlearns, counted from 0, whose share is the limited data; None where these are drawn from all
            images, to compare with.
        rounds: Rounds of training; after each the server averages what the parties sent.
        local_epochs: Passes of a party over its own images in a round.
        participation: Share of the parties that train in a round, rounded to whole parties, at least one.
        split: `iid` deals all images at random into equal shares; `dirichlet` draws for each class how it is spread
            over the parties.
        alpha: Concentration of the Dirichlet distribution: the smaller, the less alike the shares are. Only with
            `dirichlet`.
        engine: Plugin that plays the rounds; None lets the parties train one after the other in one process.
        strategy: `fedavg` averages weights by the number of images; `fedprox` does so too and holds each party near
            the round's first weights meanwhile. With an engine, one of its own strategies.
        proximal: Weight of half the squared distance from these. Only with `fedprox`.
        options: Options of the engine's strategy.

    Source: FedAvg: "Communication-Efficient Learning of Deep Networks from Decentralized Data" (McMahan et al., AISTATS
    2017); FedProx: "Federated Optimization in Heterogeneous Networks" (Li et al., MLSys 2020), equation 2; the
    Dirichlet split: "Bayesian Nonparametric Federated Learning of Neural Networks" (Yurochkin et al., ICML 2019).
    """

    parties: Annotated[int, Field(ge=2, le=10_000)]
    party: Annotated[int, Field(ge=0)] | None = None
    rounds: PositiveInt
    local_epochs: PositiveInt = 1
    participation: Annotated[float, Field(gt=0, le=1)] = 1.0
    split: Literal["iid", "dirichlet"] = "iid"
    alpha: Annotated[float, Field(ge=1e-3, le=1e6)] | None = None
    engine: Word | None = None
    strategy: Word = "fedavg"
    proximal: Annotated[float, Field(gt=0)] | None = None
    options: dict[str, Any] | None = None

    def __hash__(self) -> int:
        """Hash what can be hashed, of which options are no part; equal federations are equal in it."""
        return hash((self.parties, self.party, self.rounds, self.split, self.alpha, self.engine, self.strategy))

    @property
    def training_identity(self) -> dict[str, Any]:
        """What the training of a model depends on, whichever party is to unlearn; a field that is None is absent."""
        return self.model_dump(mode="json", exclude_none=True, exclude={"party"})

    @property
    def alike(self) -> str:
        """How alike the shares are, in the manifest's terms."""
        return "iid" if self.split == "iid" else f"alpha {self.alpha:.10g}"

    @property
    def title(self) -> str:
        """The federation in a few words."""
        epochs = f" of {self.local_epochs} epochs" if self.local_epochs > 1 else ""
        part = f", {self.participation:.10g} of the parties in each" if self.participation < 1 else ""
        proximal = f" {self.proximal:.10g}" if self.proximal else ""
        strategy = f"{self.strategy} by {self.engine}" if self.engine else self.strategy
        settings = "".join(f" {key} {value}" for key, value in (self.options or {}).items())
        return (
            f"{self.parties} parties, {self.alike}, {strategy}{proximal}{settings}, {self.rounds} rounds{epochs}{part}"
        )


class Rounds(Section):
    """What a federation did to train one model.

    Attributes:
        images_per_class: For each party K numbers of its training images, those that it did not train on included.
        trained_in_round: For each round the parties that trained in it.
        bytes_sent: Bytes of weights and buffers that went `to_parties` and came back `from_parties`, over all rounds.
        accuracy_by_round: After each round the share of the test images, of the classes that the model is trained on,
            that the server's model recognises.
    """

    images_per_class: tuple[tuple[NonNegativeInt, ...], ...]
    trained_in_round: tuple[tuple[NonNegativeInt, ...], ...]
    bytes_sent: dict[Literal["to_parties", "from_parties"], NonNegativeInt]
    accuracy_by_round: tuple[Annotated[float, Field(ge=0, le=1)], ...]
