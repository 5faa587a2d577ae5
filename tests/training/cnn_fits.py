"""A fit of the study's network, by its settings and data."""

from functools import partial

from cropray.training.cnn.fit import CNN
from cropray.training.deep.fit import train_network

train_cnn = partial(train_network, kind=CNN)
