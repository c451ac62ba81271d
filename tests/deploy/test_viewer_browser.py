"""The viewer in Chromium: every control is driven, and its effect read back from pixels or DOM."""

import base64
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pandas as pd
import pytest

import lucency as lu
from browsers import CHROMIUM, needs_chromium
from dicom_films import dicom_bytes
from lucency.core.manifest import Manifest, Preparation, Prepared, empty_boxes
from lucency.core.predictions import load_predictions
from lucency.data.dicom import decode_dicom
from lucency.deploy.film_list import FilmList
from lucency.deploy.guard import ServiceSettings
from lucency.deploy.listening import StoppableServer, bind, server_config
from lucency.deploy.service import create_app
from lucency.deploy.start import leading_page
from lucency.deploy.verdicts import read_verdicts
from lucency.deploy.viewer import viewer_routes
from lucency.deploy.viewer_films import RUN_ONLY, Viewer, open_viewer
from lucency.pipeline.library import Model
from viewer_run import CELLS, HOSTILE_IMAGE, HOT, SCRIPT, copy_run, known_maps, plant_script

pytestmark = [pytest.mark.slow, needs_chromium]
WHOLE = 112_120
TOKEN = "0123456789abcdef"
DEEP = (np.arange(64)[:, None] * 255 + np.arange(80)[None, :] * 3).astype(np.uint16)
WIDE, NARROW = {"width": 1440, "height": 900}, {"width": 400, "height": 800}


class Place(NamedTuple):
    """A viewer that is served, and its address with the token."""

    viewer: Viewer
    address: str


@contextmanager
def served(model: Model, viewer: Viewer) -> Iterator[str]:
    with bind("127.0.0.1", 0) as listening:
        port = listening.getsockname()[1]
        settings = ServiceSettings(
            port=port, token=TOKEN, decoders=1, run=viewer.run.out if viewer.run else None
        )
        routes = viewer_routes(viewer)
        app = create_app(model, settings=settings, routes=routes, log=lambda _: None)
        server = StoppableServer(server_config(app, settings))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            wait(lambda: server.started)
            yield f"http://127.0.0.1:{port}/?token={TOKEN}"
        finally:
            server.should_exit = True
            thread.join(30)


def wait(holds: Callable[[], Any], *, seconds: float = 30) -> Any:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if found := holds():
            return found
        time.sleep(0.02)
    raise AssertionError("nothing came of it")


@pytest.fixture(scope="module")
def model(finished: Path) -> Model:
    return lu.load(finished / "runs" / "demo")


@pytest.fixture(scope="module")
def run(finished: Path, model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = copy_run(finished, tmp_path_factory.mktemp("viewed") / "demo")
    known_maps(run, model.name)
    return run


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A film of 14 bits, and one with a bright square on black."""
    folder = tmp_path_factory.mktemp("films")
    square = np.zeros((100, 100), dtype=np.uint8)
    square[30:40, 60:70] = 255
    for name, pixels in (("deep.png", DEEP), ("square.png", square)):
        cv2.imwrite(str(folder / name), pixels)
    return [folder / "deep.png", folder / "square.png"]


@pytest.fixture(scope="module")
def place(model: Model, run: Path, films: list[Path]) -> Iterator[Place]:
    viewer = open_viewer(model, run=run, films=films)
    with served(model, viewer) as address:
        yield Place(viewer, address)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM)
        yield chromium
        chromium.close()


class Wanted(NamedTuple):
    """What pages ask for and complain of."""

    requests: list[str]
    complaints: list[str]


@contextmanager
def opened(browser: Any, address: str, **choices: Any) -> Iterator[Any]:
    """Lend a page at an address, which requests nothing elsewhere and complains of nothing."""
    seen = Wanted([], [])
    context = browser.new_context(**{"viewport": WIDE, "reduced_motion": "reduce", **choices})
    with ExitStack() as ending:
        ending.callback(context.close)
        context.on("request", lambda request: seen.requests.append(request.url))
        page = context.new_page()
        page.on("pageerror", lambda error: seen.complaints.append(str(error)))
        page.on("console", lambda line: seen.complaints.append(line.text))
        page.goto(address)
        page.wait_for_url(address.split("?", maxsplit=1)[0])
        yield page
        host = address.split("?", maxsplit=1)[0]
        assert [url for url in seen.requests if not url.startswith(host)] == []
        refused = [text for text in seen.complaints if not re.search("status of 4(00|22)", text)]
        assert refused == []


@pytest.fixture
def page(browser: Any, place: Place) -> Iterator[Any]:
    with opened(browser, place.address) as page:
        until(page, "document.querySelectorAll('.finding .number')[0]?.textContent.length > 1")
        settle(page)
        yield page


def shows(page: Any, name: str, where: str = "name") -> None:
    until(page, f"document.getElementById('{where}').textContent === '{name}'")
    settle(page)


def until(page: Any, words: str) -> None:
    wait(lambda: page.evaluate(f"Boolean({words})"))


def settle(page: Any) -> None:
    """Wait until what was begun is drawn."""
    until(page, "!document.body.hasAttribute('aria-busy')")
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def press(page: Any, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)
    settle(page)


def show(page: Any, name: str) -> None:
    """Show an added film."""
    page.click(f"#added button:text-is('{name}')")
    until(page, f"document.getElementById('name').textContent === '{name}'")
    settle(page)


def seen(page: Any, canvas: str = "canvas") -> np.ndarray:
    """Return a canvas as h w 3, in RGB."""
    text = page.evaluate(f"document.getElementById('{canvas}').toDataURL('image/png')")
    encoded = np.frombuffer(base64.b64decode(text.partition(",")[2]), dtype=np.uint8)
    return cv2.cvtColor(cv2.imdecode(encoded, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def at_centres(shown: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return what a canvas shows at the centres of a whole film's pixels, which are magnified."""
    (height, width), (down, across) = shown.shape[:2], shape
    scale = min(width / across, height / down)
    left, top = (width - across * scale) / 2, (height - down * scale) / 2
    y = np.floor(top + (np.arange(down) + 0.5) * scale).astype(int)
    x = np.floor(left + (np.arange(across) + 0.5) * scale).astype(int)
    return shown[np.ix_(y, x)].astype(int)


def reading(page: Any) -> tuple[float, float, float]:
    """Return level, window and zoom as the page states them."""
    text = page.text_content("#reading")
    found = re.search(r"level (-?\d+), window (\d+) · zoom ([\d.]+)", text)
    assert found, text
    return float(found[1]), float(found[2]), float(found[3])


def centre(shown: np.ndarray) -> tuple[float, float]:
    """Return the centre (x, y) of what is bright."""
    y, x = np.nonzero(shown[:, :, 0] > 128)
    return float(x.mean()), float(y.mean())


def width_of_square(shown: np.ndarray) -> float:
    return float(np.sqrt((shown[:, :, 0] > 128).sum()))


# --- start and list --------------------------------------------------------------------------


def test_the_first_picture_comes_within_a_second(browser: Any, place: Place):
    took = []
    for _ in range(3):
        with opened(browser, place.address) as page:
            until(page, "performance.getEntriesByName('first-picture').length")
            took.append(page.evaluate("performance.getEntriesByName('first-picture')[0].startTime"))
            settle(page)
    assert min(took) <= 1_000, f"{took} ms"


def counted(page: Any, wanted: int, of: int = 60) -> None:
    text = f"{of} films" if wanted == of else f"{wanted} of {of} films"
    until(page, f"document.getElementById('count').textContent === '{text}'")


def test_the_list_filters(page: Any, run: Path, model: Model):
    films = pd.read_csv(run / "prepared" / "manifest.csv", keep_default_na=False)
    part = pd.read_csv(run / "split" / "part.csv")["part"]
    confusion = pd.read_csv(run / "evaluation" / "confusion.csv")
    mine = confusion.loc[
        (confusion["network"] == model.name) & (confusion["finding"] == "Effusion")
    ]
    counted(page, 60)
    page.select_option("[name=part]", "test")
    counted(page, int((part == "test").sum()))
    page.select_option("[name=finding]", "Effusion")
    page.select_option("[name=error]", "missed")
    counted(page, int(mine["fn"].iloc[0]))
    page.select_option("[name=error]", "false alarm")
    counted(page, int(mine["fp"].iloc[0]))
    page.click("#filters button[type=reset]")
    counted(page, 60)
    page.select_option("[name=view]", "AP")
    counted(page, int((films["view"] == "AP").sum()))
    page.click("#filters button[type=reset]")
    page.fill("[name=text]", films["image"][9])
    counted(page, 1)
    assert page.text_content(".row strong") == films["image"][9]
    press(page, "Escape")
    assert page.input_value("[name=text]") == films["image"][9]
    page.click("#filters button[type=reset]")
    counted(page, 60)
    page.select_option("[name=error]", "label error")
    until(page, "document.getElementById('count').textContent.includes(' of 60')")


def test_the_list_filters_by_probability_and_orders(page: Any, run: Path, model: Model):
    predictions = load_predictions(run / "predictions" / model.name / "predictions.npz")
    best = np.sort(predictions.probability.max(axis=1))[::-1]
    low = float(np.round(np.median(best), 2))
    page.fill("[name=low]", str(low))
    page.select_option("[name=order]", "highest")
    counted(page, int((best >= low).sum()))
    until(page, "document.querySelectorAll('.row .number').length > 3")
    rows = page.evaluate(
        "[...document.querySelectorAll('.row')].sort((a, b) => a.dataset.index - b.dataset.index)"
        ".slice(0, 4).map((row) => Number(row.querySelector('.number').textContent))"
    )
    assert rows == [round(float(one), 2) for one in best[:4]]


def test_the_list_is_walked_by_keys(page: Any, place: Place):
    films = place.viewer.films
    assert films is not None
    press(page, "l", "Home")
    for key, row in (("ArrowDown", 1), ("ArrowDown", 2), ("ArrowUp", 1), ("End", 59), ("Home", 0)):
        press(page, key)
        name = films.manifest.image[row]
        until(page, f"document.getElementById('name').textContent === '{name}'")
        assert page.get_attribute("#list", "aria-activedescendant") == f"row-{row}"
        assert page.get_attribute(f"#row-{row}", "aria-selected") == "true"
    press(page, "g", "n")
    until(page, f"document.getElementById('name').textContent === '{films.manifest.image[1]}'")
    press(page, "p")
    until(page, f"document.getElementById('name').textContent === '{films.manifest.image[0]}'")
    page.click("#next")
    until(page, f"document.getElementById('name').textContent === '{films.manifest.image[1]}'")


def long_viewer(model: Model, path: Path) -> Viewer:
    random, findings = np.random.default_rng(0), model.findings
    shape, size = (WHOLE, len(findings)), model.preparation.size
    manifest = Manifest(
        findings=findings, image=np.array([f"{row:08d}_000.png" for row in range(WHOLE)]),
        patient=np.arange(WHOLE), label=(random.uniform(size=shape) < 0.05).astype(np.float32),
        facts=pd.DataFrame({"path": np.full(WHOLE, str(path))}), boxes=empty_boxes(), origin="",
    )  # fmt: skip
    films = FilmList(
        manifest=manifest, part=np.full(WHOLE, "test"), view=np.full(WHOLE, "PA"),
        probability=random.uniform(size=shape), threshold=model.threshold, predictions=None,
    )  # fmt: skip
    prepared = Prepared(
        manifest=manifest, preparation=Preparation(size=size),
        pixels=np.broadcast_to(np.uint8(99), (WHOLE, size, size)),
        rejected=pd.DataFrame({"image": [], "reason": []}),
    )  # fmt: skip
    return Viewer(model=model, run=None, films=films, prepared=prepared)


def test_112120_films_scroll(browser: Any, model: Model, films: list[Path]):
    with (
        served(model, long_viewer(model, films[1])) as address,
        opened(browser, address) as page,
    ):
        counted_text = f"{WHOLE:,} films"
        until(page, f"document.getElementById('count').textContent === '{counted_text}'")
        settle(page)
        for row in (56_000, WHOLE - 1, 3):
            start = time.perf_counter()
            page.evaluate(f"document.getElementById('list').scrollTop = {row} * 64")
            until(page, f"document.querySelector('#row-{row} strong')")
            assert time.perf_counter() - start < 2
            assert page.text_content(f"#row-{row} strong") == f"{row:08d}_000.png"
            assert page.evaluate("document.querySelectorAll('.row').length") < 40


# --- film ------------------------------------------------------------------------------------


def windowed(pixels: np.ndarray, level: float, window: float) -> np.ndarray:
    return np.clip((pixels - (level - window / 2)) / window, 0, 1) * 255


def test_window_and_level_work_on_the_whole_depth(page: Any):
    show(page, "deep.png")
    assert "80 \N{MULTIPLICATION SIGN} 64, 14 bit" in page.text_content("#reading")
    level, window, _ = reading(page)
    assert (level, window) == (8192, 16383)
    expected = windowed(DEEP, 8191.5, 16383)
    assert np.abs(at_centres(seen(page), DEEP.shape)[:, :, 0] - expected).max() <= 2
    press(page, *"[" * 16, *"," * 4)  # 1/16 of the depth: about a thousand values
    level, window, _ = reading(page)
    assert window == 1024
    assert level == pytest.approx((0.5 - 4 * 0.02) * 16383, abs=1)
    found = at_centres(seen(page), DEEP.shape)[:, :, 0]
    expected = windowed(DEEP, level, window)
    assert np.abs(found - expected).max() <= 3  # eight bits could show 4 greys here, not 200
    assert len(np.unique(found)) > 100
    press(page, "]", ".")
    wider = reading(page)
    assert wider[0] > level
    assert wider[1] > window


def test_dragging_changes_window_or_moves(page: Any):
    show(page, "deep.png")
    box = page.locator("#canvas").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    def drag(dx: float, dy: float, **how: Any) -> None:
        page.mouse.move(x, y)
        page.mouse.down(**how)
        page.mouse.move(x + dx, y + dy, steps=3)
        page.mouse.up(**how)
        settle(page)

    was = reading(page)
    drag(-150, 60, button="right")
    assert reading(page)[1] == pytest.approx(was[1] / 2, rel=0.02)
    assert reading(page)[0] > was[0]
    page.click("#drag")
    assert page.get_attribute("#drag", "aria-pressed") == "true"
    drag(-150, 0)
    assert reading(page)[1] == pytest.approx(was[1] / 4, rel=0.02)
    page.click("#drag")
    show(page, "square.png")
    before = centre(seen(page))
    drag(40, -25)
    after = centre(seen(page))
    assert (after[0] - before[0], after[1] - before[1]) == pytest.approx((40, -25), abs=1)


def test_a_film_is_zoomed_moved_and_reset_by_keys_buttons_and_wheel(page: Any):
    show(page, "square.png")
    whole = seen(page)
    first = width_of_square(whole)
    press(page, "+")
    assert width_of_square(seen(page)) == pytest.approx(1.25 * first, rel=0.03)
    press(page, "-")
    assert width_of_square(seen(page)) == pytest.approx(first, rel=0.03)
    page.click("#in")
    settle(page)
    assert reading(page)[2] == 1.25
    press(page, "0")
    assert np.array_equal(seen(page), whole)
    page.focus("#canvas")
    before = centre(seen(page))
    press(page, "ArrowLeft", "ArrowDown")
    after = centre(seen(page))
    assert (after[0] - before[0], after[1] - before[1]) == pytest.approx((24, -24), abs=1)
    page.click("#reset")
    settle(page)
    box = page.locator("#canvas").bounding_box()
    x, y = centre(seen(page))
    page.mouse.move(box["x"] + x, box["y"] + y)
    page.mouse.wheel(0, -300)
    settle(page)
    assert reading(page)[2] == 2
    assert centre(seen(page)) == pytest.approx((x, y), abs=2)  # the place under the wheel stays
    page.dblclick("#canvas")
    settle(page)
    assert reading(page)[2] == 1


def test_a_film_is_inverted(page: Any):
    show(page, "deep.png")
    before = at_centres(seen(page), DEEP.shape)
    press(page, "i")
    assert page.get_attribute("#invert", "aria-pressed") == "true"
    assert np.abs(at_centres(seen(page), DEEP.shape) + before - 255).max() <= 1
    page.click("#invert")
    settle(page)
    assert np.array_equal(at_centres(seen(page), DEEP.shape), before)


def test_two_fingers_zoom_and_one_moves(browser: Any, place: Place):
    with opened(browser, place.address, viewport=NARROW, has_touch=True, is_mobile=True) as page:
        settle(page)
        until(page, "document.getElementById('name').textContent")
        page.click("#tabs button[value=films]")
        page.click("#added button:text-is('square.png')")
        until(page, "document.getElementById('name').textContent === 'square.png'")
        page.click("#tabs button[value=film]")
        settle(page)
        box = page.locator("#canvas").bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        session = page.context.new_cdp_session(page)

        def touch(kind: str, *points: tuple[float, float]) -> None:
            held = [{"x": px, "y": py, "id": number} for number, (px, py) in enumerate(points)]
            session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": held})

        touch("touchStart", (x - 40, y), (x + 40, y))
        for apart in (50, 60, 70, 80):
            touch("touchMove", (x - apart, y), (x + apart, y))
        touch("touchEnd")
        settle(page)
        assert reading(page)[2] == pytest.approx(2, rel=0.1)
        before = centre(seen(page))
        touch("touchStart", (x, y))
        for step in (10, 20, 30):
            touch("touchMove", (x - step, y + step))
        touch("touchEnd")
        settle(page)
        after, ratio = centre(seen(page)), page.evaluate("devicePixelRatio")
        moved = (after[0] - before[0], after[1] - before[1])
        assert moved == pytest.approx((-30 * ratio, 30 * ratio), abs=4 * ratio)
        session.detach()


def test_clahe_is_that_of_the_preparation(page: Any, place: Place, model: Model):
    films = place.viewer.films
    assert films is not None
    press(page, "l", "Home", "b")
    grey = cv2.imread(str(films.manifest.facts["path"][0]), cv2.IMREAD_GRAYSCALE)
    about = model.preparation
    tiles = (about.clahe_tiles, about.clahe_tiles)
    expected = cv2.createCLAHE(about.clahe_clip, tiles).apply(grey).astype(int)
    until(page, f"document.getElementById('name').textContent === '{films.manifest.image[0]}'")
    settle(page)
    plain = at_centres(seen(page), grey.shape)[:, :, 0]
    assert np.abs(plain - grey.astype(int)).max() <= 8  # pixels are magnified, bilinearly
    assert np.abs(plain - grey.astype(int)).mean() <= 1
    press(page, "c")
    wait(lambda: np.abs(at_centres(seen(page), grey.shape)[:, :, 0] - expected).mean() <= 1.5)
    assert page.get_attribute("#clahe", "aria-pressed") == "true"
    page.click("#clahe")
    wait(lambda: np.array_equal(at_centres(seen(page), grey.shape)[:, :, 0], plain))


# --- heat maps and boxes ---------------------------------------------------------------------


def show_tested(page: Any, place: Place) -> int:
    """Show a test film that has boxes, without them, and return its row."""
    films = place.viewer.films
    assert films is not None
    boxed = np.isin(films.manifest.image, films.manifest.boxes["image"].to_numpy(dtype=str))
    row = int(np.flatnonzero((films.part == "test") & boxed)[0])
    page.fill("[name=text]", str(films.manifest.image[row]))
    counted(page, 1)
    press(page, "Escape", "l", "Home")
    until(page, f"document.getElementById('name').textContent === '{films.manifest.image[row]}'")
    settle(page)
    press(page, "b")
    return row


def test_heat_maps_have_their_place_opacity_and_contours(page: Any, place: Place):
    show_tested(page, place)
    plain = seen(page).astype(int)
    press(page, "h")
    until(page, "document.getElementById('remark').textContent.includes('grad-cam')")
    settle(page)
    warm = np.abs(seen(page).astype(int) - plain).sum(axis=2)
    (height, width), side = warm.shape, min(warm.shape)
    y, x = np.unravel_index(int(warm.argmax()), warm.shape)
    cell = side / CELLS
    found = ((y - (height - side) / 2) / cell, (x - (width - side) / 2) / cell)
    assert found == pytest.approx((HOT[0] + 0.5, HOT[1] + 0.5), abs=0.6)
    far = warm[: int((height - side) / 2 + cell), :]
    assert far.max() == 0
    total = warm.sum()
    press(page, *["t"] * 3)
    assert np.abs(seen(page).astype(int) - plain).sum() > 1.2 * total
    page.fill("#opacity", "0")
    settle(page)
    assert np.array_equal(seen(page), plain)
    press(page, "h", "o")
    lined = np.abs(seen(page).astype(int) - plain).sum(axis=2) > 60
    assert 0.0005 < lined.mean() < 0.05
    ys, xs = np.nonzero(lined)
    about = ((ys.mean() - (height - side) / 2) / cell, (xs.mean() - (width - side) / 2) / cell)
    assert about == pytest.approx((HOT[0] + 0.5, HOT[1] + 0.5), abs=0.3)
    press(page, "o")
    assert np.array_equal(seen(page), plain)


def test_contours_are_those_of_scikit_image(page: Any):
    from skimage.measure import find_contours

    field = cv2.GaussianBlur(np.random.default_rng(0).uniform(size=(24, 24)), (0, 0), 2)
    level = float(np.median(field))
    lines = page.evaluate(
        "async ([field, level]) => (await import('/viewer/overlay.js'))"
        ".contour(Float64Array.from(field), 24, level)",
        [field.ravel().tolist(), level],
    )
    found = np.array(lines).reshape(-1, 2)
    expected = np.concatenate(find_contours(field, level))[:, ::-1]
    for one, other in ((found, expected), (expected, found)):
        distance = np.linalg.norm(one[:, None] - other[None], axis=2).min(axis=1)
        assert distance.max() < 1e-6


def test_boxes_of_the_ground_truth_are_drawn_where_they_are(page: Any, place: Place):
    films = place.viewer.films
    assert films is not None
    row = show_tested(page, place)
    plain = seen(page).astype(int)
    press(page, "b")
    changed = np.abs(seen(page).astype(int) - plain).sum(axis=2) > 20
    boxes = films.manifest.boxes
    box = boxes.loc[boxes["image"] == films.manifest.image[row]].iloc[0]
    (height, width), side = changed.shape, min(changed.shape)
    left, top = (width - side) / 2, (height - side) / 2
    middle = int(top + (box["y"] + box["h"] / 2) * side)
    for edge in (box["x"], box["x"] + box["w"]):
        x = int(left + edge * side)
        assert changed[middle, x - 2 : x + 3].any()
    page.click("#box")
    settle(page)
    assert np.array_equal(seen(page), plain)


# --- probabilities, prior films, similar films -----------------------------------------------


def test_probabilities_stand_with_thresholds_and_calibration(
    page: Any, place: Place, run: Path, model: Model
):
    films = place.viewer.films
    assert films is not None
    row = show_tested(page, place)
    table = pd.read_csv(run / "evaluation" / "reliability.csv")
    for k, finding in enumerate(model.findings):
        line = page.locator(f".finding[data-finding={finding}]")
        probability, limit = films.probability[row, k], model.threshold[k]
        assert line.locator(".number").text_content() == f"{probability:.3f}"
        style = "(bar, kind) => bar.querySelector('.' + kind).style"
        assert line.evaluate(f"(row) => parseFloat(({style})(row, 'threshold').left)") == (
            pytest.approx(100 * limit, abs=0.1)
        )
        called = "called" in (line.get_attribute("class") or "").split()
        assert called == (probability >= limit)
        line.click()
        settle(page)
        bins = table.loc[(table["network"] == model.name) & (table["finding"] == finding)]
        bins = bins.loc[bins["films"] > 0]
        own = bins.loc[probability <= bins["high_edge"]]
        mine = (own if len(own) else bins.tail(1)).iloc[0]
        text = page.text_content("#calibration p")
        share, low = (f"{mine[name]:.3f}" for name in ("share", "share_low"))
        low = "\N{EN DASH}" if low == "nan" else low
        assert f"share {share}, 95 % interval {low} to" in text
        assert page.locator("#calibration svg circle").count() == len(bins)


def show_with_prior(page: Any, place: Place) -> tuple[np.ndarray, int]:
    """Show the second film of the patient with most films, the first beside it.

    Return the first one's pixels, and the number of the patient's films.
    """
    films = place.viewer.films
    assert films is not None
    patient, count = np.unique(films.manifest.patient, return_counts=True)
    rows = np.flatnonzero(films.manifest.patient == patient[count.argmax()])
    turn = films.manifest.facts["follow_up"].to_numpy()[rows]
    prior, film = rows[np.argsort(turn, kind="stable")][:2].tolist()
    page.fill("[name=text]", str(films.manifest.image[film]))
    counted(page, 1)
    press(page, "Escape", "l", "Home")
    shows(page, str(films.manifest.image[film]))
    press(page, "b", "v")
    shows(page, str(films.manifest.image[prior]), "name-beside")
    path = str(films.manifest.facts["path"][prior])
    return cv2.imread(path, cv2.IMREAD_GRAYSCALE).astype(int), len(rows)


def test_prior_films_are_linked_in_view(page: Any, place: Place):
    grey, _ = show_with_prior(page, place)
    before = seen(page, "canvas-beside")
    shown = at_centres(before, grey.shape)[:, :, 0]
    assert np.abs(shown - grey).mean() <= 1.5
    press(page, "i")
    inverted = at_centres(seen(page, "canvas-beside"), grey.shape)[:, :, 0]
    assert np.abs(inverted + shown - 255).max() <= 1
    press(page, "i", "+", "+")  # 1.5625 times as large
    large = middle_square(seen(page, "canvas-beside"), 1)
    part = middle_square(before, 1 / 1.5625)
    assert np.abs(cv2.resize(part, large.shape[1::-1]) - large).mean() < 4
    press(page, "-", "-")
    assert np.abs(seen(page, "canvas-beside").astype(int) - before).max() <= 1


def middle_square(shown: np.ndarray, share: float) -> np.ndarray:
    height, width = shown.shape[:2]
    side = int(min(height, width) * share)
    y, x = (height - side) // 2, (width - side) // 2
    return shown[y : y + side, x : x + side].astype(np.float32)


def test_films_of_the_patient_are_listed_and_closed(page: Any, place: Place):
    _, count = show_with_prior(page, place)
    assert page.locator("#patient li").count() == count - 1
    press(page, "x")
    assert page.locator("#pane-beside").is_hidden()
    page.click("#patient li button >> nth=0")
    until(page, "!document.getElementById('pane-beside').hidden")
    page.click("#close-beside")
    assert page.locator("#pane-beside").is_hidden()


def test_similar_films_stand_beside_it(page: Any, place: Place):
    show_tested(page, place)
    patient = page.text_content("#facts").split(" · ")[0]
    press(page, "s")
    until(page, "document.querySelectorAll('#similar li').length === 8")
    values = [
        float(text.split(":")[0]) for text in page.locator("#similar .muted").all_inner_texts()
    ]
    assert values == sorted(values, reverse=True)
    name = page.text_content("#similar li:first-child span")
    page.click("#similar li:first-child button")
    until(page, f"document.getElementById('name-beside').textContent === '{name}'")
    assert page.text_content("#facts-beside").split(" · ")[0] != patient


# --- dropped films and verdicts --------------------------------------------------------------


def drop(page: Any, name: str, content: bytes) -> None:
    page.evaluate(
        """([name, text]) => {
          const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
          const dataTransfer = new DataTransfer();
          dataTransfer.items.add(new File([bytes], name));
          for (const kind of ["dragover", "drop"]) {
            document.dispatchEvent(new DragEvent(kind, { dataTransfer, cancelable: true }));
          }
        }""",
        [name, base64.b64encode(content).decode()],
    )


@pytest.mark.parametrize("name", ["one.png", "two.jpg", "three.dcm"])
def test_a_dropped_film_is_predicted_and_explained(
    page: Any, place: Place, model: Model, name: str
):
    films = place.viewer.films
    assert films is not None
    grey = cv2.imread(str(films.manifest.facts["path"][4]), cv2.IMREAD_GRAYSCALE)
    if name.endswith(".dcm"):
        content = dicom_bytes(grey.astype(np.int64) * 16, PhotometricInterpretation="MONOCHROME1")
        grey = decode_dicom(content).grey
    else:
        content = cv2.imencode(Path(name).suffix, grey)[1].tobytes()
        grey = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_GRAYSCALE)
    drop(page, name, content)
    until(page, f"document.getElementById('name').textContent === '{name}'")
    until(page, "document.querySelectorAll('.finding .number')[0].textContent.length > 1")
    settle(page)
    found = [float(text) for text in page.locator(".finding .number").all_text_contents()]
    assert found == pytest.approx(model.predict(grey).probability[0].tolist(), abs=2e-3)
    shown = at_centres(seen(page), grey.shape)[:, :, 0]
    assert np.abs(shown - grey.astype(int)).mean() <= 2
    press(page, "h")
    until(
        page, "/Heat map of|same everywhere/i.test(document.getElementById('remark').textContent)"
    )
    press(page, "s")
    until(page, "document.querySelectorAll('#similar li').length === 8")


def test_what_is_no_film_is_refused_in_words(page: Any):
    drop(page, "<b>odd</b>.png", b"GIF89a")
    until(page, "!document.getElementById('message').hidden")
    assert "<b>odd</b>.png: not an image" in page.text_content("#message span")
    page.click("#message button")
    assert page.locator("#message").is_hidden()


def test_a_film_is_opened_by_the_file_button(page: Any, films: list[Path]):
    with page.expect_file_chooser() as chooser:
        page.click("#open-film")
    chooser.value.set_files(films[0])
    until(page, "document.querySelectorAll('#added li').length >= 3")


def test_verdicts_are_given_by_keys_and_saved(page: Any, place: Place, run: Path):
    films = place.viewer.films
    assert films is not None
    row = show_tested(page, place)
    image, finding = str(films.manifest.image[row]), "Effusion"
    page.click(f".finding[data-finding={finding}]")
    press(page, "1")
    assert "name or initials" in page.text_content("#saved")
    page.keyboard.type("A. B.")
    press(page, "Escape", "2")
    until(page, "document.getElementById('saved').textContent.includes('wrong')")
    assert page.get_attribute("#verdict button[value=wrong]", "aria-pressed") == "true"
    press(page, "m")
    page.keyboard.type("line, not effusion")
    press(page, "Escape")

    def mine() -> list[tuple[str, str, str]]:
        kept = read_verdicts(run / "verdicts")
        return [
            (v.verdict, v.reviewer, v.note)
            for v in kept
            if (v.image, v.finding) == (image, finding)
        ]

    wait(lambda: mine() == [("wrong", "A. B.", "line, not effusion")])
    page.click("#verdict button[value=unsure]")
    wait(lambda: mine() == [("unsure", "A. B.", "line, not effusion")])
    page.reload()
    until(page, "document.getElementById('name').textContent")
    settle(page)
    show_tested(page, place)
    page.click(f".finding[data-finding={finding}]")
    assert page.get_attribute("#verdict button[value=unsure]", "aria-pressed") == "true"
    assert page.input_value("#verdict textarea") == "line, not effusion"


def test_a_verdict_is_withdrawn_and_a_note_that_is_written_stays(
    page: Any, place: Place, run: Path
):
    films = place.viewer.films
    assert films is not None
    image = str(films.manifest.image[show_tested(page, place)])

    def mine() -> list[str]:
        kept = read_verdicts(run / "verdicts")
        return [one.verdict for one in kept if (one.image, one.reviewer) == (image, "W")]

    page.fill("#verdict input[name=reviewer]", "W")
    press(page, "Escape", "3")
    wait(lambda: mine() == ["unsure"])
    until(page, "document.querySelector('[value=unsure]').getAttribute('aria-pressed') === 'true'")
    press(page, "3")
    wait(lambda: not mine())
    until(page, "document.getElementById('saved').textContent.startsWith('Withdrawn')")
    assert page.get_attribute("#verdict button[value=unsure]", "aria-pressed") == "false"
    press(page, "m")
    page.keyboard.type("a note that")
    page.evaluate("document.querySelector('.finding[aria-checked=true]').click()")
    assert page.input_value("#verdict textarea") == "a note that"


def test_a_dicom_film_keeps_its_window_and_clahe_its_whole_depth(page: Any):
    stored = (np.arange(64)[:, None] * 60 + np.arange(80)[None, :] * 4).astype(np.int64)
    drop(page, "window.dcm", dicom_bytes(stored, WindowCenter=1000, WindowWidth=800))
    shows(page, "window.dcm")
    level, window, _ = reading(page)
    assert (level, window) == pytest.approx((1000, 799), abs=1)
    plain = at_centres(seen(page), stored.shape)
    press(page, "c")
    until(page, "document.getElementById('reading').textContent.includes('8 bit')")
    settle(page)
    assert reading(page)[:2] == (128, 255)  # the window is in the grey that CLAHE was given
    assert at_centres(seen(page), stored.shape)[:, :, 0].std() > 40
    press(page, "c")
    until(page, "document.getElementById('reading').textContent.includes('12 bit')")
    settle(page)
    assert np.array_equal(at_centres(seen(page), stored.shape), plain)
    page.click("#added button:text-is('deep.png')")


def test_a_window_of_few_values_is_shown_as_it_is(page: Any):
    stored = np.full((64, 80), 1000, dtype=np.int64) + np.arange(80)[None, :] % 4
    drop(page, "narrow.dcm", dicom_bytes(stored, WindowCenter=1002, WindowWidth=4))
    shows(page, "narrow.dcm")
    assert reading(page)[1] == 3
    assert len(np.unique(at_centres(seen(page), stored.shape)[:, :, 0])) >= 3


def test_a_film_beside_has_a_window_of_its_own(browser: Any, model: Model, tmp_path: Path):
    grey = np.tile(np.linspace(20, 230, 80), (64, 1)).astype(np.uint16)
    cv2.imwrite(str(tmp_path / "deep.png"), grey * 16)
    cv2.imwrite(str(tmp_path / "plain.png"), grey.astype(np.uint8))
    wide = dicom_bytes(grey.astype(np.int64) * 2, WindowCenter=256, WindowWidth=512)
    (tmp_path / "wide.dcm").write_bytes(wide)
    viewer = short_viewer(model, [tmp_path / name for name in ("plain.png", "wide.dcm")])
    with served(model, viewer) as address, opened(browser, address) as page:
        shows(page, "0.png")
        press(page, "v")
        shows(page, "1.png", "name-beside")
        assert "other film" in page.text_content("#patient")
        for keys in ("", "[[[[,,"):
            press(page, *keys)
            both = [
                at_centres(seen(page, name), grey.shape) for name in ("canvas", "canvas-beside")
            ]
            assert np.abs(both[0] - both[1]).max() <= 12
            assert both[0].std() > 30


def short_viewer(model: Model, paths: list[Path]) -> Viewer:
    """Return a viewer of a patient's films whose order is not stated."""
    findings, size, count = model.findings, model.preparation.size, len(paths)
    facts = {"path": [str(path) for path in paths], "follow_up": np.full(count, np.nan)}
    manifest = Manifest(
        findings=findings, image=np.array([f"{row}.png" for row in range(count)]),
        patient=np.zeros(count, dtype=np.int64), facts=pd.DataFrame(facts), boxes=empty_boxes(),
        label=np.zeros((count, len(findings)), dtype=np.float32), origin="",
    )  # fmt: skip
    films = FilmList(
        manifest=manifest, part=np.full(count, "test"), view=np.full(count, "PA"),
        probability=np.zeros((count, len(findings))), threshold=model.threshold, predictions=None,
    )  # fmt: skip
    prepared = Prepared(
        manifest=manifest, preparation=Preparation(size=size),
        pixels=np.zeros((count, size, size), dtype=np.uint8),
        rejected=pd.DataFrame({"image": [], "reason": []}),
    )  # fmt: skip
    return Viewer(model=model, run=None, films=films, prepared=prepared)


BOXES = """async ([white, y]) => {
  const { drawBoxes } = await import("/viewer/overlay.js");
  const canvas = new OffscreenCanvas(300, 300), context = canvas.getContext("2d");
  context.fillStyle = white;
  context.fillRect(0, 0, 300, 300);
  const box = { x: 0.2, y, w: 0.5, h: 0.5, finding: "Mass" };
  drawBoxes(context, { left: 0, top: 0, width: 300, height: 300 }, [box], "Effusion");
  return [...context.getImageData(60, 0, 60, 300).data];
}"""


@pytest.mark.parametrize("y", [0.3, 0.0])
def test_names_of_boxes_can_be_read_on_white(page: Any, y: float):
    shown = np.array(page.evaluate(BOXES, ["#ffffff", y])).reshape(300, 60, 4)[:, :, :3] / 255
    linear = np.where(shown <= 0.04045, shown / 12.92, ((shown + 0.055) / 1.055) ** 2.4)
    light = linear @ (0.2126, 0.7152, 0.0722)
    ground = light.min()  # of the name, which lies over the box or at its top
    rows = np.flatnonzero(light.min(axis=1) < 0.05)
    assert len(rows) >= 15
    ink = light[rows[0] + 1 : rows[-1], 4:50]
    bright = ink[ink < 0.9].max()
    assert (bright + 0.05) / (ground + 0.05) >= 4.5
    assert rows[0] >= 0


def test_the_page_that_a_browser_is_given_leads_to_the_viewer(browser: Any, place: Place):
    port = int(place.address.rpartition(":")[2].partition("/")[0])
    page_file = leading_page(ServiceSettings(port=port, token=TOKEN))
    context = browser.new_context()
    page = context.new_page()
    page.goto(page_file.as_uri())
    page.wait_for_url(f"http://127.0.0.1:{port}/")
    until(page, "document.getElementById('name')?.textContent")
    assert TOKEN not in page.url
    context.close()
    page_file.unlink()


def test_keys_of_one_letter_can_be_switched_off(page: Any):
    show(page, "square.png")
    press(page, "?")
    page.click("#letters")
    page.keyboard.press("Escape")
    before = seen(page)
    press(page, "i", "+", "1")
    assert np.array_equal(seen(page), before)
    page.reload()
    until(page, "document.getElementById('name').textContent")
    show(page, "square.png")
    press(page, "i")
    assert page.get_attribute("#invert", "aria-pressed") == "false"
    page.click("#open-help")
    page.click("#letters")
    page.keyboard.press("Escape")
    press(page, "i")
    assert page.get_attribute("#invert", "aria-pressed") == "true"


# --- script, keys, contrast, widths ----------------------------------------------------------


def test_script_in_names_and_cells_is_shown_and_not_run(
    browser: Any, model: Model, finished: Path, tmp_path: Path
):
    run = copy_run(finished, tmp_path / "<img src=x onerror=window.ran=1>")
    plant_script(run)
    viewer = open_viewer(model, run=run)
    with served(model, viewer) as address, opened(browser, address) as page:
        until(page, "document.getElementById('name').textContent")
        settle(page)
        page.fill("[name=text]", HOSTILE_IMAGE)
        counted(page, 1)
        press(page, "Escape", "l", "Home")
        assert page.text_content("#name") == HOSTILE_IMAGE
        assert page.text_content(".row strong") == HOSTILE_IMAGE
        for place in ("#facts", ".row .muted", "[name=view]", "#patient-title"):
            assert SCRIPT in page.text_content(place)
        assert page.text_content("#what").startswith("<img src=x onerror")
        press(page, "v", "h", "1")
        drop(page, SCRIPT, (run / "phantom" / "images").iterdir().__next__().read_bytes())
        until(page, f"document.getElementById('name').textContent === {SCRIPT!r}")
        settle(page)
        assert page.evaluate("window.ran === undefined")
        assert page.evaluate("document.querySelectorAll('img[src=x], main script').length") == 0


def test_all_is_reached_by_the_keyboard_with_a_visible_focus(page: Any, place: Place):
    show_tested(page, place)
    page.evaluate("document.activeElement.blur()")
    wanted = {
        "open-film", "open-help", "text", "finding", "part", "error", "view", "low", "high",
        "order", "list", "drag", "invert", "clahe", "reset", "heat", "contour", "opacity", "box",
        "canvas", "note", "reviewer", "find-similar", "right", "wrong", "unsure",
    }  # fmt: skip
    visited = set[str]()
    for _ in range(150):
        if wanted <= visited:
            break
        page.keyboard.press("Tab")
        found = page.evaluate(
            """() => {
              const one = document.activeElement, style = getComputedStyle(one);
              const ringed = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2;
              const name = one.id || one.name || one.value || one.textContent.slice(0, 30);
              return [one === document.body ? "" : name, one === document.body || ringed];
            }"""
        )
        assert found[1], f"no visible focus on {found[0]}"
        visited.add(found[0])
    assert wanted - visited == set()


def test_controls_have_names_and_keys_are_listed(page: Any):
    nameless = page.evaluate(
        """[...document.querySelectorAll("button, input, select, textarea, [role]")].filter(one => {
          const label = one.labels?.[0]?.textContent ?? "";
          return one.getAttribute("role") !== "presentation" && one.id !== "message"
            && !(one.getAttribute("aria-label") || one.textContent.trim() || label.trim()
              || one.getAttribute("aria-labelledby"));
        }).map((one) => one.outerHTML.slice(0, 80))"""
    )
    assert nameless == []
    press(page, "?")
    keys = page.locator("#keys kbd").all_text_contents()
    documented = (Path(__file__).parents[2] / "docs" / "deploy.md").read_text()
    table = set(
        re.findall(r"`([^`]+)`", documented.split("Everything works by keys:")[1].split("\n\n")[1])
    )
    assert set(keys) <= table
    press(page, "Escape")
    assert not page.evaluate("document.getElementById('help').open")


CONTRAST = """() => {
  const parse = (text) => {
    const [r, g, b, a = 1] = text.match(/[\\d.]+/g).map(Number);
    return [r, g, b, a];
  };
  const over = (top, below) => [0, 1, 2].map((k) => top[k] * top[3] + below[k] * (1 - top[3]));
  const ground = (one) => {
    const layers = [];
    for (let at = one; at; at = at.parentElement) {
      layers.push(parse(getComputedStyle(at).backgroundColor));
    }
    return layers.reverse().reduce((below, top) => over(top, below), [0, 0, 0]);
  };
  const light = (colour) => colour.slice(0, 3).map((c) => c / 255)
    .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, k) => sum + c * [0.2126, 0.7152, 0.0722][k], 0);
  const found = [];
  for (const one of document.querySelectorAll("body *")) {
    const own = [...one.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!own || !one.getClientRects().length) continue;
    const below = ground(one), style = getComputedStyle(one);
    const ink = over(parse(one.namespaceURI.endsWith("svg") ? style.fill : style.color), below);
    const [a, b] = [light(ink), light(below)].sort((x, y) => y - x);
    const name = `${one.tagName}#${one.id} ${one.getAttribute("class")} ${one.textContent}`;
    found.push([(a + 0.05) / (b + 0.05), name]);
  }
  return found;
}"""


def test_text_has_the_contrast_of_wcag_aa(page: Any, place: Place):
    show_tested(page, place)
    press(page, "h", "o", "v", "s")
    until(page, "document.querySelectorAll('#similar li').length")
    page.evaluate("document.activeElement.blur()")
    found = page.evaluate(CONTRAST)
    press(page, "?")
    found += page.evaluate(CONTRAST)
    assert len(found) > 100
    assert [text for ratio, text in found if ratio < 4.5] == []


def test_the_contrast_test_can_fail(page: Any):
    page.evaluate("document.getElementById('count').style.color = '#333'")
    found = page.evaluate(CONTRAST)
    assert next(text for ratio, text in found if ratio < 4.5).startswith("P#count")


@pytest.mark.parametrize("viewport", [WIDE, NARROW])
def test_nothing_overflows(browser: Any, place: Place, viewport: dict[str, int]):
    with opened(browser, place.address, viewport=viewport) as page:
        until(page, "document.getElementById('name').textContent")
        settle(page)
        for tab in ("films", "film", "about"):
            if viewport is NARROW:
                page.click(f"#tabs button[value={tab}]")
                settle(page)
                shown = [one for one in ("films", "film", "about") if page.is_visible(f"#{one}")]
                assert shown == [tab]
            sides = "document.documentElement.scrollWidth, document.documentElement.scrollHeight"
            assert page.evaluate(f"[{sides}]") == [viewport["width"], viewport["height"]]
        page.evaluate("document.body.dataset.tab = 'film'")
        settle(page)
        area = page.locator("#canvas").bounding_box()
        assert area["width"] * area["height"] > 0.4 * viewport["width"] * viewport["height"]


def test_a_model_without_a_run_says_so(browser: Any, model: Model, films: list[Path]):
    with (
        served(model, open_viewer(model, run=None, films=films[:1])) as address,
        opened(browser, address) as page,
    ):
        until(page, "document.getElementById('name').textContent === 'deep.png'")
        until(page, "document.querySelectorAll('.finding .number')[0]?.textContent.length > 1")
        assert page.text_content("#count") == RUN_ONLY
        for hidden in ("#filters", "#list", "#verdict", "#similar-note", "#patient"):
            assert page.locator(hidden).is_hidden()
    with (
        served(model, open_viewer(model, run=None)) as address,
        opened(browser, address) as page,
    ):
        until(page, "!document.getElementById('empty').hidden")
        assert "Drop a film here" in page.text_content("#empty")
