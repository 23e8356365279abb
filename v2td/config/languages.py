"""The languages that Whisper knows, by its codes (a test compares them with faster-whisper's own list)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

LANGUAGES: tuple[str, ...] = tuple(
    """
    af am ar as az ba be bg bn bo br bs ca cs cy da de el en es et eu fa fi fo fr gl gu ha haw he hi hr
    ht hu hy id is it ja jw ka kk km kn ko la lb ln lo lt lv mg mi mk ml mn mr ms mt my ne nl nn no oc
    pa pl ps pt ro ru sa sd si sk sl sn so sq sr su sv sw ta te tg th tk tl tr tt uk ur uz vi yi yo zh
    yue
    """.split()  # noqa: SIM905 (a list of them would be a hundred lines)
)

# What OpenAI calls them, in the same order.
_NAMES = """
    afrikaans amharic arabic assamese azerbaijani bashkir belarusian bulgarian bengali tibetan
    breton bosnian catalan czech welsh danish german greek english spanish estonian basque persian
    finnish faroese french galician gujarati hausa hawaiian hebrew hindi croatian haitian_creole
    hungarian armenian indonesian icelandic italian japanese javanese georgian kazakh khmer kannada
    korean latin luxembourgish lingala lao lithuanian latvian malagasy maori macedonian malayalam
    mongolian marathi malay maltese myanmar nepali dutch nynorsk norwegian occitan punjabi polish
    pashto portuguese romanian russian sanskrit sindhi sinhala slovak slovenian shona somali
    albanian serbian sundanese swedish swahili tamil telugu tajik thai turkmen tagalog turkish tatar
    ukrainian urdu uzbek vietnamese yiddish yoruba chinese cantonese
    """.split()  # noqa: SIM905 (likewise)

NAMES: Mapping[str, str] = MappingProxyType(
    {code: name.replace("_", " ") for code, name in zip(LANGUAGES, _NAMES, strict=True)}
)
