"""The API as its own description says: what fits it is answered as it says, and what does not is refused."""

import re

import hypothesis
import pytest

EXAMPLES = 15
HEADERS = {"x-mvtec-tf": "1"}
# A name or a photograph that is none is refused though it is of the kind that is described.
UNASKED = ["positive_data_acceptance"]


@pytest.fixture
def described(page, photographs):
    """What the page says of its API, with a judged photograph behind it."""
    page.show(photographs[0])
    # Loaded here, where one test asks for it: it takes seconds.
    schemathesis = pytest.importorskip("schemathesis")
    return schemathesis.openapi.from_dict(page.get("/api/openapi.json").json())


def _answer(page, case, sha256):
    """The answer to a case that hypothesis has thought of, about a model and a photograph that are there."""
    sent = case.as_transport_kwargs(base_url="http://127.0.0.1:8600")
    sent["headers"] = dict(sent["headers"]) | HEADERS
    if case.operation.label.startswith("GET"):
        sent["url"] = re.sub("/models/[^/]*/", "/models/small/", sent["url"])
    if isinstance(sent.get("json"), dict) and "sha256" in sent["json"]:
        sent["json"] = sent["json"] | {"sha256": sha256}
    # Further fields of a form are no files, which the client cannot send as such.
    sent["files"] = [field for field in sent.get("files") or () if field[0] == "photographs"]
    request = page.build_request(**sent)
    request.read()
    return page.send(request)


def _statuses(page, operation, sha256):
    """Asks a call in many ways; returns the statuses that it was answered with."""
    import schemathesis

    found, modes = set(), list(schemathesis.GenerationMode)
    if operation.label == "POST /api/judge":
        # In a form everything is a text, and a file whatever bytes it has: nothing of it is of another kind.
        modes = [schemathesis.GenerationMode.POSITIVE]
    left_out = schemathesis.checks.CHECKS.get_by_names(UNASKED)

    @hypothesis.settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(hypothesis.strategies.one_of(*(operation.as_strategy(generation_mode=mode) for mode in modes)))
    def ask(case):
        answer = _answer(page, case, sha256)
        found.add(answer.status_code)
        case.validate_response(answer, excluded_checks=left_out)

    ask()
    return found


@pytest.mark.slow
def test_every_call_is_answered_as_described(described, page):
    (row,) = page.site.kept.latest(1)
    operations = [operation.ok() for operation in described.get_all_operations()]
    seen = {operation.label: _statuses(page, operation, row["sha256"]) for operation in operations}
    assert len(seen) == 10
    without = {label for label, statuses in seen.items() if 200 not in statuses}
    assert without <= {"POST /api/judge", "POST /api/models/{name}/versions"}


def test_numbers_and_bodies_beyond_all_bounds_are_refused(page):
    large = 10**30
    for address in (f"/heat/{large}.png", f"/api/judgements?before={large}", f"/improve/{large}/report.html"):
        assert page.get(address).status_code == 422, address
    assert page.form(f"/sinks/{large}/test").status_code == 422
    kind = {"content-type": "multipart/form-data; boundary=b"} | HEADERS
    cut = page.post("/api/judge", content=b"--b\r\nno form", headers=kind)
    assert (cut.status_code, list(cut.json())) == (400, ["error"])
    other = page.get("/api/models", headers={"host": "evil.example"})
    assert (other.status_code, "another name" in other.json()["error"]) == (421, True)
    assert page.put("/api/models", headers=HEADERS).json() == {"error": "Method Not Allowed"}
