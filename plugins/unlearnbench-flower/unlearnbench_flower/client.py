"""A party: what runs in its own process whenever the server sends it weights."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from unlearnbench.models.random_state import own_random_state

from unlearnbench_flower.messages import ARRAYS, BUFFERS, CONFIG, IMAGES, METRICS, PROXIMAL, TURN, packed, unpacked
from unlearnbench_flower.signs import giving_signs, sign_file

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train on the party's own images, and send weights, buffers and their number of images.

    Args:
        message: The server's trainable weights, and whose turn it is in which round.
        context: What Flower keeps of the client, which is nothing here: no party remembers a round. It knows the folder
            where the benchmark looks for signs of life.
    """
    told: Any = message.content[TURN]
    with giving_signs(sign_file(Path(str(context.run_config["meeting"])), told["round"], told["party"])):
        return Message(content=_trained(message, told), reply_to=message)


def _trained(message: Message, told: Any) -> RecordDict:
    """Return what a party sends after its turn."""
    torch.set_num_threads(told["threads"])
    order = pickle.loads(told["order"])
    device = torch.device(told["device"])
    with own_random_state(0):
        training = order.training(order.data(device))
        weights: Any = message.content[ARRAYS]
        training.model.load_state_dict({**unpacked(told["buffers"]), **weights.to_torch_state_dict()})
        training.epoch = told["round"]
        training.proximal = float(message.content[CONFIG].get(PROXIMAL, 0.0))
        ((state, images),) = training.sent([told["party"]])
    trainable = sorted(name for name, _ in training.model.named_parameters())
    return RecordDict(
        {
            ARRAYS: ArrayRecord({name: state[name].detach().cpu() for name in trainable}),
            METRICS: MetricRecord({IMAGES: images}),
            BUFFERS: ConfigRecord({"state": packed({k: v for k, v in state.items() if k not in trainable})}),
        }
    )
