"""The catalogue: which providers are live, what each model name means, what it costs. Slug in, Target out.

Built once at start from the built-in rows, the data files and the configuration, which wins. Pure but for reading its own data files:
names are looked up when first asked for and remembered.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from decimal import Decimal
from fnmatch import fnmatchcase
from urllib.parse import quote

import msgspec
from msgspec.structs import replace

from aigate.catalog.describe import CAPABILITIES, JOB_PATHS, describe_model
from aigate.catalog.job_models import MILLIUNITS, JobModelRow, find_job_model, load_job_models
from aigate.catalog.live import live_providers, url_prefix
from aigate.catalog.models import Facts, find_facts, load_facts
from aigate.catalog.prices import PriceBook, load_price_book
from aigate.config import Config, ModelConfig
from aigate.core.evals import ALIAS
from aigate.core.job import CREDIT, FIELDS, ITEM, MODALITIES, SECOND, JobLimits
from aigate.core.price import every_price, usd_to_rate, with_id, with_variant
from aigate.core.target import NATIVE_BATCH, Model, Price, Provider, Quirks, Target
from aigate.dialects.anthropic_message import NAME as MESSAGES
from aigate.dialects.anthropic_request import spelt
from aigate.errors import ClientError, model_not_found
from aigate.providers.table import BATCH_FACTOR, ROWS, SIM, SIM_PRICE

MAX_REMEMBERED = 4096  # names; any name may pass a provider that takes all, so what callers ask must not grow without end

BATCH = "batch"  # the variant of a price that calls in a batch are charged

_SLUG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,199}")
_PATHS = {  # wire format → path after base_url
    "openai-chat": "/chat/completions",
    "openai-embeddings": "/embeddings",
    "openai-responses": "/responses",
    "openai-compaction": "/responses/compact",
    "anthropic-messages": "/messages",
    "gemini": "/models/{model}:generateContent",
}
_STREAM_PATHS = {"gemini": "/models/{model}:streamGenerateContent?alt=sse"}  # where streams have another one
_MAKES = {"video": "videos", "music": "music", "3d": "3D models"}
_LONGEST_S = 600.0  # of what a model makes that only the operator knows, where nobody says how long
_MOST_CREDITS = 100.0  # … of its credits
_UNIT_RATES = {SECOND: "usd_per_second", ITEM: "usd_per_item", CREDIT: "usd_per_credit"}
_STANDS_IN = {"compact": "responses", "responses": "chat"}  # any model that chats can stand behind these surfaces
_RATES = (
    ("input", "input_usd_per_mtok"),
    ("output", "output_usd_per_mtok"),
    ("cached_input", "cached_input_usd_per_mtok"),
    ("cache_write", "cache_write_usd_per_mtok"),
)


def load_catalog(config: Config, *, sim_base_url: str | None) -> Catalog:
    """`sim_base_url`: where the simulated provider listens, None where it is not to be offered."""
    live, dormant = live_providers(config, sim_base_url if config.sim.enabled else None)
    catalog = Catalog(live, dormant, config.models, facts=load_facts(), book=load_price_book(), job_models=load_job_models())
    catalog.auto = {"video": config.jobs.video_model, "music": config.jobs.music_model, "3d": config.jobs.model_3d}
    catalog.url = config.server.url
    catalog.batch_factor = Decimal(str(config.batches.price_factor))
    if config.ledger.own_key_usd_per_mtok:
        rate = usd_to_rate(config.ledger.own_key_usd_per_mtok)
        catalog.own_key_price = with_id(Price(rates={"input": rate, "output": rate}, source="config"))
    return catalog


class EvalNamed(ClientError):
    """A model name that stands for the winner of an eval: whoever can look that up puts it in its place."""

    status = 404
    type = "model_not_found"
    code = "unknown_model"


class Catalog:
    """`resolve` is what the data path asks, once a name; the rest is for people."""

    def __init__(
        self,
        live: dict[str, Provider],
        dormant: dict[str, str],
        overrides: dict[str, ModelConfig],
        *,
        facts: dict[str, Facts],
        book: PriceBook,
        job_models: dict[str, JobModelRow] | None = None,
    ):
        self.providers = live  # name → row in force
        self.url = ""  # where clients reach this gateway, for the examples
        self.batch_factor = Decimal(1)  # of a price, charged for a call in a batch
        self.own_key_price: Price | None = None  # of calls on a caller's own provider key, where there is a fee
        self.auto: dict[str, str] = {}  # modality of jobs → the operator's choice for auto/<modality>; "" = none
        self._job_models = job_models or {}
        self._dormant = dormant  # name → why it is not live
        self._facts = facts
        self._book = book
        self._targets: dict[str, dict[str, Target]] = {}  # endpoint → slug as asked → target
        self._names = {alias: row.name for row in ROWS.values() for alias in (row.name, *row.aliases)}
        self._names |= {alias: row.name for row in live.values() for alias in (row.name, *row.aliases)}
        self._overrides = {self._canonical(slug): override for slug, override in overrides.items()}

    # --- the data path ---------------------------------------------------------------------------------------------------------

    def resolve(self, slug: str, endpoint: str) -> Target:
        """Raises ClientError: no such model, provider not live, no such endpoint there, no price."""
        targets = self._targets.setdefault(endpoint, {})
        target = targets.get(slug)
        if target is None:
            target = self._target(slug, endpoint)
            if len(targets) >= MAX_REMEMBERED:
                targets.clear()
            targets[slug] = target
        return target

    def _target(self, slug: str, endpoint: str) -> Target:
        provider, upstream = self._locate(slug)
        model = self._model(provider, upstream)
        while endpoint not in provider.dialects and endpoint in _STANDS_IN:
            endpoint = _STANDS_IN[endpoint]
        if model.job is not None:
            raise ClientError(f"{model.slug} is run as a job: send it to {JOB_PATHS[model.modality]}", code="unsupported_endpoint", param="model")
        dialect = provider.dialects.get(endpoint)
        if dialect is None:
            raise ClientError(f"{provider.name} has no {endpoint} endpoint here", code="unsupported_endpoint", param="model")
        if model.modality == "embedding" and endpoint != "embeddings":
            raise ClientError(f"{model.slug} makes embeddings: send it to /v1/embeddings", code="unsupported_endpoint", param="model")
        if model.price is None and provider.unpriced == "refuse":
            raise self._unpriced(model.slug)
        quirks = _quirks(provider, upstream)
        if dialect in ("openai-responses", "openai-compaction"):
            quirks = msgspec.structs.replace(quirks, spelling={})  # the rows spell for chat
        path = provider.paths.get(endpoint) or _PATHS[dialect]
        stream_path = provider.paths.get("stream") or _STREAM_PATHS.get(dialect, "")
        count_path = provider.paths.get("count_tokens", "")
        prefix, name = url_prefix(provider.base_url), quote(spelt(upstream) if dialect == MESSAGES else upstream, safe="/@")
        return Target(
            slug=model.slug,
            provider=provider,
            upstream_model=upstream,
            model=model,
            quirks=quirks,
            dialect=dialect,
            url_path=prefix + path.replace("{model}", name),
            stream_url_path=stream_path and prefix + stream_path.replace("{model}", name),
            count_url_path=count_path and prefix + count_path,
            names_model="{model}" not in path,
            endpoint=endpoint,
        )

    def resolve_job(self, slug: str, modality: str) -> Target:
        """`slug`: "" or auto/<modality> takes the operator's choice, else the first there is. Raises ClientError as `resolve` does."""
        if slug in ("", "auto", f"auto/{modality}"):
            slug = self.auto.get(modality) or next(iter(self._jobs_of(modality)), "")
            if not slug:
                raise model_not_found(f"No model that makes {_MAKES[modality]} is live here; GET /v1/models?modality={modality} lists them")
        provider, upstream = self._locate(slug)
        model = self._model(provider, upstream)
        if model.job is None and find_facts(self._facts, model.slug) is None:  # nobody knows it: the provider will say
            model = _job_model(model.slug, JobModelRow(modality=""), replace(self._overrides.get(model.slug) or ModelConfig(), modality=modality))
        if model.job is None or not provider.jobs or model.modality != modality:
            there = ", ".join(self._jobs_of(modality)[:10]) or "there is none here"
            problem = f"makes {_MAKES[model.modality]}" if model.modality in _MAKES else f"is no model that makes {_MAKES[modality]}"
            raise ClientError(f"{model.slug} {problem}; for {_MAKES[modality]} take: {there}", code="unsupported_endpoint", param="model")
        if provider.unpriced == "refuse" and not has_rate(model.price, model.job.unit):
            raise self._unpriced(model.slug)
        return Target(
            slug=model.slug,
            provider=provider,
            upstream_model=upstream,
            model=model,
            quirks=Quirks(),
            dialect=provider.jobs,
            url_path=url_prefix(provider.jobs_base_url or provider.base_url),
            endpoint=modality,
        )

    def _jobs_of(self, modality: str) -> list[str]:
        return [model.slug for model in self.models() if model.job is not None and model.modality == modality]

    def _locate(self, slug: str) -> tuple[Provider, str]:
        """The live provider and its own name for the model."""
        if slug.startswith(ALIAS):
            raise EvalNamed(f"{slug[:100]!r} names an eval, and a model is due here", param="model")
        if not _SLUG.fullmatch(slug) or ".." in slug:
            raise model_not_found(
                f"{slug[:200]!r} is not a model name: names are provider/model, of letters, digits and . _ : / @ + -"
            )
        prefix, slash, upstream = slug.partition("/")
        name = self._names.get(prefix)
        if name is None or not upstream:
            raise model_not_found(f"{slug!r} is unknown{self._suggest(slug, is_bare=not slash)}")
        provider = self.providers.get(name)
        if provider is None:
            raise model_not_found(f"{slug!r} is not available: {name} is not live here, as {self._dormant[name]}")
        if not any(fnmatchcase(upstream, pattern) for pattern in provider.models):
            raise model_not_found(f"{slug!r} is not offered: {name} is limited to {', '.join(provider.models)}{self._suggest(slug)}")
        return _serving(provider, upstream), upstream

    def _unpriced(self, slug: str) -> ClientError:
        """A name nobody knows is most likely misspelt; a known one lacks only its price."""
        near = self._near(slug)
        if near and find_facts(self._facts, slug) is None and slug not in self._overrides:
            return model_not_found(f"{slug!r} is unknown{self._suggest(slug)} If it is new, give it a price in [models.\"{slug}\"]")
        return ClientError(
            f"{slug!r} has no price here, so it is refused: give it one in [models.\"{slug}\"], "
            f'or set unpriced = "allow" in [providers.{slug.partition("/")[0]}]',
            code="unpriced_model",
            param="model",
        )

    def _suggest(self, slug: str, is_bare: bool = False) -> str:
        whole = self._whole(slug) if is_bare else []
        near = [name for name in whole if name.partition("/")[0] in self.providers] or self._near(slug)
        asleep = [] if near else [name for name in whole or self._near_asleep(slug) if name.partition("/")[0] in self._dormant]
        rule = ": names are provider/model" if is_bare else ""
        if near:
            return f"{rule}; did you mean {' or '.join(near[:3])}?"
        if asleep:
            provider = asleep[0].partition("/")[0]
            return f"{rule}; did you mean {asleep[0]}? But {provider} is not live here, as {self._dormant[provider]}"
        return f"{rule}; GET /v1/models lists what there is"

    def _whole(self, name: str) -> list[str]:
        """The slugs of a bare name: of those known to have it, else of the first that has a price for it."""
        named = [known for known in self._known() if known.partition("/")[2] == name]
        known = [row for row in ROWS if find_facts(self._facts, f"{row}/{name}")] or [row for row in ROWS if self._book.find(row, name)][:1]
        return list(dict.fromkeys((*named, *(f"{row}/{name}" for row in known))))

    def _near(self, slug: str) -> list[str]:
        """Names much like it; of the same provider where that is known, as then only the rest can be misspelt."""
        prefix, _, upstream = self._canonical(slug.lower()).partition("/")
        if prefix not in self.providers:
            return _alike(slug, self._known())
        names = [known.partition("/")[2] for known in self._known() if known.startswith(prefix + "/")]
        return [f"{prefix}/{name}" for name in _alike(upstream, names)]

    def _near_asleep(self, slug: str) -> list[str]:
        """… of providers that are not live."""
        return _alike(slug, [known for known in self._facts if known.partition("/")[0] in self._dormant]) if "/" in slug else []

    def _known(self) -> list[str]:
        """Slugs of live providers that we could name: configured, limited to, or in our own file."""
        limited = (f"{row.name}/{name}" for row in self.providers.values() for name in row.models if not set(name) & set("*?["))
        jobs = (slug for slug in self._job_models if not set(slug) & set("*?["))
        own = (slug for slug in (*self._overrides, *self._facts, *jobs) if slug.partition("/")[0] in self.providers)
        return list(dict.fromkeys((*limited, *own, *self._of_kin())))

    def _of_kin(self) -> Iterator[str]:
        """Models of other vendors, for rows that serve several vendors' under their own names."""
        rows = [row for row in self.providers.values() if row.families]
        for row in rows:
            for slug in self._facts:
                kin, _, name = slug.partition("/")
                if _serving(row, name).kin == kin and any(fnmatchcase(name, pattern) for pattern in row.models):
                    yield f"{row.name}/{name}"

    def _canonical(self, slug: str) -> str:
        prefix, slash, upstream = slug.partition("/")
        return self._names.get(prefix, prefix) + slash + upstream

    # --- models ----------------------------------------------------------------------------------------------------------------

    def _model(self, provider: Provider, upstream: str) -> Model:
        slug = f"{provider.name}/{upstream}"
        row = find_job_model(self._job_models, slug) if provider.jobs else None
        override = self._overrides.get(slug)
        if row is not None or (override is not None and override.modality in MODALITIES):
            return _job_model(slug, row or JobModelRow(modality=""), override)
        facts = find_facts(self._facts, slug)
        if facts is None and provider.kin and (known := find_facts(self._facts, f"{provider.kin}/{upstream}")):
            facts = replace(known, fallbacks=())
        quirks = _quirks(provider, upstream)
        if facts is None:
            reasons = bool(quirks.effort or quirks.unsupported_when_reasoning)
            facts = Facts(is_reasoning=reasons, capabilities=("streaming",), context_window=self._context(_listed_as(provider), upstream))
        model = Model(slug=slug, price=self._price(_listed_as(provider), upstream), **msgspec.structs.asdict(facts))
        if override is not None:
            model = _override(model, override)
        return model if model.price is None else replace(model, price=self._with_variants(model.price, provider))

    def _with_variants(self, price: Price, provider: Provider) -> Price:
        """What calls in batches are charged, ours and the provider's own."""
        price = with_variant(price, BATCH, self.batch_factor)
        return with_variant(price, NATIVE_BATCH, Decimal(BATCH_FACTOR)) if provider.batches else price

    def _context(self, provider: str, upstream: str) -> int:
        entry = self._book.find(provider, upstream.replace("@", "-"))
        return 0 if entry is None else entry.context

    def _price(self, provider: str, upstream: str) -> Price | None:
        if provider == SIM:
            return with_id(SIM_PRICE)
        entry = self._book.find(provider, upstream.replace("@", "-"))
        return None if entry is None else entry.price(self._book.source)

    def model(self, slug: str) -> Model:
        """ClientError where it cannot be called."""
        provider, upstream = self._locate(slug)
        model = self._model(provider, upstream)
        if model.price is None and provider.unpriced == "refuse":
            raise self._unpriced(model.slug)
        return model

    def models(self) -> list[Model]:
        """What can be called by a name we can give, in the order of the providers."""
        order = list(self.providers)
        models = []
        for slug in sorted(self._known(), key=lambda known: order.index(known.partition("/")[0])):
            try:
                models.append(self.model(slug))
            except ClientError:
                continue  # limited away by configuration, or without a price
        return models

    def origin_of(self, provider: str) -> tuple[str, str]:
        """(a provider's own name, the origin that keys for it may be sent to); it need not be live. ClientError where it is unknown."""
        name = self._names.get(provider, "")
        row = self.providers.get(name) or ROWS.get(name)
        if row is None or not row.base_url or name == SIM:
            rows = {**ROWS, **self.providers}.values()
            known = sorted(row.name for row in rows if row.base_url and row.name != SIM)
            raise ClientError(f"provider: {provider[:64]!r} is unknown here; known are {', '.join(known)}.", param="provider")
        return name, row.base_url.removesuffix(url_prefix(row.base_url)).removesuffix(":")

    def prices(self) -> Iterator[Price]:
        """Every price that a call could be settled at; some more than once."""
        for provider in self.providers.values():
            for name in {_listed_as(row) for row in _rows(provider)}:
                for price in self._book.prices(name):
                    yield from every_price(self._with_variants(price, provider))
        yield from every_price(with_variant(with_id(SIM_PRICE), BATCH, self.batch_factor))
        for row in self._job_models.values():
            if (price := row.price()) is not None:
                yield price
        if self.own_key_price is not None:
            yield self.own_key_price
        for slug, override in self._overrides.items():
            prefix, _, upstream = slug.partition("/")
            if prefix in self.providers:
                found = (self._model(_serving(self.providers[prefix], upstream), upstream).price, _job_model(slug, JobModelRow(modality=""), override).price)
                for price in found:
                    if price is not None:
                        yield from every_price(price)

    def describe(self, slug: str) -> dict[str, object]:
        """{"schema": how to call it}: endpoint, examples of request, reply and stream, quirks, snippets."""
        provider, upstream = self._locate(slug)
        return describe_model(self.model(slug), provider, _quirks(provider, upstream), self.url + "/v1")

    def capabilities(self) -> list[dict[str, str]]:
        return [{"id": name, "description": text, "endpoint": endpoint} for name, (text, endpoint) in CAPABILITIES.items()]

    # --- providers -------------------------------------------------------------------------------------------------------------

    def providers_live(self) -> list[str]:
        return list(self.providers)

    def providers_dormant(self) -> list[tuple[str, str]]:
        """(name, why it is not live)."""
        return list(self._dormant.items())


def _alike(name: str, known: Iterable[str]) -> list[str]:
    """At most three of them, whatever their case."""
    from difflib import get_close_matches  # here, as only a mistake needs it

    spelt = {each.lower(): each for each in known}
    return [spelt[each] for each in get_close_matches(name.lower(), spelt, n=3, cutoff=0.6)]


def _listed_as(provider: Provider) -> str:
    """The name its prices are listed under."""
    return provider.kin or provider.name


def _rows(provider: Provider) -> list[Provider]:
    """The row, and what it is for each family of models that it serves in another way."""
    return [provider, *(replace(provider, **fields) for _, fields in provider.families)]


def _serving(provider: Provider, upstream: str) -> Provider:
    """The row as it is for this model."""
    for pattern, fields in provider.families:
        if fnmatchcase(upstream, pattern):
            return replace(provider, **fields)
    return provider


def _quirks(provider: Provider, upstream: str) -> Quirks:
    for pattern, quirks in provider.quirks:
        if fnmatchcase(upstream, pattern):
            return quirks
    return Quirks()


def _override(model: Model, override: ModelConfig) -> Model:
    """`model` as the operator describes it. A rate given replaces that rate; tiers then no longer apply, as they were the vendor's."""
    given = {name: value for name in ("context_window", "max_output_tokens", "capabilities", "is_reasoning", "fallbacks", "modality")
             if (value := getattr(override, name)) not in (None, "")}  # fmt: skip
    rates = {name: usd_to_rate(usd) for name, field in _RATES if (usd := getattr(override, field)) is not None}
    if rates:
        known = {} if model.price is None else dict(model.price.rates)
        given["price"] = with_id(Price(rates={**known, **rates}, source="config"))
    return replace(model, **given)


def _job_model(slug: str, row: JobModelRow, override: ModelConfig | None) -> Model:
    """`row` as the operator has it. A model that only the operator knows takes all there is, priced by what its price is given for."""
    price, job, modality, description = row.price(), row.job, row.modality, row.description
    rates = {unit: usd_to_rate(usd, MILLIUNITS) for unit, field in _UNIT_RATES.items() if (usd := getattr(override, field, None)) is not None}
    if not modality:
        unit = next(iter(rates), ITEM)
        most = {SECOND: _LONGEST_S, CREDIT: _MOST_CREDITS}.get(unit, 1)
        job = JobLimits(takes=frozenset(FIELDS), takes_extra=None, needs_prompt=False, unit=unit, max_units=most)
    elif rates and job.unit not in rates:  # the operator counts in something else than we
        job = replace(job, unit=next(iter(rates)), price_by=())
    if override is not None:
        modality = override.modality or modality
        if rates:  # variants were the vendor's
            price = with_id(Price(rates=rates, source="config"))
    return Model(slug=slug, modality=modality, capabilities=("async",), price=price, description=description, created=row.created, job=job)


def has_rate(price: Price | None, unit: str) -> bool:
    return price is not None and any(name.partition(":")[0] == unit for name in price.rates)
