"""How real rendered people are to a real face detector and recogniser, and how fast they are made.

    python -m trainers.people.measure --pack ../shared/real/packs/real_500m --identities 100

Prints one JSON object: share of portraits with exactly one face, share of groups with every face, verification AUC at
the same age (two pictures of one person against pictures of different people) and between an adult and the same
person as a child (against other children), and pictures per minute of one process. Held-out identities only.
Without the pack only the speed is measured, and it says so.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from trainers.people.mesh import PeopleMesh
from trainers.people.photograph import photograph
from trainers.people.renderer import Renderer
from trainers.people.scene import Scene, derived_seed, identity_seed, plan_group, plan_portrait

LARGEST_YAW = 0.52  # 30 degrees
_ADULT, _CHILD = (20.0, 60.0), (4.0, 12.0)  # years


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pack", type=Path, default=Path("../shared/real/packs/real_500m"), help="InsightFace pack")
    parser.add_argument("--identities", type=int, default=100)
    parser.add_argument("--groups", type=int, default=40)
    parser.add_argument("--size", type=int, default=256, help="height of the pictures that are looked at")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="folder for the pictures with a wrong number of faces")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    renderer = Renderer(PeopleMesh(device=arguments.device))
    result: dict[str, object] = {"device": arguments.device, "identities": arguments.identities}
    if arguments.pack.is_dir():
        analyzer = _analyzer(arguments.pack)
        result["pack"] = analyzer.name
        failures = _Failures(arguments.out)
        result |= measure_portraits(renderer, analyzer, arguments.identities, arguments.size, failures)
        result |= measure_groups(renderer, analyzer, arguments.groups, arguments.size, failures)
    else:
        result["pack"] = f"none at {arguments.pack}: detection and verification not measured"
    result |= measure_speed(renderer)
    print(json.dumps(result, indent=1))


def measure_portraits(renderer: Renderer, analyzer, identities: int, size: int, failures: _Failures) -> dict:
    """Two adult pictures and one childhood picture of each identity -> detection share and both AUCs."""
    adults, children = [], []
    seen = found = 0
    for index in tqdm(range(identities), desc="portraits"):
        identity = identity_seed("held-out", index)
        rng = np.random.default_rng([identity, 0x3E])
        age, young = float(rng.uniform(*_ADULT)), float(rng.uniform(*_CHILD))
        shots = []
        for number, years in enumerate((age, age, young)):
            scene = _facing(plan_portrait(derived_seed(identity, number), identity=identity, age=years))
            picture = photograph(renderer, scene, size).picture.cpu().numpy()
            faces = analyzer.analyze(picture)
            seen += 1
            found += len(faces) == 1
            if len(faces) != 1:
                failures.save(picture, f"portrait-{index}-{number}-{len(faces)}-faces")
            shots.append(max(faces, key=lambda f: f.score).embedding if faces else None)
        if all(s is not None for s in shots):
            adults.append(shots[:2])
            children.append(shots[2])
    first, second = (np.stack([pair[k] for pair in adults]) for k in (0, 1))
    child = np.stack(children)
    same_age, childhood = first @ second.T, first @ child.T
    return {
        "portraits": seen,
        "portraits with exactly one face": round(found / seen, 4),
        **_verification("same age", same_age),
        **_verification("adult and child", childhood),
    }


def measure_groups(renderer: Renderer, analyzer, groups: int, size: int, failures: _Failures) -> dict:
    complete = 0
    for index in tqdm(range(groups), desc="groups"):
        scene = plan_group(derived_seed(0x6E, index), split="held-out")
        picture = photograph(renderer, scene, size).picture.cpu().numpy()
        faces = len(analyzer.analyze(picture))
        complete += faces == len(scene.members)
        if faces != len(scene.members):
            failures.save(picture, f"group-{index}-{faces}-of-{len(scene.members)}")
    return {"groups": groups, "groups with every face": round(complete / max(groups, 1), 4)}


def measure_speed(renderer: Renderer, pictures: int = 20) -> dict:
    """Pictures per minute of this one process, planning included; on a CPU also per minute of processor time, which
    says what a core does when it has nothing else to do."""
    result = {}
    for name, plan, height in (("portraits", plan_portrait, 128), ("groups", plan_group, 256)):
        first = plan(derived_seed(0x51, 0), split="held-out")
        photograph(renderer, first, height).picture.cpu()  # the first one fills the caches of the mesh
        start, busy = time.perf_counter(), time.process_time()
        for k in range(1, pictures + 1):
            scene = plan(derived_seed(0x51, k), split="held-out")
            photograph(renderer, scene, height).picture.cpu()
        passed, busy = time.perf_counter() - start, time.process_time() - busy
        result[f"{name} per minute at {height} px"] = round(60 * pictures / passed, 1)
        if renderer.device.type == "cpu":
            result[f"{name} per minute of processor time"] = round(60 * pictures / busy, 1)
    return result


def _facing(scene: Scene) -> Scene:
    """The same scene with the face within LARGEST_YAW of the camera."""
    members = []
    for member in scene.members:
        look = member.appearance
        turn = _within(look.turn)
        look = replace(look, turn=turn, yaw=_within(look.yaw + look.turn) - turn)
        members.append(replace(member, appearance=look))
    return replace(scene, members=tuple(members))


def _within(angle: float) -> float:
    return min(max(angle, -LARGEST_YAW), LARGEST_YAW)


def _verification(name: str, similarity: np.ndarray) -> dict:
    """similarity: (n, n), row and column k the same person."""
    same = np.diag(similarity)
    different = similarity[~np.eye(len(similarity), dtype=bool)]
    return {
        f"{name}: AUC": round(area_under_curve(same, different), 4),
        f"{name}: cosine of one person, mean": round(float(same.mean()), 3),
        f"{name}: cosine of different people, mean": round(float(different.mean()), 3),
    }


def area_under_curve(positive: np.ndarray, negative: np.ndarray) -> float:
    """Probability that a positive exceeds a negative, ties counted half."""
    negative = np.sort(negative)
    below = np.searchsorted(negative, positive, side="left")
    up_to = np.searchsorted(negative, positive, side="right")
    return float((below + up_to).mean() / (2 * len(negative)))


@dataclass(frozen=True)
class _Failures:
    folder: Path | None

    def save(self, picture: np.ndarray, name: str) -> None:
        if self.folder is not None:
            from PIL import Image

            self.folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(self.folder / f"{name}.png")


def _analyzer(pack: Path):
    from core.faces import FaceAnalyzer

    return FaceAnalyzer(pack)


if __name__ == "__main__":
    main()
