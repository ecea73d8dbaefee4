"""What the unit tests share: a search for examples that a busy machine does not fail."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

_SLOW_IS_FINE = [HealthCheck.too_slow, HealthCheck.data_too_large]
settings.register_profile("unit", deadline=None, max_examples=60, derandomize=True, suppress_health_check=_SLOW_IS_FINE)
# For a search with other values: COMMONS_EVENTS_HYPOTHESIS=explore
settings.register_profile("explore", deadline=None, max_examples=500, suppress_health_check=_SLOW_IS_FINE)
settings.load_profile(os.environ.get("COMMONS_EVENTS_HYPOTHESIS", "unit"))
