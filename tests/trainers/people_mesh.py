"""The mesh for tests of rendered people, loaded once for all of them."""

from __future__ import annotations

from functools import cache

import pytest

from trainers.people.mesh import MeshMissing, PeopleMesh, find_mesh
from trainers.people.renderer import Renderer


@cache
def shared_renderer() -> Renderer:
    try:
        return Renderer(PeopleMesh(find_mesh()))
    except MeshMissing as missing:
        pytest.skip(str(missing))
