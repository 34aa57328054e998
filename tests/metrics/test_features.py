import hashlib

import jax.numpy as jnp
import numpy as np
import pytest

from ddpm_jax.metrics.features import fingerprint

PARAMS = {"a": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3)}, "b": np.zeros(2, np.float32)}


def test_fingerprint_is_of_the_values_and_not_of_their_order_or_keeper():
    shuffled = {"b": jnp.zeros(2), "a": {"kernel": jnp.arange(6.0).reshape(2, 3)}}
    text = [b"['a']['kernel'] float32 (2, 3)\n", b"['b'] float32 (2,)\n"]
    hashed = text[0] + np.arange(6, dtype="<f4").tobytes() + text[1] + bytes(8)
    expected = hashlib.sha256(hashed).hexdigest()[:16]
    assert fingerprint(PARAMS) == fingerprint(shuffled) == expected
    strided = {**PARAMS, "a": {"kernel": np.asfortranarray(PARAMS["a"]["kernel"])}}
    assert fingerprint(strided) == fingerprint(PARAMS)
    assert fingerprint({**PARAMS, "b": np.zeros(2, ">f4")}) == fingerprint(PARAMS)


@pytest.mark.parametrize(
    "other",
    [
        {**PARAMS, "b": np.array([0, 1e-30], np.float32)},
        {**PARAMS, "b": np.zeros(2, np.int32)},
        {**PARAMS, "a": {"kernel": PARAMS["a"]["kernel"].reshape(3, 2)}},
        {"a": PARAMS["a"], "c": PARAMS["b"]},
    ],
)
def test_fingerprint_tells_values_types_shapes_and_names_apart(other):
    assert fingerprint(other) != fingerprint(PARAMS)
