#include "actors/brain/synonyms.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* A line is a group of words that people use for one another. General words only: nothing here
 * knows what a company is about. */
static const char *const english[] = {"car vehicle automobile auto",
                                      "bike bicycle cycle",
                                      "buy purchase order acquire",
                                      "begin start commence launch",
                                      "end finish complete conclude",
                                      "stop halt quit cease",
                                      "fix repair mend resolve correct",
                                      "break damage smash",
                                      "error bug fault failure defect",
                                      "crash abort terminate panic",
                                      "fast quick rapid",
                                      "slow sluggish latency lag",
                                      "big large huge great",
                                      "small little tiny",
                                      "doctor physician medic",
                                      "lawyer attorney counsel",
                                      "child kid",
                                      "baby infant newborn",
                                      "mother mom mum",
                                      "father dad",
                                      "grandfather grandpa granddad",
                                      "grandmother grandma granny",
                                      "parent mother father",
                                      "husband wife spouse partner",
                                      "friend buddy mate pal",
                                      "colleague coworker teammate",
                                      "boss manager supervisor chief",
                                      "employee staff worker personnel",
                                      "engineer developer programmer",
                                      "customer client user",
                                      "company firm business enterprise",
                                      "meeting conference session",
                                      "job position role occupation",
                                      "hire employ recruit",
                                      "resign quit leave",
                                      "fire dismiss sack",
                                      "salary wage pay income",
                                      "money cash fund",
                                      "price cost fee charge",
                                      "bill invoice",
                                      "cheap inexpensive affordable",
                                      "expensive costly",
                                      "refund reimburse repay",
                                      "gift present",
                                      "holiday vacation trip",
                                      "travel journey trip",
                                      "hotel accommodation lodging",
                                      "flight plane aircraft",
                                      "house home",
                                      "flat apartment",
                                      "room chamber",
                                      "shop store",
                                      "movie film",
                                      "picture photo image photograph",
                                      "song music",
                                      "book novel",
                                      "dog puppy",
                                      "cat kitten",
                                      "pet animal",
                                      "food meal dish",
                                      "dinner supper",
                                      "sick ill unwell",
                                      "illness disease sickness",
                                      "injure hurt wound",
                                      "accident crash",
                                      "medicine drug medication",
                                      "hospital clinic",
                                      "happy glad pleased",
                                      "sad unhappy",
                                      "angry furious mad",
                                      "afraid scared frightened",
                                      "tired exhausted weary",
                                      "boring dull tedious",
                                      "funny amusing",
                                      "difficult hard tough",
                                      "easy simple",
                                      "important crucial essential",
                                      "new recent",
                                      "old ancient",
                                      "correct right accurate",
                                      "wrong incorrect false",
                                      "delete remove erase",
                                      "add append insert",
                                      "change modify alter edit",
                                      "update upgrade",
                                      "create make build",
                                      "show display present",
                                      "hide conceal",
                                      "choose select pick",
                                      "get obtain receive acquire",
                                      "give hand donate",
                                      "send mail dispatch",
                                      "ask request inquire",
                                      "answer reply respond response",
                                      "say tell mention state",
                                      "talk speak speech discuss chat",
                                      "think believe",
                                      "want desire wish",
                                      "like love enjoy",
                                      "hate dislike",
                                      "help assist aid support",
                                      "try attempt",
                                      "use utilize employ",
                                      "need require",
                                      "allow permit",
                                      "forbid prohibit ban",
                                      "increase raise grow",
                                      "decrease reduce lower cut",
                                      "improve enhance better",
                                      "check verify test inspect",
                                      "find locate discover",
                                      "search look seek",
                                      "see watch view",
                                      "hear listen",
                                      "learn study",
                                      "teach instruct educate",
                                      "school college university",
                                      "teacher instructor",
                                      "student pupil",
                                      "work job task",
                                      "task assignment duty",
                                      "plan schedule",
                                      "late delayed delay overdue",
                                      "early premature",
                                      "marry wedding marriage",
                                      "party celebration",
                                      "birthday anniversary",
                                      "move relocate",
                                      "live reside",
                                      "die death",
                                      "born birth",
                                      "win victory",
                                      "lose defeat",
                                      "race marathon competition",
                                      "game match play",
                                      "sport exercise workout",
                                      "run jog",
                                      "walk stroll hike",
                                      "garden yard",
                                      "noise loud noisy",
                                      "quiet silent",
                                      "light lamp lighting",
                                      "cold winter frost",
                                      "hot warm heat",
                                      "rain storm",
                                      "computer laptop pc",
                                      "phone telephone mobile",
                                      "screen monitor display",
                                      "password credential passphrase",
                                      "login signin logon",
                                      "email mail",
                                      "file document",
                                      "folder directory",
                                      "disk drive storage",
                                      "memory ram",
                                      "database db",
                                      "table relation",
                                      "server host",
                                      "container docker",
                                      "deploy deployment release rollout",
                                      "outage downtime",
                                      "log journal trace",
                                      "alarm alert warning",
                                      "secure security safe",
                                      "attack breach intrusion",
                                      "permission access right",
                                      "config configuration setting",
                                      "function method procedure",
                                      "variable parameter argument",
                                      "library package module dependency",
                                      "version release",
                                      "list array",
                                      "empty blank null",
                                      "duplicate copy double twice",
                                      "backup copy snapshot",
                                      "restore recover",
                                      "connect connection link",
                                      "timeout expire expiry",
                                      "retry repeat again",
                                      "network net",
                                      "website site page",
                                      "report summary",
                                      "complain complaint",
                                      "contract agreement",
                                      "discuss negotiate",
                                      "approve accept agree",
                                      "reject refuse decline deny",
                                      "cancel abort",
                                      "colour color hue",
                                      "favourite favorite preferred",
                                      "country nation",
                                      "city town",
                                      "street road",
                                      "river stream",
                                      "picture painting",
                                      "paint draw",
                                      "cook bake",
                                      "sing song",
                                      NULL};

static const char *const german[] = {"auto wagen fahrzeug pkw",
                                     "fahrrad rad",
                                     "kaufen erwerben bestellen",
                                     "beginnen anfangen starten",
                                     "beenden abschließen aufhören",
                                     "reparieren beheben richten",
                                     "kaputt defekt beschädigt",
                                     "fehler störung defekt",
                                     "absturz abstürzen",
                                     "schnell rasch zügig",
                                     "langsam träge",
                                     "arzt ärztin doktor",
                                     "anwalt rechtsanwalt",
                                     "kind kinder",
                                     "mutter mama",
                                     "vater papa",
                                     "großvater opa",
                                     "großmutter oma",
                                     "freund kumpel",
                                     "kollege mitarbeiter",
                                     "chef vorgesetzter leiter",
                                     "kunde auftraggeber",
                                     "firma unternehmen betrieb",
                                     "besprechung sitzung treffen meeting",
                                     "rechnung faktura",
                                     "preis kosten gebühr",
                                     "billig günstig preiswert",
                                     "teuer kostspielig",
                                     "geschenk präsent",
                                     "urlaub ferien",
                                     "reise fahrt",
                                     "wohnung appartement",
                                     "spülmaschine geschirrspüler",
                                     "handy telefon mobiltelefon",
                                     "rechner computer",
                                     "bildschirm monitor",
                                     "krank erkrankt",
                                     "medikament arznei",
                                     "müde erschöpft",
                                     "schwierig schwer",
                                     "einfach leicht",
                                     "löschen entfernen",
                                     "ändern anpassen",
                                     "hinzufügen ergänzen",
                                     "suchen finden",
                                     "senden schicken versenden",
                                     "antwort erwiderung",
                                     "fragen bitten",
                                     "helfen unterstützen",
                                     "prüfen kontrollieren testen",
                                     "zug bahn",
                                     "verspätung verspätet",
                                     "laut lärm krach",
                                     "licht lampe beleuchtung",
                                     "straße weg",
                                     "stadt ort",
                                     "bild foto",
                                     "haus gebäude",
                                     "heizung ofen",
                                     "passwort kennwort",
                                     "anmeldung login",
                                     "einstellung konfiguration",
                                     "ordner verzeichnis",
                                     NULL};

enum { LANGUAGES = 2, STEM_MAX = 24, GROUPS_MAX = 1200 };

/* A word's stem and its group; made once, constant from then on. */
typedef struct entry {
    char stem[STEM_MAX];
    uint16_t group;
} entry_t;

typedef struct lexicon {
    const char *language;
    const char *const *groups;
    entry_t entries[GROUPS_MAX]; /* by stem */
    entry_t members[GROUPS_MAX]; /* the same by group */
    uint16_t first[GROUPS_MAX];  /* of each group's members */
    size_t count;
} lexicon_t;

static lexicon_t lexicons[LANGUAGES] = {{.language = "english", .groups = english},
                                        {.language = "german", .groups = german}};
static pthread_once_t made = PTHREAD_ONCE_INIT;

static int by_stem(const void *a, const void *b)
{
    const entry_t *x = a, *y = b;
    int order = strcmp(x->stem, y->stem);

    return order ? order : (x->group > y->group) - (x->group < y->group);
}

static void make_lexicon(lexicon_t *lexicon)
{
    words_t *words = NULL;
    arena_t *arena = arena_new();
    word_list_t list;

    if (err_is(words_new(&words, lexicon->language)))
        abort();
    for (uint16_t group = 0; lexicon->groups[group]; group++) {
        lexicon->first[group] = (uint16_t)lexicon->count;
        words_split(words, arena, lexicon->groups[group], strlen(lexicon->groups[group]), &list);
        for (size_t i = 0; i < list.count && lexicon->count < GROUPS_MAX; i++)
            if (list.words[i].kind == WORD_STEM && list.words[i].size < STEM_MAX) {
                entry_t *entry = &lexicon->entries[lexicon->count++];
                strcpy(entry->stem, list.words[i].term);
                entry->group = group;
            }
    }
    words_destroy(&words);
    arena_destroy(&arena);
    memcpy(lexicon->members, lexicon->entries, sizeof lexicon->members);
    qsort(lexicon->entries, lexicon->count, sizeof lexicon->entries[0], by_stem);
}

static void make(void)
{
    for (int i = 0; i < LANGUAGES; i++)
        make_lexicon(&lexicons[i]);
}

static const lexicon_t *lexicon_of(const char *language)
{
    pthread_once(&made, make);
    for (int i = 0; i < LANGUAGES; i++)
        if (strcmp(lexicons[i].language, language) == 0)
            return &lexicons[i];
    return NULL;
}

static size_t first_of(const lexicon_t *lexicon, const char *stem)
{
    size_t low = 0, high = lexicon->count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (strcmp(lexicon->entries[middle].stem, stem) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

size_t synonyms_of(const char *language, const char *stem, const char **out, size_t most)
{
    const lexicon_t *lexicon = lexicon_of(language);
    size_t count = 0;

    if (!lexicon)
        return 0;
    for (size_t at = first_of(lexicon, stem);
         at < lexicon->count && strcmp(lexicon->entries[at].stem, stem) == 0; at++)
        for (size_t i = lexicon->first[lexicon->entries[at].group];
             i < lexicon->count && count < most &&
             lexicon->members[i].group == lexicon->entries[at].group;
             i++)
            if (strcmp(lexicon->members[i].stem, stem) != 0)
                out[count++] = lexicon->members[i].stem;
    return count;
}
