"""`cordon query`: what it sends, what it prints, and what it says when Cordon is not up."""

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest
from click.testing import CliRunner, Result

from deploy.cli.query import query


class Endpoint(ThreadingHTTPServer):
    """Answers every query in the same way and remembers it."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer = (200, b"1\n")
        self.asked: list[tuple[str, dict[str, list[str]]]] = []


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, Endpoint)
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.server.asked.append((body, parse_qs(urlsplit(self.path).query)))
        status, answer = self.server.answer
        self.send_response(status)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *args: object) -> None:
        """Keep the test's output quiet."""


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    server = Endpoint()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def run(port: int, *arguments: str, text: str | None = None) -> Result:
    return CliRunner().invoke(query, arguments, input=text, env={"CORDON_QUERY_PORT": str(port)})


def test_the_answer_is_printed_as_it_came(endpoint: Endpoint) -> None:
    endpoint.answer = (200, b"a\t1\n")
    done = run(endpoint.server_port, "SELECT {x:UInt8}", "--format", "TSV", "--param", "x=4", "--lane", "replay-1")
    assert (done.exit_code, done.output) == (0, "a\t1\n")
    sql, asked = endpoint.asked[0]
    assert sql == "SELECT {x:UInt8}"
    assert asked == {"default_format": ["TSV"], "database": ["cordon_replay_1"], "param_x": ["4"]}


def test_sql_may_come_from_standard_input(endpoint: Endpoint) -> None:
    assert run(endpoint.server_port, text="SELECT 2").exit_code == 0
    assert endpoint.asked[0][0] == "SELECT 2"


def test_a_named_query_is_sent_as_its_sql(endpoint: Endpoint) -> None:
    assert run(endpoint.server_port, "killswitch_history", "--param", "rollout=r-1").exit_code == 0
    assert "FROM killswitch FINAL" in endpoint.asked[0][0]
    missing = run(endpoint.server_port, "killswitch_history")
    assert missing.exit_code == 2
    assert "--param rollout=" in missing.output


def test_named_queries_are_listed_with_their_parameters() -> None:
    listed = CliRunner().invoke(query, ["--list"])
    assert listed.exit_code == 0
    assert "top_signatures" in listed.output
    assert "--param rollout=...  rollout id (String)" in listed.output


def test_a_refusal_is_shown_and_fails(endpoint: Endpoint) -> None:
    endpoint.answer = (403, b"Code: 164. this endpoint only reads (READONLY)\n")
    done = run(endpoint.server_port, "DROP TABLE crashes")
    assert done.exit_code == 1
    assert "Error: Code: 164. this endpoint only reads" in done.output


def test_without_a_running_cordon_it_says_what_to_do() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
        done = run(port, "SELECT 1")
    assert done.exit_code == 1
    assert "start it with `cordon up`" in done.output


@pytest.mark.parametrize("arguments", [["SELECT 1", "--param", "novalue"], ["SELECT 1", "--config", "/nowhere.toml"]])
def test_bad_arguments_are_usage_errors(arguments: list[str]) -> None:
    assert run(1, *arguments).exit_code == 2


def test_a_bad_setting_is_named() -> None:
    done = CliRunner().invoke(query, ["SELECT 1"], env={"CORDON_QUERY_PORT": "many"})
    assert done.exit_code == 1
    assert "query_port" in done.output
