"""What the demo's traffic is drawn from: models, outcomes of requests, applications, users and their keys."""

import hashlib
from functools import cache
from typing import Any, NamedTuple


class Model(NamedTuple):
    """`share` of the traffic; medians of tokens, of the time to the first token and of the time per further token."""

    provider: str
    name: str
    share: float
    input_tokens: float
    output_tokens: float
    first_token_ms: float
    per_token_ms: float
    failure_rate: float
    thinks: bool = False


MODELS = (
    Model("openai", "gpt-6-luna", 0.205, 1_150, 210, 310, 6.5, 0.009),
    Model("anthropic", "claude-sonnet-5-5", 0.165, 4_200, 520, 780, 8, 0.014, thinks=True),
    Model("openai", "gpt-6.1-sol", 0.125, 3_100, 640, 690, 7, 0.012, thinks=True),
    Model("google", "gemini-3.8-flash", 0.115, 1_900, 260, 290, 5, 0.011),
    Model("anthropic", "claude-haiku-5-5", 0.095, 1_400, 190, 260, 6, 0.010),
    Model("openai", "gpt-5-mini", 0.075, 1_250, 330, 520, 9, 0.008, thinks=True),
    Model("google", "gemini-2.5-flash-lite", 0.055, 820, 120, 210, 4, 0.007),
    Model("openai", "gpt-4.1-mini", 0.045, 980, 240, 400, 8, 0.009),
    Model("deepseek", "deepseek-v4-flash", 0.035, 1_700, 430, 540, 9, 0.031),
    Model("anthropic", "claude-opus-5-5", 0.030, 6_800, 980, 1_350, 12, 0.019, thinks=True),
    Model("mistral", "mistral-large-4", 0.025, 1_600, 300, 430, 10, 0.016),
    Model("groq", "llama-3.3-70b-versatile", 0.020, 900, 230, 120, 2.2, 0.042),
    # It has no published price: its cost must be unknown, not zero.
    Model("self-hosted", "acme-summarizer-13b", 0.010, 2_600, 160, 180, 7, 0.006),
)
UNPRICED_MODEL = len(MODELS) - 1


class Outcome(NamedTuple):
    """How a request ended. `usage` is `full`, `zero` (refused before any token) or `unknown`."""

    status: str
    status_code: int
    error_type: str | None
    error_message: str | None
    usage: str
    share: float


OUTCOMES = (
    Outcome("success", 200, None, None, "full", 0.0),
    Outcome("error", 429, "rate_limit_error", "Rate limit reached for requests per minute", "zero", 0.52),
    Outcome("error", 500, "upstream_error", "The provider had an internal error", "zero", 0.26),
    Outcome("error", 400, "invalid_request_error", "The prompt exceeds the model's context window", "zero", 0.09),
    Outcome("timeout", 504, "timeout_error", "No answer from the provider within 60 s", "unknown", 0.13),
)
TIMEOUT = len(OUTCOMES) - 1
TIMEOUT_MS = 60_000


class Application(NamedTuple):
    name: str
    team: str
    prompt: str
    tags: list[str]
    tools: list[str]


APPLICATIONS = (
    Application("support-bot", "care", "answer-ticket", ["prod", "customer-facing"], ["lookup_order"]),
    Application("code-review", "platform", "review-diff", ["prod", "ci"], ["read_file", "comment"]),
    Application("docs-search", "search", "answer-with-sources", ["prod", "rag"], ["search_docs"]),
    Application("labelling", "data", "label-row", ["batch"], []),
    Application("notebook", "research", "explore", ["dev"], ["run_python"]),
)
FIRST_NAMES = (
    *("ada", "amara", "bruno", "chen", "dana", "elif", "farid", "greta", "hugo", "ines"),
    *("jonas", "kofi", "lena", "mateo", "noor", "olga", "priya", "ravi", "sofia", "tomas"),
)
LAST_NAMES = (
    *("almeida", "berg", "castillo", "dubois", "eriksen", "fischer"),
    *("garcia", "haddad", "ito", "jansen", "kowalski", "nair"),
)
USERS = len(FIRST_NAMES) * len(LAST_NAMES)
KEYS_PER_USER = 3


@cache
def user_id(user: int) -> str:
    # 97 and the number of users have no common factor, so every user has a different name, in no visible order.
    row, column = divmod(97 * user % USERS, len(FIRST_NAMES))
    return f"{FIRST_NAMES[column]}.{LAST_NAMES[(row + column) % len(LAST_NAMES)]}"


@cache
def api_key_id(user: int, key: int) -> str:
    return f"key-{user:03d}-{key}"


@cache
def caller_fields(user: int, key: int) -> dict[str, Any]:
    """The fields that depend only on the user and the key."""
    application = APPLICATIONS[user % len(APPLICATIONS)]
    secret = f"ak-{hashlib.sha256(f'{user}/{key}'.encode()).hexdigest()[:32]}"
    return {
        "user_id": user_id(user),
        "api_key_id": api_key_id(user, key),
        "api_key_prefix": secret[:9],
        "api_key_hash": hashlib.sha256(secret.encode()).hexdigest()[:32],
        "api_key_name": ("backend", "notebook", "ci")[key],
        "request_headers": {
            "authorization": f"Bearer {secret}",
            "content-type": "application/json",
            "user-agent": f"{application.name}/2.{user % 7}",
        },
        "prompt_name": application.prompt,
        "tags": application.tags,
        "tool_names": application.tools,
        "metadata": {"team": application.team, "app": {"name": application.name, "release": f"2.{user % 7}"}},
    }
