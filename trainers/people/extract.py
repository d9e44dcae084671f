"""Make people_mesh.npz, the mesh file of the rendered people, from public checkouts.

    python -m trainers.people.extract --makehuman DIR --assets DIR --mpfb DIR --out people_mesh.npz

DIR are checkouts of github.com/makehumancommunity: makehuman (base mesh and morph targets), makehuman-assets (hair,
brows, lashes, hats, suits) and mpfb2 (masks of lips, ears, eyelids). Their data are CC0; no program code of theirs
and no skin texture is used. The file keeps what a bust needs: everything above the hips, and of every morph target
what moves there.

Fields: V (n, 3) base vertices, orig (n,) their numbers in base.obj, uv (n, 2), tri (m, 3), part (m,) index into
partnames; mask_* (n,); J_* vertex ids of joints; macro (k, n, 3) dense targets of sex, age, ancestry, muscle and
weight, macro_names; det_i, det_d, det_ptr sparse detail and expression targets in rows, det_names; for each proxy
in prox_names P_<name>_i, _w, _o (vertex = sum of weights times base vertices, plus offset times scale), _s (two
vertex ids and their distance on the base, for x, y, z), _uv, _t.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

LOWEST = 1.0
"""Height on the base mesh (dm) below which nothing is kept."""
SUIT_LOWEST = 1.3
# What base.obj stores at which vertex numbers; these groups have no names of their own there.
_BODY = slice(0, 13380)
_MOUTH_AND_EYES = (slice(13380, 13606), slice(14598, 15128))
_TIGHTS = slice(15328, 18002)
_HAIR_HELPER = slice(18722, 19150)
_JOINTS = [
    "head",
    "neck",
    "jaw",
    "l-eye",
    "r-eye",
    "mouth",
    "head-2",
    "l-shoulder",
    "r-shoulder",
    "spine-1",
    "spine-2",
    "spine-3",
    "l-clavicle",
    "r-clavicle",
    "l-elbow",
    "r-elbow",
    "l-scapula",
    "r-scapula",
]
_UNUSED_PARTS = ("helper-skirt", "helper-genital")
_MASKS = ("lips", "ears", "eyelids", "inside-mouth", "face")
_DETAILS = ("head", "eyes", "nose", "mouth", "chin", "cheek", "forehead", "ears", "eyebrows", "neck", "asym")
_EXPRESSIONS = ("caucasian", "african", "asian")
_PROXIES = (
    "hair/*",
    "eyebrows/*",
    "eyelashes/*",
    "clothes/fedora01",
    "clothes/male_elegantsuit01",
    "clothes/female_elegantsuit01",
    "clothes/male_casualsuit02",
    "clothes/male_casualsuit04",
)
_SMALLEST_OFFSET = 1e-4


class SourceMissing(FileNotFoundError):
    """A checkout does not have what is needed."""


@dataclass(frozen=True, eq=False)
class Mesh:
    """A Wavefront file. vertices: (n, 3); uv: (k, 2); groups: name -> polygons, each a list of (vertex, uv) from 0."""

    vertices: np.ndarray
    uv: np.ndarray
    groups: dict[str, list[list[tuple[int, int]]]]

    def triangles(self) -> np.ndarray:
        """(m, 3, 2) corners as (vertex, uv), polygons of all groups cut into fans."""
        fans = [fan for polygons in self.groups.values() for polygon in polygons for fan in _fan(polygon)]
        return np.array(fans, dtype=np.int64).reshape(-1, 3, 2)


@dataclass(frozen=True, eq=False)
class Proxy:
    """A mesh that rides on the base: vertex = sum(weights * base[corners]) + offsets * scale. corners, weights,
    offsets: (k, 3); scale: axis -> (vertex, vertex, their distance on the base); uv: (k, 2); faces: (m, 3)."""

    corners: np.ndarray
    weights: np.ndarray
    offsets: np.ndarray
    scale: dict[str, tuple[int, int, float]]
    uv: np.ndarray
    faces: np.ndarray


def read_mesh(path: Path) -> Mesh:
    """Read a Wavefront .obj: v, vt, g and f lines; corners without uv get uv 0."""
    vertices, uv, groups, group = [], [], {}, ""
    for kind, *values in _rows(path):
        if kind == "v":
            vertices.append([float(x) for x in values[:3]])
        elif kind == "vt":
            uv.append([float(x) for x in values[:2]])
        elif kind == "g":
            group = values[0]
        elif kind == "f":
            corners = [(value + "/").split("/")[:2] for value in values]
            groups.setdefault(group, []).append([(int(v) - 1, int(t) - 1 if t else 0) for v, t in corners])
    return Mesh(np.array(vertices).reshape(-1, 3), np.array(uv).reshape(-1, 2), groups)


def read_target(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """A morph target: (k,) vertex numbers and (k, 3) offsets in dm."""
    rows = [row for row in _rows(path) if len(row) == 4]
    numbers = np.array([int(row[0]) for row in rows], dtype=np.int64)
    return numbers, np.array([[float(x) for x in row[1:]] for row in rows]).reshape(-1, 3)


def read_proxy(path: Path, *, keep: np.ndarray | None = None) -> Proxy:
    """A .mhclo file with the .obj it names. Vertices are doubled where their uv differ; `keep` (m,) selects
    triangles."""
    bindings, scale, mesh_name, in_vertices = [], {}, None, False
    for kind, *values in _rows(path):
        if kind == "obj_file":
            mesh_name = values[0]
        elif kind in ("x_scale", "y_scale", "z_scale"):
            scale[kind[0]] = (int(values[0]), int(values[1]), float(values[2]))
        elif kind == "verts":
            in_vertices = True
        elif kind in ("delete_verts", "weights"):
            in_vertices = False
        elif in_vertices:
            binding = _binding([kind, *values])
            if binding is not None:
                bindings.append(binding)
    if mesh_name is None:
        raise ValueError(f"{path} names no obj_file: it is not a MakeHuman proxy.")
    mesh = read_mesh(path.parent / mesh_name)
    corners = mesh.triangles()
    if keep is not None:
        corners = corners[keep]
    unique, inverse = np.unique(corners.reshape(-1, 2), axis=0, return_inverse=True)
    bound = np.array(bindings)[unique[:, 0]]
    return Proxy(
        corners=bound[:, :3].astype(np.int64),
        weights=bound[:, 3:6],
        offsets=bound[:, 6:9],
        scale=scale,
        uv=mesh.uv[unique[:, 1]] if len(mesh.uv) else np.zeros((len(unique), 2)),
        faces=inverse.reshape(-1, 3),
    )


def extract(makehuman: Path, assets: Path, mpfb: Path) -> dict[str, np.ndarray]:
    """The arrays of people_mesh.npz. Raises SourceMissing when a checkout lacks a file."""
    data, base_assets = makehuman / "makehuman" / "data", assets / "base"
    masks = mpfb / "src" / "mpfb" / "data" / "textures"
    for path in (data / "3dobjs" / "base.obj", base_assets, masks):
        if not path.exists():
            raise SourceMissing(f"{path} is not there: give the folder of the checkout, as it was cloned.")
    base = read_mesh(data / "3dobjs" / "base.obj")
    proxies = _read_proxies(base_assets, base)
    joints = {name: base.groups[f"joint-{name}"] for name in _JOINTS if f"joint-{name}" in base.groups}
    joints = {name: sorted({v for polygon in polygons for v, _ in polygon}) for name, polygons in joints.items()}
    kept = _kept_vertices(base, joints.values(), proxies.values())
    index = np.full(len(kept), -1)
    index[kept] = np.arange(kept.sum())
    arrays = {"V": base.vertices[kept].astype(np.float32), "orig": np.flatnonzero(kept).astype(np.int32)}
    arrays |= _faces(base, kept, index)
    arrays |= _masks(masks, base, kept)
    arrays |= {f"J_{name}": index[ids].astype(np.int32) for name, ids in joints.items()}
    arrays |= _macro_targets(data / "targets" / "macrodetails", kept)
    arrays |= _detail_targets(data / "targets", kept, index)
    for name, proxy in proxies.items():
        arrays |= _proxy_arrays(name, proxy, index)
    arrays["prox_names"] = np.array(list(proxies))
    return arrays


def _rows(path: Path) -> Iterable[list[str]]:
    """The words of each line, without comments and empty lines."""
    if not path.is_file():
        raise SourceMissing(f"{path} is not there.")
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            words = line.split()
            if words and not words[0].startswith("#"):
                yield words


def _fan(polygon: list[tuple[int, int]]) -> list[list[tuple[int, int]]]:
    return [[polygon[0], polygon[k], polygon[k + 1]] for k in range(1, len(polygon) - 1)]


def _binding(words: list[str]) -> list[float] | None:
    """One line of a proxy's vertices: three base vertices, weights and offset; or one vertex; None for other lines."""
    try:
        values = [float(word) for word in words]
    except ValueError:
        return None
    if len(values) == 1:
        return [values[0]] * 3 + [1.0] + [0.0] * 5
    if len(values) == 6:
        return values + [0.0] * 3
    return values[:9] if len(values) >= 9 else None


def _read_proxies(assets: Path, base: Mesh) -> dict[str, Proxy]:
    found = {}
    for pattern in _PROXIES:
        for path in sorted(assets.glob(f"{pattern}/*.mhclo")):
            proxy = read_proxy(path)
            if "suit" in path.stem:
                height = (base.vertices[proxy.corners] * proxy.weights[..., None]).sum(1)[:, 1]
                proxy = read_proxy(path, keep=(height[proxy.faces] > SUIT_LOWEST).all(1))
            if len(proxy.faces):
                found[path.stem] = proxy
    return found


def _kept_vertices(base: Mesh, joints: Iterable[list[int]], proxies: Iterable[Proxy]) -> np.ndarray:
    """(all,) bool."""
    high = base.vertices[:, 1] > LOWEST
    kept = np.zeros(len(base.vertices), bool)
    for part in (_BODY, _TIGHTS):
        kept[part] = high[part]
    for part in (*_MOUTH_AND_EYES, _HAIR_HELPER):
        kept[part] = True
    for ids in joints:
        kept[ids] = True
    for proxy in proxies:
        kept[proxy.corners.ravel()] = True
        for first, second, _ in proxy.scale.values():
            kept[[first, second]] = True
    return kept


def _faces(base: Mesh, kept: np.ndarray, index: np.ndarray) -> dict[str, np.ndarray]:
    names = [name for name in base.groups if "joint" not in name and name not in _UNUSED_PARTS]
    triangles, parts = [], []
    for number, name in enumerate(names):
        for polygon in base.groups[name]:
            ids = [v for v, _ in polygon]
            if kept[ids].all() and (base.vertices[ids][:, 1] > LOWEST).all():
                fans = _fan(polygon)
                triangles += [[index[v] for v, _ in fan] for fan in fans]
                parts += [number] * len(fans)
    return {
        "tri": np.array(triangles, np.int32).reshape(-1, 3),
        "part": np.array(parts, np.uint8),
        "partnames": np.array(names),
        "uv": _vertex_uv(base)[kept].astype(np.float32),
    }


def _vertex_uv(base: Mesh) -> np.ndarray:
    """(all, 2): the last uv that a named part gives a vertex."""
    uv = np.zeros((len(base.vertices), 2))
    for name, polygons in base.groups.items():
        if "joint" not in name and name not in _UNUSED_PARTS:
            for polygon in polygons:
                for vertex, corner in polygon:
                    uv[vertex] = base.uv[corner]
    return uv


def _masks(folder: Path, base: Mesh, kept: np.ndarray) -> dict[str, np.ndarray]:
    uv = _vertex_uv(base)
    found = {}
    for name in _MASKS:
        path = folder / f"mpfb_{name}.jpg"
        if not path.is_file():
            raise SourceMissing(f"{path} is not there.")
        image = np.asarray(Image.open(path).convert("L"), np.float32) / 255
        height, width = image.shape
        row = np.clip(((1 - uv[:, 1]) * height).astype(int), 0, height - 1)
        column = np.clip((uv[:, 0] * width).astype(int), 0, width - 1)
        found[f"mask_{name}"] = image[row, column][kept].astype(np.float16)
    return found


def _macro_targets(folder: Path, kept: np.ndarray) -> dict[str, np.ndarray]:
    targets, names = [], []
    for path in sorted(folder.glob("*.target")):
        numbers, offsets = read_target(path)
        dense = np.zeros((len(kept), 3), np.float32)
        dense[numbers] = offsets
        targets.append(dense[kept].astype(np.float16))
        names.append(path.stem)
    if not targets:
        raise SourceMissing(f"{folder} has no .target files.")
    return {"macro": np.array(targets), "macro_names": np.array(names)}


def _detail_targets(folder: Path, kept: np.ndarray, index: np.ndarray) -> dict[str, np.ndarray]:
    """Targets that move kept vertices noticeably, as rows of a sparse matrix."""
    groups = [(name, folder / name) for name in _DETAILS]
    groups += [(f"expr/{name}", folder / "expression" / "units" / name) for name in _EXPRESSIONS]
    names, pointer, rows, moves = [], [0], [], []
    for group, path in groups:
        for target in sorted(path.glob("*.target")):
            numbers, offsets = read_target(target)
            moved = np.abs(offsets).max(1, initial=0) > _SMALLEST_OFFSET
            chosen = kept[numbers] & moved
            if chosen.any():
                names.append(f"{group}/{target.stem}")
                pointer.append(pointer[-1] + int(chosen.sum()))
                rows.append(index[numbers[chosen]])
                moves.append(offsets[chosen])
    if not names:
        raise SourceMissing(f"{folder} has no detail targets.")
    return {
        "det_ptr": np.array(pointer, np.int32),
        "det_i": np.concatenate(rows).astype(np.uint16),
        "det_d": np.concatenate(moves).astype(np.float16),
        "det_names": np.array(names),
    }


def _proxy_arrays(name: str, proxy: Proxy, index: np.ndarray) -> dict[str, np.ndarray]:
    scale = [
        [index[proxy.scale[axis][0]], index[proxy.scale[axis][1]], proxy.scale[axis][2]]
        if axis in proxy.scale
        else [0, 0, 0]
        for axis in "xyz"
    ]
    return {
        f"P_{name}_i": index[proxy.corners].astype(np.uint16),
        f"P_{name}_w": proxy.weights.astype(np.float32),
        f"P_{name}_o": proxy.offsets.astype(np.float16),
        f"P_{name}_s": np.array(scale, np.float32),
        f"P_{name}_uv": proxy.uv.astype(np.float16),
        f"P_{name}_t": proxy.faces.astype(np.uint16),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the mesh file of the rendered people from public checkouts.")
    for name in ("makehuman", "assets", "mpfb"):
        parser.add_argument(f"--{name}", type=Path, required=True, help="folder of the checkout")
    parser.add_argument("--out", type=Path, default=Path("people_mesh.npz"))
    options = parser.parse_args()
    try:
        arrays = extract(options.makehuman, options.assets, options.mpfb)
    except (SourceMissing, ValueError) as error:
        raise SystemExit(str(error)) from error
    np.savez_compressed(options.out, **arrays)
    size = options.out.stat().st_size / 1e6
    print(f"{options.out}: {len(arrays['V'])} vertices, {len(arrays['det_names'])} detail targets, {size:.1f} MB")


if __name__ == "__main__":
    main()
