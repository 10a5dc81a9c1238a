"""Pages in a real browser, over a dataset of a hundred thousand samples."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pytest
import requests
from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright

from tests.integration.platform.caller import Caller
from tests.integration.platform.conftest import TOKEN
from tests.leaks import OUTPUTS
from watcher.domain.bitmask import BitMask
from watcher.platform.secrets import new_id
from watcher.platform.server import PlatformServer
from watcher.platform.settings import PlatformConfig
from watcher.platform.store import datasets as dataset_store
from watcher.platform.store import samples as sample_store

N = 100_000
N_PICKED = 90


def build_thumbnail(index: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (128, 96), ((index * 37) % 256, (index * 91) % 256, 120)).save(file, "WEBP")
    return file.getvalue()


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> dict:
    """A server with a large dataset: tags, two rounds of picks, a projection, some thumbnails."""
    folder = tmp_path_factory.mktemp("pages")
    (folder / "root").mkdir()
    server = PlatformServer(
        PlatformConfig(token=TOKEN, datasource_root=folder / "root", data_dir=folder / "data", port=0),
        work=False,
    )
    server.start()
    with Caller(server.url, TOKEN) as api:
        dataset = api.create_dataset("street scenes")
        dataset_id = dataset[-24:]
        with server.platform.database.write() as session:
            columns = {"type": "IMAGE", "size_in_bytes": 0, "created_at": 0, "modified_at": 0}
            rows = [
                {
                    **columns,
                    "id": new_id(0),
                    "dataset_id": dataset_id,
                    "position": i,
                    "file_name": f"<b>{i:06}.jpg",
                }
                for i in range(N)
            ]
            for first in range(0, N, 10_000):
                sample_store.insert_samples(session, rows=rows[first : first + 10_000])
            dataset_store.update_dataset(session, dataset_id=dataset_id, values={"n_samples": N})
        initial = api.create_initial_tag(dataset)
        first = {"name": "first picks", "prevTagId": initial, "totSize": N}
        first["bitMaskData"] = BitMask.from_indices(range(N_PICKED // 2)).to_hex()
        first_id = api("POST", f"{dataset}/tags", 201, json=first)["id"]
        second = {"name": "second picks", "prevTagId": first_id, "preselectedTagId": first_id, "totSize": N}
        second["bitMaskData"] = BitMask.from_indices(range(N_PICKED)).to_hex()
        api("POST", f"{dataset}/tags", 201, json=second)
        for row in rows[:N_PICKED]:
            url = api("GET", f"{dataset}/samples/{row['id']}/writeurl", params={"isThumbnail": "true"})
            requests.put(url, data=build_thumbnail(row["position"]), timeout=5)
        embedding = api("GET", f"{dataset}/embeddings/writeCSVUrl")["embeddingId"]
        points = np.random.default_rng(0).normal(size=(N, 2))
        points[0] = (8.0, 0.0)  # alone at the right edge, so that a pointer finds it
        body = {
            "name": "PCA",
            "dimensionalityReductionMethod": "PCA",
            "coordinatesDimension1": points[:, 0].tolist(),
            "coordinatesDimension2": points[:, 1].tolist(),
        }
        api("POST", f"{dataset}/embeddings/{embedding}/2d", 201, json=body)
    yield {"url": server.url, "dataset": dataset_id, "points": points}
    server.stop()


@pytest.fixture(scope="module")
def browser(chromium_path: Path, tmp_path_factory: pytest.TempPathFactory):
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(chromium_path), args=["--no-sandbox"])
        yield OUTPUTS.record(browser, tmp_path_factory.mktemp("recordings"))
        browser.close()


@pytest.fixture
def page(browser, large) -> Page:
    context = browser.new_context(base_url=large["url"])
    context.set_default_timeout(20_000)
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto("/")
    page.get_by_label("Token").fill(TOKEN)
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("heading", name="Datasets")).to_be_visible()
    yield page
    context.close()
    assert errors == []


@pytest.mark.timeout(300)
def test_login_with_a_wrong_token_is_refused_and_pages_need_it(browser, large):
    with browser.new_context(base_url=large["url"]) as context:
        page = context.new_page()
        page.goto(f"/pages/datasets/{large['dataset']}")
        assert page.url.endswith("/login")
        page.get_by_label("Token").fill("wrong-token")
        page.get_by_role("button", name="Log in").click()
        expect(page.get_by_role("alert")).to_be_visible()


@pytest.mark.timeout(300)
def test_from_the_list_to_the_picked_thumbnails(page, large):
    page.get_by_role("link", name="street scenes").click()
    expect(page.get_by_text("100,000 samples")).to_be_visible()
    page.get_by_role("link", name="second picks").click()
    images = page.locator(".gallery img")
    expect(images).to_have_count(60)
    expect(page.locator(".gallery .earlier")).to_have_count(N_PICKED // 2)
    images.first.scroll_into_view_if_needed()
    expect(images.first).to_have_js_property("naturalWidth", 128)
    # A name is text, whatever it holds.
    expect(page.locator(".gallery .name").first).to_have_text("<b>000000.jpg")
    page.get_by_role("link", name="Later").first.click()
    expect(images).to_have_count(30)


@pytest.mark.timeout(300)
def test_initial_tag_of_all_samples_is_a_gallery_too(page, large):
    page.goto(f"/pages/datasets/{large['dataset']}")
    page.get_by_role("link", name="initial-tag").click()
    expect(page.get_by_text("Page 1 of 1667").first).to_be_visible()


@pytest.mark.timeout(300)
def test_scatter_draws_every_point_and_shows_a_thumbnail(page, large):
    page.goto(f"/pages/datasets/{large['dataset']}")
    page.get_by_role("link", name="default").click()
    expect(page.locator("#state")).to_have_text(f"{N} samples, {N_PICKED} highlighted")
    canvas = page.locator("#scatter")
    box = canvas.bounding_box()
    points = large["points"]
    low, high = points.min(axis=0), points.max(axis=0)
    scale = min((900 - 24) / (high[0] - low[0]), (700 - 24) / (high[1] - low[1]))
    zoom = box["width"] / 900
    x = (12 + (points[0, 0] - low[0]) * scale) * zoom
    y = (700 - 12 - (points[0, 1] - low[1]) * scale) * zoom
    canvas.hover(position={"x": x, "y": y})
    expect(page.locator("#position")).to_have_text("Sample 0, picked")
    expect(page.locator("#thumbnail")).to_have_js_property("naturalWidth", 128)


def test_cookie_is_closed_to_scripts_and_forgery(large):
    answer = requests.post(f"{large['url']}/login", data={"token": TOKEN}, allow_redirects=False, timeout=5)
    header = answer.headers["Set-Cookie"].lower()
    assert "httponly" in header
    assert "samesite=strict" in header
    assert TOKEN not in header
    value = answer.cookies["platform_session"]
    for cookie in (
        value,
        value[:-1] + ("0" if value[-1] != "0" else "1"),
        value.replace(".", ".9", 1),
        "x.y.z",
        "",
    ):
        page = requests.get(
            f"{large['url']}/pages/jobs",
            cookies={"platform_session": cookie},
            allow_redirects=False,
            timeout=5,
        )
        assert page.status_code == (200 if cookie == value else 303)
    assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
    # The interface itself takes no cookie, so no page elsewhere can use it.
    api = requests.get(f"{large['url']}/v1/datasets", cookies={"platform_session": value}, timeout=5)
    assert api.status_code == 401


def test_other_users_pages_are_unknown_and_tell_it_in_a_page(large, build_server):
    answer = requests.post(f"{large['url']}/login", data={"token": TOKEN}, allow_redirects=False, timeout=5)
    page = requests.get(f"{large['url']}/pages/datasets/{'0' * 24}", cookies=answer.cookies, timeout=5)
    assert page.status_code == 404
    assert page.headers["Content-Type"].startswith("text/html")
    assert "there is no such dataset for this token" in page.text


@pytest.mark.timeout(300)
def test_pages_fit_a_phone_whatever_the_names_and_a_finger_finds_a_point(browser, large):
    """Long names without a blank once made pages sixteen times as wide as the screen."""
    with Caller(large["url"], TOKEN) as api:
        dataset = api.create_dataset("long" * 60)
        api.create_samples(dataset, ["x" * 250 + ".jpg", "b.jpg"])
        initial = api.create_initial_tag(dataset)
        body = {"name": "w" * 240, "prevTagId": initial, "totSize": 2, "bitMaskData": "0x1"}
        tag = api("POST", f"{dataset}/tags", 201, json=body)["id"]
        embedding = api("GET", f"{dataset}/embeddings/writeCSVUrl", params={"name": "e" * 240})["embeddingId"]
        points = {"coordinatesDimension1": [0.0, 1.0], "coordinatesDimension2": [0.0, 1.0]}
        body = {"name": "PCA", "dimensionalityReductionMethod": "PCA", **points}
        api("POST", f"{dataset}/embeddings/{embedding}/2d", 201, json=body)
    here = f"/pages/datasets/{dataset[-24:]}"
    with browser.new_context(
        base_url=large["url"], viewport={"width": 375, "height": 700}, has_touch=True, is_mobile=True
    ) as context:
        context.set_default_timeout(20_000)
        page = context.new_page()
        page.goto("/login")
        page.get_by_label("Token").fill(TOKEN)
        page.get_by_role("button", name="Log in").click()
        for address in ("/", here, f"{here}/tags/{tag}", "/pages/jobs", f"{here}/embeddings/{embedding}"):
            page.goto(address)
            assert page.evaluate("document.documentElement.scrollWidth") == 375, address
        expect(page.locator("#state")).to_have_text("2 samples, 1 highlighted")
        # The first sample lies in the lower left corner; the finger comes down beside it.
        height = page.locator("#scatter").bounding_box()["height"]
        page.locator("#scatter").tap(position={"x": 22, "y": height - 14})
        expect(page.locator("#position")).to_have_text("Sample 0, picked")


def test_gallery_shows_the_picture_of_the_datasource_where_no_thumbnail_was_uploaded(build_server, root):
    (root / "in" / "a b.jpg").write_bytes(build_thumbnail(1))
    server = build_server()
    with Caller(server.url, TOKEN) as api, requests.Session() as session:
        dataset = api.create_dataset()
        api.set_local(dataset)
        api.create_samples(dataset, ["a b.jpg"])
        tag = api.create_initial_tag(dataset)
        session.post(f"{server.url}/login", data={"token": TOKEN}, timeout=10)
        page = session.get(f"{server.url}/pages/datasets/{dataset[-24:]}/tags/{tag}", timeout=10).text
        (source,) = re.findall(r'<img src="([^"]+)"', page)
        picture = session.get(server.url + source, timeout=10)
    assert picture.content == build_thumbnail(1)
