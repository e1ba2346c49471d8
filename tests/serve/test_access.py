"""Who is let in: the Host and Origin of requests, the token, and the headers of every answer."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect
from tests.helpers.fake_source import FakeSource

from reverie.cli.play import PlayConfig
from reverie.cli.serve import ServeConfig
from reverie.errors import ServeError
from reverie.serve.access import Access, access_for, is_loopback, with_token
from reverie.serve.app import create_app
from reverie.serve.protocol import VERSION

PATHS = ["/", "/health", "/starts", "/starts/start-0.jpg", "/static/main.js"]
TOKEN = "a-token-of-some-length"


@pytest.fixture
def http() -> Iterator[TestClient]:
    with TestClient(create_app(FakeSource()), base_url="http://127.0.0.1:8000") as client:
        while client.get("/health").status_code != 200:
            pass
        yield client


@pytest.fixture
def locked() -> Iterator[TestClient]:
    access = access_for("0.0.0.0", TOKEN)
    with TestClient(create_app(FakeSource(), access=access), base_url="http://192.0.2.7:8000") as client:
        while client.get("/health", headers={"authorization": f"Bearer {TOKEN}"}).status_code != 200:
            pass
        yield client


def plays(http: TestClient, **headers: str) -> bool:
    """Whether a WebSocket with these headers gets a world."""
    host = headers.pop("host", "127.0.0.1:8000")
    query = headers.pop("query", "")
    try:
        with http.websocket_connect(f"/ws{query}", headers={"host": host, **headers}) as socket:
            socket.send_text(json.dumps({"type": "hello", "version": VERSION}))
            while json.loads(socket.receive_text())["type"] != "welcome":
                pass
        return True
    except WebSocketDisconnect:
        return False


# ---------------------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    "host", ["127.0.0.1:8000", "localhost", "LOCALHOST:1", "[::1]:8000", "127.9.9.9", "localhost."]
)
def test_this_machines_own_names(http: TestClient, host: str):
    assert http.get("/starts", headers={"host": host}).status_code == 200
    assert plays(http, host=host)


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "192.0.2.7", "", "a@127.0.0.1", "[::1", "0.0.0.0"],
)
def test_a_name_that_was_pointed_at_us(http: TestClient, host: str):
    """Else a foreign page could make its own name ours (DNS rebinding) and read everything."""
    for path in PATHS:
        assert http.get(path, headers={"host": host}).status_code == 403, path
    assert http.post("/upload", content=b"x", headers={"host": host}).status_code == 403
    assert not plays(http, host=host)


# -------------------------------------------------------------------------------------------------------- origins


@pytest.mark.parametrize("origin", ["http://127.0.0.1:8000", None])
def test_our_own_page_and_programs(http: TestClient, origin: str | None):
    headers = {} if origin is None else {"origin": origin}
    assert plays(http, **headers)
    assert http.post("/upload", content=b"x", headers=headers).status_code == 400  # let in, and no picture


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "http://localhost:8000",
        "http://127.0.0.1:8001",
        "http://127.0.0.1",
        "https://127.0.0.1",
        "null",
        "",
        "file://",
        "http://127.0.0.1:8000@evil.example",
        "chrome-extension://abc",
        "javascript:1",
    ],
)
def test_pages_of_others(http: TestClient, origin: str):
    assert not plays(http, origin=origin)
    for path in PATHS:
        assert http.get(path, headers={"origin": origin}).status_code == 403
    assert http.post("/upload", content=b"x", headers={"origin": origin}).status_code == 403


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_images_and_frames_of_others(http: TestClient, site: str):
    """An <img> or an <iframe> sends no Origin; browsers say where they come from all the same."""
    for mode, dest in [("no-cors", "image"), ("navigate", "iframe"), ("no-cors", "script"), ("cors", "empty")]:
        headers = {"sec-fetch-site": site, "sec-fetch-mode": mode, "sec-fetch-dest": dest}
        for path in PATHS:
            assert http.get(path, headers=headers).status_code == 403
    link = {"sec-fetch-site": site, "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    assert http.get("/", headers=link).status_code == 200
    assert http.get("/starts", headers=link).status_code == 403
    assert http.post("/upload", content=b"x", headers=link).status_code == 403


def test_a_proxy_with_a_name_of_its_own():
    access = access_for("127.0.0.1", "none", ["world.example.org"])
    with TestClient(create_app(FakeSource(), access=access), base_url="http://127.0.0.1:8000") as http:
        assert plays(http, origin="https://world.example.org")
        assert plays(http, host="world.example.org", origin="https://world.example.org")
        assert not plays(http, origin="https://evil.example")


def test_another_server_of_this_machine_is_another_site():
    """Its pages have our name, and bring our cookie along: cookies know no ports."""
    access = access_for("0.0.0.0", allow_hosts=["world.example.org"])
    own = socket.gethostname().lower()
    assert access.is_own_host(f"{own}:8000")
    assert access.is_own_origin(f"http://{own}:8000", f"{own}:8000")
    assert not access.is_own_origin(f"http://{own}:3000", f"{own}:8000")
    assert not access.is_own_origin(f"http://{own}.local:3000", f"{own}.local:8000")
    assert access.is_own_origin("https://world.example.org", "127.0.0.1:8000")


def test_ports_that_go_without_saying():
    access = Access(hosts=frozenset({"a.org"}), any_address=True)
    assert access.is_own_origin("https://192.0.2.7", "192.0.2.7")
    assert access.is_own_origin("http://192.0.2.7:80", "192.0.2.7")
    assert not access.is_own_origin("http://192.0.2.7", "192.0.2.7:443")


@settings(derandomize=True, deadline=None, max_examples=300)
@given(st.text(max_size=60), st.text(max_size=60))
def test_any_header_is_judged(host: str, origin: str):
    access = Access()
    assert access.is_own_host(host) in (True, False)
    assert not access.is_own_origin(f"http://evil.example/{origin}", "127.0.0.1:8000")
    assert not (access.is_own_origin(origin, host) and "://" not in origin)


# ---------------------------------------------------------------------------------------------------------- token


def test_without_the_token(locked: TestClient):
    for path in PATHS:
        assert locked.get(path).status_code == 403, path
        assert locked.get(path, params={"token": "another-token-of-some-length"}).status_code == 403
    assert "?token=" in locked.get("/").text
    assert locked.post("/upload", content=b"x").status_code == 403
    assert not plays(locked, host="192.0.2.7:8000")
    assert not plays(locked, host="192.0.2.7:8000", cookie="reverie-8000=wrong")


def test_the_link_lets_in_and_a_cookie_afterwards(locked: TestClient):
    answer = locked.get("/", params={"token": TOKEN}, follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "./")
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    for path in PATHS:
        assert locked.get(path).status_code == 200, path
    cookie = f"reverie-8000={TOKEN}"
    assert plays(locked, host="192.0.2.7:8000", origin="http://192.0.2.7:8000", cookie=cookie)
    assert not plays(locked, host="192.0.2.7:8000", origin="http://evil.example", cookie=cookie)


@pytest.mark.parametrize(
    "others",
    ['a=["x":1]; {}', 'a="b; {}', "x y=1; {}", "; ;{}", "=; {}", "expires=1; Path; {}", "a,b=c; {}", "[a]=%ff;{};x",
     "reverie-8000=of-before; {}", "reverie-80=other; {}", "{}; reverie-8000=of-a-longer-path"],
)  # fmt: skip
def test_cookies_of_other_servers_on_this_machine_are_no_matter(locked: TestClient, others: str):
    cookie = others.replace("{}", f"reverie-8000={TOKEN}")
    assert plays(locked, host="192.0.2.7:8000", cookie=cookie)
    assert not plays(locked, host="192.0.2.7:8000", cookie=cookie.replace(TOKEN, "wrong"))


@pytest.mark.parametrize("token", ['a "quoted"; token, with = and %41', "ein Schlüssel für uns 🌍"])
def test_a_token_of_any_characters_comes_back_in_the_cookie(token: str):
    access = access_for("0.0.0.0", token)
    with TestClient(create_app(FakeSource(), access=access), base_url="http://192.0.2.7:8000") as http:
        assert http.get("/starts").status_code == 403
        assert http.get("/", params={"token": token}, follow_redirects=False).status_code == 303
        assert http.get("/").status_code == 200


def test_programs_bring_the_token_themselves(locked: TestClient):
    assert plays(locked, host="192.0.2.7:8000", authorization=f"Bearer {TOKEN}")
    assert plays(locked, host="192.0.2.7:8000", query=f"?token={TOKEN}")
    assert locked.get("/starts", headers={"authorization": f"Bearer {TOKEN}"}).status_code == 200
    assert locked.get("/starts", headers={"authorization": "Bearer"}).status_code == 403


def test_a_token_is_asked_for_as_soon_as_others_can_reach_us():
    assert access_for("127.0.0.1").token is None
    assert access_for("::1").token is None
    assert access_for("localhost").token is None
    made = {access_for(host).token for host in ("0.0.0.0", "::", "", "192.0.2.7")}
    assert len(made) == 4
    assert all(token is not None and len(token) > 20 for token in made)
    assert access_for("127.0.0.1", allow_hosts=["world.example.org"]).token is not None
    assert access_for("0.0.0.0", "none").token is None
    assert "token=" in with_token("http://192.0.2.7:80", access_for("0.0.0.0"))
    assert TOKEN not in repr(access_for("0.0.0.0", TOKEN))


@pytest.mark.parametrize(
    ("token", "hosts"), [("short", []), ("auto", ["http://a.org"]), ("auto", ["a.org:80"]), ("auto", [""])]
)
def test_settings_that_cannot_be(token: str, hosts: list[str]):
    with pytest.raises(ServeError, match="got"):
        access_for("0.0.0.0", token, hosts)


def test_both_commands_listen_to_this_machine_alone():
    assert is_loopback(PlayConfig().host)
    assert is_loopback(ServeConfig().host)
    assert not is_loopback("0.0.0.0")
    assert not is_loopback("evil.example")


# -------------------------------------------------------------------------------------------------------- headers


@pytest.mark.parametrize("path", [*PATHS, "/nothing", "/static/nothing.js", "/starts/nobody.jpg"])
def test_every_answer_protects_the_page(http: TestClient, path: str):
    for headers in ({}, {"host": "evil.example"}):
        answer = http.get(path, headers=headers)
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy


def test_the_page_has_no_scripts_or_styles_inside(http: TestClient):
    """They would not run under the policy."""
    page = http.get("/").text
    assert " onclick=" not in page
    assert " style=" not in page
    assert "<style" not in page
    assert page.count("<script") == page.count('<script type="module" src=')


def test_the_policy_names_our_sockets(http: TestClient):
    policy = http.get("/", headers={"host": "localhost:8123"}).headers["content-security-policy"]
    assert "connect-src 'self' ws://localhost:8123 wss://localhost:8123" in policy


@pytest.mark.parametrize("path", PATHS)
def test_head_answers_as_get_does(http: TestClient, path: str):
    get, head = http.get(path), http.head(path)
    assert (head.status_code, head.headers["content-type"]) == (200, get.headers["content-type"])


def test_the_servers_insides_are_not_told(http: TestClient):
    for path in ("/openapi.json", "/docs", "/redoc"):
        assert http.get(path).status_code == 404
