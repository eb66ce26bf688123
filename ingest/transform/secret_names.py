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

# Whatever its name is. Each kind has a beginning that nothing else has.
CREDENTIAL = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"(?i:bearer)\s++(?:(?=\S*\d)[^\s\"'\\,;]{6,}|[^\s\"'\\,;]{16,})"
    r"|(?i:basic)\s++(?=[^\s\"']*[0-9A-Z=])[A-Za-z0-9+/_-]{8,}={0,2}"
    r"|[sra]k-[A-Za-z0-9_-]{12,}"  # OpenAI, Anthropic, LiteLLM; ours
    r"|(?:sk|rk|pk)_(?:live|test)_[A-Za-z0-9]{8,}"
    r"|xox[a-z]-[A-Za-z0-9-]{8,}"
    r"|(?:AKIA|ASIA)[A-Z0-9]{12,}"
    r"|gh[pousr]_[A-Za-z0-9]{16,}|github_pat_\w{16,}|glpat-[\w-]{16,}"
    r"|AIza[\w-]{30,}|ya29\.[\w-]{16,}|hf_[A-Za-z0-9]{16,}|(?:gsk|pplx|xai|nvapi)[_-](?=\w*\d)[\w-]{20,}"
    r"|(?<![\w-])eyJ[\w-]{5,}\.[\w-]{2,}(?:\.[\w-]*)?"  # JSON Web Tokens (RFC 7519)
    r")"
)
# One of these, in lower case, is in every text that CREDENTIAL finds something in: looking for them is much cheaper.
CREDENTIAL_SIGNS = (
    *("bearer", "basic", "k-", "k_", "xox", "akia", "asia", "gh", "glpat-", "aiza", "ya29.", "hf_", "pplx", "xai"),
    *("nvapi", "eyj"),
)
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
