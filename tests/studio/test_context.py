"""What the panels ask of the application as a whole."""

import pytest

from studio.context import Studio
from studio.generation import GenerationJobs
from studio.model_host import ModelHost
from studio.settings import Settings
from tests.tiny_bundles import write_tiny_bundle


@pytest.mark.parametrize(("allowed", "bundle", "most"), [(6, "tiny", 4), (2, "tiny", 2), (6, "missing", 6)])
def test_people_in_one_picture_are_limited_by_the_settings_and_by_the_bundle(store, tmp_path, allowed, bundle, most):
    if bundle == "tiny":
        bundle = str(write_tiny_bundle(tmp_path / bundle))
    host = ModelHost(bundle)
    settings = Settings(data=store.folder, bundle=bundle, max_portraits=allowed)
    assert Studio(settings, store, host, GenerationJobs(store, host)).most_people == most
