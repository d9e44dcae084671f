"""Who is in the picture: uploads, bundled examples, names and order."""

from __future__ import annotations

import io
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from core.images import PictureError, read_picture
from core.portraits import largest_face, prepare_person
from core.prompts import OLDEST, YOUNGEST
from studio.context import Studio, file_url
from studio.draft import Draft
from studio.intake import FoundFace, Upload, read_upload
from studio.model_host import ModelsNotReady
from studio.store import NewPortrait
from studio.store.engine import StoreError
from studio.store.models import Portrait, PortraitOrigin
from studio.widgets.examples import example_strip
from studio.widgets.portraits import portrait_list

EXAMPLES = Path(__file__).resolve().parents[2] / "assets" / "portraits"
CONSENT = (
    "I may use these portraits: they show me, or people who agreed. They stay on this machine, and everything made "
    "from them can be deleted."
)
PICTURE_ENDINGS = [".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"]


@dataclass(frozen=True, eq=False)
class PeoplePanel:
    consent: gr.Checkbox
    files: gr.File
    notice: gr.HTML
    people: gr.HTML
    examples: gr.Accordion


def build(studio: Studio) -> PeoplePanel:
    most = studio.most_people
    gr.Markdown(f"### 1 · People\nOne portrait of each person, up to {most}. Their order is the order in the prompt.")
    people = portrait_list(elem_id="people")
    consent = gr.Checkbox(label=CONSENT, value=False, elem_id="consent")
    files = gr.File(
        label="Drop portraits here, or click",
        file_count="multiple",
        file_types=PICTURE_ENDINGS,
        height=84,
        elem_id="portrait-files",
    )
    notice = gr.HTML(elem_id="people-notice")
    found = example_files()
    with gr.Accordion("Example people (rendered, nobody real)", visible=bool(found)) as examples:
        example_strip([{"picture": file_url(path), "name": example_name(path)} for path in found], elem_id="examples")
    return PeoplePanel(consent, files, notice, people, examples)


def example_files() -> list[Path]:
    """The first portrait of each bundled person; an empty list in a checkout without them."""
    return sorted(path for path in EXAMPLES.glob("person-*-a.*") if path.suffix in PICTURE_ENDINGS)


def example_name(path: Path) -> str:
    """What an example is called: `person-03-a.jpg` shows "Person 3"."""
    _, number, _ = path.stem.split("-")
    return f"Person {int(number)}"


def wire(panel: PeoplePanel, studio: Studio, draft: gr.BrowserState) -> None:
    shown = [draft, panel.people, panel.notice]

    def upload(paths: list[str] | None, consented: bool, state: dict[str, Any]) -> tuple[Any, ...]:
        current, problems = Draft.read(state), []
        if not (consented or consent_given(studio, current)):
            problems.append("Tick the line above first: it says what may be used.")
            paths = None
        for path in map(Path, paths or ()):
            try:
                current = add_file(studio, current, path)
            except (PictureError, StoreError, ModelsNotReady, ValueError) as error:
                problems.append(str(error))
        asking = gr.update(visible=not consent_given(studio, current))
        return current.write(), listing(studio, current), _notice(problems), None, asking

    def act(state: dict[str, Any], event: gr.EventData) -> tuple[Any, ...]:
        current, problems = Draft.read(state), []
        try:
            current = _act(studio, current, event)
        except (PictureError, StoreError, ModelsNotReady, ValueError) as error:
            problems.append(str(error))
        return current.write(), listing(studio, current), _notice(problems)

    private = {"api_visibility": "private"}
    panel.files.upload(upload, [panel.files, panel.consent, draft], [*shown, panel.files, panel.consent], **private)
    panel.people.act(act, [draft], shown, show_progress="hidden", trigger_mode="multiple", **private)


def consent_given(studio: Studio, draft: Draft) -> bool:
    """Whether this browser has agreed to the sentence above the uploads."""
    return studio.store.people.latest_consent(draft.owner(studio.store).id, CONSENT) is not None


def listing(studio: Studio, draft: Draft) -> list[dict[str, Any]]:
    """The value of the portrait list; portraits deleted meanwhile are left out."""
    rows = []
    for portrait_id in draft.portraits:
        try:
            (portrait,) = studio.store.people.portraits([portrait_id])
        except StoreError:
            continue
        path = studio.store.media.path(portrait.picture_sha256)
        with Image.open(path) as picture:
            width, height = picture.size
        boxes = _boxes(studio, portrait)
        rows.append(
            {
                "id": portrait.id,
                "name": portrait.person.name,
                "picture": file_url(path),
                "width": width,
                "height": height,
                "boxes": boxes,
                "chosen": boxes.index(portrait.box),
                "hints": portrait.hints,
                "age": draft.ages.get(portrait.id),
            }
        )
    return rows


def _boxes(studio: Studio, portrait: Portrait) -> list[list[float]]:
    """All faces of a portrait's picture, so that another one can be chosen; the chosen one alone until models load."""
    try:
        upload = _analysed(studio, portrait.picture_sha256)
    except ModelsNotReady:
        return [portrait.box]
    boxes = [_box(found) for found in upload.faces]
    return boxes if portrait.box in boxes else [portrait.box]


def _analysed(studio: Studio, picture_sha256: str) -> Upload:
    path, analyzer = studio.store.media.path(picture_sha256), studio.host.analyzer
    if analyzer is None:
        raise ModelsNotReady("There is no face pack, so no faces can be found.")
    return studio.host.bundle.encodings.get(("faces", picture_sha256), lambda: read_upload(path, analyzer))


def _box(found: FoundFace) -> list[float]:
    return [float(edge) for edge in found.face.box]


def add_file(
    studio: Studio,
    draft: Draft,
    path: Path,
    *,
    name: str | None = None,
    origin: PortraitOrigin = PortraitOrigin.UPLOAD,
) -> Draft:
    """The draft with the largest face of one more file, stored with its owner's consent.

    `name`: of the person; the file's own when absent.

    Raises:
        PictureError, StoreError, ModelsNotReady, ValueError: it cannot be used; the message is one sentence.
    """
    most = studio.most_people
    if len(draft.portraits) >= most:
        raise ValueError(f"{path.name} was left out: {most} people are the most in one picture here.")
    studio.host.wait()
    if studio.host.analyzer is None:
        raise ModelsNotReady("Portraits cannot be read without a face pack; see the line at the top of the page.")
    upload = read_upload(path, studio.host.analyzer)
    chosen = largest_face([found.face for found in upload.faces])
    if chosen is None:
        raise ValueError(f"{path.name}: no face was found; use a picture in which the face is larger or clearer.")
    found = next(found for found in upload.faces if found.face is chosen)
    owner = draft.owner(studio.store)
    consent = None
    if origin is PortraitOrigin.UPLOAD:
        consent = studio.store.people.latest_consent(owner.id, CONSENT)
        consent = consent or studio.store.people.give_consent(CONSENT, owner.id)
    person = studio.store.people.add_person(name or path.stem[:60].strip() or "somebody", owner_id=owner.id)
    picture = studio.store.media.add(_jpeg(upload.picture), ".jpg")
    # Analysed again from what was kept, so that boxes belong to exactly the stored pixels.
    kept = _analysed(studio, picture)
    found = min(kept.faces, key=lambda face: float(np.abs(face.face.box - found.face.box).sum()), default=found)
    portrait = studio.store.people.add_portrait(
        person.id, _new_portrait(studio, picture, found, upload.source_sha256, origin, consent and consent.id)
    )
    return draft.with_portrait(portrait.id)


def _new_portrait(
    studio: Studio, picture: str, found: FoundFace, source: str | None, origin: PortraitOrigin, consent_id: str | None
) -> NewPortrait:
    return NewPortrait(
        picture_sha256=picture,
        crop_sha256=studio.store.media.add(_jpeg(found.crop), ".jpg"),
        source_sha256=source,
        box=_box(found),
        landmarks=found.face.landmarks.tolist(),
        embedding=found.face.embedding,
        face_pack=studio.host.analyzer.name,
        detection_score=float(found.face.score),
        hints=found.hints,
        origin=origin,
        consent_id=consent_id,
    )


def _act(studio: Studio, draft: Draft, event: gr.EventData) -> Draft:
    if event.action == "example":
        path = example_files()[int(event.index)]
        return add_file(studio, draft, path, name=example_name(path), origin=PortraitOrigin.EXAMPLE)
    if event.id not in draft.portraits:
        return draft
    if event.action == "move":
        return draft.moved(event.id, int(event.to))
    if event.action == "remove":
        return draft.without_portrait(event.id)
    if event.action == "age":
        return draft.aged(event.id, read_age(event.age))
    (portrait,) = studio.store.people.portraits([event.id])
    if event.action == "rename":
        studio.store.people.rename(portrait.person_id, str(event.name))
        return draft
    if event.action == "choose":
        found = _analysed(studio, portrait.picture_sha256).faces[int(event.face)]
        new = studio.store.people.add_portrait(
            portrait.person_id,
            _new_portrait(
                studio,
                portrait.picture_sha256,
                found,
                portrait.source_sha256,
                portrait.origin,
                portrait.consent_id,
            ),
        )
        return draft.replaced(portrait.id, new.id)
    raise ValueError(f"The list of people knows no action {event.action!r}.")


def read_age(text: Any) -> int | None:
    """Years from what was typed; None where the field is empty. Raises ValueError with a sentence."""
    if text in (None, ""):
        return None
    if not str(text).isdecimal() or not YOUNGEST <= int(text) <= OLDEST:
        raise ValueError(f"Age {str(text)[:20]!r} cannot be asked for; give {YOUNGEST} to {OLDEST} years.")
    return int(text)


def _jpeg(picture: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=95, subsampling=0)
    return buffer.getvalue()


def _notice(problems: list[str]) -> str:
    return "".join(f'<p class="problem" role="alert">{escape(problem)}</p>' for problem in problems)


def crops(studio: Studio, draft: Draft, side: int) -> list[np.ndarray]:
    """The chosen faces of the draft's portraits as the model sees them, (side, side, 3) uint8, in order."""
    return [
        prepare_person(
            read_picture(studio.store.media.path(portrait.picture_sha256)),
            number,
            studio.host.analyzer,
            side,
            box=portrait.box,
        ).crop
        for number, portrait in enumerate(studio.store.people.portraits(draft.portraits), start=1)
    ]
