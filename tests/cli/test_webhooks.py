"""`aigate webhooks`, each command as a process, against a real server."""


def test_an_endpoint_is_added_shown_rotated_and_removed(aigate):
    added = aigate("webhooks", "add", "https://8.8.8.8/hook", "--event", "job.*", "--event", "balance.low", "--description", "ours")
    assert added.stdout.startswith("whsec_"), added.stderr
    endpoint_id = added.stderr.partition(":")[0]
    row = next(line.split("\t") for line in aigate("webhooks", "list").stdout.splitlines() if line.startswith(endpoint_id))
    assert row[1:5] == ["https://8.8.8.8/hook", "job.* balance.low", "enabled", "ours"]
    rotated = aigate("webhooks", "rotate", endpoint_id, "--overlap", "60").stdout
    assert rotated.startswith("whsec_") and rotated != added.stdout
    assert aigate("webhooks", "remove", endpoint_id).stdout == f"{endpoint_id} removed\n"
    assert aigate("webhooks", "remove", endpoint_id).stderr.startswith("aigate: 404:")


def test_a_url_inside_and_an_unknown_event_are_refused_with_their_names(aigate):
    assert "url: 10.0.0.1 is not a host on the public internet" in aigate("webhooks", "add", "https://10.0.0.1/").stderr
    assert "events[0]: 'job.done' is no event" in aigate("webhooks", "add", "https://8.8.8.8/", "--event", "job.done").stderr


def test_the_secret_of_a_key_is_shown_and_rotated(aigate):
    secret = aigate("webhooks", "secret").stdout
    assert secret.startswith("whsec_") and aigate("webhooks", "secret").stdout == secret
    assert aigate("webhooks", "secret", "--rotate").stdout not in ("", secret)


def test_deliveries_are_listed_and_resent(aigate):
    assert aigate("webhooks", "deliveries", "--status", "failed").stdout.startswith("id\tevent_type\t")
    assert "status" in aigate("webhooks", "deliveries", "--status", "lost").stderr
    assert aigate("webhooks", "resend", "dlv_1").stderr.startswith("aigate: 404:")
