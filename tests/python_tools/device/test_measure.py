"""Latency: call by call in turn, quantiles as numpy has them, and what is compared with what."""

import time

import numpy as np
import pytest

from persona.device.engine import Engine
from persona.device.live import LiveModel, OnBase
from persona.device.measure import WARM_UP, interleaved, load_time_ms, measure
from persona.formats.measurement import Latency


def test_the_two_take_turns_and_the_warm_up_does_not_count():
    calls = []
    first, second = interleaved(lambda: calls.append("a"), lambda: calls.append("b"), 30)
    assert calls == ["a", "b"] * (WARM_UP + 30)
    assert (len(first), len(second)) == (30, 30)


def test_each_time_belongs_to_its_own_call():
    """One call sleeps, the other does not; every single time must tell them apart."""
    slow, fast = interleaved(lambda: time.sleep(0.002), lambda: None, 5)
    assert min(slow) >= 2000 > np.median(fast)


@pytest.mark.parametrize("count", [1, 2, 10, 1001])
def test_quantiles_are_those_of_the_sorted_calls(count):
    times = np.random.default_rng(count).gamma(2.0, 50.0, count).tolist()
    found = Latency.of(times, WARM_UP)
    ranks = sorted(times)

    def quantile(share: float) -> float:
        place = share * (count - 1)
        low = int(place)
        high = min(low + 1, count - 1)
        return ranks[low] + (place - low) * (ranks[high] - ranks[low])

    assert found.p50_us == pytest.approx(quantile(0.5))
    assert found.p90_us == pytest.approx(quantile(0.9))
    assert found.p99_us == pytest.approx(quantile(0.99))
    assert found.mean_us == pytest.approx(sum(times) / count)
    assert (found.iterations, found.warmup) == (count, WARM_UP)


def test_a_measurement_compares_the_live_state_with_the_baked_base(digits_bundle, issue):
    live = LiveModel(digits_bundle)
    live.use_edit(issue.verified())
    image = np.zeros((1, 1, 8, 8), np.float32)
    output = live.predict([image])
    found = measure(live, [image], 40, 1.25)
    assert found.ratio == found.edited.p50_us / found.base.p50_us
    assert (found.base.iterations, found.edited.iterations) == (40, 40)
    assert found.delegates == ("XnnpackBackend",)
    assert (found.target, found.precision) == ("executorch-xnnpack", "fp32")
    assert (found.model, found.bundle) == (digits_bundle.manifest.model, digits_bundle.digest)
    assert found.host.threads == 1
    assert found.edit_to_active_ms == 1.25
    assert found.to_json()["edited"]["p99_us"] == found.edited.p99_us
    np.testing.assert_array_equal(live.predict([image]), output)


def test_the_base_is_the_baked_method_and_edited_is_what_is_live(digits_bundle):
    """An engine whose live method pauses before it runs tells which times are whose."""

    class Pausing(Engine):
        def predict(self, inputs):
            time.sleep(0.003)
            return super().predict(inputs)

    live = LiveModel(digits_bundle)
    live.engine = Pausing(digits_bundle)
    live.resume(OnBase())
    found = measure(live, [np.zeros((1, 1, 8, 8), np.float32)], 5)
    assert found.edited.p50_us >= 3000 > found.base.p50_us


def test_loading_takes_time(digits_bundle):
    assert load_time_ms(digits_bundle) > 0
