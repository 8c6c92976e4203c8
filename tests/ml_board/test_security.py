"""The threats of docs/security.md, one by one: who is let in, from where, to what, and what a page may do."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import socketio

from mlgym.record.checkpoint_folder import Manifest
from mlgym.record.events import CheckpointFile, seal
from mlgym.record.hub import Hub
from mlgym.record.token import VARIABLE
from tests.ml_board.boards import Board, answered, batch, deliver, form, new_client, until

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome") or ""
PUBLIC = ["/", "/index.html", "/page.js", "/page.css", "/endpoints.json", "/openapi.json"]
TOKEN = "another-token-of-which-nobody-can-guess-anything"


def routes(board: Board) -> Iterator[tuple[str, str]]:
    """Every described route, with values for what stands in braces."""
    values = {"gs": "g", "exp": "1", "epoch": "1", "config_name": "run_config", "resource": "model.safetensors"}
    for path, item in board.request("GET", "/openapi.json", token=False).json()["paths"].items():
        for method in item:
            yield method.upper(), path.format(**values)


# --- the token ---


@pytest.mark.parametrize(
    "authorization",
    [None, "Bearer", "Bearer ", f"Bearer {TOKEN}", "Bearer \xff\xfe", f"Basic {TOKEN}", "{token}", "Basic {token}", "Bearer {token}x", "Bearer x{token}"],
)  # fmt: skip
def test_nothing_is_told_without_the_token(board: Board, authorization: str | None) -> None:
    headers = {"Authorization": authorization.format(token=board.token)} if authorization is not None else {}
    asked = [*routes(board), ("POST", "/session"), ("GET", "/nowhere"), ("GET", "/../etc/passwd")]
    assert len(asked) > 20
    for method, path in asked:
        answer = board.request(method, path, headers=headers, token=False)
        assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer"), (method, path)
        assert "set-cookie" not in answer.headers
        assert board.token not in answer.message


@pytest.mark.parametrize("path", PUBLIC)
def test_the_page_itself_is_public(board: Board, path: str) -> None:
    answer = board.request("GET", path, token=False)
    assert answer.status == 200
    assert board.token.encode() not in answer.body


@pytest.mark.parametrize("auth", [None, {}, "token", {"token": TOKEN}, {"token": None}, {"token": 1}, {"token": "\ud800"}, []])  # fmt: skip
def test_a_websocket_without_the_token_gets_nothing(board: Board, auth: Any) -> None:
    async def run() -> None:
        client = new_client(json=json)
        with pytest.raises(socketio.exceptions.ConnectionError):
            await client.connect(board.url, transports=["websocket"], auth=auth)
        await client.disconnect()

    asyncio.run(run())


def test_what_comes_before_the_token_is_not_taken(board: Board, gs: str) -> None:
    """Events on a connection that has not said who it is."""

    async def run() -> None:
        async with board.websocket() as websocket:
            event = {"event_type": "x", "payload": {"grid_search_id": gs}}
            for message in (["mlgym_event", event], ["join", {"rooms": [gs]}], ["mlgym_lease", event["payload"]]):
                await websocket.send_str(f"42{json.dumps(message)}")
            await websocket.send_str('451-["mlgym_events",{"_placeholder":true,"num":0}]')
            await websocket.send_bytes(batch(1, grid_search_id=gs))
            await websocket.send_str(f'40{{"token":"{board.token}"}}')
            await answered(websocket, "40")

    asyncio.run(run())
    assert not board.log(gs).exists()


def cookie_of(board: Board) -> str:
    answer = board.request("POST", "/session")
    assert answer.status == 200
    found = answer.headers["set-cookie"]
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(found.split("; ")[1:])
    assert board.token not in found
    return found.split(";")[0]


def test_the_page_turns_the_token_into_a_cookie(board: Board, gs: str) -> None:
    cookie = cookie_of(board)
    deliver(board, batch(1, grid_search_id=gs), gs)
    assert board.request("GET", "/grid_searches", headers={"Cookie": cookie}, token=False).status == 200
    for other in (cookie[:-1], f"{cookie}0", f"{cookie.partition('=')[0]}={board.token}", "x=y"):
        assert board.request("GET", "/grid_searches", headers={"Cookie": other}, token=False).status == 401
    assert board.request("GET", "/grid_searches", token=cookie.partition("=")[2]).status == 401

    async def run() -> None:
        client = new_client()
        await client.connect(board.url, headers={"Cookie": cookie}, transports=["websocket"])
        assert await client.call("join", {"rooms": [gs]}) == {"head": {gs: 1}}
        await client.disconnect()

    asyncio.run(run())


def test_a_cookie_is_worth_nothing_elsewhere(board: Board, tmp_path: Path) -> None:
    """Browsers send it to every port of this machine; the other board of the same user has the same token."""
    environment = {"XDG_CONFIG_HOME": str(board.folder / "config")}
    with Board(tmp_path, environment=environment) as other:
        assert other.token == board.token
        name, _, value = cookie_of(board).partition("=")
        other_name = cookie_of(other).partition("=")[0]
        for cookie in (f"{name}={value}", f"{other_name}={value}"):
            assert other.request("GET", "/grid_searches", headers={"Cookie": cookie}, token=False).status == 401


def test_the_token_is_made_once_for_the_user_alone(tmp_path: Path) -> None:
    """Also by two boards that start at the same moment."""
    environment = {"XDG_CONFIG_HOME": str(tmp_path / "config")}
    umask = os.umask(0)
    try:
        boards = [Board(tmp_path / str(i), environment=environment, start=False) for i in range(2)]
        commands = [([*board.arguments, "--port", "0"], board.environment) for board in boards]
        processes = [
            subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            for command, variables in commands
        ]
    finally:
        os.umask(umask)
    printed = []
    for process in processes:
        assert process.stdout
        printed.append(process.stdout.readline().strip().partition("/#token=")[2])
        process.kill()
        process.wait()
        process.stdout.close()
    file = tmp_path / "config" / "mlgym" / "board_token"
    assert [file] == list(file.parent.iterdir())
    assert printed == [file.read_text().strip()] * 2
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}", printed[0])  # 256 bits
    assert (file.stat().st_mode & 0o7777, file.parent.stat().st_mode & 0o7777) == (0o600, 0o700)


@pytest.mark.parametrize(
    ("mode", "content", "words"),
    [
        (0o640, TOKEN, "others can read or change the token"),
        (0o604, TOKEN, "others can read or change the token"),
        (0o620, TOKEN, "others can read or change the token"),
        (0o600, "short", "is not safe: expected at least 32 letters"),
        (0o600, "", "is not safe: expected at least 32 letters"),
        (0o600, "ü" * 40, "is not safe: expected at least 32 letters"),
    ],
)
def test_an_unsafe_token_is_refused(tmp_path: Path, mode: int, content: str, words: str) -> None:
    board = Board(tmp_path, start=False)
    file = tmp_path / "config" / "mlgym" / "board_token"
    file.parent.mkdir(parents=True)
    file.write_text(content)
    file.chmod(mode)
    ended = board.run()
    assert (ended.returncode, ended.stdout) == (2, "")
    assert words in ended.stderr
    assert str(file) in ended.stderr
    assert "Traceback" not in ended.stderr
    assert TOKEN not in ended.stderr


def test_the_token_of_the_environment_wins(tmp_path: Path) -> None:
    with Board(tmp_path, environment={VARIABLE: TOKEN}) as board:
        assert board.printed == f"ml_board: {board.url}/#token={TOKEN}\n"
        assert board.request("GET", "/grid_searches", token=TOKEN).status == 200
        assert not (tmp_path / "config").exists()
    ended = Board(tmp_path, environment={VARIABLE: "short"}, start=False).run()
    assert ended.returncode == 2
    assert f"the token in {VARIABLE} is not safe" in ended.stderr
    assert "short" not in ended.stderr


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "127.evil.example", "localhost.evil.example", ""])
def test_without_a_token_only_on_loopback(tmp_path: Path, host: str) -> None:
    ended = Board(tmp_path, "--no-token", "--host", host, start=False).run()
    assert (ended.returncode, ended.stdout) == (2, "")
    assert f"--no-token on {host} would let everybody in" in ended.stderr


def test_without_a_token(tmp_path: Path) -> None:
    """Nobody is asked, but it is still this machine's board."""
    with Board(tmp_path, "--no-token") as board:
        assert board.printed == f"ml_board: {board.url}\n"
        assert board.request("GET", "/grid_searches").status == 200
        assert deliver(board, batch(2))["durable"] == {"s": 2}
        assert board.get("/grid_searches", Host="evil.example").status == 403
        assert board.get("/grid_searches", Origin="http://evil.example").status == 403
        assert board.handshake(Origin="http://evil.example") == 403
        assert not (tmp_path / "config").exists()


# --- hosts: DNS rebinding ---

STRANGERS = ["evil.example", "evil.example:{port}", "localhost.evil.example", "127.0.0.1.evil.example:{port}", "localhost:evil", "evil@localhost", "[::1", "", "127.0.0.1, evil.example", "\xff"]  # fmt: skip


@pytest.mark.parametrize("host", STRANGERS)
def test_the_board_answers_to_its_own_names_only(board: Board, host: str) -> None:
    headers = {"Host": host.format(port=board.port)}
    for path in (*PUBLIC, "/grid_searches", "/session", "/nowhere", "/socket.io/?EIO=4&transport=polling"):
        for method in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"):
            assert board.request(method, path, headers=headers).status == 403, (method, path)
    assert board.handshake(**headers) == 403


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:{port}", "127.0.0.1:{port}", "[::1]:{port}", "localhost:1"])
def test_names_of_this_machine(board: Board, host: str) -> None:
    headers = {"Host": host.format(port=board.port)}
    assert board.request("GET", "/grid_searches", headers=headers).status == 200
    assert board.handshake(**headers) == 101


def test_no_host_at_all(board: Board) -> None:
    assert board.raw(b"GET / HTTP/1.0\r\n\r\n").split()[1] == b"403"
    assert board.raw(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n").split()[1] in (b"400", b"403")
    both = b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\nConnection: close\r\n\r\n"
    assert board.raw(both).split()[1] in (b"200", b"400")  # a browser sends one


def test_more_names_and_all_addresses(tmp_path: Path) -> None:
    """On all addresses, the board answers to the name that it prints."""
    names = ("--allowed_hosts", "board.example", "A.example,b.example")
    with Board(tmp_path, "--host", "0.0.0.0", *names) as board:
        printed = board.url.partition("//")[2]
        for host in ("board.example", "a.example:80", "B.EXAMPLE", "127.0.0.1", "localhost", printed):
            assert board.get("/grid_searches", Host=host).status == 200, host
            assert board.handshake(Host=host) == 101, host
        for host in ("c.example", "x.board.example"):
            assert board.get("/grid_searches", Host=host).status == 403
            assert board.handshake(Host=host) == 403
        # What runs on this machine is no longer special once others can reach the board.
        assert board.get("/grid_searches", Origin="http://localhost:3000").status == 403


# --- origins: pages that are not ours ---

FOREIGN = ["http://evil.example", "null", "", "http://127.evil.example", "http://127.0.0.1.evil.example", "http://localhost.evil.example", "http://localhost@evil.example", "http://evil.example#localhost", "https://evil.example:{port}", "file://", "file://localhost", "chrome-extension://localhost", "http://[", "http://[::1", "localhost", "http://l\xf6calhost"]  # fmt: skip
OURS = ["http://127.0.0.1:{port}", "http://localhost:3000", "http://LOCALHOST:{port}", "https://127.0.0.1", "http://[::1]:9"]  # fmt: skip
CORS = ("access-control-allow-origin", "access-control-allow-credentials", "access-control-allow-methods")
PREFLIGHT = {"Access-Control-Request-Method": "PUT", "Access-Control-Request-Headers": "authorization"}


@pytest.mark.parametrize("origin", FOREIGN)
def test_foreign_pages_are_refused(board: Board, gs: str, origin: str) -> None:
    """Whatever they ask and whichever token or cookie the browser adds."""
    headers = {"Origin": origin.format(port=board.port), "Cookie": cookie_of(board)}
    config = {"file_format": "YAML", "content": "a: 1"}
    for method, path, body, more in (
        ("GET", "/grid_searches", None, {}),
        ("GET", "/openapi.json", None, {}),
        ("PUT", f"/grid_searches/{gs}/run_config", config, {}),
        ("POST", "/session", None, {}),
        ("OPTIONS", "/grid_searches", None, PREFLIGHT),
    ):
        answer = board.request(method, path, body, {**headers, **more})
        assert answer.status == 403, (method, path)
        assert not set(CORS) & set(answer.headers)
    assert board.handshake(**headers) == 403
    assert not (board.storage / gs).exists()


@pytest.mark.parametrize("origin", OURS)
def test_pages_on_this_machine_are_welcome(board: Board, origin: str) -> None:
    _allowed(board, origin.format(port=board.port))


def _allowed(board: Board, origin: str) -> None:
    for answer in (
        board.get("/grid_searches", Origin=origin),
        board.request("GET", "/grid_searches", headers={"Origin": origin}, token=False),  # to read why not
        board.request("OPTIONS", "/grid_searches", headers={"Origin": origin, **PREFLIGHT}, token=False),
    ):
        assert answer.status in (200, 401, 204)
        assert [answer.headers[name] for name in CORS[:2]] == [origin, "true"]
        assert "Origin" in answer.headers["vary"]
        assert answer.status != 204 or {"Authorization", "Content-Type", "Range"} <= set(
            answer.headers["access-control-allow-headers"].split(", ")
        )
    assert board.handshake(Origin=origin) == 101


def test_no_page_no_cors(board: Board) -> None:
    assert not set(CORS) & set(board.get("/grid_searches").headers)


def test_other_pages_that_the_user_allows(tmp_path: Path) -> None:
    named = ("--cors_allowed_origins", "https://lab.example", "http://a.example:8000/,http://b.example")
    with Board(tmp_path, "--host", "0.0.0.0", *named) as board:
        for origin in ("https://lab.example", "http://a.example:8000", "http://b.example", "https://LAB.example"):
            _allowed(board, origin)
        for origin in ("http://lab.example", "https://lab.example:1", "http://a.example", "https://x.lab.example"):
            assert board.get("/grid_searches", Origin=origin).status == 403, origin
    for wrong in ("*", "lab.example", "https://lab.example/path", "javascript:alert(1)"):
        ended = Board(tmp_path, "--cors_allowed_origins", wrong, start=False).run()
        assert ended.returncode == 2
        assert "expected an address such as" in ended.stderr


# --- names ---

NAMES = ["..", ".", "../g", "..%2fg", "g/..", "/etc", "g\0", "g\n", "g ", "", ".hidden", "-g", "_g", "größe", "g" * 65, "g" * 4000, "a\\b", "%2e%2e", "..%252f", "٣", "g;rm", "g*", "con\u202etxt", "<b>"]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_ids_are_plain_names(board: Board, name: str) -> None:
    """Whatever else a path holds, it leads nowhere: neither as it is nor encoded, over HTTP or websocket."""
    before = tree(board.folder)
    config = {"file_format": "YAML", "content": "a: 1"}
    for path in dict.fromkeys((quote(name, safe=""), quote(name, safe="/%"), name.replace("/", "%2F"))):
        if not re.fullmatch(r"[!-~]*", path):
            continue  # what no client can send is in test_hostile
        for method, route in (
            ("GET", "/grid_searches/{}/events"),
            ("GET", "/grid_searches/{}/snapshot"),
            ("GET", "/grid_searches/{}/run_config"),
            ("PUT", "/grid_searches/{}/run_config"),
            ("PUT", "/grid_searches/{}/1/experiment_config"),
            ("GET", "/checkpoints/{}/1/1/manifest.json"),
            ("POST", "/checkpoints/{}/1/1"),
            ("DELETE", "/checkpoints/{}/1/1"),
            ("PUT", "/grid_searches/g/{}/experiment_config"),
            ("POST", "/checkpoints/g/{}/1"),
            ("POST", "/checkpoints/g/1/{}"),
            ("PUT", "/grid_searches/g/{}"),
            ("GET", "/grid_searches/g/{}"),
        ):
            body: Any = config if method == "PUT" else form("x", b"x")[0] if method == "POST" else None
            headers = {"Content-Type": form("", b"")[1]} if method == "POST" else {}
            answer = board.request(method, route.format(path), body, headers)
            assert answer.status in (400, 404, 405), (method, route.format(path), answer)

    async def run() -> None:
        async with board.client() as client:
            for event, data in (
                ("join", {"rooms": [name]}),
                ("mlgym_events", {"grid_search_id": name, "events": batch(1)}),
                ("mlgym_event", {"event_type": "x", "payload": {"grid_search_id": name}}),
                ("mlgym_lease", {"grid_search_id": name}),
            ):
                assert (await client.call(event, data))["error"]["status"] == 400, event

    asyncio.run(run())
    assert tree(board.folder) == before


@pytest.mark.parametrize(
    "name",
    ["event_storage.log", "event_storage.snapshot", "lock", "spool", "spool%2fx.jsonl", "event_storage.log.torn", "..%2f..%2fevent_storage.log"],
)  # fmt: skip
def test_the_log_and_what_belongs_to_it_has_no_name(board: Board, gs: str, name: str) -> None:
    """The one way into a log is an event."""
    deliver(board, batch(3, grid_search_id=gs), gs)
    root = board.storage / gs
    (root / "lock").touch()
    (root / "event_storage.snapshot").write_bytes(b"saved")
    (root / "spool" / "x.jsonl").write_bytes(batch(1))
    (root / "1" / "1").mkdir(parents=True)
    before = tree(root)
    config = {"file_format": "YAML", "content": "a: 1"}
    for path in (f"/grid_searches/{gs}/{name}", f"/grid_searches/{gs}/1/{name}", f"/checkpoints/{gs}/1/1/{name}"):
        for method, body in (("GET", None), ("PUT", config), ("DELETE", None), ("POST", None)):
            assert board.request(method, path, body).status in (400, 404, 405, 415), (method, path)
    plain = name.replace("%2f", "/")
    for path in (f"/checkpoints/{gs}/1/1", f"/checkpoints/{gs}/1/1/{name}"):
        answer = board.upload(path, plain, b"mine")
        assert answer.status in (200, 400)  # as the name of a file of a checkpoint it may do
    waiting = root / "1" / ".upload-1"
    assert tree(root, without=waiting) == before


# --- links that lead out ---


def tree(folder: Path, without: Path | None = None) -> dict[str, bytes | str]:
    """Everything below a folder, as it is; what the server writes about itself left out."""
    found: dict[str, bytes | str] = {}
    for path in sorted(folder.rglob("*")):
        if path.name in ("stdout", "stderr") or (without and (path == without or without in path.parents)):
            continue
        found[str(path.relative_to(folder))] = (
            str(path.readlink()) if path.is_symlink() else path.read_bytes() if path.is_file() else ""
        )
    return found


def grid(folder: Path, word: str) -> None:
    """A grid search whose every file says `word`."""
    checkpoint = folder / "1" / "1"
    checkpoint.mkdir(parents=True)
    (folder / "spool").mkdir()
    hub = Hub(folder / "event_storage.log")
    saved = b'{"event_type":"checkpoint","source":"%b","n":2,"payload":{"grid_search_id":"g","experiment_id":1,"epoch":1,"action":"SAVED"}'
    hub.accept(batch(1, word, "g") + seal(saved % word.encode()))
    hub.close()
    (folder / "run_config.yml").write_text(f"a: {word}")
    (folder / "1" / "experiment_config.json").write_text(f'{{"a": "{word}"}}')
    (folder / "1" / "system_info.json").write_text(f'{{"a": "{word}"}}')
    (folder / "1" / "output.log").write_text(word)
    data = word.encode()
    files = [CheckpointFile(name, len(data), hashlib.sha256(data).hexdigest()) for name in ("model.bin", f"{word}.bin")]
    for file in files:
        (checkpoint / file.name).write_bytes(data)
    (checkpoint / "manifest.json").write_bytes(Manifest(epoch=1, batch=0, files=files, delete=[]).sealed())
    (folder / "spool" / f"0-board-{word}.jsonl").write_bytes(batch(1, f"spool-{word}", "g"))


LINKS = ["", "1", "run_config.yml", "1/experiment_config.json", "1/system_info.json", "1/output.log", "1/1", "1/1/manifest.json", "1/1/model.bin", "event_storage.log", "spool"]  # fmt: skip


@pytest.mark.parametrize("link", LINKS)
def test_no_link_is_followed_out(tmp_path: Path, board: Board, gs: str, link: str) -> None:
    """Nothing outside is read, changed, made or deleted, not even its names are told."""
    outside, inside = tmp_path / "outside", board.storage / gs
    grid(outside, "secret")
    grid(inside, "public")
    at = inside / link if link else inside
    if at.is_dir():
        shutil.rmtree(at)
    else:
        at.unlink()
    at.symlink_to(outside / link)
    before = tree(outside)
    config = {"file_format": "YAML", "content": "mine"}
    data = {"file_format": "JSON", "content": {"a": "mine"}}
    upload = form("model.bin", b"mine")[0]
    root, checkpoint = f"/grid_searches/{gs}", f"/checkpoints/{gs}/1/1"
    for method, path, body in (
        ("GET", "/grid_searches", None),
        ("GET", f"{root}/experiments", None),
        ("GET", f"{root}/events", None),
        ("GET", f"{root}/snapshot", None),
        ("GET", f"{root}/run_config", None),
        ("GET", f"{root}/1/experiment_config", None),
        ("GET", f"{root}/1/output", None),
        ("GET", f"/system-info/{gs}/1", None),
        ("GET", f"/checkpoint_list/{gs}/1", None),
        ("GET", checkpoint, None),
        ("GET", f"{checkpoint}/model.bin", None),
        ("GET", f"{checkpoint}/nothing", None),
        ("PUT", f"{root}/run_config", config),
        ("PUT", f"{root}/grid_search_config", config),
        ("PUT", f"{root}/1/experiment_config", data),
        ("PUT", f"{root}/1/system_info", data),
        ("POST", checkpoint, upload),
        ("POST", f"/checkpoints/{gs}/1/2", upload),
        ("DELETE", checkpoint, None),
    ):
        headers = {"Content-Type": form("", b"")[1]} if body is upload else {}
        answer = board.request(method, path, body, headers)
        assert answer.status < 500, (method, path, answer)
        assert b"secret" not in answer.body, (method, path, answer)
    deliver(board, batch(1, "mine", gs), gs)

    async def run() -> list[Any]:
        got: list[Any] = []
        async with board.client() as client:
            client.on("mlgym_event", got.append)
            joined = await client.call("join", {"rooms": [gs]})
            head = joined.get("head", {}).get(gs, 0)
            await until(lambda: str(got).count("'crc'") >= head, "the events")
        return got

    assert "secret" not in str(asyncio.run(run()))
    assert tree(outside) == before


# --- the page ---


def test_the_page_may_talk_to_its_board_only(board: Board) -> None:
    for path in PUBLIC[:-1]:
        policy = board.request("GET", path, token=False).headers["content-security-policy"]
        rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
        assert (rules["default-src"], rules["script-src"], rules["connect-src"]) == ("'none'", "'self'", "'self'")
        assert (rules["frame-ancestors"], rules["base-uri"], rules["form-action"]) == ("'none'", "'none'", "'none'")


def test_no_answer_is_taken_for_what_it_is_not(board: Board, gs: str) -> None:
    """Not even text of a run that looks like a page."""
    page = "<script>alert(1)</script>"
    board.request("PUT", f"/grid_searches/{gs}/run_config", {"file_format": "YAML", "content": page})
    answers = [board.request(method, path) for method, path in [*routes(board), *(("GET", path) for path in PUBLIC)]]
    answers += [board.get(f"/grid_searches/{gs}/run_config"), board.get(f"/grid_searches/{quote(page)}/events")]
    answers += [board.request("GET", "/grid_searches", token=False), board.get("/socket.io/?EIO=4&transport=polling")]
    for answer in answers:
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        html = answer.headers.get("content-type", "").startswith("text/html")
        assert not html or b"<title>ml_board" in answer.body
    assert answers[-4].body == page.encode()
    assert answers[-4].headers["content-type"] == "text/plain; charset=utf-8"
    assert not any("server-secret" in str(answer.headers) for answer in answers)


@pytest.mark.skipif(not CHROMIUM, reason="no chromium")
@pytest.mark.parametrize("processes", [1, 3])
def test_the_page_in_a_browser(tmp_path: Path, processes: int) -> None:
    """Given the printed address it shows what there is: from its own port, or from those of two others."""
    storage, environment = tmp_path / "storage", {"XDG_CONFIG_HOME": str(tmp_path / "config")}

    def started(name: str, *flags: str) -> Board:
        return Board(tmp_path / name, *flags, command=name, storage=storage, environment=environment)

    if processes == 1:
        with started("main") as page:
            deliver(page, batch(7, grid_search_id="shown-grid"), "shown-grid")
            assert "shown-grid" in _shown(page, tmp_path)
            assert "shown-grid" not in _shown(page, tmp_path, token="wrong")
        return
    with started("ws_endpoint") as ws, started("rest_endpoint") as rest:
        deliver(ws, batch(7, grid_search_id="shown-grid"), "shown-grid")
        assert [rest.get("/").status, ws.get("/").status, ws.get("/grid_searches").status] == [404, 404, 404]
        assert rest.handshake() in (401, 404)
        with started("main", "--rest_endpoint", rest.url, "--ws_endpoint", ws.url) as page:
            assert [page.get("/grid_searches").status, page.handshake()] == [404, 401]
            policy = page.get("/").headers["content-security-policy"]
            assert f"connect-src 'self' {rest.url} ws{rest.url[4:]} {ws.url} ws{ws.url[4:]};" in policy
            assert "shown-grid" in _shown(page, tmp_path)


def _shown(page: Board, folder: Path, token: str = "") -> str:
    """The page as a browser has it after a few seconds of its own time."""
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", f"--user-data-dir={folder}/browser-{token}", "--virtual-time-budget=4000", "--dump-dom"]  # fmt: skip
    address = f"{page.url}/#token={token or page.token}"
    ended = subprocess.run([CHROMIUM, *flags, address], capture_output=True, text=True, timeout=120, check=False)
    assert "<title>ml_board</title>" in ended.stdout, ended.stderr
    assert page.token not in ended.stdout
    return ended.stdout
