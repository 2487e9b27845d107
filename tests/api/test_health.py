"""Readiness, metrics, and the state of the providers as the workers see it."""

from aigate.messages import Health, Hello
from tests.api.plane import run


def test_ready_only_while_every_part_is_well_and_without_a_key(tmp_path):
    async def test(plane):
        reply = await plane.get("/readyz", headers={"authorization": ""})
        assert (reply.status_code, reply.json()) == (200, {"status": "ready", "checks": {"database": "ok"}})
        plane.checks = {"database": "ok", "workers": "none is connected"}
        reply = await plane.get("/readyz")
        assert (reply.status_code, reply.json()["status"]) == (503, "not_ready")

    run(tmp_path, test)


def test_metrics_are_prometheus_text(tmp_path):
    async def test(plane):
        reply = await plane.get("/metrics", headers={"authorization": ""})
        assert reply.headers["content-type"].startswith("text/plain; version=0.0.4")
        lines = reply.text.splitlines()
        assert 'aigate_calls_total{status="200"} 3.0' in lines and "aigate_workers_connected 1.0" in lines
        assert "# TYPE aigate_calls_total counter" in lines and "# TYPE aigate_workers_connected gauge" in lines

    run(tmp_path, test)


def test_a_provider_is_as_well_as_the_worst_word_on_its_targets(tmp_path):
    async def test(plane):
        states = [
            {"sim/a": {"state": "closed", "failures": 1}, "sim/b": {"state": "open", "failures": 5}},
            {"sim/a": {"state": "half_open", "failures": 9}, "simple/c": {"state": "open", "failures": 5}},
        ]
        for number, targets in enumerate(states):
            connection = plane.workers.protocol()
            connection.hello = Hello(f"w{number}", number, f"jrn_{number}")
            plane.workers.opened(connection)
            plane.workers.reported(f"jrn_{number}", Health(f"w{number}", {}, targets))
        listed = {entry["provider"]: entry for entry in (await plane.get("/v1/health/providers")).json()["data"]}
        assert listed["openai"] == {"provider": "openai", "status": "operational", "targets": []}
        assert listed["sim"]["status"] == "degraded"
        assert [(target["model"], target["state"]) for target in listed["sim"]["targets"]] == [("sim/a", "half_open"), ("sim/b", "open")]
        assert (listed["groq"]["status"], listed["groq"]["reason"]) == ("not_configured", "GROQ_API_KEY is not set")

    run(tmp_path, test)
