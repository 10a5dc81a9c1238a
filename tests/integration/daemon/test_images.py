"""Pictures as cameras, phones and mistakes make them: each with its own outcome, none in another's way."""

from __future__ import annotations

import io
import time
from typing import Any

import pytest
from PIL import Image, features

from tests.integration.daemon.test_pipeline import Pipeline, pipeline
from watcher.domain.models import BatchState, SampleState, Step
from watcher.domain.step_rules import UploadMode, UploadRules
from watcher.lightly import samples as remote_samples

__all__ = ["pipeline"]


def draw(kind: str, *, mode: str = "RGB", size: tuple[int, int] = (40, 30), **options: Any) -> bytes:
    picture = Image.new("RGB", size, (200, 40, 90))
    picture.paste((10, 220, 30), (0, 0, size[0] // 2, size[1] // 2))
    buffer = io.BytesIO()
    picture.convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return draw("JPEG", exif=exif)


def bomb() -> bytes:
    buffer = io.BytesIO()
    Image.new("1", (2000, 1100)).save(buffer, "PNG")
    return buffer.getvalue()


def animated(kind: str) -> bytes:
    more = [Image.new("RGB", (40, 30), (level, 0, 0)) for level in (20, 200)]
    return draw(kind, mode="P" if kind == "GIF" else "RGB", save_all=True, append_images=more)


GOOD = {
    "a.jpg": draw("JPEG"),
    "b.png": draw("PNG"),
    "c.webp": draw("WEBP"),
    "d.tif": draw("TIFF"),
    "e.bmp": draw("BMP"),
    "f.ppm": draw("PPM"),
    "g.pgm": draw("PPM", mode="L"),
    "h.gif": draw("GIF", mode="P"),
    "i-16-bit.png": draw("PNG", mode="I;16"),
    "j-cmyk.jpg": draw("JPEG", mode="CMYK"),
    "k-alpha.png": draw("PNG", mode="RGBA"),
    "l-animated.gif": animated("GIF"),
    "m-animated.webp": animated("WEBP"),
    "n-png-called.jpg": draw("PNG"),
    "o-no-ending": draw("JPEG"),
    "p-turned.jpg": turned(),
    **({"q.avif": draw("AVIF")} if features.check("avif") else {}),
}
BAD = {
    "broken.png": (draw("PNG")[:20] + b"\xff" * 12 + draw("PNG")[32:], "broken PNG file"),
    "empty.jpg": (b"", "the file is empty"),
    "text.jpg": (b"<html>not a picture</html>", "not a picture of a known format"),
    "bomb.png": (bomb(), "too many pixels: 2000 x 1100"),
    "heavy.bmp": (draw("BMP", size=(300, 200)), "too large"),
    "cut.png": (draw("PNG", size=(99, 99))[:-60], "ends early"),
}


@pytest.fixture
def run(pipeline: Pipeline) -> Any:
    def act(files: dict[str, bytes]) -> None:
        pipeline.scene.change(
            steps=(Step.UPLOAD, Step.EMBED),
            upload=UploadRules(
                workers=3,
                settle_attempts=0,
                max_bytes=100_000,
                max_pixels=2_000_000,
                mode=UploadMode.THUMBNAILS,
            ),
        )
        for name, body in files.items():
            pipeline.scene.put(name, body, modified_s=time.time() - 60)
        pipeline.poll()
        pipeline.run_all()

    return act


def test_pictures_of_every_kind_are_registered_beside_bad_ones_that_are_quarantined(
    pipeline: Pipeline, run: Any
) -> None:
    run({**GOOD, **{name: body for name, (body, _) in BAD.items()}})
    ledger = pipeline.scene.load_ledger()
    assert {name for name, row in ledger.items() if row.state is SampleState.DONE} == set(GOOD)
    for name, (_, reason) in BAD.items():
        assert ledger[name].state is SampleState.QUARANTINED
        assert reason in str(ledger[name].reason), name
    assert pipeline.list_remote() == sorted(GOOD)
    assert pipeline.load_batch_state() is BatchState.DONE


def test_turned_picture_has_an_upright_thumbnail_and_values_as_stored(pipeline: Pipeline, run: Any) -> None:
    run({"turned.jpg": turned(), "plain.jpg": draw("JPEG")})
    transport = pipeline.scene.build_transport()
    found = {}
    for name in ("turned.jpg", "plain.jpg"):
        sample = remote_samples.fetch_sample_by_file_name(
            transport, dataset_id=pipeline.dataset_id, file_name=name
        )
        assert sample is not None
        url = remote_samples.fetch_read_url(
            transport, dataset_id=pipeline.dataset_id, sample_id=sample.id, kind="thumbnail"
        )
        thumbnail = Image.open(io.BytesIO(transport.read_url_bytes(url, max_bytes=10**6).body))
        found[name] = (sample.meta_data, thumbnail.size)
    assert found["turned.jpg"][1] == (30, 40)
    assert found["plain.jpg"][1] == (40, 30)
    # The values are those of the stored pixels, whatever EXIF says of them.
    assert found["turned.jpg"][0].shape == found["plain.jpg"][0].shape == [30, 40, 3]
    assert found["turned.jpg"][0].mean == found["plain.jpg"][0].mean


def test_upload_with_hardly_any_room_goes_one_by_one(
    pipeline: Pipeline, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from watcher.jobs import context
    from watcher.jobs.room import Room

    rooms: list[Room] = []

    def build(_limit: int) -> Room:
        rooms.append(Room(1))
        return rooms[-1]

    monkeypatch.setattr(context, "Room", build)
    run({f"{number}.jpg": draw("JPEG") for number in range(6)})
    assert {row.state for row in pipeline.scene.load_ledger().values()} == {SampleState.DONE}
    assert rooms
    assert [room.used for room in rooms] == [0] * len(rooms)
