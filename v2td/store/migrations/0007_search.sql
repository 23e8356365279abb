-- How the words of a language are stemmed; languages that Postgres knows nothing of go by their plain words.
-- Constants, resolved here: so it is really immutable, is inlined, and needs no search_path in an index.
CREATE FUNCTION v2td_text_search(language text) RETURNS regconfig
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE language
    WHEN 'ar' THEN 'pg_catalog.arabic'::regconfig WHEN 'hy' THEN 'pg_catalog.armenian'::regconfig
    WHEN 'eu' THEN 'pg_catalog.basque'::regconfig WHEN 'ca' THEN 'pg_catalog.catalan'::regconfig
    WHEN 'da' THEN 'pg_catalog.danish'::regconfig WHEN 'nl' THEN 'pg_catalog.dutch'::regconfig
    WHEN 'en' THEN 'pg_catalog.english'::regconfig WHEN 'fi' THEN 'pg_catalog.finnish'::regconfig
    WHEN 'fr' THEN 'pg_catalog.french'::regconfig WHEN 'de' THEN 'pg_catalog.german'::regconfig
    WHEN 'el' THEN 'pg_catalog.greek'::regconfig WHEN 'hi' THEN 'pg_catalog.hindi'::regconfig
    WHEN 'hu' THEN 'pg_catalog.hungarian'::regconfig WHEN 'id' THEN 'pg_catalog.indonesian'::regconfig
    WHEN 'it' THEN 'pg_catalog.italian'::regconfig WHEN 'lt' THEN 'pg_catalog.lithuanian'::regconfig
    WHEN 'ne' THEN 'pg_catalog.nepali'::regconfig WHEN 'no' THEN 'pg_catalog.norwegian'::regconfig
    WHEN 'nn' THEN 'pg_catalog.norwegian'::regconfig WHEN 'pt' THEN 'pg_catalog.portuguese'::regconfig
    WHEN 'ro' THEN 'pg_catalog.romanian'::regconfig WHEN 'ru' THEN 'pg_catalog.russian'::regconfig
    WHEN 'sr' THEN 'pg_catalog.serbian'::regconfig WHEN 'es' THEN 'pg_catalog.spanish'::regconfig
    WHEN 'sv' THEN 'pg_catalog.swedish'::regconfig WHEN 'ta' THEN 'pg_catalog.tamil'::regconfig
    WHEN 'tr' THEN 'pg_catalog.turkish'::regconfig WHEN 'yi' THEN 'pg_catalog.yiddish'::regconfig
    ELSE 'pg_catalog.simple'::regconfig
END;

-- What a text is found by: its stems, and behind them its plain words without accents, so that who types none finds
-- them too (`unaccent` is an extension, and often not there). Scripts without spaces are cut into their characters.
-- A tsvector holds 1 MB: of a text that does not fit, its beginning; an index must never keep a row from being written.
-- The index itself is made on request (`v2td db search-index`), since it takes room and time.
CREATE FUNCTION v2td_text_vector(config regconfig, said text) RETURNS tsvector
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL RESTRICTED COST 100000 AS $body$
DECLARE
    apart constant text := '([\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff])';
    marks constant text := '[\u0300-\u036f]';
    spaced text := said;
    plain text := said;
BEGIN
    IF octet_length(said) <> length(said) THEN  -- most of the time goes here, and ASCII has no accents
        spaced := normalize(said, NFC);
        IF spaced ~ apart THEN
            spaced := regexp_replace(spaced, apart, ' \1 ', 'g');
        END IF;
        plain := regexp_replace(normalize(spaced, NFD), marks, '', 'g');
        plain := translate(normalize(plain, NFC), 'đĐłŁøØ', 'dDlLoO');
    END IF;
    IF length(spaced) <= 25000 THEN  -- the parser makes at most some 18 bytes of a character, in each half
        RETURN to_tsvector(config, spaced) || to_tsvector('pg_catalog.simple'::regconfig, plain);
    END IF;
    BEGIN
        RETURN to_tsvector(config, spaced) || to_tsvector('pg_catalog.simple'::regconfig, plain);
    EXCEPTION WHEN program_limit_exceeded THEN
        RETURN to_tsvector(config, left(spaced, 25000))
            || to_tsvector('pg_catalog.simple'::regconfig, left(plain, 25000));
    END;
END
$body$;
