"""The Prometheus text: kinds by name, labels escaped, one family a name."""

from prometheus_client.parser import text_string_to_metric_families

from aigate.keeper.metrics import render


def test_numbers_become_families_with_their_labels():
    text = render({"calls_total;status=200;provider=sim": 3, "calls_total;status=502;provider=sim": 1, "calls_running": 2}).decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert {name: family.type for name, family in families.items()} == {"aigate_calls": "counter", "aigate_calls_running": "gauge"}
    samples = {sample.labels["status"]: sample.value for sample in families["aigate_calls"].samples}
    assert samples == {"200": 3, "502": 1}


def test_no_value_can_break_out_of_its_label():
    (family,) = text_string_to_metric_families(render({'calls_total;model=a"} 1\nb\\': 1}).decode())
    assert family.samples[0].labels == {"model": 'a"} 1\nb\\'}
