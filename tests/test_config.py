"""Settings: where they come from, which wins, and what a wrong one is told."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aigate.config import SECTIONS, Config, ConfigError, find_file, load
from aigate.process import read_config, write_config

MOCK = """
[providers.mock]
dialect = "openai-chat"
base_url = "http://127.0.0.1:9100/v1"
api_key = "env:MOCK_KEY"
models = ["*"]
unpriced = "allow"
[models."mock/gpt"]
input_usd_per_mtok = 0.15
output_usd_per_mtok = 0.60
cached_input_usd_per_mtok = 0.075
context_window = 128000
max_output_tokens = 16384
"""


@pytest.fixture
def read(tmp_path):
    """Loads settings from a text, an environment and command-line values."""

    def run(text="", environ=None, **overrides):
        path = tmp_path / "aigate.toml"
        path.write_text(text)
        return load(str(path), environ or {}, {name.replace("__", "."): value for name, value in overrides.items()})

    return run


def refused(read, *arguments, **overrides):
    with pytest.raises(ConfigError) as caught:
        read(*arguments, **overrides)
    return str(caught.value)


def test_nothing_has_to_be_set():
    config = load(None, {})
    assert (config.server.host, config.server.port, config.server.workers) == ("127.0.0.1", 4000, 1)
    assert config.credentials == {}


def test_command_line_beats_environment_beats_file_beats_default(read):
    text = "[server]\nport = 1\nworkers = 2\nhost = 'a'"
    config = read(text, {"AIGATE_SERVER_PORT": "3", "AIGATE_SERVER_WORKERS": "4"}, server__port=5)
    assert (config.server.port, config.server.workers, config.server.host, config.server.drain_s) == (5, 4, "a", 30.0)


def test_reads_providers_and_models(read):
    config = read(MOCK, {"MOCK_KEY": "sk-mock"})
    assert config.providers["mock"].models == ("*",)
    assert config.models["mock/gpt"].cached_input_usd_per_mtok == 0.075
    assert config.credentials == {"mock": "sk-mock"}


@pytest.mark.parametrize("api_key, credentials", [("literal-key", {"mock": "literal-key"}), ("none", {}), ("env:UNSET", {})])
def test_a_key_may_be_literal_or_none(read, api_key, credentials):
    assert read(MOCK.replace("env:MOCK_KEY", api_key)).credentials == credentials


def test_a_built_in_provider_is_live_by_its_variable_alone(read):
    assert read("", {"OPENAI_API_KEY": "sk-a", "GOOGLE_API_KEY": "b", "GROQ_API_KEY": ""}).credentials == {"openai": "sk-a", "google": "b"}


def test_a_configured_key_beats_the_built_in_variable(read):
    config = read("[providers.openai]\napi_key = 'env:OTHER'", {"OPENAI_API_KEY": "a", "OTHER": "b"})
    assert config.credentials == {"openai": "b"}


def test_a_local_provider_is_live_by_its_base_url(read):
    config = read("", {"OLLAMA_BASE_URL": "http://127.0.0.1:11434/v1/", "OPENAI_BASE_URL": "http://127.0.0.1:4000/v1"})
    assert {name: provider.base_url for name, provider in config.providers.items()} == {"ollama": "http://127.0.0.1:11434/v1"}


@pytest.mark.parametrize("address", ["https://res.openai.azure.com", "https://res.openai.azure.com/", "https://res.openai.azure.com/openai/v1/"])
def test_a_resource_of_ones_own_is_live_by_its_address_and_key(read, address):
    config = read("", {"AZURE_OPENAI_ENDPOINT": address, "AZURE_OPENAI_API_KEY": "k"})
    assert config.providers["azure"].base_url == "https://res.openai.azure.com/openai/v1"
    assert config.credentials == {"azure": "k"}


def test_a_configured_base_url_beats_the_address_of_the_environment(read):
    config = read("[providers.azure]\nbase_url = 'https://other/v1'", {"AZURE_OPENAI_ENDPOINT": "https://res.openai.azure.com"})
    assert config.providers["azure"].base_url == "https://other/v1"


def test_the_address_of_a_resource_leaves_other_settings_alone(read):
    config = read("[providers.azure]\ntimeout_s = 5", {"AZURE_OPENAI_ENDPOINT": "https://res.openai.azure.com"})
    assert (config.providers["azure"].timeout_s, config.providers["azure"].base_url) == (5, "https://res.openai.azure.com/openai/v1")


def test_a_bad_address_of_a_resource_is_refused(read):
    with pytest.raises(ConfigError, match="base_url"):
        read("", {"AZURE_OPENAI_ENDPOINT": "res.openai.azure.com"})


def test_a_provider_can_be_configured_by_environment_alone():
    environ = {"AIGATE_PROVIDERS_MOCK_BASE_URL": "http://h/v1", "AIGATE_PROVIDERS_MOCK_DIALECT": "openai-chat", "AIGATE_PROVIDERS_MOCK_MODELS": "a*, b"}
    assert load(None, environ).providers["mock"].models == ("a*", "b")


def test_the_environment_reaches_an_entry_of_the_file_by_its_letters(read):
    text = MOCK.replace("providers.mock", 'providers."my-mock.1"').replace("mock/gpt", "my-mock.1/gpt-4.1")
    environ = {"AIGATE_PROVIDERS_MY_MOCK_1_UNPRICED": "refuse", "AIGATE_MODELS_MY_MOCK_1_GPT_4_1_CONTEXT_WINDOW": "5"}
    config = read(text, environ)
    assert config.providers["my-mock.1"].unpriced == "refuse"
    assert config.models["my-mock.1/gpt-4.1"].context_window == 5


def test_the_root_key_has_a_short_name():
    assert load(None, {"AIGATE_ADMIN_KEY": "sk-root"}).auth.admin_key == "sk-root"


def test_variables_of_others_and_empty_ones_are_left_alone():
    assert load(None, {"AIGATE_PORT": "tcp://10.0.0.1:4000", "AIGATE_SERVICE_HOST": "10.0.0.1", "AIGATE_SERVER_PORT": ""}) == load(None, {})


def _example(kind):
    """Some allowed value of a field's type, as an environment variable would spell it."""
    for text in ("1", "true", "1048576", "info", "off", "a"):
        try:
            msgspec.convert((text,) if "tuple" in str(kind) else text, kind, strict=False)
        except msgspec.ValidationError:
            continue
        return text
    raise AssertionError(kind)


def test_every_field_can_be_set_by_the_environment():
    for section, struct in SECTIONS.items():
        for field in msgspec.structs.fields(struct):
            load(None, {f"AIGATE_{section}_{field.name}".upper(): _example(field.type)})


@pytest.mark.parametrize(
    "text, words",
    [
        ("[server]\nprot = 1", ["aigate.toml: server.prot", "no such setting", "did you mean port"]),
        ("[sever]\nport = 1", ["aigate.toml: sever", "no such section", "did you mean server"]),
        ("[zzz]", ["aigate.toml: zzz", "allowed are server, auth"]),
        ("server = 1", ["aigate.toml: server", "[server]"]),
        ("[server]\nport = 'x'", ["aigate.toml: server.port", "'x'", "a whole number"]),
        ("[server]\nport = 70000", ["server.port", "70000", "65535"]),
        ("[server]\ndrain_s = nan", ["server.drain_s", "nan"]),
        ("[server]\nworkers = true", ["server.workers", "True", "a whole number"]),
        ("[log]\nlevel = 'loud'", ["log.level", "'loud'", "debug, info, warning, error"]),
        ("port = 1", ["aigate.toml: port", "it belongs below [server]"]),
        ("[server", ["aigate.toml", "TOML"]),
        ("providers = 1", ["aigate.toml: providers", "[providers]"]),
        ("[providers]\nmock = 1", ["aigate.toml: providers.mock", "[providers.mock]"]),
        ("[providers.mock]", ["providers.mock.base_url", "missing", "openai"]),
        ("[providers.mock]\nbase_url = 'http://h'", ["providers.mock.dialect", "openai-chat"]),
        ("[providers.mock]\nbase_ulr = 'http://h'", ["providers.mock.base_ulr", "did you mean base_url"]),
        (MOCK.replace("http://127", "ftp://127"), ["providers.mock.base_url", "ftp://", "https://"]),
        (MOCK.replace("//127", "//user:secret@127"), ["providers.mock.base_url", "use api_key"]),
        (MOCK.replace("9100", "91000"), ["providers.mock.base_url", "ort"]),
        (MOCK.replace("9100", "0"), ["providers.mock.base_url", "between 1 and 65535"]),
        (MOCK.replace("/v1", "/v1?"), ["providers.mock.base_url", "must end before"]),
        (MOCK.replace("127.0.0.1", "bücher.example"), ["providers.mock.base_url", "ASCII"]),
        (MOCK.replace("127.0.0.1", "127.0.0.1 "), ["providers.mock.base_url", "without spaces"]),
        (MOCK.replace("http://127.0.0.1:9100", "unix://run/mock.sock:"), ["providers.mock.base_url", "unix:///"]),
        (MOCK.replace('"allow"', '"perhaps"'), ["providers.mock.unpriced", "'perhaps'", "allow, refuse"]),
        (MOCK.replace("providers.mock", "providers.Mock"), ["providers.Mock", "lower-case"]),
        (MOCK.replace("mock/gpt", "gpt"), ['aigate.toml: models."gpt"', "provider/model"]),
        (MOCK.replace("mock/gpt", "mcok/gpt"), ['aigate.toml: models."mcok/gpt"', "no provider 'mcok'", "did you mean mock?"]),
        (MOCK.replace("0.075", "'cheap'"), ["mock/gpt.cached_input_usd_per_mtok", "Expected a number, got text"]),
        (MOCK.replace('"env:MOCK_KEY"', '"env:"'), ["providers.mock.api_key", "env:NAME"]),
        (MOCK.replace('"env:MOCK_KEY"', '"file:/nope"'), ["providers.mock.api_key", "/nope: cannot be read"]),
        (MOCK.replace("0.15", "-1"), ["mock/gpt.input_usd_per_mtok", "-1", "0"]),
    ],
)
def test_a_wrong_setting_is_named_with_what_is_allowed(read, text, words):
    message = refused(read, text)
    assert [word for word in words if word not in message] == [], message


@pytest.mark.parametrize(
    "variable, value, words",
    [
        ("AIGATE_SERVER_PROT", "1", ["did you mean port"]),
        ("AIGATE_SERVER_PORT", "many", ["'many'", "a whole number"]),
        ("AIGATE_SIM_ENABLED", "perhaps", ["'perhaps'", "true or false"]),
        ("AIGATE_PROVIDERS_MOCK_NOTHING", "1", ["base_url"]),
        ("AIGATE_ADMIN_KEY", "two words", ["AIGATE_ADMIN_KEY", "header"]),
        ("AIGATE_MODELS_MOCK_GPT_MODALITY", "text", ["no model in the file"]),
        ("AIGATE_SERVR_PORT", "1", ["did you mean AIGATE_SERVER_PORT?"]),
        ("AIGATE_WORKERS", "2", ["did you mean AIGATE_SERVER_WORKERS?"]),
        ("AIGATE_PORT", "4001", ["did you mean AIGATE_SERVER_PORT?"]),
        ("AIGATE_PROVIDER_MOCK_API_KEY", "x", ["did you mean AIGATE_PROVIDERS_MOCK_API_KEY?"]),
    ],
)
def test_a_wrong_variable_is_named(variable, value, words):
    with pytest.raises(ConfigError) as caught:
        load(None, {variable: value})
    assert [word for word in [variable, *words] if word not in str(caught.value)] == [], caught.value


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.toml: there is no such file"):
        load(str(tmp_path / "none.toml"), {})


def test_the_file_is_the_given_one_or_the_variable_or_the_one_at_hand(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_file(None, {}) is None
    (tmp_path / "aigate.toml").touch()
    assert find_file(None, {}) == "aigate.toml"
    assert find_file(None, {"AIGATE_CONFIG": "b.toml"}) == "b.toml"
    assert find_file("a.toml", {"AIGATE_CONFIG": "b.toml"}) == "a.toml"


SECRET = "sk-\nhunter"


@pytest.mark.parametrize(
    "text, environ",
    [
        (MOCK, {"MOCK_KEY": SECRET}),
        ("", {"OPENAI_API_KEY": SECRET}),
        (MOCK.replace('"env:MOCK_KEY"', "['hunter two']"), {}),
        (MOCK + "[auth]\nadmin_key = ['hunter two']", {}),
        (MOCK, {"AIGATE_PROVIDERS_MOCK_HEADERS": "hunter two"}),
    ],
)
def test_no_message_holds_a_secret(read, text, environ):
    assert "hunter" not in refused(read, text, environ)


def test_no_repr_holds_a_secret(read):
    config = read(MOCK, {"MOCK_KEY": "hunter-two", "AIGATE_ADMIN_KEY": "hunter-two"})
    assert "hunter" not in repr(config) + repr(config.auth) + repr(config.providers)


@given(secret=st.binary(max_size=64), header=st.text())
def test_a_child_reads_what_the_supervisor_writes(secret, header):
    import io

    config = load(None, {"AIGATE_ADMIN_KEY": "k"})
    config = msgspec.structs.replace(config, key_secret=secret, credentials={"mock": header})
    assert read_config(io.BytesIO(write_config(config))) == config


def test_the_url_is_one_that_a_client_here_can_use():
    for host, url in (("127.0.0.1", "http://127.0.0.1:1"), ("0.0.0.0", "http://127.0.0.1:1"), ("::", "http://[::1]:1"), ("h.test", "http://h.test:1")):
        assert load(None, {}, {"server.host": host, "server.port": 1}).server.url == url
    assert Config().server.url == "http://127.0.0.1:4000"


# --- Google's credentials ---------------------------------------------------------------------------------------------------------

PERSON = '{"type": "authorized_user", "client_id": "c", "client_secret": "s", "refresh_token": "hush", "quota_project_id": "mine"}'


def test_a_key_file_of_google_makes_its_provider_live(read, tmp_path):
    path = tmp_path / "adc.json"
    path.write_text(PERSON)
    config = read("", {"GOOGLE_APPLICATION_CREDENTIALS": str(path)})
    assert config.providers["vertex"].base_url == "https://aiplatform.googleapis.com/v1beta1/projects/mine/locations/global"
    assert "hush" in config.credentials["vertex"]
    config = read("", {"GOOGLE_APPLICATION_CREDENTIALS": PERSON, "GOOGLE_CLOUD_PROJECT": "other", "GOOGLE_CLOUD_LOCATION": "europe-west1"})
    assert config.providers["vertex"].base_url == "https://europe-west1-aiplatform.googleapis.com/v1beta1/projects/other/locations/europe-west1"
    config = read("[providers.vertex]\napi_key = 'metadata'", {"GOOGLE_CLOUD_PROJECT": "p", "GCE_METADATA_HOST": "127.0.0.1:1"})
    assert "http://127.0.0.1:1/computeMetadata/" in config.credentials["vertex"]
    assert "vertex" not in read("", {"GOOGLE_CLOUD_PROJECT": "p"}).providers


def test_a_key_file_that_cannot_be_used_is_named_without_its_content(read, tmp_path):
    path = tmp_path / "adc.json"
    assert f"GOOGLE_APPLICATION_CREDENTIALS: {path}: cannot be read" in refused(read, "", {"GOOGLE_APPLICATION_CREDENTIALS": str(path)})
    path.write_text(PERSON.replace("authorized_user", "external_account"))
    said = refused(read, f"[providers.vertex]\napi_key = 'file:{path}'")
    assert "providers.vertex.api_key" in said and "external_account" in said and "hush" not in said


def test_any_key_may_be_in_a_file(read, tmp_path):
    (tmp_path / "key").write_text("sk-from-a-file\n")
    assert read(f"[providers.openai]\napi_key = 'file:{tmp_path / 'key'}'").credentials == {"openai": "sk-from-a-file"}
    assert "cannot be read" in refused(read, "[providers.openai]\napi_key = 'file:/nowhere/key'")
