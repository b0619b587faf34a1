#include "actors/brain/stopwords.h"

#include <string.h>

static const char *const english[] = {
    "a",       "about",      "above",   "after",     "again",   "against",  "all",        "am",
    "an",      "and",        "any",     "are",       "aren't",  "as",       "at",         "be",
    "because", "been",       "before",  "being",     "below",   "between",  "both",       "but",
    "by",      "can",        "can't",   "cannot",    "could",   "couldn't", "did",        "didn't",
    "do",      "does",       "doesn't", "doing",     "don't",   "down",     "during",     "each",
    "few",     "for",        "from",    "further",   "had",     "hadn't",   "has",        "hasn't",
    "have",    "haven't",    "having",  "he",        "he'd",    "he'll",    "he's",       "her",
    "here",    "here's",     "hers",    "herself",   "him",     "himself",  "his",        "how",
    "how's",   "i",          "i'd",     "i'll",      "i'm",     "i've",     "if",         "in",
    "into",    "is",         "isn't",   "it",        "it's",    "its",      "itself",     "let's",
    "me",      "more",       "most",    "mustn't",   "my",      "myself",   "no",         "nor",
    "not",     "of",         "off",     "on",        "once",    "only",     "or",         "other",
    "ought",   "our",        "ours",    "ourselves", "out",     "over",     "own",        "same",
    "shan't",  "she",        "she'd",   "she'll",    "she's",   "should",   "shouldn't",  "so",
    "some",    "such",       "than",    "that",      "that's",  "the",      "their",      "theirs",
    "them",    "themselves", "then",    "there",     "there's", "these",    "they",       "they'd",
    "they'll", "they're",    "they've", "this",      "those",   "through",  "to",         "too",
    "under",   "until",      "up",      "very",      "was",     "wasn't",   "we",         "we'd",
    "we'll",   "we're",      "we've",   "were",      "weren't", "what",     "what's",     "when",
    "when's",  "where",      "where's", "which",     "while",   "who",      "who's",      "whom",
    "why",     "why's",      "with",    "won't",     "would",   "wouldn't", "you",        "you'd",
    "you'll",  "you're",     "you've",  "your",      "yours",   "yourself", "yourselves", NULL};

static const char *const german[] = {
    "aber",   "alle",    "allem",  "allen",   "aller",   "alles",   "als",     "also",   "am",
    "an",     "ander",   "andere", "anderem", "anderen", "anderer", "anderes", "auch",   "auf",
    "aus",    "bei",     "bin",    "bis",     "bist",    "da",      "damit",   "dann",   "das",
    "dass",   "daß",     "dein",   "deine",   "deinem",  "deinen",  "deiner",  "dem",    "den",
    "denn",   "der",     "des",    "dich",    "die",     "dies",    "diese",   "diesem", "diesen",
    "dieser", "dieses",  "dir",    "doch",    "dort",    "du",      "durch",   "ein",    "eine",
    "einem",  "einen",   "einer",  "eines",   "einige",  "er",      "es",      "etwas",  "euch",
    "euer",   "eure",    "für",    "gegen",   "hab",     "habe",    "haben",   "hat",    "hatte",
    "hatten", "hier",    "hin",    "hinter",  "ich",     "ihm",     "ihn",     "ihnen",  "ihr",
    "ihre",   "ihrem",   "ihren",  "ihrer",   "im",      "in",      "ins",     "ist",    "jede",
    "jedem",  "jeden",   "jeder",  "jedes",   "jene",    "jener",   "jetzt",   "kann",   "kein",
    "keine",  "keinem",  "keinen", "keiner",  "können",  "man",     "manche",  "mein",   "meine",
    "meinem", "meinen",  "meiner", "mich",    "mir",     "mit",     "muss",    "musste", "nach",
    "nicht",  "nichts",  "noch",   "nun",     "nur",     "ob",      "oder",    "ohne",   "sehr",
    "sein",   "seine",   "seinem", "seinen",  "seiner",  "selbst",  "sich",    "sie",    "sind",
    "so",     "solche",  "soll",   "sollte",  "sondern", "sonst",   "um",      "und",    "uns",
    "unser",  "unsere",  "unter",  "viel",    "vom",     "von",     "vor",     "war",    "waren",
    "warst",  "was",     "weg",    "weil",    "weiter",  "welche",  "welcher", "wenn",   "werde",
    "werden", "wie",     "wieder", "will",    "wir",     "wird",    "wirst",   "wo",     "wollen",
    "wollte", "während", "würde",  "würden",  "zu",      "zum",     "zur",     "zwar",   "zwischen",
    "über",   NULL};

static const char *const french[] = {
    "ai",   "au",  "aux",  "avait", "avec",  "avoir", "ce",   "ces",   "cet",  "cette", "dans",
    "de",   "des", "du",   "elle",  "elles", "en",    "est",  "et",    "eu",   "eux",   "fut",
    "il",   "ils", "je",   "la",    "le",    "les",   "leur", "leurs", "lui",  "ma",    "mais",
    "me",   "mes", "moi",  "mon",   "même",  "ne",    "nos",  "notre", "nous", "on",    "ont",
    "ou",   "où",  "par",  "pas",   "pour",  "qu",    "que",  "qui",   "sa",   "sans",  "se",
    "sera", "ses", "soit", "son",   "sont",  "sur",   "ta",   "te",    "tes",  "toi",   "ton",
    "tu",   "un",  "une",  "vos",   "votre", "vous",  "y",    "à",     "été",  "être",  NULL};

static const char *const spanish[] = {
    "a",     "al",    "algo",    "como",    "con",   "contra", "cual",  "cuando", "de",
    "del",   "desde", "donde",   "durante", "e",     "el",     "ella",  "ellas",  "ellos",
    "en",    "entre", "era",     "es",      "esa",   "ese",    "eso",   "esta",   "estar",
    "este",  "esto",  "estos",   "está",    "están", "fue",    "ha",    "había",  "han",
    "hasta", "hay",   "la",      "las",     "le",    "les",    "lo",    "los",    "me",
    "mi",    "mis",   "mucho",   "muy",     "más",   "ni",     "no",    "nos",    "nosotros",
    "o",     "otra",  "otro",    "para",    "pero",  "poco",   "por",   "porque", "que",
    "quien", "qué",   "se",      "ser",     "si",    "sin",    "sobre", "son",    "su",
    "sus",   "sí",    "también", "te",      "tiene", "tu",     "tus",   "un",     "una",
    "uno",   "unos",  "y",       "ya",      "yo",    "él",     NULL};

static const char *const italian[] = {
    "a",     "agli",   "ai",    "al",    "alla",   "alle",   "allo",   "anche",  "avere",
    "c",     "che",    "chi",   "ci",    "come",   "con",    "contro", "cui",    "da",
    "dagli", "dai",    "dal",   "dalla", "dalle",  "dei",    "del",    "della",  "delle",
    "dello", "di",     "dove",  "e",     "ed",     "era",    "essere", "gli",    "ha",
    "hanno", "ho",     "i",     "il",    "in",     "io",     "l",      "la",     "le",
    "lei",   "lo",     "loro",  "lui",   "ma",     "mi",     "mia",    "mio",    "ne",
    "negli", "nei",    "nel",   "nella", "nelle",  "noi",    "non",    "nostro", "o",
    "per",   "perché", "più",   "quale", "quando", "quella", "quello", "questa", "questo",
    "se",    "sei",    "si",    "sia",   "sono",   "sta",    "su",     "sua",    "sue",
    "sugli", "sul",    "sulla", "suo",   "ti",     "tra",    "tu",     "tuo",    "un",
    "una",   "uno",    "vi",    "voi",   "è",      NULL};

static const char *const portuguese[] = {
    "a",     "ao",     "aos",    "as",   "até",  "com",  "como",  "da",    "das",   "de",
    "dela",  "dele",   "depois", "do",   "dos",  "e",    "ela",   "elas",  "ele",   "eles",
    "em",    "entre",  "era",    "essa", "esse", "esta", "este",  "eu",    "foi",   "for",
    "há",    "isso",   "isto",   "já",   "lhe",  "mais", "mas",   "me",    "mesmo", "meu",
    "minha", "muito",  "na",     "nas",  "nem",  "no",   "nos",   "nossa", "nosso", "não",
    "nós",   "o",      "os",     "ou",   "para", "pela", "pelas", "pelo",  "pelos", "por",
    "qual",  "quando", "que",    "quem", "se",   "sem",  "ser",   "seu",   "sua",   "são",
    "só",    "também", "te",     "tem",  "teu",  "tu",   "tua",   "um",    "uma",   "você",
    "vos",   "à",      "às",     "é",    NULL};

static const char *const dutch[] = {
    "aan",   "al",    "alles", "als",  "altijd", "andere", "ben",    "bij",    "daar",  "dan",
    "dat",   "de",    "der",   "deze", "die",    "dit",    "doch",   "doen",   "door",  "dus",
    "een",   "en",    "er",    "ge",   "geen",   "had",    "heb",    "hebben", "heeft", "hem",
    "het",   "hier",  "hij",   "hoe",  "hun",    "iemand", "iets",   "ik",     "in",    "is",
    "ja",    "je",    "kan",   "kon",  "kunnen", "maar",   "me",     "meer",   "men",   "met",
    "mij",   "mijn",  "moet",  "na",   "naar",   "niet",   "niets",  "nog",    "nu",    "of",
    "om",    "omdat", "onder", "ons",  "ook",    "op",     "over",   "reeds",  "te",    "tegen",
    "toch",  "toen",  "tot",   "u",    "uit",    "uw",     "van",    "veel",   "voor",  "want",
    "waren", "was",   "wat",   "werd", "wezen",  "wie",    "wil",    "worden", "wordt", "zal",
    "ze",    "zelf",  "zich",  "zij",  "zijn",   "zo",     "zonder", "zou",    NULL};

static const char *const russian[] = {
    "а",       "без",    "более",  "больше", "будет",  "будто", "бы",     "был",    "была",
    "были",    "было",   "быть",   "в",      "вам",    "вас",   "вдруг",  "ведь",   "во",
    "вот",     "все",    "всегда", "всего",  "всех",   "всю",   "вы",     "где",    "да",
    "даже",    "для",    "до",     "другой", "его",    "ее",    "ей",     "ему",    "если",
    "есть",    "еще",    "ж",      "же",     "за",     "зачем", "здесь",  "и",      "из",
    "или",     "им",     "иногда", "их",     "к",      "как",   "какая",  "какой",  "когда",
    "конечно", "кто",    "куда",   "ли",     "лучше",  "между", "меня",   "мне",    "много",
    "может",   "можно",  "мой",    "моя",    "мы",     "на",    "над",    "надо",   "нас",
    "не",      "него",   "нее",    "ней",    "нельзя", "нет",   "ни",     "нибудь", "никогда",
    "ним",     "них",    "ничего", "но",     "ну",     "о",     "об",     "один",   "он",
    "она",     "они",    "опять",  "от",     "перед",  "по",    "под",    "после",  "потом",
    "потому",  "почти",  "при",    "про",    "раз",    "разве", "с",      "сам",    "свою",
    "себе",    "себя",   "сейчас", "со",     "совсем", "так",   "такой",  "там",    "тебя",
    "тем",     "теперь", "то",     "тогда",  "того",   "тоже",  "только", "том",    "тот",
    "тут",     "ты",     "у",      "уж",     "уже",    "хоть",  "чего",   "чем",    "через",
    "что",     "чтоб",   "чтобы",  "чуть",   "эта",    "эти",   "это",    "этого",  "этой",
    "этом",    "этот",   "эту",    "я",      NULL};

static const char *const swedish[] = {
    "alla",   "allt",   "att",   "av",     "blev",   "bli",    "blir",   "blivit", "de",    "dem",
    "den",    "denna",  "deras", "dess",   "dessa",  "det",    "detta",  "dig",    "din",   "dina",
    "ditt",   "du",     "där",   "då",     "efter",  "ej",     "eller",  "en",     "er",    "era",
    "ert",    "ett",    "från",  "för",    "ha",     "hade",   "han",    "hans",   "har",   "henne",
    "hennes", "hon",    "honom", "hur",    "här",    "i",      "icke",   "ingen",  "inom",  "inte",
    "jag",    "ju",     "kan",   "kunde",  "man",    "med",    "mellan", "men",    "mig",   "min",
    "mina",   "mitt",   "mot",   "mycket", "ni",     "nu",     "när",    "någon",  "något", "några",
    "och",    "om",     "oss",   "på",     "samma",  "sedan",  "sig",    "sin",    "sina",  "sitta",
    "själv",  "skulle", "som",   "så",     "sådan",  "sådana", "sådant", "till",   "under", "upp",
    "ut",     "utan",   "vad",   "var",    "vara",   "varför", "varit",  "varje",  "vars",  "vart",
    "vem",    "vi",     "vid",   "vilka",  "vilkas", "vilken", "vilket", "vår",    "våra",  "vårt",
    "än",     "är",     "åt",    "över",   NULL};

static const char *const danish[] = {
    "ad",     "af",    "alle",  "alt",   "anden", "at",    "blev",  "blive", "bliver", "da",
    "de",     "dem",   "den",   "denne", "der",   "deres", "det",   "dette", "dig",    "din",
    "disse",  "dog",   "du",    "efter", "eller", "en",    "end",   "er",    "et",     "for",
    "fra",    "ham",   "han",   "hans",  "har",   "havde", "have",  "hende", "hendes", "her",
    "hos",    "hun",   "hvad",  "hvis",  "hvor",  "i",     "ikke",  "ind",   "jeg",    "jer",
    "jo",     "kunne", "man",   "mange", "med",   "meget", "men",   "mig",   "min",    "mine",
    "mit",    "mod",   "ned",   "noget", "nogle", "nu",    "når",   "og",    "også",   "om",
    "op",     "os",    "over",  "på",    "selv",  "sig",   "sin",   "sine",  "sit",    "skal",
    "skulle", "som",   "sådan", "thi",   "til",   "ud",    "under", "var",   "vi",     "vil",
    "ville",  "vor",   "være",  "været", NULL};

static const char *const norwegian[] = {
    "alle",  "at",     "av",      "bare", "begge", "ble",     "bli",     "blir",  "blitt",
    "både",  "da",     "de",      "deg",  "dem",   "den",     "denne",   "der",   "dere",
    "deres", "det",    "dette",   "din",  "disse", "ditt",    "du",      "eller", "en",
    "enn",   "er",     "et",      "ett",  "etter", "for",     "fordi",   "fra",   "før",
    "ha",    "hadde",  "han",     "hans", "har",   "her",     "hun",     "hva",   "hvem",
    "hver",  "hvilke", "hvilken", "hvis", "hvor",  "hvordan", "hvorfor", "i",     "ikke",
    "ingen", "inn",    "inni",    "ja",   "jeg",   "kan",     "kom",     "kun",   "kunne",
    "man",   "mange",  "med",     "meg",  "meget", "mellom",  "men",     "min",   "mitt",
    "mot",   "ned",    "noe",     "noen", "nå",    "når",     "og",      "også",  "om",
    "opp",   "oss",    "over",    "på",   "samme", "seg",     "selv",    "si",    "siden",
    "sin",   "sine",   "sitt",    "sjøl", "skal",  "skulle",  "slik",    "som",   "så",
    "sånn",  "til",    "ut",      "uten", "var",   "ved",     "vi",      "vil",   "ville",
    "vors",  "vår",    "være",    "vært", "å",     NULL};

#define LANGUAGE_ROWS(L)                                                                           \
    L(english)                                                                                     \
    L(german)                                                                                      \
    L(french)                                                                                      \
    L(spanish) L(italian) L(portuguese) L(dutch) L(russian) L(swedish) L(danish) L(norwegian)

typedef struct language {
    const char *name;
    const char *const *words;
    size_t count;
} language_t;

#define LANGUAGE_ROW(name) {#name, name, sizeof name / sizeof name[0] - 1},
static const language_t languages[] = {LANGUAGE_ROWS(LANGUAGE_ROW)};

static const language_t *find(const char *name)
{
    for (size_t i = 0; i < sizeof languages / sizeof languages[0]; i++)
        if (strcmp(languages[i].name, name) == 0)
            return &languages[i];
    return NULL;
}

const char *const *stopwords_of(const char *language)
{
    const language_t *found = find(language);

    return found ? found->words : NULL;
}

bool stopwords_has(const char *language, const char *word)
{
    const language_t *found = find(language);
    size_t low = 0, high = found ? found->count : 0;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strcmp(found->words[middle], word);
        if (order == 0)
            return true;
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return false;
}
