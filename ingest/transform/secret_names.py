"""Which names and which values are credentials.

Names are compared as people read them: without case, marks, blanks and characters that cannot be seen, full width
folded to ASCII (Unicode NFKC), and word by word, so that a prefix of some vendor does not matter.
"""

import re
import unicodedata
from functools import lru_cache

# One of these words anywhere makes a name secret.
SECRET_WORDS = {"authorization", "auth", "cookie", "secret", "password", "passwd", "passphrase", "passcode", "pwd"}
SECRET_WORDS |= {"credential", "jwt", "bearer", "signature"}
# As its last word.
LAST_WORDS = {"token", "sig"}
# `key` says nothing by itself; after one of these words it is no credential either.
HARMLESS_KEYS = {"cache", "foreign", "group", "idempotency", "map", "object", "partition", "primary", "public"}
HARMLESS_KEYS |= {"routing", "row", "sort", "surrogate", "websocket"}
# As one word: `apikey`, `accesstoken`, `sessionid`.
GLUED = re.compile(r"(?:api|access|auth|private|secret|subscription|virtual|master)keys?|\w{2,}token|sessionid")
# Words that are often harmless: only a value that looks made by chance is a credential.
DOUBTFUL_WORDS = {"tokens", "key", "keys"}
CAMEL_CASE = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
WORD = re.compile(r"[a-z]+")

# Values that are credentials whatever their name is, by what they begin with (in lower case): looking for that is much
# cheaper than trying the pattern everywhere. The lookaheads are bounded, so that the time of a search is, too.
BEARER = r"(?i:bearer)\s++(?:(?=\S{0,64}\d)[^\s\"'\\,;]{6,}|[^\s\"'\\,;]{16,})"
BASIC = r"(?i:basic)\s++(?=[^\s\"']{0,64}[0-9A-Z=])[A-Za-z0-9+/_-]{8,}={0,2}"
JWT = r"(?<![\w-])eyJ[\w-]{5,}\.[\w-]{2,}(?:\.[\w-]*)?"  # RFC 7519
CREDENTIALS = {
    begin: re.compile(rf"(?<![A-Za-z0-9])(?:{pattern})")
    for begin, pattern in {
        "bearer": BEARER,
        "basic": BASIC,
        "eyj": JWT,
        # OpenAI, Anthropic, LiteLLM; OpenRouter; ours.
        **dict.fromkeys(("sk-", "rk-", "ak-"), r"[sra]k-[A-Za-z0-9_-]{12,}"),
        **dict.fromkeys(("sk_live_", "sk_test_", "rk_live_", "pk_live_"), r"[srp]k_(?:live|test)_[A-Za-z0-9]{8,}"),
        "xox": r"xox[a-z]-[A-Za-z0-9-]{8,}",
        **dict.fromkeys(("akia", "asia"), r"(?:AKIA|ASIA)[A-Z0-9]{12,}"),
        **dict.fromkeys(("ghp_", "gho_", "ghu_", "ghs_", "ghr_"), r"gh[pousr]_[A-Za-z0-9]{16,}"),
        "github_pat_": r"github_pat_\w{16,}",
        "glpat-": r"glpat-[\w-]{16,}",
        "aiza": r"AIza[\w-]{30,}",
        "ya29.": r"ya29\.[\w-]{16,}",
        "hf_": r"hf_[A-Za-z0-9]{16,}",
        **dict.fromkeys(("gsk_", "pplx-", "xai-", "nvapi-"), r"(?:gsk_|pplx-|xai-|nvapi-)(?=\w{0,64}\d)[\w-]{20,}"),
    }.items()
}
RANDOM = re.compile(r"(?=.*\d)(?=.*[A-Za-z])[A-Za-z0-9+/=_.~-]{20,}")


def _words(name: str) -> list[str]:
    folded = unicodedata.normalize("NFKC", name)
    # Zero-width characters are of the category Cf.
    seen = "".join(sign for sign in folded if unicodedata.category(sign) != "Cf")
    return WORD.findall(CAMEL_CASE.sub(" ", seen).casefold())


def _singular(word: str) -> str:
    return word[:-1] if word.endswith("s") and not word.endswith("ss") else word


def _is_secret_key(words: list[str]) -> bool:
    """`x-api-key`, `Ocp-Apim-Subscription-Key`, `private keys`, but not `key` or `idempotency-key`."""
    return len(words) > 1 and words[-1] in ("key", "keys") and not HARMLESS_KEYS & set(words[-3:-1])


@lru_cache(maxsize=16_384)
def is_secret(name: str) -> bool:
    """Whether what stands under this name is a credential."""
    words = _words(name)
    if not words:
        return False
    is_session = "session" in words and words[-1] in ("session", "id", "key", "token")
    return (
        any(_singular(word) in SECRET_WORDS or GLUED.fullmatch(word) for word in words)
        or words[-1] in LAST_WORDS
        or _is_secret_key(words)
        or is_session
    )


@lru_cache(maxsize=16_384)
def is_doubtful(name: str) -> bool:
    """Whether what stands under this name is a credential if it looks random."""
    words = _words(name)
    return bool(words) and words[-1] in DOUBTFUL_WORDS and not is_secret(name)


def looks_random(value: str) -> bool:
    """A long word of letters and digits, as generators make them and people do not."""
    return RANDOM.fullmatch(value.strip()) is not None
