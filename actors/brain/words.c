#include "actors/brain/words.h"

#include <libstemmer.h>
#include <stdlib.h>
#include <string.h>
#include <unicase.h>
#include <uninorm.h>
#include <unistr.h>
#include <unitypes.h>
#include <uniwbrk.h>

#include <unictype.h>

#include "actors/brain/forms.h"
#include "actors/brain/stopwords.h"

#define SEGMENT_MAX 512 /* bytes of one word that are looked at */

/* Scripts that one language stands for when it is not the company's. */
static const struct {
    uint32_t first, last;
    const char *language;
} scripts[] = {{0x0370, 0x03ff, "greek"},    {0x0400, 0x052f, "russian"},
               {0x0530, 0x058f, "armenian"}, {0x0600, 0x06ff, "arabic"},
               {0x0900, 0x097f, "hindi"},    {0x0b80, 0x0bff, "tamil"}};
enum { SCRIPTS = sizeof scripts / sizeof scripts[0] };

struct words {
    struct sb_stemmer *stemmer;         /* NULL for "none" */
    struct sb_stemmer *others[SCRIPTS]; /* made when first needed */
    char language[32];
    bool bare; /* marks go before stemming: English has none of its own, so résumé is resume */
    bool german;
    bool compounds; /* its compounds are written as one word */
};

/* One call of words_split. */
typedef struct split {
    words_t *words;
    arena_t *arena;
    word_list_t *list;
    size_t capacity;
    uint32_t run[2]; /* the letter before and this one, of a run without spaces */
    size_t run_length;
} split_t;

static bool writes_compounds(const char *language)
{
    static const char *const such[] = {"german",    "dutch",   "danish",   "swedish",
                                       "norwegian", "finnish", "hungarian"};

    for (size_t i = 0; i < sizeof such / sizeof such[0]; i++)
        if (strcmp(such[i], language) == 0)
            return true;
    return false;
}

err_t words_new(words_t **words, const char *language)
{
    words_t *self = calloc(1, sizeof *self);

    if (!self)
        abort();
    if (strcmp(language, "none") != 0)
        self->stemmer = sb_stemmer_new(language, NULL);
    if (strlen(language) >= sizeof self->language ||
        (!self->stemmer && strcmp(language, "none") != 0)) {
        free(self);
        return err_of(ERR_ARGUMENT, "there are no stems for that language");
    }
    strcpy(self->language, language);
    self->bare = strcmp(language, "english") == 0 || strcmp(language, "porter") == 0;
    self->german = strcmp(language, "german") == 0;
    self->compounds = writes_compounds(language);
    *words = self;
    return err_ok();
}

void words_destroy(words_t **words)
{
    if (!*words)
        return;
    if ((*words)->stemmer)
        sb_stemmer_delete((*words)->stemmer);
    for (int i = 0; i < SCRIPTS; i++)
        if ((*words)->others[i])
            sb_stemmer_delete((*words)->others[i]);
    free(*words);
    *words = NULL;
}

const char *words_language(const words_t *words)
{
    return words->language;
}

const char *words_languages(arena_t *arena)
{
    buf_t out;

    buf_open(&out, arena);
    for (const char **name = sb_stemmer_list(); *name; name++)
        buf_printf(&out, "%s, ", *name);
    buf_puts(&out, "none");
    return out.data;
}

/* ---- UTF-8 ---- */

/* The least code point that needs a sequence of that many bytes. */
static const uint32_t least_of[5] = {0, 0, 0x80, 0x800, 0x10000};

uint32_t words_decode(const char *text, size_t size, size_t *used)
{
    const uint8_t *in = (const uint8_t *)text;
    size_t need = in[0] < 0x80 ? 1 : in[0] < 0xc2 ? 0 : in[0] < 0xe0 ? 2 : in[0] < 0xf0 ? 3 : 4;

    *used = 1;
    if (need == 1)
        return in[0];
    if (need == 0 || in[0] > 0xf4 || need > size)
        return 0xfffd;
    uint32_t point = in[0] & (0x7fU >> need);
    for (size_t i = 1; i < need; i++) {
        if ((in[i] & 0xc0) != 0x80)
            return 0xfffd;
        point = point << 6 | (in[i] & 0x3f);
    }
    if (point < least_of[need] || point > 0x10ffff || (point >= 0xd800 && point <= 0xdfff))
        return 0xfffd;
    *used = need;
    return point;
}

bool words_is_utf8(const char *text, size_t size)
{
    size_t used;

    for (size_t at = 0; at < size; at += used)
        if (words_decode(text + at, size - at, &used) == 0xfffd && used == 1)
            return false;
    return true;
}

/* The text itself, or a copy with a blank for each byte that is no UTF-8. */
static const char *repaired(arena_t *arena, const char *text, size_t size)
{
    size_t used;

    if (words_is_utf8(text, size))
        return text;
    char *copy = arena_copy(arena, text, size);
    for (size_t at = 0; at < size; at += used)
        if (words_decode(text + at, size - at, &used) == 0xfffd && used == 1)
            copy[at] = ' ';
    return copy;
}

/* ---- terms ---- */

static size_t cut_at_letter(const char *term, size_t size, size_t most)
{
    if (size <= most)
        return size;
    while (most > 0 && ((uint8_t)term[most] & 0xc0) == 0x80)
        most--;
    return most;
}

static void put(split_t *split, const char *term, size_t size, word_kind_t kind, bool stop,
                uint32_t position)
{
    word_list_t *list = split->list;

    if (size == 0)
        return;
    if (list->count == WORDS_MAX) {
        list->cut = true;
        return;
    }
    if (list->count == split->capacity) {
        size_t capacity = split->capacity ? split->capacity * 2 : 64;
        word_t *words = ARENA_ARRAY(split->arena, word_t, capacity);
        if (list->count)
            memcpy(words, list->words, list->count * sizeof *words);
        list->words = words;
        split->capacity = capacity;
    }
    size = cut_at_letter(term, size, WORDS_TERM_MAX);
    list->words[list->count++] = (word_t){.term = arena_strndup(split->arena, term, size),
                                          .size = (uint16_t)size,
                                          .kind = (uint8_t)kind,
                                          .stop = stop,
                                          .position = position};
}

static bool is_ascii(const char *text, size_t size)
{
    for (size_t i = 0; i < size; i++)
        if ((uint8_t)text[i] >= 0x80)
            return false;
    return true;
}

size_t words_small(const char *text, size_t size, char *out, size_t room)
{
    size_t length = 0;

    for (size_t i = 0; i < size && length + 3 < room; i++) {
        unsigned char c = (unsigned char)text[i];
        unsigned char next = i + 1 < size ? (unsigned char)text[i + 1] : 0;
        if (c == 0xc3 && next >= 0x80 && next <= 0x9e) {
            out[length++] = (char)c;
            out[length++] = (char)(next + 0x20);
            i++;
        } else if (c == 0xd0 && next >= 0x90 && next <= 0xaf) {
            out[length++] = (char)(next >= 0xa0 ? 0xd1 : 0xd0);
            out[length++] = (char)(next >= 0xa0 ? next - 0x20 : next + 0x20);
            i++;
        } else {
            out[length++] = (char)(c >= 'A' && c <= 'Z' ? c + 32 : c);
        }
    }
    out[length] = 0;
    return length;
}

/* Case folding and NFKC into `out` of SEGMENT_MAX bytes; what does not fit is cut. */
static size_t fold(const char *text, size_t size, char *out)
{
    if (is_ascii(text, size)) {
        for (size_t i = 0; i < size; i++)
            out[i] = (char)(text[i] >= 'A' && text[i] <= 'Z' ? text[i] + 32 : text[i]);
        return size;
    }
    uint8_t room[SEGMENT_MAX];
    size_t length = sizeof room;
    uint8_t *folded = u8_casefold((const uint8_t *)text, size, NULL, UNINORM_NFKC, room, &length);
    if (!folded)
        return 0;
    size_t keep = cut_at_letter((char *)folded, length, SEGMENT_MAX);
    memcpy(out, folded, keep);
    if (folded != room)
        free(folded);
    return keep;
}

/* é → e, ö → o: for Latin and Greek only, where people leave marks out; elsewhere they are vowels.
 */
static size_t strip_marks(const char *text, size_t size, char *out)
{
    uint8_t room[SEGMENT_MAX * 3];
    size_t length = sizeof room, kept = 0, used;
    uint32_t base = 0;

    if (is_ascii(text, size)) {
        memmove(out, text, size);
        return size;
    }
    uint8_t *apart = u8_normalize(UNINORM_NFD, (const uint8_t *)text, size, room, &length);
    if (!apart)
        return 0;
    uint8_t bare[SEGMENT_MAX * 3];
    for (size_t at = 0; at < length && kept + 4 <= sizeof bare; at += used) {
        uint32_t point = words_decode((char *)apart + at, length - at, &used);
        if (point >= 0x300 && point <= 0x36f && base < 0x400)
            continue;
        base = point;
        memcpy(bare + kept, apart + at, used);
        kept += used;
    }
    if (apart != room)
        free(apart);
    uint8_t again[SEGMENT_MAX];
    length = sizeof again;
    uint8_t *together = u8_normalize(UNINORM_NFC, bare, kept, again, &length);
    if (!together)
        return 0;
    size_t keep = cut_at_letter((char *)together, length, SEGMENT_MAX);
    memcpy(out, together, keep);
    if (together != again)
        free(together);
    return keep;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* 1,000,000 and 1000000 are one term. */
static size_t number(char *text, size_t size)
{
    size_t kept = 0;

    for (size_t i = 0; i < size; i++)
        if (!(text[i] == ',' && i > 0 && i + 1 < size && is_digit(text[i + 1])))
            text[kept++] = text[i];
    return kept;
}

/* The stemmer of a word: the company's, or that of its script. */
static struct sb_stemmer *stemmer_of(words_t *words, const char *word, size_t size)
{
    size_t used;
    uint32_t first = words_decode(word, size, &used);

    for (int i = 0; first >= 0x370 && i < SCRIPTS; i++)
        if (first >= scripts[i].first && first <= scripts[i].last) {
            if (strcmp(words->language, scripts[i].language) == 0 ||
                (i == 1 && strcmp(words->language, "serbian") == 0))
                return words->stemmer;
            if (!words->others[i])
                words->others[i] = sb_stemmer_new(scripts[i].language, NULL);
            return words->others[i];
        }
    return words->stemmer;
}

/* The stem without marks, into `out` of SEGMENT_MAX bytes. */
static size_t stem(words_t *words, const char *folded, size_t size, char *out)
{
    struct sb_stemmer *stemmer = stemmer_of(words, folded, size);

    if (!stemmer)
        return strip_marks(folded, size, out);
    const sb_symbol *stemmed = sb_stemmer_stem(stemmer, (const sb_symbol *)folded, (int)size);
    if (!stemmed)
        abort(); /* out of memory */
    return strip_marks((const char *)stemmed, (size_t)sb_stemmer_length(stemmer), out);
}

/* Mueller is Müller: ae, oe and ue are umlauts unless after a vowel or q (neue, quer). In place;
 * the text keeps its length, as ä, ö, ü have two bytes as well. */
static void join_umlauts(char *folded, size_t size)
{
    for (size_t i = 0; i + 1 < size; i++) {
        char before = i ? folded[i - 1] : ' ', c = folded[i];
        if (folded[i + 1] != 'e' || (c != 'a' && c != 'o' && c != 'u') || strchr("aeiouq", before))
            continue;
        folded[i] = (char)0xc3;
        folded[i + 1] = (char)(c == 'a' ? 0xa4 : c == 'o' ? 0xb6 : 0xbc);
        i++;
    }
}

/* ---- compounds ----
 * Without a dictionary every place where a word can be divided is taken: both sides have a vowel
 * and COMPOUND_PART letters, and the right one begins as words begin. Most of what comes out is
 * nonsense that nobody asks for; it is kept apart from real words (WORD_PART). */

enum { COMPOUND_LEAST = 9, COMPOUND_PART = 4, COMPOUND_MOST = 40 };

static bool is_vowel(const char *letter)
{
    return strchr("aeiouy", *letter) || (uint8_t)*letter >= 0x80;
}

/* Does a word begin with these consonants? */
static bool begins_words(const char *text, size_t consonants)
{
    static const char *const onsets[] = {
        "bj", "bl",  "br",  "ch", "chr", "cr",  "dj",   "dr",   "fj",   "fl",   "fr",   "gj",
        "gl", "gn",  "gr",  "hj", "kj",  "kl",  "kn",   "kr",   "kv",   "pf",   "pfl",  "pfr",
        "ph", "pl",  "pr",  "ps", "qu",  "sch", "schl", "schm", "schn", "schr", "schw", "sj",
        "sk", "skj", "skr", "sl", "sm",  "sn",  "sp",   "spj",  "spl",  "spr",  "st",   "str",
        "sv", "th",  "tj",  "tr", "tv",  "vl",  "vr",   "wr",   "zw"};

    if (consonants <= 1)
        return true;
    for (size_t i = 0; i < sizeof onsets / sizeof onsets[0]; i++)
        if (strlen(onsets[i]) == consonants && strncmp(text, onsets[i], consonants) == 0)
            return true;
    return false;
}

static size_t consonants_at(const char *text, size_t size)
{
    size_t count = 0;

    while (count < size && !is_vowel(text + count))
        count++;
    return count;
}

static void put_parts(split_t *split, const char *folded, size_t size, uint32_t position)
{
    size_t starts[COMPOUND_MOST + 1], letters = 0, used;
    char bare[SEGMENT_MAX];

    for (size_t at = 0; at < size; at += used) {
        uint32_t point = words_decode(folded + at, size - at, &used);
        if (letters == COMPOUND_MOST || (point < 0x80 && (point < 'a' || point > 'z')))
            return;
        starts[letters++] = at;
    }
    if (letters < COMPOUND_LEAST)
        return;
    for (size_t i = COMPOUND_PART; i + COMPOUND_PART <= letters; i++) {
        const char *right = folded + starts[i];
        size_t left = starts[i], rest = size - left, onset = consonants_at(right, rest);
        if (onset == rest || !begins_words(right, onset) || consonants_at(folded, left) == left)
            continue;
        put(split, bare, stem(split->words, right, rest, bare), WORD_PART, false, position);
        if (folded[left - 1] == 's' && i > COMPOUND_PART) /* Versicherungs-nummer */
            left--;
        put(split, bare, stem(split->words, folded, left, bare), WORD_PART, false, position);
    }
}

/* One simple word: folded, stemmed, bared of marks. */
static void put_word(split_t *split, const char *text, size_t size)
{
    char folded[SEGMENT_MAX + 1], bare[SEGMENT_MAX + 1];
    words_t *words = split->words;
    size_t length = fold(text, size, folded);
    bool stop = false;

    if (words->bare)
        length = strip_marks(folded, length, folded);
    if (words->german)
        join_umlauts(folded, length);
    folded[length] = 0;
    if (length && is_digit(folded[0])) {
        put(split, folded, number(folded, length), WORD_NUMBER, false, split->list->positions++);
        return;
    }
    if (words->stemmer && length) {
        stop = stopwords_has(words->language, folded);
        const char *base = stop ? NULL : forms_base(words->language, folded);
        if (base)
            length = stem(words, base, strlen(base), bare);
        else
            length = stem(words, folded, length, bare);
    } else {
        length = strip_marks(folded, length, bare);
    }
    put(split, bare, length, WORD_STEM, stop, split->list->positions++);
    if (words->compounds && !stop)
        put_parts(split, folded, strlen(folded), split->list->positions - 1);
}

/* ---- names out of code ---- */

typedef struct letter {
    uint32_t point;
    uint16_t at; /* byte in the segment */
    bool alnum, upper, mark;
} letter_t;

static bool is_alnum(uint32_t point)
{
    if (point < 0x80)
        return (point >= '0' && point <= '9') || ((point | 32) >= 'a' && (point | 32) <= 'z');
    return uc_is_general_category_withtable((ucs4_t)point, UC_CATEGORY_MASK_L | UC_CATEGORY_MASK_N);
}

static bool is_upper(uint32_t point)
{
    if (point < 0x80)
        return point >= 'A' && point <= 'Z';
    return uc_is_general_category_withtable((ucs4_t)point, UC_CATEGORY_MASK_Lu);
}

static bool is_mark(uint32_t point)
{
    return point >= 0x300 && uc_is_general_category_withtable(
                                 (ucs4_t)point, UC_CATEGORY_MASK_M | UC_CATEGORY_MASK_Cf);
}

static bool is_apostrophe(uint32_t point)
{
    return point == '\'' || point == 0x2019 || point == 0xff07;
}

static size_t letters_of(const char *text, size_t size, letter_t *letters)
{
    size_t count = 0, used;

    for (size_t at = 0; at < size; at += used) {
        uint32_t point = words_decode(text + at, size - at, &used);
        letters[count++] = (letter_t){.point = point,
                                      .at = (uint16_t)at,
                                      .alnum = is_alnum(point),
                                      .upper = is_upper(point),
                                      .mark = is_mark(point)};
    }
    return count;
}

/* Does a part begin at letter i? aB, ABc (before B), and after anything that is no letter. */
static bool part_begins(const letter_t *letters, size_t count, size_t i)
{
    if (i == 0 || !letters[i].alnum)
        return false;
    if (!letters[i - 1].alnum && !letters[i - 1].mark)
        return true;
    bool next_lower = i + 1 < count && letters[i + 1].alnum && !letters[i + 1].upper &&
                      !(letters[i + 1].point < 0x80 && is_digit((char)letters[i + 1].point));
    return letters[i].upper && (!letters[i - 1].upper || next_lower);
}

/* don't and company's are words; l'homme and dell'arte are two. Decimal numbers are one. */
static bool splits(const letter_t *letters, size_t count, size_t i)
{
    if (!part_begins(letters, count, i))
        return false;
    if (i >= 2 && is_apostrophe(letters[i - 1].point))
        return count - i >= 3;
    if (i >= 2 && !letters[i - 1].alnum && letters[0].point < 0x80 &&
        is_digit((char)letters[0].point) && letters[i].point < 0x80 &&
        is_digit((char)letters[i].point))
        return false;
    return true;
}

static void put_part(split_t *split, const char *text, size_t size)
{
    size_t used;

    while (size > 0) { /* what separates parts belongs to neither */
        size_t last = size - 1;
        while (last > 0 && ((uint8_t)text[last] & 0xc0) == 0x80)
            last--;
        uint32_t point = words_decode(text + last, size - last, &used);
        if (is_alnum(point) || is_mark(point))
            break;
        size = last;
    }
    if (size)
        put_word(split, text, size);
}

/* Is it an ASCII word with no capital inside? Nearly all are, and have one part. */
static bool is_plain(const char *text, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        char c = i ? text[i] : (char)(text[i] | 32);
        if (c < 'a' || c > 'z')
            return false;
    }
    return true;
}

static void put_segment(split_t *split, const char *text, size_t size)
{
    letter_t letters[SEGMENT_MAX];
    char folded[SEGMENT_MAX + 1], plain[SEGMENT_MAX];
    size_t count, first = 0, start = 0, parts = 1;

    if (is_plain(text, size)) {
        put_word(split, text, size);
        return;
    }
    count = letters_of(text, size, letters);
    while (first < count && !letters[first].alnum)
        first++;
    if (first == count)
        return;
    for (size_t i = first + 1; i < count; i++)
        parts += splits(letters + first, count - first, i - first);
    if (parts > 1)
        put(split, folded, fold(text + letters[first].at, size - letters[first].at, folded),
            WORD_WHOLE, false, split->list->positions);
    start = letters[first].at;
    for (size_t i = first + 1; i < count; i++)
        if (splits(letters + first, count - first, i - first)) {
            put_part(split, text + start, letters[i].at - start);
            start = letters[i].at;
        }
    /* The typographic apostrophe is written as the plain one, or no stop word would be found. */
    size_t length = 0, used;
    for (size_t at = start; at < size; at += used) {
        if (is_apostrophe(words_decode(text + at, size - at, &used)))
            plain[length++] = '\'';
        else
            for (size_t i = 0; i < used; i++)
                plain[length++] = text[at + i];
    }
    put_part(split, plain, length);
}

/* ---- scripts without spaces ---- */

static bool is_spaceless(uint32_t point)
{
    return (point >= 0x3040 && point <= 0x30ff) || (point >= 0x3400 && point <= 0x4dbf) ||
           (point >= 0x4e00 && point <= 0x9fff) || (point >= 0xf900 && point <= 0xfaff) ||
           (point >= 0xff66 && point <= 0xff9f) || (point >= 0x20000 && point <= 0x323af) ||
           (point >= 0x31f0 && point <= 0x31ff) || point == 0x3005 || point == 0x3007 ||
           (point >= 0x0e00 && point <= 0x0eff) || (point >= 0x1000 && point <= 0x109f) ||
           (point >= 0x1780 && point <= 0x17ff);
}

static bool is_hangul(uint32_t point)
{
    return point >= 0xac00 && point <= 0xd7a3;
}

static size_t encode(const uint32_t *points, size_t count, char *out)
{
    size_t length = 0;
    char raw[8 * 2];

    for (size_t i = 0; i < count; i++) {
        int used = u8_uctomb((uint8_t *)raw + length, (ucs4_t)points[i], 6);
        length += used > 0 ? (size_t)used : 0;
    }
    return fold(raw, length, out);
}

/* What only holds sentences together. Single Hiragana do nothing else. */
static bool says_nothing(const char *term, size_t size)
{
    static const char letters[] =
        "的了是在和吗呢吧啊我你他她它们这那有就也很不与及或着过把被让给对从到于之其而且但并个";
    static const char *const pairs[] = {
        "什么", "怎么", "我们", "你们", "他们", "她们", "这个", "那个", "一个", "这些",  "那些",
        "因为", "所以", "但是", "可以", "没有", "已经", "是否", "如何", "哪里", "哪个",  "多少",
        "です", "ます", "した", "して", "する", "ある", "いる", "ない", "から", "まで",  "この",
        "その", "あの", "どの", "これ", "それ", "あれ", "どれ", "こと", "もの", "れる",  "られ",
        "まし", "せん", "でし", "てい", "ので", "のに", "には", "では", "とは", "ました"};

    if (size == 3 && (uint8_t)term[0] == 0xe3 &&
        ((uint8_t)term[1] == 0x81 || ((uint8_t)term[1] == 0x82 && (uint8_t)term[2] < 0xa0)))
        return true;
    if (size == 3)
        for (const char *at = letters; *at; at += 3)
            if (memcmp(at, term, 3) == 0)
                return true;
    for (size_t i = 0; size > 3 && i < sizeof pairs / sizeof pairs[0]; i++)
        if (strlen(pairs[i]) == size && memcmp(pairs[i], term, size) == 0)
            return true;
    return false;
}

static void put_spaceless(split_t *split, size_t count, word_kind_t kind, uint32_t position)
{
    char term[SEGMENT_MAX];
    size_t size = encode(split->run + 2 - count, count, term);
    bool stop = split->words->stemmer && says_nothing(term, size);

    put(split, term, size, kind, stop, position);
}

/* Each letter is a word of its own position; the pair with the one before it shares that. */
static void put_letter(split_t *split, uint32_t point)
{

    if (!is_alnum(point) && !is_mark(point)) {
        split->run_length = 0;
        return;
    }
    split->run[0] = split->run[1];
    split->run[1] = point;
    split->run_length++;
    if (split->run_length >= 2)
        put_spaceless(split, 2, WORD_PAIR, split->list->positions - 1);
    put_spaceless(split, 1, WORD_LETTER, split->list->positions++);
}

/* Particles are glued to Korean words, so the pairs of syllables are terms too. */
static void put_hangul_pairs(split_t *split, const char *text, size_t size, uint32_t position)
{
    uint32_t pair[2] = {0, 0};
    char term[SEGMENT_MAX];
    size_t used, length = 0;

    for (size_t at = 0; at < size; at += used) {
        pair[0] = pair[1];
        pair[1] = words_decode(text + at, size - at, &used);
        length = is_hangul(pair[1]) ? length + 1 : 0;
        if (length >= 2 && size > 6) /* a word of two syllables is its only pair */
            put(split, term, encode(pair, 2, term), WORD_PAIR, false, position);
    }
}

static void on_segment(split_t *split, const char *text, size_t size)
{
    size_t used;
    uint32_t first = words_decode(text, size, &used);

    if (is_spaceless(first)) {
        for (size_t at = 0; at < size; at += used)
            put_letter(split, words_decode(text + at, size - at, &used));
        return;
    }
    split->run_length = 0;
    size = cut_at_letter(text, size, SEGMENT_MAX / 4);
    put_segment(split, text, size);
    if (is_hangul(first) && split->list->positions)
        put_hangul_pairs(split, text, size, split->list->positions - 1);
}

void words_split(words_t *words, arena_t *arena, const char *text, size_t size, word_list_t *list)
{
    split_t split = {.words = words, .arena = arena, .list = list};
    size_t start = 0;

    *list = (word_list_t){0};
    if (size == 0)
        return;
    text = repaired(arena, text, size);
    char *breaks = arena_alloc(arena, size);
    u8_wordbreaks((const uint8_t *)text, size, breaks);
    for (size_t at = 1; at <= size && !list->cut; at++)
        if (at == size || breaks[at]) {
            on_segment(&split, text + start, at - start);
            start = at;
        }
}

word_list_t words_join(arena_t *arena, const word_list_t *first, const word_list_t *second)
{
    size_t rest = WORDS_MAX - first->count, more = second->count < rest ? second->count : rest;
    word_list_t all = {.words = ARENA_ARRAY(arena, word_t, first->count + more + 1),
                       .count = first->count + more,
                       .positions = first->positions + second->positions,
                       .cut = first->cut || second->cut || more < second->count};

    for (size_t i = 0; i < all.count; i++) {
        bool later = i >= first->count;
        all.words[i] = later ? second->words[i - first->count] : first->words[i];
        all.words[i].position += later ? first->positions : 0;
    }
    return all;
}
